"""The command `tollgate policy`: what a shadow price of reviews comes to, by what a model said of the newest days.

Which deployment: as for `tollgate models`. Costs, capacity and the price in force are those of the environment where it
names them, else the twin's.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from shared.domain.bundle_manifest import read_manifest
from shared.domain.bundle_pointer import Role
from shared.domain.cost_policy import MAX_REVIEWS_PER_DAY, CostPolicy
from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY, format_instant, parse_instant
from shared.domain.policy_choice import Advice, Origin, PolicyRule
from shared.settings import PolicySettings
from twin.feed_connections import DATABASE, say, told
from twin.models import SHORT, model_environment, throne_of
from twin.services.app_settings import own_settings, with_keys
from twin.services.settings import TwinSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shared.services.policy_fitting import ScoredDays

app = typer.Typer(help="Policies: how many reviews a shadow price comes to.", no_args_is_help=True)

SETTING: Final = "REVIEW_SHADOW_PRICE_MINOR"

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class CommandSettings(PolicySettings):
    """What the commands read: how the apps that decide are told to; where anything is, others say."""

    connections: ClassVar[tuple[str, ...]] = ()


def policy_settings(environment: dict[str, str] | None = None) -> CommandSettings:
    """How the apps that decide are told to: by the environment, else by the twin.

    Args:
        environment: Values above all of that, by name.

    Raises:
        SettingsError: A value is malformed, or settings of the twin cannot be used.
    """
    twin = TwinSettings.read(os.environ)
    values = {**with_keys("score", twin), **own_settings("score", twin), **os.environ, **(environment or {})}
    return CommandSettings.read({name: values[name] for name in CommandSettings.names() & values.keys()})


@app.command()
def fit(
    *,
    reviews_per_day: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_REVIEWS_PER_DAY, help="Reviews on an average day; REVIEWS_PER_DAY by default."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", help="Digest of a model that decided or scored in shadow; the champion.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="The newest whole days (UTC) to look at.")] = 14,
    until: Annotated[str | None, typer.Option("--until", help="Days before this one (UTC); today by default.")] = None,
    price: Annotated[
        list[int] | None, typer.Option("--price", min=0, help="Show what this price comes to as well, minor units.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object, with every day.")] = False,
) -> None:
    """Fit the price of so many reviews a day to what a model said of the newest days; nothing is changed by it."""
    with told():
        settings = policy_settings({} if reviews_per_day is None else {"REVIEWS_PER_DAY": str(reviews_per_day)})
        digest, advice, found = _read(bundle, _midnight_us(until), days)
        policies = _compared(settings, advice, found, price or [])
    reviews = {name: found.reviews(policy) for name, policy in policies.items()}
    if as_json:
        say(
            json.dumps(
                {
                    "model": digest,
                    "days": [format_instant(start_us)[:10] for start_us in found.starts_us],
                    "decisions": len(found.day),
                    "prices": [
                        {"of": name, "price": policies[name].shadow_price_minor, "reviews": counts.tolist()}
                        for name, counts in reviews.items()
                    ],
                }
            )
        )
        return
    first, last = (format_instant(found.starts_us[place])[:10] for place in (0, -1))
    say(f"{digest[:SHORT]}: {len(found.starts_us)} whole days from {first} to {last}, {len(found.day):,} decisions")
    Console(highlight=False).print(_shown(policies, reviews))
    configured = CostPolicy(settings.costs, settings.review_shadow_price_minor)
    choice = PolicyRule(configured, settings.capacity).choice(advice)
    whose = "the bundle's" if choice.origin is Origin.BUNDLE else SETTING
    say(f"with these settings expected-loss-v1 takes {whose}" + (f": {choice.why}" if choice.why else ""))


def _midnight_us(day: str | None) -> int:
    """The beginning of a day, microseconds since 1970 UTC; of today if none is named."""
    if day is None:
        return time.time_ns() // 1000 // US_PER_DAY * US_PER_DAY
    if _DAY.fullmatch(day) is None:
        raise InvalidInput("--until", "must be a day such as 2026-11-01")
    return parse_instant("--until", f"{day}T00:00:00Z")


def _read(bundle: str | None, until_us: int, days: int) -> tuple[str, Advice, ScoredDays]:
    """The model, what its bundle says of policies, and its days."""
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415 - commands import what they use
    from shared.adapters.postgres_scores import SESSION, PostgresModelScores  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from shared.services.policy_fitting import scored_days  # noqa: PLC0415

    with throne_of() as (throne, store):
        digest = store.pointer(Role.CHAMPION).digest if bundle is None else throne.find(bundle)
        if digest is None:
            raise InvalidInput("--bundle", "must be given: nobody is champion")
        advice = Advice.of(read_manifest(store.manifest(digest)))
    where = parse_postgres(DATABASE, model_environment())
    with closing(PostgresSession(where, "tollgate-policy", SESSION)) as session:
        return digest, advice, scored_days(PostgresModelScores(session), digest, until_us=until_us, n_days=days)


def _compared(settings: PolicySettings, advice: Advice, found: ScoredDays, prices: list[int]) -> dict[str, CostPolicy]:
    """What a table compares, by name: all at the costs of the settings, whichever policy is in force."""
    costs, capacity, fitted = settings.costs, settings.capacity, advice.capacity
    policies = {"no limit": CostPolicy(costs), SETTING: CostPolicy(costs, settings.review_shadow_price_minor)}
    if fitted is not None:
        name = f"the bundle's, for {fitted.capacity.reviews_per_day} a day"
        policies[name] = CostPolicy(costs, fitted.policy.shadow_price_minor)
    if capacity is not None:
        policies[f"fitted, for {capacity.reviews_per_day} a day"] = found.fitted(capacity)
    return {**policies, **{f"--price {price}": CostPolicy(costs, price) for price in prices}}


def _shown(policies: dict[str, CostPolicy], reviews: dict[str, NDArray[np.intp]]) -> Table:
    """A row for each price: reviews on the average day, and how days differ."""
    table = Table(box=None, pad_edge=False)
    for heading in ("shadow price", "minor units", "reviews a day", "least", "median", "most"):
        table.add_column(heading, justify="left" if heading == "shadow price" else "right")
    for name, counts in reviews.items():
        figures = (f"{counts.mean():.1f}", f"{counts.min()}", f"{np.median(counts):g}", f"{counts.max()}")
        table.add_row(name, f"{policies[name].shadow_price_minor:,}", *figures)
    return table
