"""Set-Cookie lines from the cookies that the library moved out of a response's headers."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

_SAME_SITE = {1: "lax", 2: "strict", 3: "none"}

# Characters that ASP.NET leaves as they are in a cookie's value.
_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"


def set_cookie(cookie: Any) -> bytes:
    """One RpcHttpCookie as a header value."""
    parts = [f"{quote(cookie.name, safe=_SAFE)}={quote(cookie.value, safe=_SAFE)}"]
    if cookie.expires is not None:
        parts.append(f"expires={_http_date(cookie.expires.value)}")
    if cookie.max_age is not None:
        parts.append(f"max-age={int(cookie.max_age.value)}")
    if cookie.domain is not None and cookie.domain.value:
        parts.append(f"domain={cookie.domain.value}")
    if cookie.path is not None and cookie.path.value:
        parts.append(f"path={cookie.path.value}")
    if cookie.secure is not None and cookie.secure.value:
        parts.append("secure")
    if cookie.same_site in _SAME_SITE:
        parts.append(f"samesite={_SAME_SITE[cookie.same_site]}")
    if cookie.http_only is not None and cookie.http_only.value:
        parts.append("httponly")
    return "; ".join(parts).encode("latin-1", "replace")


def _http_date(moment: Any) -> str:
    return format_datetime(datetime.fromtimestamp(moment.seconds, UTC), usegmt=True)
