"""The dashboards: how the interface performs, how the model does, drift and quality."""

from __future__ import annotations

from typing import Final

from monitoring.specification import Dashboard, Panel, Series, Unit

SCORE_REQUESTS: Final = "AppRequests | where AppRoleName startswith 'func-score' and Name in ('score', 'score_batch')"


def _counted(name: str, *labels: str, where: str = "", per_second: bool = True) -> str:
    """Kusto for a counter, which reaches the workspace as what was added since the last time."""
    condition = f" and {where}" if where else ""
    columns = "".join(f", {label} = tostring(Properties.{label})" for label in labels)
    value = "sum(Sum) / ({bin} / 1s)" if per_second else "sum(Sum)"
    return (
        f"AppMetrics | where {{filter}} and Name == '{name}'{condition}"
        f" | summarize value = {value} by bin(TimeGenerated, {{bin}}){columns} | order by TimeGenerated asc"
    )


def _read(name: str, *labels: str, where: str = "") -> str:
    """Kusto for a reading."""
    condition = f" and {where}" if where else ""
    columns = "".join(f", {label} = tostring(Properties.{label})" for label in labels)
    return (
        f"AppMetrics | where {{filter}} and Name == '{name}'{condition}"
        f" | summarize value = max(Sum) by bin(TimeGenerated, {{bin}}){columns} | order by TimeGenerated asc"
    )


def _ratio(top: str, bottom: str, *, top_where: str = "true", bottom_where: str = "true") -> str:
    """Kusto for one counter divided by another."""
    return (
        f"AppMetrics | where {{filter}} and Name in ('{top}', '{bottom}')"
        f" | summarize part = sumif(Sum, Name == '{top}' and {top_where}),"
        f" whole = sumif(Sum, Name == '{bottom}' and {bottom_where}) by bin(TimeGenerated, {{bin}})"
        " | where whole > 0 | project TimeGenerated, value = part / whole | order by TimeGenerated asc"
    )


def _quantile(percent: int) -> Series:
    return Series(
        f"p{percent}",
        f"histogram_quantile({percent / 100:g}, sum by (le) (rate(api_request_duration_seconds_bucket"
        '{app="score",route=~"score|score_batch"}[{window}])))',
        f"{SCORE_REQUESTS} and {{filter}} | summarize value = percentilew(DurationMs, ItemCount, {percent}) / 1000.0"
        " by bin(TimeGenerated, {bin}) | order by TimeGenerated asc",
    )


def _gauge(name: str, legend: str, *labels: str, matching: str = "", where: str = "") -> Series:
    by = f" by ({', '.join(labels)})" if labels else ""
    return Series(legend, f"max{by} ({name}{matching})", _read(name, *labels, where=where))


def _rate(name: str, legend: str, *labels: str, matching: str = "", where: str = "") -> Series:
    by = f" by ({', '.join(labels)})" if labels else ""
    return Series(legend, f"sum{by} (rate({name}{matching}[{{window}}]))", _counted(name, *labels, where=where))


