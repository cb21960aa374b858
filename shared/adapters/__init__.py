"""Ports implemented on real systems: Blob Storage, Postgres, Event Hubs."""
