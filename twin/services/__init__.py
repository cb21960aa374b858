"""Start, find, check and stop the twin's services."""
