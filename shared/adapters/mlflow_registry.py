"""Runs and models in MLflow, spoken to over HTTP alone: the server keeps tables and files.

Of MLflow only the client is needed (`mlflow-skinny`). It is imported with the first record, because it costs a second.

A run is found again by its tags, and its status says whether it was written to its end, so any call may be repeated. A
run holds parameters, metrics (`<name>`, `<name>_low`, `<name>_high`), the data window, digests, `bundle/*` as it was
published, and `plots/*`. The registered model has the model's name; each of its versions has the bundle's digest as a
tag, and the roles are its aliases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from shared.domain.bundle_pointer import Pointer
from shared.domain.errors import BrokenInvariant, NotFound, TollgateError, Transient
from shared.domain.instants import format_instant
from shared.domain.registry import BUNDLE_RUN, RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

EXPERIMENT: Final = "tollgate"

_CLASSIC: Final = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's page show runs with metrics and charts; without it new experiments are taken for chats with agents."""

RUN_TAG: Final = "tollgate.run"
BUNDLE_TAG: Final = "tollgate.bundle"
BUNDLE_FOLDER: Final = "bundle"
PLOTS_FOLDER: Final = "plots"

_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would report its use to its makers
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a record waits in the queue; a request repeated blindly makes two runs
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""The client takes these from the environment alone, and some of them once, at its import."""

_PASSING_STATUS: Final = frozenset({408, 409, 429})
"""Answers below 500 that pass by themselves."""

_UNNAMEABLE: Final = re.compile(r"[^A-Za-z0-9_./ -]")
"""What may not be in the name of a metric or parameter."""


class MlflowRegistry:
    """An MLflow server; used by one thread at a time."""

    def __init__(self, tracking_uri: str) -> None:
        """Connect to nothing yet.

        Args:
            tracking_uri: `http://` or `https://` of the server.
        """
        self._uri = tracking_uri
        self._known: MlflowClient | None = None

    def has(self, record: RunRecord) -> bool:
        """Whether there is a finished run. Cost: two requests."""
        with translated("looking for a run"):
            run = self._find(record)
            made_up = record.run_id.startswith(BUNDLE_RUN)
            return (
                run is not None
                and run.info.status == "FINISHED"
                and (made_up or run.data.tags.get(RUN_TAG) == record.run_id)
            )

    def write(self, record: RunRecord, bundle: Mapping[str, bytes], plots: Mapping[str, bytes]) -> None:
        """Keep a run and a version of its model. Cost: about ten requests, and one for each file."""
        with translated("writing a run"):
            client, run_id = self._client, self._open(record)
            self._log(run_id, record, has_plots=bool(plots))
            with TemporaryDirectory(prefix="tollgate-") as folder:
                for place, files in ((BUNDLE_FOLDER, bundle), (PLOTS_FOLDER, plots)):
                    (Path(folder) / place).mkdir()
                    for name, data in files.items():
                        (Path(folder) / place / name).write_bytes(data)
                client.log_artifacts(run_id, folder)
            self._register(run_id, record)
            client.set_terminated(run_id, "FINISHED", record.created_at_us // 1000)

    def give(self, state: Pointer) -> None:
        """Move an alias, and write the history down, also of a state that comes late. Cost: about ten requests."""
        with translated("moving an alias"):
            client, experiment_id = self._client, self._experiment()
            said = f"{state.author}, {format_instant(state.changed_at_us)}: {state.reason}"
            entry, change = f"tollgate.{state.role}.{state.number:06d}", f"{state.digest or 'nobody'}; {said}"
            client.set_experiment_tag(experiment_id, entry, change)
            number_tag = f"tollgate.{state.role}.number"
            if int(client.get_experiment(experiment_id).tags.get(number_tag, "0")) >= state.number:
                return
            version = self._version_of(state.digest) if state.digest else None
            for model in client.search_registered_models():
                if state.role in model.aliases and (version is None or model.name != version.name):
                    client.delete_registered_model_alias(model.name, state.role)
            if version is not None:
                client.set_registered_model_alias(version.name, state.role, version.version)
                client.set_model_version_tag(version.name, version.version, f"tollgate.{state.role}", said)
            client.set_experiment_tag(experiment_id, number_tag, str(state.number))

    @property
    def _client(self) -> MlflowClient:
        if self._known is None:
            os.environ.update(_ENVIRONMENT)
            from mlflow.tracking import MlflowClient  # noqa: PLC0415 - after its environment, and not at start

            self._known = MlflowClient(self._uri, self._uri)
        return self._known

    def _experiment(self) -> str:
        """The id of the experiment, made where it is missing."""
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, tags=_CLASSIC))

    def _find(self, record: RunRecord) -> Run | None:
        """The run of a record, or one that was made up for its bundle before the record came."""
        runs: list[Run] = self._client.search_runs(
            [self._experiment()], f"tags.`{BUNDLE_TAG}` = '{record.bundle_digest}'", max_results=100
        )
        by_name = {run.data.tags.get(RUN_TAG): run for run in runs}
        made_up = by_name.get(BUNDLE_RUN + record.bundle_digest)
        if record.run_id.startswith(BUNDLE_RUN) and runs:
            return made_up or runs[0]
        return by_name.get(record.run_id) or made_up

    def _open(self, record: RunRecord) -> str:
        run = self._find(record)
        if run is None:
            run = self._client.create_run(
                self._experiment(),
                start_time=record.created_at_us // 1000,
                tags={RUN_TAG: record.run_id, BUNDLE_TAG: record.bundle_digest},
                run_name=f"{record.name} {record.version}",
            )
        return str(run.info.run_id)

    def _log(self, run_id: str, record: RunRecord, *, has_plots: bool) -> None:
        """Everything of a run but its files. What was logged before is logged as the same again."""
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - loaded with the client

        at_ms = record.created_at_us // 1000
        metrics = [
            Metric(_nameable(metric.name + end), value, at_ms, 0)
            for metric in record.metrics
            for end, value in (("", metric.value), ("_low", metric.low), ("_high", metric.high))
        ]
        tags = {
            RUN_TAG: record.run_id,
            "tollgate.data": record.data_digest,
            "tollgate.verdict": record.verdict_digest,
            "tollgate.outcome": record.outcome,
            "tollgate.plots": "drawn" if has_plots else "none: the rows of the test span were not kept",
            "mlflow.source.name": "tollgate",
            "mlflow.note.content": _note(record),
        }
        params = [Param(_nameable(name), str(value)) for name, value in _parameters(record).items()]
        self._client.log_batch(run_id, metrics, params, [RunTag(name, text) for name, text in tags.items() if text])

    def _register(self, run_id: str, record: RunRecord) -> None:
        """Make the version of a run, unless an earlier attempt did."""
        client = self._client
        if client.search_model_versions(f"run_id = '{run_id}'"):
            return
        if not client.search_registered_models(f"name = '{record.name}'"):
            client.create_registered_model(record.name, description="Versions are bundles; their digest is a tag.")
        client.create_model_version(
            record.name,
            f"runs:/{run_id}/{BUNDLE_FOLDER}",
            run_id,
            tags={BUNDLE_TAG: record.bundle_digest, "tollgate.version": str(record.version)},
            description=record.outcome or None,
            await_creation_for=0,  # the server knows it whole when it answers
        )

    def _version_of(self, bundle_digest: str) -> ModelVersion:
        """The newest version of a bundle."""
        found = self._client.search_model_versions(f"tags.`{BUNDLE_TAG}` = '{bundle_digest}'")
        if not found:
            raise NotFound("digest", "names no version of the registry")
        newest: ModelVersion = max(found, key=lambda version: int(version.version))
        return newest


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn every error of the client into Tollgate's tree; `doing` says what was tried."""
    try:
        yield
    except TollgateError:
        raise
    except OSError as error:  # also every error of the HTTP library below, which the client lets through for files
        raise Transient(f"{doing}: {type(error).__name__}") from error
    except Exception as error:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - loaded with the client

        if isinstance(error, MlflowException):
            raise _meaning(error, doing) from error
        raise


