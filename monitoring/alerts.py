"""The alerts: each fires on a fault that a test injects, and clears after it.

A counter that appears with its first fault has no earlier value that a rate could start from; such faults are told by
the sum now against the sum before.
"""

from __future__ import annotations

from typing import Final

from monitoring.panels import SCORE_REQUESTS
from monitoring.specification import Alert, Severity


def _latest(name: str, condition: str, *labels: str) -> str:
    """Kusto for readings whose last value meets a condition on `Sum`, the value."""
    columns = ", ".join(f"{label} = tostring(Properties.{label})" for label in labels)
    by = f" by {columns}" if columns else ""
    return f"AppMetrics | where Name == '{name}' | summarize arg_max(TimeGenerated, Sum){by} | where {condition}"


def _grown(name: str, *labels: str, where: str = "true") -> str:
    """Kusto for readings that only grow, and grew."""
    columns = ", ".join(f"{label} = tostring(Properties.{label})" for label in labels)
    by = f" by {columns}" if columns else ""
    return (
        f"AppMetrics | where Name == '{name}' and {where} | summarize grown = max(Sum) - min(Sum){by} | where grown > 0"
    )


def _added(name: str, where: str) -> str:
    """Kusto for a counter to which something was added."""
    return f"AppMetrics | where Name == '{name}' and {where} | summarize added = sum(Sum) | where added > 0"


