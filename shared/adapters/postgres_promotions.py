"""The account of promotions, the verdicts behind them, and the known models, in Postgres; for one thread at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from shared.adapters.postgres_errors import translated
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput
from shared.ports.succession import Action, Change, KeptVerdict, KnownModel, ModelStatus

if TYPE_CHECKING:
    from shared.adapters.postgres_session import Connection, PostgresSession

# One writer at a time, so that the numbers that were seen and the statuses that follow fit together. The key is
# "tollseat" in ASCII.
_LOCK: Final = "SELECT pg_advisory_xact_lock(x'746f6c6c73656174'::bigint)"

_CHANGE: Final = "role, number, bundle_digest, action, author, reason, verdict_digest, changed_at_us"
_HEADS: Final = f"SELECT DISTINCT ON (role) {_CHANGE} FROM tollgate.promotions ORDER BY role, number DESC"  # noqa: S608 - constants
_SINCE: Final = f"SELECT {_CHANGE} FROM tollgate.promotions WHERE role = %s AND number > %s ORDER BY number"  # noqa: S608 - constants
_APPEND: Final = f"INSERT INTO tollgate.promotions ({_CHANGE}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"  # noqa: S608 - constants

# What plays several parts is shown by the highest, in the order of `Role`.
_STATUS: Final = """
WITH heads AS (
    SELECT DISTINCT ON (role) role, bundle_digest FROM tollgate.promotions ORDER BY role, number DESC
)
UPDATE tollgate.model_versions m
SET status = coalesce((
    SELECT h.role FROM heads h WHERE h.bundle_digest = m.bundle_digest
    ORDER BY array_position(%(roles)s::text[], h.role) LIMIT 1
), 'retired')
WHERE m.bundle_digest = ANY(%(concerned)s)
"""

_VERDICT: Final = "verdict_digest, challenger_digest, champion_digest, passed, document, run_id, decided_at_us"
_KEEP: Final = f"""
INSERT INTO tollgate.promotion_verdicts ({_VERDICT}) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (verdict_digest) DO NOTHING
"""  # noqa: S608 - constants
_JUDGED: Final = """
UPDATE tollgate.model_versions SET status = %s WHERE bundle_digest = %s AND status IN ('candidate', 'refused')
"""
_LAST_VERDICT: Final = f"""
SELECT {_VERDICT} FROM tollgate.promotion_verdicts WHERE challenger_digest = %s
ORDER BY decided_at_us DESC, verdict_digest LIMIT 1
"""  # noqa: S608 - constants

_MODEL: Final = (
    "bundle_digest, name, version, feature_view, status, metrics, trained_from_us, trained_until_us, registered_at_us"
)
_REGISTER: Final = f"""
INSERT INTO tollgate.model_versions ({_MODEL}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_NAMESAKE: Final = "SELECT bundle_digest FROM tollgate.model_versions WHERE name = %s AND version = %s"
_MODELS: Final = f"SELECT {_MODEL} FROM tollgate.model_versions ORDER BY registered_at_us DESC, bundle_digest"  # noqa: S608 - constants


class PostgresPromotions:
    """Rows of `tollgate.promotions`, `tollgate.promotion_verdicts` and `tollgate.model_versions`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def heads(self) -> Mapping[Role, Change]:
        """The present state of every role. Cost: one round trip."""
        with translated("reading promotions"), self._session.transaction() as connection:
            return _heads(connection)

    def since(self, role: Role, number: int) -> Sequence[Change]:
        """The changes of a role after one of its numbers. Cost: one round trip."""
        with translated("reading promotions"), self._session.transaction() as connection:
            return [_change(row) for row in connection.execute(_SINCE, [role, number])]

    def append(self, changes: Sequence[Change], seen: Mapping[Role, int], verdict: KeptVerdict | None = None) -> None:
        """Enter changes under a lock, if all roles still are as they were seen. Cost: four round trips and more."""
        with translated("entering a promotion"), self._session.transaction() as connection:
            connection.execute(_LOCK)
            heads = _heads(connection)
            _refuse_what_changed(heads, seen)
            concerned = {change.pointer.digest for change in changes}
            concerned |= {
                heads[change.pointer.role].pointer.digest for change in changes if change.pointer.role in heads
            }
            if verdict is not None:
                connection.execute(_KEEP, _verdict_values(verdict))
            for change in changes:
                connection.execute(_APPEND, _change_values(change))
            known = [digest for digest in concerned if digest is not None]
            connection.execute(_STATUS, {"roles": list(Role), "concerned": known})

    def keep(self, verdict: KeptVerdict) -> bool:
        """Keep a verdict, and let the status of a model that never played a role follow."""
        with translated("keeping a verdict"), self._session.transaction() as connection:
            is_new = connection.execute(_KEEP, _verdict_values(verdict)).rowcount > 0
            if is_new:
                status = ModelStatus.CANDIDATE if verdict.passed else ModelStatus.REFUSED
                connection.execute(_JUDGED, [status, verdict.challenger])
            return is_new

    def verdict(self, challenger: str) -> KeptVerdict | None:
        """The last verdict on a bundle."""
        with translated("reading a verdict"), self._session.transaction() as connection:
            row = connection.execute(_LAST_VERDICT, [challenger]).fetchone()
        return None if row is None else KeptVerdict(*row)

    def register(self, model: KnownModel) -> bool:
        """Enter a model, unless its digest is known."""
        with translated("registering a model"), self._session.transaction() as connection:
            if connection.execute(_REGISTER, _model_values(model)).rowcount:
                return True
            row = connection.execute(_NAMESAKE, [model.name, model.version]).fetchone()
        if row is not None and row[0] != model.digest:
            raise Conflict("version", f"{model.version} of {model.name} is the bundle {row[0][:12]} already")
        return False

    def models(self) -> Sequence[KnownModel]:
        """All known models, the last registered first."""
        with translated("reading models"), self._session.transaction() as connection:
            return [_model(row) for row in connection.execute(_MODELS)]


def _heads(connection: Connection) -> dict[Role, Change]:
    changes = [_change(row) for row in connection.execute(_HEADS)]
    return {change.pointer.role: change for change in changes}


def _refuse_what_changed(heads: Mapping[Role, Change], seen: Mapping[Role, int]) -> None:
    for role, number in seen.items():
        head = heads.get(role)
        if (head.pointer.number if head else 0) == number:
            continue
        if head is None:
            raise BrokenInvariant(f"the account of {role} is shorter than it was")
        pointer = head.pointer
        who = "nobody" if pointer.digest is None else pointer.digest[:12]
        raise Conflict("role", f"{role} has changed meanwhile: {who} by {pointer.author} ({pointer.reason})")


def _change_values(change: Change) -> list[object]:
    pointer = change.pointer
    return [
        pointer.role,
        pointer.number,
        pointer.digest,
        change.action,
        pointer.author,
        pointer.reason,
        change.verdict_digest,
        pointer.changed_at_us,
    ]


def _change(row: tuple[Any, ...]) -> Change:
    role, number, digest, action, author, reason, verdict_digest, changed_at_us = row
    try:
        return Change(
            Pointer(Role(role), digest, number, changed_at_us, author, reason), Action(action), verdict_digest
        )
    except (ValueError, InvalidInput) as error:
        raise BrokenInvariant(f"a row of promotions cannot be read: {error}") from error


def _verdict_values(verdict: KeptVerdict) -> list[object]:
    return [
        verdict.digest,
        verdict.challenger,
        verdict.champion,
        verdict.passed,
        verdict.document,
        verdict.run_id,
        verdict.decided_at_us,
    ]


def _model_values(model: KnownModel) -> list[object]:
    metrics = {name: {"value": value, "low": low, "high": high} for name, (value, low, high) in model.metrics.items()}
    return [
        model.digest,
        model.name,
        model.version,
        model.view,
        model.status,
        Jsonb(metrics),
        model.trained_from_us,
        model.trained_until_us,
        model.registered_at_us,
    ]


def _model(row: tuple[Any, ...]) -> KnownModel:
    digest, name, version, view, status, metrics, *times = row
    figures = {key: (entry["value"], entry["low"], entry["high"]) for key, entry in metrics.items()}
    return KnownModel(digest, name, version, view, ModelStatus(status), figures, *times)
