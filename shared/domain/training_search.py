"""Which parameters are tried: a list that a seed draws, so that the same number of trials is the same search.

Random draws find a good point in few trials where only some of the parameters matter (Bergstra and Bengio, "Random
search for hyper-parameter optimization", 2012). The first trial is what is used without a search, so a search is never
worse on the rows that it chooses by. Trees and depth stay: they are what a decision may cost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from shared.domain.training_model import TrainingParameters

MAX_TRIALS: Final = 100

_LEARNING_RATES: Final = (0.08, 0.30)
_LEAF_WEIGHTS: Final = (3.0, 10.0, 30.0, 100.0)
_PENALTIES: Final = (0.3, 1.0, 3.0, 10.0)
_CLASS_WEIGHTS: Final = (1.0, 1.0, 3.0, 10.0)
"""How many genuine transactions a fraud counts for. 1 twice: weighing rarely helps boosted trees that rank."""


def candidate(base: TrainingParameters, trial: int) -> TrainingParameters:
    """The parameters of a trial; those of one trial do not depend on how many there are.

    >>> candidate(TrainingParameters(), 0) == TrainingParameters()
    True
    >>> candidate(TrainingParameters(), 3) == candidate(TrainingParameters(), 3)
    True

    Args:
        base: What is used without a search, and the seed.
        trial: From 0.
    """
    if trial == 0:
        return base
    rng = np.random.default_rng([base.seed, trial])
    low, high = np.log(_LEARNING_RATES)
    return replace(
        base,
        learning_rate=round(float(np.exp(rng.uniform(low, high))), 4),
        min_child_weight=float(rng.choice(_LEAF_WEIGHTS)),
        l2=float(rng.choice(_PENALTIES)),
        class_weight=float(rng.choice(_CLASS_WEIGHTS)),
    )