API: Final = Dashboard(
    "api",
    "API performance",
    (
        Panel(
            "Requests",
            "Answers per second by status.",
            Unit.PER_SECOND,
            (_rate("api_requests_total", "{{status}}", "status"),),
        ),
        Panel(
            "Latency",
            "From a request's arrival in the app to its answer; scoring only.",
            Unit.SECONDS,
            (_quantile(50), _quantile(95), _quantile(99)),
            limit=0.5,
        ),
        Panel(
            "Errors",
            "Share of requests that failed through a fault of ours. Those that were refused stand under requests.",
            Unit.SHARE,
            (
                Series(
                    "of ours",
                    'sum(rate(api_errors_total{fault="server"}[{window}])) / sum(rate(api_requests_total[{window}]))',
                    _ratio("api_errors_total", "api_requests_total", top_where="Properties.fault == 'server'"),
                ),
            ),
            limit=0.05,
        ),
        Panel(
            "Refused for load",
            "Requests that were answered 503 because too many waited.",
            Unit.PER_SECOND,
            (_rate("tollgate_overloads_total", "{{app}}", "app"),),
        ),
        Panel(
            "Stages of deciding",
            "Seconds of each second that are spent in a stage; the largest is what to make faster.",
            Unit.SECONDS,
            (_rate("tollgate_stage_seconds_total", "{{stage}}", "stage"),),
        ),
        Panel(
            "Stream",
            "Events per second by what became of them.",
            Unit.PER_SECOND,
            (_rate("tollgate_events_total", "{{result}}", "result"),),
        ),
        Panel(
            "Lag of the stream",
            "Mean and 95th percentile from the hub's acceptance of an event to its durable effect.",
            Unit.SECONDS,
            (
                Series(
                    "p95",
                    "histogram_quantile(0.95, sum by (le) (rate(tollgate_stream_lag_seconds_bucket[{window}])))",
                    "AppMetrics | where {filter} and Name == 'tollgate_stream_lag_seconds_bucket'"
                    " | summarize n = sum(Sum) by bin(TimeGenerated, {bin}),"
                    " bound = todouble(replace_string(tostring(Properties.bin), 'Inf', '86400'))"
                    " | summarize value = percentilew(bound, tolong(n), 95) by TimeGenerated"
                    " | order by TimeGenerated asc",
                ),
                Series(
                    "mean",
                    "sum(rate(tollgate_stream_lag_seconds_sum[{window}]))"
                    " / sum(rate(tollgate_stream_lag_seconds_count[{window}]))",
                    _ratio("tollgate_stream_lag_seconds_sum", "tollgate_stream_lag_seconds_count"),
                ),
            ),
            limit=60,
        ),
        Panel(
            "Waiting to leave",
            "How long the oldest decision in the outbox has waited, and since when nothing was decided.",
            Unit.SECONDS,
            (
                _gauge("tollgate_outbox_oldest_age_seconds", "oldest in the outbox"),
                _gauge("tollgate_newest_decision_age_seconds", "since the newest decision"),
            ),
            limit=120,
        ),
    ),
)

MODEL: Final = Dashboard(
    "model",
    "Model performance",
    (
        Panel(
            "Decisions",
            "Durable decisions per second by outcome, over HTTP and off the stream.",
            Unit.PER_SECOND,
            (_rate("model_predictions_total", "{{decision}}", "decision"),),
        ),
        Panel(
            "Share declined and reviewed",
            "Of all decisions.",
            Unit.SHARE,
            tuple(
                Series(
                    f"{outcome}d",
                    f'sum(rate(model_predictions_total{{decision="{outcome}"}}[{{window}}]))'
                    " / sum(rate(model_predictions_total[{window}]))",
                    "AppMetrics | where {filter} and Name == 'model_predictions_total'"
                    f" | summarize part = sumif(Sum, Properties.decision == '{outcome}'), whole = sum(Sum)"
                    " by bin(TimeGenerated, {bin}) | where whole > 0"
                    " | project TimeGenerated, value = part / whole | order by TimeGenerated asc",
                )
                for outcome in ("decline", "review")
            ),
        ),
        Panel(
            "Latency of decisions",
            "Mean time from a transaction's arrival in the app to its durable decision.",
            Unit.SECONDS,
            (
                Series(
                    "{{app}}",
                    "sum by (app) (rate(model_prediction_latency_seconds_sum[{window}]))"
                    " / sum by (app) (rate(model_prediction_latency_seconds_count[{window}]))",
                    _ratio("model_prediction_latency_seconds_sum", "model_prediction_latency_seconds_count"),
                ),
            ),
        ),
        Panel(
            "Mean confidence",
            "The larger of the calibrated score and one minus it. A model that knows its data is near 1.",
            Unit.SHARE,
            (
                Series(
                    "mean",
                    "sum(rate(model_prediction_confidence_sum[{window}]))"
                    " / sum(rate(model_prediction_confidence_count[{window}]))",
                    _ratio("model_prediction_confidence_sum", "model_prediction_confidence_count"),
                ),
            ),
            limit=0.6,
        ),
        Panel(
            "Confidence",
            "Decisions up to each bound of confidence; in Azure those between a bound and the one before.",
            Unit.COUNT,
            (
                Series(
                    "{{le}}",
                    "sum by (le) (increase(model_prediction_confidence_bucket[{window}]))",
                    _counted("model_prediction_confidence_bucket", "bin", per_second=False),
                ),
            ),
        ),
        Panel(
            "What the champion is worth",
            "On the last window of mature labels; see docs/performance.md for each metric.",
            Unit.COUNT,
            (_gauge("tollgate_performance", "{{metric}}", "metric"),),
        ),
        Panel(
            "Champion",
            "Days since it was appointed; nothing if there is none.",
            Unit.DAYS,
            (
                Series(
                    "age",
                    "max(tollgate_champion_age_seconds) / 86400",
                    "AppMetrics | where {filter} and Name == 'tollgate_champion_age_seconds'"
                    " | summarize value = max(Sum) / 86400 by bin(TimeGenerated, {bin}) | order by TimeGenerated asc",
                ),
            ),
        ),
        Panel(
            "Verdicts of the gate",
            "Challengers that passed and that were refused, ever.",
            Unit.COUNT,
            (_gauge("tollgate_gate_verdicts_total", "{{result}}", "result"),),
        ),
        Panel(
            "Replays",
            "Stored decisions that were decided again. One that comes out different is a fault to be explained.",
            Unit.COUNT,
            (
                Series(
                    "{{verdict}}",
                    "sum by (verdict) (tollgate_replays_total)",
                    _counted("tollgate_replays_total", "verdict", per_second=False),
                ),
            ),
        ),
    ),
)

