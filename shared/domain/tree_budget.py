"""How large a model may be: exact reasons for every decision cost time and memory that grow with trees and depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.domain.errors import BrokenInvariant


@dataclass(frozen=True, slots=True)
class TreeBudget:
    """What a bundle may cost.

    Attributes:
        max_trees: Trees.
        max_depth: Tests on a path.
        max_table_bytes: Bytes of the tables of reasons, in memory as on disk.
    """

    max_trees: int
    max_depth: int
    max_table_bytes: int

    def check(self, n_trees: int, depth: int, table_bytes: int) -> None:
        """Refuse a model that costs more.

        Raises:
            BrokenInvariant: Says what and by how much.
        """
        for what, value, limit in (
            ("trees", n_trees, self.max_trees),
            ("levels of depth", depth, self.max_depth),
            ("bytes of tables", table_bytes, self.max_table_bytes),
        ):
            if value > limit:
                raise BrokenInvariant(f"the model is over budget: {value:,} {what}, at most {limit:,}")


TREE_BUDGET: Final = TreeBudget(max_trees=300, max_depth=6, max_table_bytes=64 << 20)
"""What a scoring app loads (record 0015): the limit that a bundle is refused above."""

TRAINING_TREES: Final = 100
"""Trees that training makes unless told otherwise: what the latency aims of the scoring path were set with."""

TRAINING_DEPTH: Final = 4
"""Their depth: the deepest for which one byte selects a table row, see `tree_tables`."""
