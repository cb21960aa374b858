"""Revision 0002: what the learning loop and the watching loop keep."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import op

from shared.adapters.schema.scripts import run

revision: Final = "0002"
down_revision: Final = "0001"

_TABLES: Final = (
    "promotions",
    "promotion_verdicts",
    "leases",
    "shadow_scores",
    "registry_outbox",
    "notifications",
    "announced_changes",
    "app_meters",
    "feature_views",
    "performance_metrics",
    "tallies",
)


_BY_TIME: Final = ("feedback_labels", "transactions", "predictions", "drift_metrics", "data_quality_log")
"""Tables with an index of when a row was recorded."""

_INDEXES: Final = (
    "ix_pipeline_execution_log_pipeline_started_at_us",
    "ix_pipeline_execution_log_started_at_us",
    "ix_dead_letters_received_at_us",
    "ix_dead_letters_replayed_at_us",
    "uq_retraining_triggers_open",
)
"""Other indexes on tables of revision 0001."""


def upgrade() -> None:
    """Make the tables, and let a trigger name its subject."""
    run(op.get_bind(), Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Drop the tables, with all data."""
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in _BY_TIME:
        op.execute(f"DROP INDEX tollgate.ix_{table}_recorded_at_us")
    for index in _INDEXES:
        op.execute(f"DROP INDEX tollgate.{index}")
    op.execute("ALTER TABLE tollgate.retraining_triggers DROP COLUMN subject")
    for name in _TABLES:
        op.execute(f"DROP TABLE tollgate.{name}")
