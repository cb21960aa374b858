"""What the model registry is told: what a training made, and that a part was given to another bundle.

Both are kept in a queue until the registry has them, so both read back from plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, cast

from shared.domain.bundle_manifest import Fields, Manifest, Metric, Span, is_digest
from shared.domain.bundle_pointer import Pointer, read_pointer, write_pointer
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.pipeline import Evidence

MAX_OUTCOME: Final = 500
"""Characters of an outcome."""

BUNDLE_RUN: Final = "bundle/"
"""How the ids of runs begin that were made up for bundles which nobody recorded; `<prefix><digest>`."""

_RUN: Final = "run"
_ROLE: Final = "role"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a training made.

    Attributes:
        run_id: Of the pipeline run; the same id is recorded once.
        name: The model's name.
        version: The bundle's version.
        bundle_digest: Of the bundle, which is kept in the bundle store.
        view: Name of the feature view.
        parameters: What training was told.
        metrics: Figures on the test span, with intervals.
        confidence: Of the intervals, such as .95.
        spans: By name the event times used.
        as_of_us: Labels known by then were used, microseconds since 1970 UTC.
        data_digest: SHA-256 of the training input.
        libraries: Library to version.
        outcome: What came of it, for people, such as `refused: recall floor`; empty if nothing was decided.
        verdict_digest: Of the gate's verdict; empty without one.
        created_at_us: When the record was made, microseconds since 1970 UTC.
    """

    run_id: str
    name: str
    version: int
    bundle_digest: str
    view: str
    parameters: Mapping[str, int | float | str]
    metrics: tuple[Metric, ...]
    confidence: float
    spans: Mapping[str, Span]
    as_of_us: int
    data_digest: str
    libraries: Mapping[str, str]
    outcome: str
    verdict_digest: str
    created_at_us: int

    def __post_init__(self) -> None:
        """Refuse what no registry would take.

        Raises:
            InvalidInput: Names the field.
        """
        if not self.run_id:
            raise InvalidInput("run_id", "must not be empty")
        if not is_digest(self.bundle_digest):
            raise InvalidInput("bundle_digest", "must be 64 hexadecimal digits")
        if self.verdict_digest and not is_digest(self.verdict_digest):
            raise InvalidInput("verdict_digest", "must be empty or 64 hexadecimal digits")
        if len(self.outcome) > MAX_OUTCOME:
            raise InvalidInput("outcome", f"must have at most {MAX_OUTCOME} characters")


type RegistryRecord = RunRecord | Pointer
"""A training, or one state of a role."""


def run_record(
    manifest: Manifest,
    bundle_digest: str,
    *,
    created_at_us: int,
    run_id: str = "",
    outcome: str = "",
    verdict_digest: str = "",
) -> RunRecord:
    """The record of a training by what its bundle says of itself.

    Args:
        manifest: Of the bundle.
        bundle_digest: Its digest.
        created_at_us: Now, microseconds since 1970 UTC.
        run_id: Of the pipeline run; made up from the digest if it is not known.
        outcome: What came of it, for people; cut where it is too long.
        verdict_digest: Of the gate's verdict.

    Raises:
        InvalidInput: Names the field that breaks a rule.
    """
    return RunRecord(
        run_id=run_id or BUNDLE_RUN + bundle_digest,
        name=manifest.name,
        version=manifest.version,
        bundle_digest=bundle_digest,
        view=manifest.view,
        parameters=manifest.parameters,
        metrics=manifest.metrics,
        confidence=manifest.confidence,
        spans=manifest.spans,
        as_of_us=manifest.as_of_us,
        data_digest=manifest.data_digest,
        libraries=manifest.libraries,
        outcome=outcome[:MAX_OUTCOME],
        verdict_digest=verdict_digest,
        created_at_us=created_at_us,
    )


def record_key(record: RegistryRecord) -> str:
    """What tells records apart in the queue: the same key is queued once.

    >>> from shared.domain.bundle_pointer import Role
    >>> record_key(Pointer(Role.CHAMPION, None, 7, 0, "ada", "it was retired"))
    'role/champion/7'
    """
    return record.run_id if isinstance(record, RunRecord) else f"{_ROLE}/{record.role}/{record.number}"


def write_record(record: RegistryRecord) -> Evidence:
    """The record as plain JSON."""
    if isinstance(record, Pointer):
        return {_ROLE: json.loads(write_pointer(record))}
    return {_RUN: {**asdict(record), "metrics": [asdict(metric) for metric in record.metrics]}}


def read_record(document: Evidence) -> RegistryRecord:
    """The inverse of `write_record`.

    Raises:
        BrokenInvariant: It cannot be read.
    """
    root = Fields(document, "the record")
    if root.has(_ROLE):
        return read_pointer(json.dumps(document[_ROLE]).encode("ascii"))
    run = root.fields(_RUN)
    try:
        return RunRecord(
            run_id=run.text("run_id"),
            name=run.text("name"),
            version=run.integer("version"),
            bundle_digest=run.text("bundle_digest"),
            view=run.text("view"),
            parameters=run.fields("parameters").values(int, float, str),
            metrics=tuple(
                Metric(entry.text("name"), entry.number("value"), entry.number("low"), entry.number("high"))
                for entry in run.many("metrics")
            ),
            confidence=run.number("confidence"),
            spans={
                name: Span(*(entry.integer(field) for field in ("start_us", "end_us", "n_rows", "n_frauds")))
                for name, entry in run.fields("spans").each()
            },
            as_of_us=run.integer("as_of_us"),
            data_digest=run.text("data_digest"),
            libraries=cast("Mapping[str, str]", run.fields("libraries").values(str)),
            outcome=run.text("outcome"),
            verdict_digest=run.text("verdict_digest"),
            created_at_us=run.integer("created_at_us"),
        )
    except InvalidInput as error:
        raise BrokenInvariant(f"a queued record cannot be read: {error}") from error
