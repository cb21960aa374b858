-- MLflow keeps its tables apart from those of the product. Runs once, when the data volume is made.
CREATE DATABASE mlflow;