ALERTS: Final = (
    Alert(
        "latency",
        Severity.ERROR,
        "The 95th percentile of scoring over HTTP is above 500 ms",
        "Look at the stages of deciding: queue means too few instances, claim and write mean the database.",
        'histogram_quantile(0.95, sum by (le) (rate(api_request_duration_seconds_bucket{app="score",'
        'route=~"score|score_batch"}[{window}]))) > 0.5',
        f"{SCORE_REQUESTS} | summarize requests = sum(ItemCount), p95_ms = percentilew(DurationMs, ItemCount, 95)"
        " | where requests >= 20 and p95_ms > 500",
    ),
    Alert(
        "errors",
        Severity.CRITICAL,
        "More than 5 % of the requests failed through a fault of ours",
        "GET /api/health/ready says what is missing; the traces of the app have the error.",
        'sum(rate(api_errors_total{fault="server"}[{window}])) / sum(rate(api_requests_total[{window}])) > 0.05',
        "AppRequests | where isnotempty(ResultCode) and toint(ResultCode) >= 100"
        " | summarize requests = sum(ItemCount), failed = sumif(ItemCount, toint(ResultCode) >= 500) by AppRoleName"
        " | where requests >= 20 and failed > 0.05 * requests",
    ),
    Alert(
        "confidence",
        Severity.WARNING,
        "The mean confidence of decisions is below 60 %",
        "Look at drift and at the champion: a wrong model or a broken feature makes all scores middling.",
        "sum(rate(model_prediction_confidence_sum[{window}]))"
        " / sum(rate(model_prediction_confidence_count[{window}])) < 0.6",
        "AppMetrics | where Name in ('model_prediction_confidence_sum', 'model_prediction_confidence_count')"
        " | summarize total = sumif(Sum, Name == 'model_prediction_confidence_sum'),"
        " n = sumif(Sum, Name == 'model_prediction_confidence_count') | where n >= 20 and total < 0.6 * n",
        window="15m",
        hold="15m",
        span="PT30M",
    ),
    Alert(
        "lag",
        Severity.ERROR,
        "Decisions come late: they wait in the outbox for over two minutes, or events lag by more than one",
        "Look at the ingest app: is it running, is its database slow, is the decisions hub reachable?",
        "max(tollgate_outbox_oldest_age_seconds) > 120 or histogram_quantile(0.95, sum by (le)"
        " (rate(tollgate_stream_lag_seconds_bucket[{window}]))) > 60",
        "union (AppMetrics | where Name == 'tollgate_outbox_oldest_age_seconds'"
        " | summarize arg_max(TimeGenerated, Sum) | where Sum > 120 | project seconds = Sum),"
        " (AppMetrics | where Name in ('tollgate_stream_lag_seconds_sum', 'tollgate_stream_lag_seconds_count')"
        " | summarize total = sumif(Sum, Name == 'tollgate_stream_lag_seconds_sum'),"
        " n = sumif(Sum, Name == 'tollgate_stream_lag_seconds_count') | where n > 0 and total > 60 * n"
        " | project seconds = total / n)",
        hold="2m",
    ),
    Alert(
        "dead-letters",
        Severity.WARNING,
        "Events came that cannot be used",
        "`tollgate dead-letters list` shows field and rule; mend the sender, then replay.",
        "sum(tollgate_dead_letters_total) - sum(tollgate_dead_letters_total offset {window}) > 0",
        _added("tollgate_events_total", "Properties.result == 'dead_lettered'"),
        window="15m",
        hold="0m",
    ),
    Alert(
        "drift",
        Severity.WARNING,
        "What arrives differs from what the champion was trained on",
        "The report of the run shows what moved; an open trigger is answered by retraining.",
        'max(tollgate_drift_alert) > 0 or max by (cause) (tollgate_retraining_triggers_open{cause=~".* drift"}) > 0',
        "union (" + _latest("tollgate_drift_alert", "Sum > 0") + "), ("
        "AppMetrics | where Name == 'tollgate_retraining_triggers_open' and Properties.cause endswith 'drift'"
        " | summarize arg_max(TimeGenerated, Sum) by cause = tostring(Properties.cause) | where Sum > 0)",
        hold="0m",
        span="PT30M",
    ),
    Alert(
        "quality",
        Severity.WARNING,
        "A rule of data quality failed",
        "See docs/data-quality.md for the rule; while a feed is broken no drift is told.",
        "max by (source, rule) (tollgate_quality_failed) > 0",
        _latest("tollgate_quality_failed", "Sum > 0", "source", "rule"),
        hold="0m",
        span="PT30M",
    ),
    Alert(
        "gate-refused",
        Severity.INFORMATION,
        "The gate refused a challenger",
        "The verdict says which check and what would be reachable.",
        'sum(increase(tollgate_gate_verdicts_total{result="refused"}[{window}])) > 0',
        _grown("tollgate_gate_verdicts_total", where="Properties.result == 'refused'"),
        window="1h",
        hold="0m",
        span="PT1H",
    ),
    Alert(
        "replay-mismatch",
        Severity.CRITICAL,
        "A stored decision came out different when it was decided again",
        "`tollgate replay ID` names the fields. Until it is explained nothing that was decided can be defended.",
        'sum(tollgate_replays_total{verdict="different"})'
        ' - (sum(tollgate_replays_total{verdict="different"} offset {window}) or vector(0)) > 0',
        _added("tollgate_replays_total", "Properties.verdict == 'different'"),
        window="1h",
        hold="0m",
        span="PT1H",
    ),
    Alert(
        "no-champion",
        Severity.CRITICAL,
        "There is no champion: nothing can be decided",
        "`tollgate models list`, then promote or roll back.",
        "max(tollgate_champion_present) == 0",
        _latest("tollgate_champion_present", "Sum == 0"),
        hold="1m",
        span="PT30M",
    ),
    Alert(
        "pipeline-failed",
        Severity.WARNING,
        "A run of a pipeline failed",
        "`pipeline_execution_log` has the error.",
        'sum(tollgate_pipeline_runs_total{status="failed"})'
        ' - sum(tollgate_pipeline_runs_total{status="failed"} offset {window}) > 0',
        _grown("tollgate_pipeline_runs_total", "pipeline", where="Properties.status == 'failed'"),
        window="1h",
        hold="0m",
        span="PT1H",
    ),
    Alert(
        "nothing-heard",
        Severity.ERROR,
        "Nothing is heard of the platform: no metrics arrive",
        "Look at the drift app, which reads and sends them, and at its database.",
        "absent(tollgate_champion_present)",
        "AppMetrics | where Name == 'tollgate_champion_present' | summarize heard = count() | where heard == 0",
        hold="10m",
        span="PT30M",
    ),
)
