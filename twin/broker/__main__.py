"""Start the broker: `python -m twin.broker --config FILE`.

Once it listens it prints one line of JSON with the ports. Exit codes: 0 stopped by a signal, 2 the settings are wrong
(each problem on a line), 3 a port is taken, 4 the data directory is in use, damaged or cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import ssl
import sys
from enum import IntEnum
from pathlib import Path

from twin.broker import config
from twin.broker.errors import LogCorrupt
from twin.broker.hubs import NamespaceShrunk
from twin.broker.server import Broker, DataDirectoryTaken, PortTaken


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    CONFIG = 2
    PORT = 3
    DATA = 4


async def _serve(settings: config.Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Broker(settings) as broker:
        ready = {"event": "ready", "host": settings.host, "port": broker.port, "tls_port": broker.tls_port}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _complain(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"twin.broker: {line}\n")


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m twin.broker", description="An Event Hubs broker for one machine.")
    parser.add_argument("--config", required=True, type=Path, help="settings, a JSON file; see docs/broker.md")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = config.load(parser.parse_args().config)
        asyncio.run(_serve(settings))
    except config.ConfigInvalid as error:
        _complain(*error.problems)
        return Exit.CONFIG
    except NamespaceShrunk as error:
        _complain(f"hubs: {error}")
        return Exit.CONFIG
    except PortTaken as error:
        _complain(str(error))
        return Exit.PORT
    except ssl.SSLError as error:
        _complain(f"tls: the certificate or key cannot be used ({error.reason or error})")
        return Exit.CONFIG
    except (DataDirectoryTaken, LogCorrupt, OSError) as error:
        _complain(str(error))
        return Exit.DATA
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
