"""History for `tollgate train --from-db`: what a deployment's database has recorded, as columns."""

from __future__ import annotations

import os
from contextlib import closing

from shared.adapters.postgres import parse_postgres
from shared.domain.feature_view import FeatureView
from shared.domain.training_history import TrainingHistory
from shared.domain.training_split import TrainingPlan
from shared.services.training_reading import read_history
from twin.services.settings import TwinSettings

DATABASE = "DATABASE"


def read_recorded(view: FeatureView, plan: TrainingPlan) -> TrainingHistory:
    """The transactions that the plan's spans and their features need, and their labels.

    Args:
        view: Which features.
        plan: How history is cut, as of now.

    Raises:
        InvalidInput: Nothing labelled is mature.
        Transient: The database cannot be reached now.
        SettingsError: The twin's settings cannot be used.
    """
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_training_data import SETTINGS, PostgresTrainingData  # noqa: PLC0415

    named = any(key == DATABASE or key.startswith(f"{DATABASE}__") for key in os.environ)
    given = os.environ if named else {DATABASE: TwinSettings.read(os.environ).database_dsn()}
    with closing(PostgresSession(parse_postgres(DATABASE, given), "tollgate train", SETTINGS)) as session:
        return read_history(PostgresTrainingData(session), plan, [view])
