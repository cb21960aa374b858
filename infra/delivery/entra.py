"""Entra tokens of whoever runs `pulumi up`: the login of the Azure CLI, a workload identity in CI."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from infra.delivery.errors import DeliveryError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

MANAGEMENT: Final = "https://management.azure.com/.default"
DATABASE: Final = "https://ossrdbms-aad.database.windows.net/.default"
VAULT: Final = "https://vault.azure.net/.default"


@cache
def _credential() -> TokenCredential:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - only who deploys pays for it

    return DefaultAzureCredential()


def token(scope: str) -> str:
    """Return a valid token; the credential keeps it until shortly before it ends.

    Raises:
        DeliveryError: Nobody is logged in.
    """
    from azure.core.exceptions import ClientAuthenticationError  # noqa: PLC0415

    try:
        return _credential().get_token(scope).token
    except ClientAuthenticationError as error:
        raise DeliveryError(f"no Entra token for {scope}: run `az login` ({error.message})") from error
