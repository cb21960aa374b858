"""The one error of the simulator: it was asked for something that makes no sense."""

from __future__ import annotations


class BadOrder(ValueError):
    """A setting, a change or a range of days that breaks its rule; the message names it."""


def check(holds: bool, field: str, rule: str) -> None:
    """Refuse a setting that breaks its rule.

    Raises:
        BadOrder: `holds` is false.
    """
    if not holds:
        raise BadOrder(f"{field} {rule}")
