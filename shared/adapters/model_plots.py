"""Pictures of a model on its test span, drawn by matplotlib; the summary of reasons by the `shap` package.

Both libraries take seconds and 150 MB to import, so they are imported with the first picture. Sizes are fixed and
nothing of the time or the machine is in the files: the same rows give the same bytes on the same versions.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np

from shared.domain.cost_policy import REVIEW_COST_MINOR
from shared.domain.registry_curves import calibration_of, thresholds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from shared.domain.bundle import Bundle
    from shared.domain.registry_curves import Calibration, Thresholds
    from shared.domain.registry_rows import MeasuredRows

SIZE_INCHES: Final = (8.0, 6.0)
DPI: Final = 100

MAX_POINTS: Final = 4_000
"""Points of a curve; a picture of 800 pixels shows no more."""

SHOWN_FEATURES: Final = 20

_LEAST_SHARE: Final = 1e-5
"""Where the logarithmic axes of calibration end: bins without frauds are drawn there."""


class MatplotlibPlots:
    """Draws `precision_recall`, `roc`, `calibration`, `cost` and `reasons`, each `.png` of 800 x 600 pixels.

    Used by one thread at a time: the `shap` package draws on matplotlib's current figure.
    """

    def draw(self, bundle: Bundle, rows: MeasuredRows) -> dict[str, bytes]:
        """The pictures; one of reasons only where there are rows to explain.

        Args:
            bundle: The model.
            rows: What it was measured on.
        """
        scores = bundle.manifest.calibration.probability_many(rows.raw)
        ranked = thresholds_of(rows.raw, rows.is_fraud, rows.amount_minor)
        by_score = thresholds_of(scores, rows.is_fraud, rows.amount_minor)
        calibration = calibration_of(scores, rows.is_fraud)
        marks = {"review": bundle.manifest.thresholds.review, "decline": bundle.manifest.thresholds.decline}
        drawn = {
            "precision_recall.png": _figure(lambda axes: _precision_recall(axes, ranked, by_score, marks)),
            "roc.png": _figure(lambda axes: _roc(axes, ranked)),
            "calibration.png": _figure(lambda axes: _calibration(axes, calibration)),
            "cost.png": _figure(lambda axes: _cost(axes, by_score, marks)),
        }
        if len(rows.explained):
            drawn["reasons.png"] = _reasons(bundle, rows)
        return drawn


def _precision_recall(axes: Axes, ranked: Thresholds, by_score: Thresholds, marks: dict[str, float]) -> None:
    places = _thinned(len(ranked.score))
    axes.step(ranked.recall[places], ranked.precision[places], where="pre", color="#1f4e79")
    axes.axhline(ranked.n_frauds / ranked.n_rows, color="#999999", linestyle=":", label="share of frauds")
    for name, threshold in marks.items():
        flagged = np.flatnonzero(by_score.score >= threshold)
        if len(flagged):
            place = flagged[-1]
            axes.plot(by_score.recall[place], by_score.precision[place], "o", label=f"{name} from {threshold:.3g}")
    axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper right")


def _roc(axes: Axes, ranked: Thresholds) -> None:
    places = _thinned(len(ranked.score))
    rate, recall = ranked.false_positive_rate[places], ranked.recall[places]
    axes.plot(np.append(0.0, rate), np.append(0.0, recall), color="#1f4e79", label="model")
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="chance")
    labels = {"xlabel": "share of the genuine that is flagged", "ylabel": "share of the frauds that is flagged"}
    axes.set(title="ROC", xlim=(0, 1), ylim=(0, 1.02), **labels)
    axes.legend(loc="lower right")


def _calibration(axes: Axes, found: Calibration) -> None:
    score, share = np.maximum(found.score, _LEAST_SHARE), np.maximum(found.share, _LEAST_SHARE)
    low, high = np.maximum(found.low, _LEAST_SHARE), np.maximum(found.high, _LEAST_SHARE)
    ends = np.maximum(np.stack([share - low, high - share]), 0.0)
    axes.errorbar(score, share, yerr=ends, fmt="o", color="#1f4e79", capsize=3, label="bins of transactions, 95 %")
    axes.plot([_LEAST_SHARE, 1], [_LEAST_SHARE, 1], color="#999999", linestyle=":", label="calibrated")
    axes.set(xscale="log", yscale="log", xlim=(_LEAST_SHARE / 2, 1.2), ylim=(_LEAST_SHARE / 2, 1.2))
    axes.set(title="Calibration", xlabel="mean score", ylabel="share of frauds")
    axes.legend(loc="upper left")


def _cost(axes: Axes, by_score: Thresholds, marks: dict[str, float]) -> None:
    places = _thinned(len(by_score.score))
    cost = by_score.cost_minor()
    axes.plot(by_score.score[places], cost[places] / 100, color="#1f4e79", label="cost")
    axes.axhline(10 * by_score.fraud_minor / by_score.n_rows, color="#999999", linestyle=":", label="nothing flagged")
    least = int(np.argmin(cost))
    axes.plot(by_score.score[least], cost[least] / 100, "o", label=f"least, from {by_score.score[least]:.3g}")
    for (name, threshold), style in zip(marks.items(), ("--", "-."), strict=True):
        axes.axvline(threshold, color="#bb5500", linestyle=style, label=f"{name} from {threshold:.3g}")
    what = f"per 1,000 transactions: frauds missed, and {REVIEW_COST_MINOR / 100:g} for each one flagged"
    axes.set(title="Expected cost by threshold", xlabel="score from which on a transaction is flagged", ylabel=what)
    axes.set(xscale="log", ylim=(0, None))
    axes.legend(loc="best")


def _reasons(bundle: Bundle, rows: MeasuredRows) -> bytes:
    """The summary of reasons, in log-odds, from the bundle's own exact tables."""
    contributions = bundle.tables.contributions(rows.explained)
    _use_agg()
    import matplotlib.pyplot as plt  # noqa: PLC0415 - see the module's first lines
    import shap  # type: ignore[import-untyped]  # noqa: PLC0415

    figure = plt.figure(figsize=SIZE_INCHES, dpi=DPI)
    try:
        shap.summary_plot(
            contributions,
            rows.explained,
            feature_names=list(bundle.view.names),
            max_display=SHOWN_FEATURES,
            plot_size=SIZE_INCHES,
            show=False,
            rng=np.random.default_rng(0),  # scatters dots that would lie on top of each other
        )
        return _png(figure)
    finally:
        plt.close(figure)


def _figure(paint: Callable[[Axes], None]) -> bytes:
    _use_agg()
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, color="#eeeeee")
    paint(axes)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def _use_agg() -> None:
    """Draw into memory, whatever display the machine may have."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")


def _thinned(count: int) -> NDArray[np.int64]:
    """Places of so many points of a curve as can be seen, first and last among them."""
    return np.unique(np.linspace(0, count - 1, MAX_POINTS).astype(np.int64))
