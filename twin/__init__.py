"""The twin: Function Apps and everything they lean on, on one machine."""
