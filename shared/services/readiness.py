"""Whether an app can serve, and what is missing when it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain.errors import TollgateError
from shared.ports.models import Scorers
from shared.ports.probes import Dependency


@dataclass(frozen=True, slots=True)
class DependencyState:
    """One dependency at one moment; `problem` is empty when it can be used."""

    name: str
    problem: str

    @property
    def usable(self) -> bool:
        """Whether the app can use it."""
        return not self.problem


class ChampionDependency:
    """Usable when there is a model that decides."""

    name = "champion"

    def __init__(self, scorers: Scorers) -> None:
        self._scorers = scorers

    def check(self) -> None:
        """Ask for it.

        Raises:
            Transient: There is none, with the reason.
        """
        self._scorers.current()


def check(dependencies: Sequence[Dependency]) -> list[DependencyState]:
    """Ask every dependency, in the order given; one that fails does not keep the others from being asked."""
    return [DependencyState(dependency.name, _problem(dependency)) for dependency in dependencies]


def _problem(dependency: Dependency) -> str:
    try:
        dependency.check()
    except TollgateError as error:
        return str(error) or type(error).__name__
    return ""