def _meaning(error: MlflowException, doing: str) -> TollgateError:
    """A server that cannot be reached counts as 500 with the client; what it refuses has a status below."""
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]  # the library left it untyped
    text = f"{doing}: the registry answered {status} ({error.error_code})"
    return BrokenInvariant(text) if status < 500 and status not in _PASSING_STATUS else Transient(text)


def _parameters(record: RunRecord) -> dict[str, Any]:
    """What training was told, what it saw, and with which libraries."""
    found: dict[str, Any] = {
        **record.parameters,
        "view": record.view,
        "confidence": record.confidence,
        "labels_known_until": format_instant(record.as_of_us),
    }
    for name, span in record.spans.items():
        found |= {
            f"{name}_from": format_instant(span.start_us),
            f"{name}_until": format_instant(span.end_us),
            f"{name}_rows": span.n_rows,
            f"{name}_frauds": span.n_frauds,
        }
    return found | {f"library_{name}": version for name, version in record.libraries.items()}


def _note(record: RunRecord) -> str:
    """What people read first."""
    lines = [f"**{record.name} {record.version}** of run `{record.run_id}`, bundle `{record.bundle_digest}`."]
    if record.outcome:
        lines.append(f"Outcome: {record.outcome}")
    if record.verdict_digest:
        lines.append(f"Verdict: `{record.verdict_digest}`")
    return "\n\n".join(lines)


def _nameable(name: str) -> str:
    return _UNNAMEABLE.sub("_", name)
