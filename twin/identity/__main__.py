"""`python -m twin.identity --config FILE`: run the identity endpoint until SIGTERM or SIGINT.

Exit codes: 0 stopped on request, 2 the configuration cannot be used (every problem on a line of its own), 3 a port is
taken. The first line on standard output is JSON: `{"event": "listening", "endpoint": ..., "postgres_tls_port": ...}`.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from twin.identity import signing, tls_front
from twin.identity.config import Config, ConfigError, load
from twin.identity.role_passwords import RolePasswords
from twin.identity.server import TOKEN_PATH, Endpoint
from twin.identity.tokens import Issuer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

EXIT_CONFIG: Final = 2
EXIT_PORT: Final = 3


class _PortTakenError(Exception):
    """A port that the configuration asks for is in use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m twin.identity", description="A local managed-identity endpoint.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="JSON, see docs/identity.md")
    path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(path)
        asyncio.run(_run(config, _issuer(config)))
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"{path}: {problem}\n")
        return EXIT_CONFIG
    except _PortTakenError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_PORT
    return 0


def _issuer(config: Config) -> Issuer:
    """Return what signs the tokens.

    Raises:
        ConfigError: The key cannot be used, or those who check tokens would be given another one.
    """
    try:
        key = signing.load_private(config.key_file)
    except (OSError, ValueError):
        raise ConfigError(["key_file: must be an RSA key of at least 2048 bits, PEM"]) from None
    if config.public_key_file.read_bytes().strip() != signing.public_pem(key).strip():
        raise ConfigError(["public_key_file: must be the public half of key_file, PEM"])
    return Issuer(key, config.issuer, config.tenant_id, config.token_lifetime_s)


async def _run(config: Config, issuer: Issuer) -> None:
    passwords = RolePasswords(config.postgres, issuer) if config.postgres is not None else None
    # No access log: its lines would carry query strings. What matters is logged by the endpoint itself.
    runner = web.AppRunner(Endpoint(config, issuer, passwords).app(), access_log=None)
    await runner.setup()
    front = await _start_front(config)
    try:
        site = web.TCPSite(runner, config.host, config.port)
        await _listen(site.start(), config.host, config.port)
        host = f"[{config.host}]" if ":" in config.host else config.host
        started = {
            "event": "listening",
            "endpoint": f"http://{host}:{runner.addresses[0][1]}{TOKEN_PATH}",
            "postgres_tls_port": front.sockets[0].getsockname()[1] if front is not None else None,
        }
        stopped = _stopped_by_signal()
        sys.stdout.write(json.dumps(started) + "\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        if front is not None:
            front.close()
            front.close_clients()
        await runner.cleanup()


async def _start_front(config: Config) -> asyncio.Server | None:
    if config.postgres is None or config.postgres.tls is None:
        return None
    front = config.postgres.tls
    try:
        return await _listen(tls_front.start(front, config.host), config.host, front.port)
    except ssl.SSLError:
        raise ConfigError(["postgres.tls: certificate and key must be a pair, PEM"]) from None


async def _listen[T](starting: Awaitable[T], host: str, port: int) -> T:
    try:
        return await starting
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _PortTakenError(f"port {port} on {host} is taken by another process") from error
        raise


def _stopped_by_signal() -> asyncio.Event:
    """Set by the first signal; made before anybody is told that we listen, who might then stop us at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


if __name__ == "__main__":
    sys.exit(main())
