"""An Event Hubs broker for one machine: AMQP 1.0, durable, for the unmodified SDKs."""
