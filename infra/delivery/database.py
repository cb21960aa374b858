"""The resource that stands for "the database has this schema, these roles and these logins".

It runs before any package is published. Migrations are backward compatible by one version (docs/schema.md), so the code
that still runs goes on while the schema is already new.

The commands are the product's own (`tollgate db`), run with the checkout's environment. They are told where the
database is in the form of an app's setting, so each fetches a token of its own for every connection; the logins are
made with a token that is handed over in the environment, never as an argument that other processes could read.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import certifi
import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from infra.app_settings import ROOT
from infra.delivery import entra
from infra.delivery.errors import DeliveryError
from infra.delivery.logins import REGISTRY, ROLE_PREFIX

SCHEMA: Final = ROOT / "shared" / "adapters" / "schema"
TOLLGATE: Final = ROOT / ".venv" / "bin" / "tollgate"
TIMEOUT_S: Final = 1800.0
"""A migration may rewrite an index; half an hour is what a deployment may stand still for."""
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+")


def schema_digest(folder: Path = SCHEMA) -> str:
    """Return a digest of the migrations: another one means that the database has to be brought up again."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".sql"}):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Brings a database up.

    Attributes:
        token: Scope -> Entra token.
        run: Starts a command with an environment and returns its exit code and output.
        tell: Called with a line for people.
    """

    token: Callable[[str], str]
    run: Callable[[Sequence[str], Mapping[str, str]], tuple[int, str]]
    tell: Callable[[str], None]

    def bring_up(self, host: str, database: str, user: str, logins: Mapping[str, str]) -> None:
        """Let the apps' identities in, migrate, grant, make partitions. Every step may be repeated.

        Args:
            host: The server.
            database: Its database.
            user: Role of the operators' group.
            logins: App -> name of its identity.

        Raises:
            DeliveryError: A step failed; what it printed is in the text.
        """
        if not _HOST.fullmatch(host):
            raise DeliveryError(f"{host!r} is not a host name")
        login = {
            "PGHOST": host,
            "PGDATABASE": "postgres",
            "PGUSER": user,
            "PGPASSWORD": self.token(entra.DATABASE),
            "PGSSLMODE": "verify-full",
            # The wheel of psycopg brings an OpenSSL that does not know where this machine keeps its roots.
            "PGSSLROOTCERT": certifi.where(),
        }
        self._step([sys.executable, "-m", "infra.delivery.logins", *logins.values()], login)
        where = {
            "DATABASE__host": host,
            "DATABASE__database": database,
            "DATABASE__user": user,
            "DATABASE__sslMode": "verify-full",
        }
        members = [f"--member={name}={ROLE_PREFIX}{app}" for app, name in logins.items() if app != REGISTRY]
        for command in (["upgrade"], ["grants", *members], ["partitions"]):
            self._step([str(TOLLGATE), "db", *command], where)

    def _step(self, command: Sequence[str], settings: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABASE"))}
        code, output = self.run(command, {**inherited, **settings})
        # The command's own words: what was applied, given and made.
        text = output[-2000:].strip()
        if code != 0:
            raise DeliveryError(f"{' '.join(command[1:4])}: exit code {code}: {text}")
        self.tell(f"database: {' '.join(command[1:3])}: {text or 'done'}")


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in the checkout and return its exit code and what it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not there; run `make setup`"
    except subprocess.TimeoutExpired:
        return 124, f"took longer than {TIMEOUT_S:.0f} s"
    return done.returncode, done.stdout


class DatabaseSchemaProvider(ResourceProvider):
    """Brings the database up on creation and when migrations, logins or the server changed. Deleting drops nothing."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Bring the database up."""
        return CreateResult(id_=f"{props['host']}/{props['database']}", outs=self._bring_up(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Bring the database up again."""
        return UpdateResult(outs=self._bring_up(_news))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Whatever differs is brought up again, in place."""
        names = ("host", "database", "user", "logins", "digest")
        return DiffResult(changes=any(_olds.get(name) != _news.get(name) for name in names), replaces=[])

    def _bring_up(self, props: dict[str, Any]) -> dict[str, Any]:
        bootstrap = Bootstrap(token=entra.token, run=run_command, tell=pulumi.log.info)
        bootstrap.bring_up(props["host"], props["database"], props["user"], props["logins"])
        return dict(props)


class DatabaseSchema(Resource):
    """The schema of the checkout, its roles, and the apps' logins, in the database."""

    def __init__(
        self,
        name: str,
        *,
        host: pulumi.Input[str],
        database: str,
        user: str,
        logins: Mapping[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(
            DatabaseSchemaProvider(),
            name,
            {"host": host, "database": database, "user": user, "logins": dict(logins), "digest": schema_digest()},
            opts,
        )
