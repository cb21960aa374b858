"""One training from recorded history to its consequence: a bundle, a verdict, and a new champion, challenger or notice.

Everything that it keeps is kept under a digest or the run's id, so a run that dies anywhere leaves nothing that the
next one has to clean up. Between two steps it looks whether it may go on: whether its lease holds, and whether it is
still within the time that the platform gives a function.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from shared.domain.bundle import open_bundle
from shared.domain.bundle_manifest import Manifest
from shared.domain.bundle_pointer import Role
from shared.domain.cost_policy import Capacity
from shared.domain.errors import InvalidInput, Transient
from shared.domain.feature_view import CARD_V1, VIEWS, FeatureView
from shared.domain.instants import US_PER_HOUR, format_instant
from shared.domain.pipeline import Notice, Plain, Severity
from shared.domain.promotion import GateRules, Verdict, write_verdict
from shared.domain.promotion_page import verdict_page
from shared.domain.registry import run_record
from shared.domain.training_model import TrainingParameters
from shared.domain.training_split import TEST, TRAIN, TrainingPlan
from shared.ports.clock import Clock
from shared.ports.models import BundleStore, Graph, Trainer
from shared.ports.pages import VerdictPages
from shared.ports.pipelines import Notices, PipelineLog
from shared.ports.registry import MeasuredRowStore, RunRecords
from shared.ports.succession import KeptVerdict
from shared.ports.training_data import TrainingData
from shared.services.promotion import judge
from shared.services.retraining import RetrainingOutcome
from shared.services.retraining_lease import HeldLease
from shared.services.succession import Succession
from shared.services.training import Search, Trained, train
from shared.services.training_publication import next_version
from shared.services.training_reading import read_history

_log = logging.getLogger(__name__)

AUTHOR: Final = "retrain"

TRIALS: Final = 2
"""For so many times the length of a trial a challenger is left in its role by later ones. Immediate triggers may have
one trained every hour, and if each began a new trial none would ever end; one with too few decisions makes room."""

PAGES: Final = "/api/reports/"
"""Where the drift app shows what lies in the container of reports."""


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What is trained, and what becomes of it.

    Attributes:
        name: The model's name.
        view: Its feature view; None for the champion's, or for `card-v1` while there is no champion. A challenger of
            another view than the champion's cannot score in shadow, so where there are trials a person promotes it.
        plan: How history is cut; its `as_of_us` and its `gap_us` are replaced by the time of each run and the view's.
        parameters: How trees are grown; of the search, the first trial.
        trials: Parameters that are tried, at most.
        search_s: After how long no other trial begins, seconds.
        limit_s: How long a run may take, seconds; less than the platform gives a function.
        capacity: How many reviews there are people for; None for no limit.
        gate: By which a challenger is judged.
        trial_us: How long a challenger scores in shadow before it is promoted, microseconds; 0 to promote at once.
    """

    name: str
    view: FeatureView | None
    plan: TrainingPlan
    parameters: TrainingParameters = field(default_factory=TrainingParameters)
    trials: int = 4
    search_s: float = 120.0
    limit_s: float = 6_600.0
    capacity: Capacity | None = None
    gate: GateRules = field(default_factory=GateRules)
    trial_us: int = 24 * US_PER_HOUR


@dataclass(frozen=True, slots=True)
class ModelStores:
    """Where a training takes from and leaves things.

    Attributes:
        data: History.
        bundles: Models.
        succession: Who plays which role.
        log: What steps took.
        notices: What people are told.
        pages: Pages of verdicts.
        records: The queue of the model registry.
        rows: Rows of test spans, for its pictures.
    """

    data: TrainingData
    bundles: BundleStore
    succession: Succession
    log: PipelineLog
    notices: Notices
    pages: VerdictPages
    records: RunRecords
    rows: MeasuredRowStore


