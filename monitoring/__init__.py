"""What people look at and what wakes them: one specification, rendered for Prometheus with Grafana and for Azure."""
