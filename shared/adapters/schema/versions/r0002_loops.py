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
    "performance_metrics",
)


_BY_TIME: Final = ("feedback_labels", "transactions", "predictions")
"""Tables with an index of when a row was recorded."""


def upgrade() -> None:
    """Make the tables, and let a trigger name its subject."""
    run(op.get_bind(), Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Drop the tables, with all data."""
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in _BY_TIME:
        op.execute(f"DROP INDEX tollgate.ix_{table}_recorded_at_us")
    op.execute("DROP INDEX tollgate.ix_pipeline_execution_log_pipeline_started_at_us")
    op.execute("DROP INDEX tollgate.uq_retraining_triggers_open")
    op.execute("ALTER TABLE tollgate.retraining_triggers DROP COLUMN subject")
    for name in _TABLES:
        op.execute(f"DROP TABLE tollgate.{name}")