class Steps:
    """What each step took, and whether the next one may begin."""

    def __init__(self, lease: HeldLease, limit_s: float, monotonic_s: Callable[[], float]) -> None:
        self._lease = lease
        self._limit_s = limit_s
        self._monotonic_s = monotonic_s
        self._began_s = self._step_s = monotonic_s()
        self._step = ""
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str, share: float = 0.0) -> None:
        """Be told what is going on.

        Raises:
            LeaseLost: Another process may have taken over.
            Transient: The run has taken too long.
        """
        del share
        self._lease.check()
        now_s = self._monotonic_s()
        if now_s - self._began_s > self._limit_s:
            raise Transient(f"the training took more than {self._limit_s:g} s and was given up at: {step}")
        if step != self._step:
            self.end()
            self._step = step

    def end(self) -> None:
        """The step is over."""
        now_s = self._monotonic_s()
        if self._step:
            self.seconds[self._step] = self.seconds.get(self._step, 0.0) + now_s - self._step_s
        self._step, self._step_s = "", now_s


class TrainingRun:
    """Trains, judges, and hands over; for one thread."""

    def __init__(
        self,
        stores: ModelStores,
        rules: ModelRules,
        clock: Clock,
        *,
        load_trainer: Callable[[], Trainer],
        load_graph: Callable[[bytes, int], Graph],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load nothing yet.

        Args:
            stores: Where things are.
            rules: What is trained.
            clock: Our clock.
            load_trainer: Loads the training library; called when there is something to train.
            load_graph: Loads an exported graph of so many features, as serving does.
            monotonic_s: Measures time, seconds.
        """
        self._stores = stores
        self._rules = rules
        self._clock = clock
        self._load_trainer = load_trainer
        self._load_graph = load_graph
        self._monotonic_s = monotonic_s

    def __call__(self, run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
        """Train on what is known by now.

        Raises:
            InvalidInput: There is too little history, or a model of the feature view may not decide.
            LeaseLost: Another process may have taken over.
            TollgateError: As the stores, the training and the gate.
        """
        stores, rules = self._stores, self._rules
        steps = Steps(lease, rules.limit_s, self._monotonic_s)
        steps("reading")
        champion = stores.bundles.pointer(Role.CHAMPION).digest
        facing = None if champion is None else stores.bundles.get(champion)
        theirs = None if facing is None else open_bundle(facing, champion).view
        view = rules.view or theirs or CARD_V1
        stores.succession.check(view)
        plan = replace(rules.plan, as_of_us=now_us, gap_us=view.label_delay_us)
        # The champion may have another view, and the gate computes its features too.
        history = read_history(stores.data, plan, VIEWS.values())
        n_rows = len(history.transactions.event_time_us)
        version = next_version(stores.bundles, rules.name)
        trainer = self._load_trainer()
        search_until_s = self._monotonic_s() + rules.search_s
        made = train(
            view,
            history.transactions,
            history.labels,
            plan,
            trainer=trainer,
            load_graph=self._load_graph,
            name=rules.name,
            version=version,
            parameters=rules.parameters,
            search=Search(rules.trials, lambda: self._monotonic_s() >= search_until_s),
            capacity=rules.capacity,
            progress=steps,
        )
        steps("keeping")
        stores.bundles.put(made.files)
        stores.rows.put(made.digest, made.rows)
        verdict = judge(
            made.files,
            facing,
            history.transactions,
            history.labels,
            as_of_us=now_us,
            rules=rules.gate,
            trainer=trainer,
            load_graph=self._load_graph,
            expected_digest=made.digest,
            progress=lambda step, share: steps(f"gate: {step}", share),
        )
        steps("handing over")
        kept = stores.succession.judged(write_verdict(verdict), run_id, self._clock.now_us())
        page = stores.pages.put(kept.digest, verdict_page(verdict))
        lease.check()
        summary = self._hand_over(made, verdict, kept, in_shadow=theirs in (None, view))
        self._tell(verdict, kept, summary, page)
        self._record(made, kept, run_id, summary)
        steps.end()
        for step, seconds in steps.seconds.items():
            stores.log.note(run_id, step, {"seconds": seconds}, self._clock.now_us())
        manifest = made.bundle.manifest
        return RetrainingOutcome(
            summary, manifest.spans[TEST].end_us, _details(made, verdict, kept, n_rows, steps.seconds)
        )

    def _hand_over(self, made: Trained, verdict: Verdict, kept: KeptVerdict, *, in_shadow: bool) -> str:
        """Let the verdict have its consequence; returns what came of it.

        `in_shadow` says whether it could score the champion's decisions in shadow.
        """
        succession, model = self._stores.succession, verdict.model
        if not verdict.passed:
            return "refused: " + ", ".join(check.name for check in verdict.refusals)
        reason = f"passed the gate, verdict {kept.digest[:12]}"
        try:
            if verdict.champion is None or not self._rules.trial_us:
                succession.promote(made.digest, author=AUTHOR, reason=reason)
                return f"promoted {model}"
            if not in_shadow:
                view = made.bundle.view.name
                return f"passed, but {view} is not the champion's view: a person must promote {made.digest[:12]}"
            if (tried := self._on_trial(verdict.champion)) is not None:
                return f"passed, but {tried[:12]} is on trial"
            succession.appoint(Role.CHALLENGER, made.digest, author=AUTHOR, reason=reason, verdict_digest=kept.digest)
        except InvalidInput as error:  # a person was faster, or the champion is another one by now
            _log.warning("a challenger that passed was not handed over", exc_info=True)
            return f"passed, but not handed over: {error}"
        return f"challenger {model}"

    def _on_trial(self, champion: str) -> str | None:
        """The challenger of an earlier training that may still replace this champion; None if the role can be given."""
        present = self._stores.succession.present().get(Role.CHALLENGER)
        if present is None or present.pointer.digest is None or present.pointer.author != AUTHOR:
            return None
        if self._clock.now_us() >= present.pointer.changed_at_us + TRIALS * self._rules.trial_us:
            return None
        kept = self._stores.succession.verdict(present.pointer.digest)
        return present.pointer.digest if kept is not None and kept.champion == champion else None

    def _tell(self, verdict: Verdict, kept: KeptVerdict, summary: str, page: str) -> None:
        severity = Severity.INFORMATION
        if not verdict.passed:
            severity = Severity.ERROR if verdict.floors_unreachable else Severity.WARNING
        evidence: dict[str, Plain] = {
            "verdict": kept.digest,
            "page": page,
            "refused by": {
                check.name.value: {"value": check.value, "required": check.required, "why": check.why}
                for check in verdict.refusals
            },
            "advice": list(verdict.advice),
        }
        title = f"Retraining of {verdict.model or self._rules.name}: {'passed' if verdict.passed else 'refused'}"
        notice = Notice(
            f"retrain/verdict/{kept.digest}",
            severity,
            title,
            {**evidence, "outcome": summary},
            PAGES + page,
            self._clock.now_us(),
        )
        self._stores.notices.put(notice)

    def _record(self, made: Trained, kept: KeptVerdict, run_id: str, summary: str) -> None:
        """Leave a record for the model registry, which may be down."""
        record = run_record(
            made.bundle.manifest,
            made.digest,
            created_at_us=self._clock.now_us(),
            run_id=run_id,
            outcome=summary,
            verdict_digest=kept.digest,
        )
        self._stores.records.enqueue(record)


def _details(
    made: Trained, verdict: Verdict, kept: KeptVerdict, n_rows: int, seconds: dict[str, float]
) -> dict[str, Plain]:
    """What the run log keeps of a training."""
    manifest: Manifest = made.bundle.manifest
    return {
        "bundle": made.digest,
        "version": manifest.version,
        "view": manifest.view,
        "verdict": kept.digest,
        "champion": verdict.champion,
        "passed": verdict.passed,
        "refused_by": [check.name.value for check in verdict.refusals],
        "rows_read": n_rows,
        "rows": {name: span.n_rows for name, span in manifest.spans.items()},
        "frauds": {name: span.n_frauds for name, span in manifest.spans.items()},
        "from": format_instant(manifest.spans[TRAIN].start_us),
        "until": format_instant(manifest.spans[TEST].end_us),
        "trials": int(manifest.parameters["trials"]),
        "average_precision": made.test.average_precision,
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }
