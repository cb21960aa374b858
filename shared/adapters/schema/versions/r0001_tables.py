"""Revision 0001: every table of the first release, partitions, views and functions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import op

from shared.adapters.schema.scripts import run

revision: Final = "0001"
down_revision: Final = None

_OBJECTS: Final = (
    "VIEW tollgate.v_predictions",
    "VIEW tollgate.v_transactions",
    "FUNCTION tollgate.make_partitions(bigint, bigint)",
    "FUNCTION tollgate.oldest_release()",
    "FUNCTION tollgate.instant(bigint)",
    *(
        f"TABLE tollgate.{name}"
        for name in (
            "transaction_ids",
            "transactions",
            "predictions",
            "customer_features",
            "merchant_features",
            "entity_tiles",
            "feedback_labels",
            "log_blocks",
            "log_seals",
            "outbox",
            "dead_letters",
            "forgotten",
            "deployments",
            "drift_metrics",
            "retraining_triggers",
            "model_versions",
            "task_metrics",
            "data_quality_log",
            "pipeline_execution_log",
        )
    ),
)


def upgrade() -> None:
    """Make everything."""
    run(op.get_bind(), Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Drop everything, with all data; partitions go with their tables."""
    for item in _OBJECTS:
        op.execute(f"DROP {item}")
