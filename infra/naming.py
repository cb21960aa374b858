"""Names of Azure resources: readable, stable, and within the limits of each kind.

Where a name has to be unique in all of Azure it ends in a token made of subscription and environment, so that the same
stack gets the same names again and two subscriptions do not collide.

Source: Azure, "Naming rules and restrictions for Azure resources".
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Final

PRODUCT: Final = "tollgate"
TOKEN_LENGTH: Final = 6

RULES: Final[dict[str, re.Pattern[str]]] = {
    "azure-native:resources:ResourceGroup": re.compile(r"[A-Za-z0-9._()-]{0,89}[A-Za-z0-9_()-]"),
    "azure-native:storage:StorageAccount": re.compile(r"[a-z0-9]{3,24}"),
    "azure-native:storage:BlobContainer": re.compile(r"[a-z0-9](-?[a-z0-9]){2,62}"),
    "azure-native:eventhub:Namespace": re.compile(r"[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9]"),
    "azure-native:eventhub:EventHub": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,254}[A-Za-z0-9])?"),
    "azure-native:eventhub:ConsumerGroup": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}"),
    "azure-native:dbforpostgresql:Server": re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
    "azure-native:keyvault:Vault": re.compile(r"[A-Za-z](?!.*--)[A-Za-z0-9-]{1,22}[A-Za-z0-9]"),
    "azure-native:operationalinsights:Workspace": re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]"),
    "azure-native:applicationinsights:Component": re.compile(r"[^%&\\?/]{0,259}[^%&\\?/. ]"),
    "azure-native:web:AppServicePlan": re.compile(r"[A-Za-z0-9-]{1,60}"),
    # 2 to 60 in Azure. The host's id is the first 32 characters, and apps that share one lose each other's timers.
    "azure-native:web:WebApp": re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,30}[A-Za-z0-9]"),
    "azure-native:managedidentity:UserAssignedIdentity": re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,127}"),
    "azure-native:network:VirtualNetwork": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9_]"),
    "azure-native:network:PrivateEndpoint": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9_]"),
    "azure-native:app:ManagedEnvironment": re.compile(r"[A-Za-z][A-Za-z0-9-]{0,58}[A-Za-z0-9]"),
    "azure-native:app:ContainerApp": re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]"),
    "azure-native:dashboard:Dashboard": re.compile(r"[A-Za-z][A-Za-z0-9-]{0,28}[A-Za-z0-9]"),
    "azure-native:monitor:ActionGroup": re.compile(r"[^:<>+/&%\\?|]{1,259}[^:<>+/&%\\?|. ]"),
}
"""What a name must look like in full, by resource type; the tests hold every stack to it."""


@dataclass(frozen=True, slots=True)
class Naming:
    """The names of one stack.

    Attributes:
        environment: `dev`, `prod` or another short name of the stack: 2 to 8 lower-case letters and digits.
        subscription_id: The subscription; goes into the token.
    """

    environment: str
    subscription_id: str

    @property
    def token(self) -> str:
        """Six hexadecimal digits that differ between subscriptions and environments.

        >>> Naming("dev", "00000000-0000-0000-0000-000000000001").token
        '62a9ed'
        """
        seed = f"{PRODUCT}/{self.subscription_id}/{self.environment}"
        return uuid.uuid5(uuid.NAMESPACE_URL, seed).hex[:TOKEN_LENGTH]

    def within_group(self, kind: str) -> str:
        """Name something that only has to be unique in the resource group: `id-score` -> `id-score-dev`."""
        return f"{kind}-{self.environment}"

    @property
    def group(self) -> str:
        """The resource group."""
        return f"rg-{PRODUCT}-{self.environment}"

    def in_azure(self, kind: str) -> str:
        """Name something that is a host name: `func-score` -> `func-score-dev-62a9ed`."""
        return f"{kind}-{self.environment}-{self.token}"

    def account(self, purpose: str) -> str:
        """Name a storage account: `score` -> `stscoredev62a9ed`; a purpose has at most 7 characters."""
        return f"st{purpose}{self.environment}{self.token}"

    def assignment(self, principal: str, role: str, scope: str) -> str:
        """Return the id of a role assignment: a GUID that is the same for the same row of the access table."""
        seed = f"{PRODUCT}/{self.subscription_id}/{self.environment}/{principal}/{role}/{scope}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, seed))
