"""Statements on `tollgate.tallies`: what was counted of rows that are gone, or need not be counted again.

A counter that people are told never falls. So rows of runs are added up by the statement that deletes them, and dead
letters as soon as nothing can be added before them any more; what is read is the tally and the rows that are left.
"""

from __future__ import annotations

from typing import Final

from shared.services.metering import REPLAYS
from shared.services.replay_sampling import PIPELINE as REPLAYING
from shared.services.timed_runs import TASK

_VERDICTS: Final = ", ".join(f"'{verdict}'" for verdict in REPLAYS.labels["verdict"])

_ADD: Final = "ON CONFLICT (subject, labels) DO UPDATE SET count = held.count + excluded.count"

# By the key's range ("0" follows on "/"). Attempts at one hour drew the same sample, so an hour counts once.
_HOURLY: Final = f"""
SELECT metric, sum(value)::bigint AS count FROM (
    SELECT metric, max(value) AS value FROM {{source}}
    WHERE run_id >= '{REPLAYING}/' AND run_id < '{REPLAYING}0' AND task = '{TASK}' AND metric IN ({_VERDICTS})
    GROUP BY split_part(run_id, '/', 2), metric
) AS hourly GROUP BY metric
"""  # noqa: S608 - constants

# OFFSET keeps the planner from joining: a look for each of some tens of runs is less than a scan of all there are.
RUNS_GONE: Final = f"""
WITH gone AS (
    DELETE FROM tollgate.pipeline_execution_log r
    WHERE r.started_at_us >= %(start)s AND r.started_at_us < %(until)s AND EXISTS (
        SELECT FROM tollgate.pipeline_execution_log later
        WHERE later.pipeline = r.pipeline AND later.status = r.status AND later.started_at_us >= %(until)s OFFSET 0
    ) RETURNING r.run_id, r.pipeline, r.status
), measured AS (
    DELETE FROM tollgate.task_metrics t USING gone WHERE t.run_id = gone.run_id
    RETURNING t.run_id, t.task, t.metric, t.value
), counted AS (
    INSERT INTO tollgate.tallies AS held (subject, labels, count)
    SELECT 'runs', ARRAY[pipeline, status], count(*) FROM gone WHERE status <> 'running' GROUP BY pipeline, status
    UNION ALL
    SELECT 'replays', ARRAY[metric], count FROM ({_HOURLY.format(source="measured")}) AS replays
    {_ADD}
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM measured)
"""  # noqa: S608 - constants
"""Deletes the runs of an hour with what they measured, all but the last of each pipeline and state."""

RUNS: Final = """
SELECT pipeline, status, sum(count)::bigint, max(last_us) FROM (
    SELECT pipeline, status, count(*) AS count, max(started_at_us) AS last_us
    FROM tollgate.pipeline_execution_log GROUP BY pipeline, status
    UNION ALL
    SELECT labels[1], labels[2], count, NULL FROM tollgate.tallies WHERE subject = 'runs'
) AS parts GROUP BY 1, 2
"""
"""Pipeline, status, how many runs there ever were, and when the last one began."""

REPLAYED: Final = f"""
SELECT metric, sum(count)::bigint FROM (
    {_HOURLY.format(source="tollgate.task_metrics")}
    UNION ALL
    SELECT labels[1], count FROM tollgate.tallies WHERE subject = 'replays'
) AS parts GROUP BY metric
"""  # noqa: S608 - constants
"""Verdict, and how many sampled decisions ever came to it."""

LETTERS_MARK: Final = """
SELECT coalesce(max(until_id), 0) FROM tollgate.tallies WHERE subject = 'dead letters'
"""
"""The number up to which dead letters are in the tally."""

_MADE_UP: Final = "'is not a known field', 'must not be given twice'"
"""Rules that name a field by what the sender wrote, which may be anything, a card's number too: no label shows it."""

_FIELD: Final = f"CASE WHEN coalesce(rule, reason) IN ({_MADE_UP}) THEN 'unknown' ELSE coalesce(field, '') END"

LETTERS_FOLD: Final = f"""
WITH page AS (
    SELECT dead_letter_id, source, {_FIELD} AS field, received_at_us FROM tollgate.dead_letters
    WHERE dead_letter_id > ({LETTERS_MARK}) ORDER BY dead_letter_id LIMIT %(limit)s
), settled AS (
    SELECT * FROM page WHERE dead_letter_id < coalesce(
        (SELECT min(dead_letter_id) FROM page WHERE received_at_us >= %(settled)s), {(1 << 63) - 1}
    )
), counted AS (
    INSERT INTO tollgate.tallies AS held (subject, labels, count, until_id)
    SELECT 'dead letters', ARRAY[source, field], count(*), max(dead_letter_id) FROM settled GROUP BY source, field
    {_ADD}, until_id = excluded.until_id
)
SELECT count(*) FROM settled
"""  # noqa: S608 - constants
"""Adds dead letters to the tally, as far as none can appear before them any more."""

LETTERS: Final = f"""
SELECT source, field, sum(count)::bigint FROM (
    SELECT source, {_FIELD} AS field, count(*) AS count FROM tollgate.dead_letters
    WHERE dead_letter_id > ({LETTERS_MARK}) GROUP BY 1, 2
    UNION ALL
    SELECT labels[1], labels[2], count FROM tollgate.tallies WHERE subject = 'dead letters'
) AS parts GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""  # noqa: S608 - constants
"""Hub, field, and how many dead letters there ever were."""

LETTERS_WAITING: Final = f"""
SELECT source, field, count(*) FROM (
    SELECT source, {_FIELD} AS field FROM tollgate.dead_letters WHERE replayed_at_us IS NULL
    ORDER BY received_at_us DESC LIMIT 10000
) AS waiting GROUP BY 1, 2
"""  # noqa: S608 - constants
"""Hub, field, and how many of the last 10,000 that wait."""
