"""Dead letters in two places: the authority, which has to take them, and a copy, which should."""

from __future__ import annotations

import logging

from shared.domain.errors import TollgateError
from shared.domain.event import DeadLetter
from shared.ports.letters import DeadLetters

_log = logging.getLogger(__name__)


class CopiedDeadLetters:
    """Puts a letter into the authority, then a copy elsewhere; a copy that fails is logged and nothing more."""

    def __init__(self, authority: DeadLetters, copies: DeadLetters) -> None:
        self._authority = authority
        self._copies = copies

    def put(self, letter: DeadLetter) -> None:
        """Keep a dead letter.

        Raises:
            TollgateError: The authority cannot keep it; the event must not be acknowledged.
        """
        self._authority.put(letter)
        try:
            self._copies.put(letter)
        except TollgateError:
            _log.warning("a dead letter was kept but not copied", exc_info=True)
