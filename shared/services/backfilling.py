"""Which feature views may decide: those whose entity state is complete.

Entity state is kept once for each customer and terminal, under the name and horizon of one feature view, and a reader
of another view refuses it (record 0025). So there is nothing to fill beside it: the one view that state is folded for
is complete by definition, and a bundle of any other is refused before it can become champion, and again where it would
be loaded.
"""

from __future__ import annotations

from typing import Final

from shared.domain.feature_view import CARD_V1

COMPLETE_VIEWS: Final = frozenset({CARD_V1.name})
"""Names of the feature views that entity state is complete for."""
