"""Which part of what was recorded a training needs: its spans, and before them as far as any feature looks back."""

from __future__ import annotations

from collections.abc import Iterable

from shared.domain.errors import InvalidInput
from shared.domain.feature_view import Entity, FeatureView
from shared.domain.instants import US_PER_DAY
from shared.domain.training_history import TrainingHistory
from shared.domain.training_split import TrainingPlan
from shared.ports.training_data import TrainingData


def read_history(data: TrainingData, plan: TrainingPlan, views: Iterable[FeatureView]) -> TrainingHistory:
    """The transactions that a plan's spans and their features need, and their labels.

    Args:
        data: What was recorded.
        plan: How history is cut.
        views: All whose features will be computed.

    Raises:
        InvalidInput: There is no mature transaction with a label.
        Transient: The store cannot be reached now.
    """
    newest_us = data.newest_us(plan.as_of_us - plan.maturity_us + 1)
    if newest_us is None:
        raise InvalidInput("history", "must hold mature transactions with a label; it has none")
    reach_us = max(view.reach_us(entity) for view in views for entity in Entity)
    start_us = (newest_us + 1) // US_PER_DAY * US_PER_DAY - plan.length_us - reach_us
    return data.history(start_us, newest_us + 1)
