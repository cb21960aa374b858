"""TLS in front of a Postgres server that was built without it, as the server of the pgserver wheel is.

It answers the protocol's `SSLRequest`, makes the TLS handshake and then passes bytes on, so that a client with
`sslmode=verify-full` runs the code that it runs against Azure. A client that does not ask for TLS is refused, as
Azure refuses it. One copy each way: this is for proving the path, not for measuring the database.

Source: PostgreSQL documentation, "Message Flow: SSL Session Encryption" and "Message Formats".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from twin.identity.config import TlsFront

_LOG = logging.getLogger(__name__)

_SSL_REQUEST: Final = 80877103
_GSS_REQUEST: Final = 80877104
_CANCEL_REQUEST: Final = 80877102
_CANCEL_LENGTH: Final = 16
_HEAD: Final = struct.Struct("!ii")
# SQLSTATE 28000, invalid_authorization_specification: what a server says whose pg_hba.conf has hostssl lines only.
_REFUSAL_FIELDS: Final = b"SFATAL\0VFATAL\0C28000\0Mthis server takes connections with TLS only (sslmode=require)\0\0"
_REFUSAL: Final = b"E" + struct.pack("!i", len(_REFUSAL_FIELDS) + 4) + _REFUSAL_FIELDS
_NEGOTIATION_TIMEOUT_S: Final = 10
_CHUNK: Final = 65536


async def start(front: TlsFront, host: str) -> asyncio.Server:
    """Listen on `host`; the caller closes the server.

    Raises:
        OSError: The port is taken, or certificate or key cannot be read (`ssl.SSLError`).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(front.certificate, front.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _serve(front, context, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            # Clients come and go, and some do not trust us: their business, not a fault of the twin.
            _LOG.info("postgres client left: %s", type(error).__name__)
        finally:
            writer.close()

    return await asyncio.start_server(serve, host, front.port)


async def _serve(
    front: TlsFront, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async with asyncio.timeout(_NEGOTIATION_TIMEOUT_S):
        first = await _negotiate(context, reader, writer)
        if first is None:
            return
        server_reader, server_writer = await asyncio.open_connection(front.server_host, front.server_port)
    server_writer.write(first)
    ways = {asyncio.create_task(_copy(reader, server_writer)), asyncio.create_task(_copy(server_reader, writer))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        server_writer.close()


async def _negotiate(
    context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes | None:
    """Bring a new connection under TLS.

    Returns:
        Bytes that the server must see first (a cancel request comes without TLS, by design of the protocol, and
        carries its own secret), or None when the client was refused.
    """
    while True:
        head = await reader.readexactly(_HEAD.size)
        length, code = _HEAD.unpack(head)
        if code == _SSL_REQUEST and length == _HEAD.size:
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(context)
            return b""
        if code == _CANCEL_REQUEST and length == _CANCEL_LENGTH:
            return head + await reader.readexactly(_CANCEL_LENGTH - _HEAD.size)
        if code != _GSS_REQUEST or length != _HEAD.size:
            writer.write(_REFUSAL)
            await writer.drain()
            return None
        writer.write(b"N")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A peer that resets the connection ends it as one that closes it.
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