DRIFT: Final = Dashboard(
    "drift",
    "Drift and quality",
    (
        Panel(
            "Distance from the reference",
            "PSI of the last day by feature. It is a number; what is an alarm is decided beside it.",
            Unit.COUNT,
            (
                _gauge(
                    "tollgate_drift_statistic",
                    "{{subject}}",
                    "subject",
                    matching='{statistic="psi",hours="24"}',
                    where="Properties.statistic == 'psi' and Properties.hours == '24'",
                ),
            ),
        ),
        Panel(
            "Drift alarms",
            "1 while the last verdict is an alarm; the report of the run says what moved.",
            Unit.COUNT,
            (_gauge("tollgate_drift_alert", "alarm"),),
        ),
        Panel(
            "Open reasons to retrain",
            "By cause; retraining answers them, or says why not.",
            Unit.COUNT,
            (_gauge("tollgate_retraining_triggers_open", "{{cause}}", "cause"),),
        ),
        Panel(
            "Delay of labels",
            "From a transaction to when its label was known, of the labels recorded last.",
            Unit.DAYS,
            (_gauge("tollgate_label_delay_days", "quantile {{quantile}}", "quantile"),),
        ),
        Panel(
            "Failed rules of data quality",
            "1 where a rule failed in its last window.",
            Unit.COUNT,
            (_gauge("tollgate_quality_failed", "{{source}} {{rule}}", "source", "rule"),),
        ),
        Panel(
            "Dead letters",
            "Events that could not be used and were not taken after all, by hub and offending field.",
            Unit.COUNT,
            (_gauge("tollgate_dead_letters_waiting", "{{hub}} {{field}}", "hub", "field"),),
        ),
        Panel(
            "Runs of pipelines",
            "Ever, by how they ended.",
            Unit.COUNT,
            (_gauge("tollgate_pipeline_runs_total", "{{pipeline}} {{status}}", "pipeline", "status"),),
        ),
        Panel(
            "Since pipelines last ran",
            "Since the last run that was done began.",
            Unit.SECONDS,
            (_gauge("tollgate_pipeline_last_done_age_seconds", "{{pipeline}}", "pipeline"),),
        ),
        Panel(
            "Messages to people",
            "By channel and how they stand.",
            Unit.COUNT,
            (_gauge("tollgate_notices", "{{channel}} {{status}}", "channel", "status"),),
        ),
    ),
)

DASHBOARDS: Final = (API, MODEL, DRIFT)
