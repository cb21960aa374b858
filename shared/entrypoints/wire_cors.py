"""Which web pages of other origins may call the app, and what their browsers are told (Fetch standard, CORS protocol).

In the cloud the platform's own CORS answers first where it is configured; then the app is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import azure.functions as func

ANY: Final = "*"
_METHODS: Final = "GET, POST"
_HEADERS: Final = "content-type, x-functions-key"
_EXPOSED: Final = "Idempotent-Replayed, Retry-After, Server-Timing"
_MAX_AGE_S: Final = 600


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins that are let in; `*` lets all of them in, without credentials.

    Attributes:
        origins: Such as `https://console.example.com`, lower case, without a slash at the end.
    """

    origins: frozenset[str] = frozenset()

    def admit(self, request: func.HttpRequest, response: func.HttpResponse) -> func.HttpResponse:
        """Mark an answer as readable for the origin that asked, if it is let in."""
        if not self.origins:
            return response
        origin = request.headers.get("origin", "")
        if ANY in self.origins and origin:
            response.headers["Access-Control-Allow-Origin"] = ANY
        elif origin.lower() in self.origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"
        else:
            return response
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response

    def preflight(self, request: func.HttpRequest) -> func.HttpResponse:
        """Answer a browser that asks before it sends; without an origin that is let in it learns nothing."""
        response = self.admit(request, func.HttpResponse(status_code=HTTPStatus.NO_CONTENT))
        if "Access-Control-Allow-Origin" in response.headers:
            response.headers["Access-Control-Allow-Methods"] = _METHODS
            response.headers["Access-Control-Allow-Headers"] = _HEADERS
            response.headers["Access-Control-Max-Age"] = str(_MAX_AGE_S)
        return response


def parse_origins(text: str) -> frozenset[str]:
    """Origins from a list with commas.

    >>> sorted(parse_origins("https://a.example/, http://B.example:8080"))
    ['http://b.example:8080', 'https://a.example']
    """
    return frozenset(origin.strip().rstrip("/").lower() for origin in text.split(",") if origin.strip())
