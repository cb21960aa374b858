"""What an error of the Azure SDK means to a caller: the one place that maps its exceptions to Tollgate's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from shared.domain.errors import BrokenInvariant, TollgateError, Transient

_PASSING_STATUS = frozenset({408, 409, 412, 429, 500, 502, 503, 504})
"""HTTP statuses that pass by themselves.

Throttling and server faults, and conflicts of two writers, after
https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes.
"""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn every SDK error raised inside into Tollgate's tree; `doing` says what was tried, for the message."""
    try:
        yield
    except AzureError as error:
        raise meaning(error, doing) from error


def meaning(error: AzureError, doing: str) -> TollgateError:
    """The error of Tollgate's tree that an SDK error stands for.

    A missing container or a refused login is a broken installation, not something the next attempt mends. Whatever is
    unknown counts as passing: retrying costs time, giving up costs an event.
    """
    if _no_token(error):
        return Transient(f"{doing}: no token could be had now")
    if isinstance(error, ClientAuthenticationError):
        return BrokenInvariant(f"{doing}: the login was refused ({_code(error)})")
    if isinstance(error, ResourceNotFoundError):
        return BrokenInvariant(f"{doing}: it does not exist ({_code(error)})")
    if isinstance(error, (ServiceRequestError, ServiceResponseError, IncompleteReadError)):
        return Transient(f"{doing}: the service cannot be reached ({type(error).__name__})")
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        if error.status_code in _PASSING_STATUS:
            return Transient(f"{doing}: the service answered {error.status_code} ({_code(error)})")
        return BrokenInvariant(f"{doing}: the service refused with {error.status_code} ({_code(error)})")
    return Transient(f"{doing}: {type(error).__name__}")


def _no_token(error: AzureError) -> bool:
    """Whether the identity endpoint failed, rather than the service refusing the token.

    By name, because importing azure-identity costs an app with connection strings 150 ms.
    """
    return any(kind.__name__ == "CredentialUnavailableError" for kind in type(error).__mro__)


def _code(error: HttpResponseError) -> str:
    return str(getattr(error, "error_code", None) or type(error).__name__)
