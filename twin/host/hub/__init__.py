"""Event Hub triggers: consumers, batches, retries, checkpoints."""
