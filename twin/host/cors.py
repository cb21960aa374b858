"""Cross-origin answers for local development: `Host.CORS` and `Host.CORSCredentials` of local.settings.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """Which origins may read answers; `*` in `origins` admits all of them."""

    origins: frozenset[str]
    credentials: bool = False

    def _allowed(self, origin: str | None) -> bytes | None:
        if not origin:
            return None
        if "*" in self.origins:
            return b"*"
        return origin.encode("latin-1") if origin.rstrip("/").lower() in self.origins else None

    def headers_for(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Headers that every answer to `origin` carries; none for an origin that is not allowed."""
        allowed = self._allowed(origin)
        if allowed is None:
            return []
        headers = [(b"access-control-allow-origin", allowed)]
        if self.credentials and allowed != b"*":
            headers.append((b"access-control-allow-credentials", b"true"))
        if allowed != b"*":
            headers.append((b"vary", b"Origin"))
        return headers

    def is_preflight(self, headers: Mapping[str, str]) -> bool:
        """Whether an OPTIONS request is a browser's question about a later one."""
        return "origin" in headers and "access-control-request-method" in headers

    def preflight_headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """What a browser's question is answered with, apart from `headers_for`."""
        if self._allowed(headers["origin"]) is None:
            return []
        answer = [(b"access-control-allow-methods", headers["access-control-request-method"].encode("latin-1"))]
        wanted = headers.get("access-control-request-headers")
        if wanted:
            answer.append((b"access-control-allow-headers", wanted.encode("latin-1")))
        return answer


def parse_cors(origins: str, *, credentials: bool) -> CorsPolicy:
    """A policy from the comma-separated list of local.settings.json."""
    return CorsPolicy(
        frozenset(origin.strip().rstrip("/").lower() for origin in origins.split(",") if origin.strip()), credentials
    )
