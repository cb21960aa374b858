"""An Event Hubs-compatible broker for one machine: AMQP 1.0 on asyncio, a durable log per partition.

It stands alone: standard library and PyJWT only, no other part of the twin. Start it with
`python -m twin.broker --config FILE`; `docs/broker.md` describes the file, the guarantees and the known limits.

Inside out: `codec` and `framing` know AMQP's bytes, `performatives` its frames, `messages` its sections; `segments` and
`partition_log` keep events on disk; `hubs` is the namespace; `tokens`, `security`, `management` answer its two
control nodes; `links`, `sessions`, `connection` speak to one client; `server` holds it all together.
"""
