"""The shapes of bodies and answers, for the interface description; what is accepted is decided by `shared.domain`.

Requests are read without these classes (that would cost more than deciding does); tests hold the two together: whatever
fits a shape is accepted by the domain or refused with the rule that a schema cannot say.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.identifiers import MAX_IDENTIFIER_LENGTH
from shared.domain.transaction import MAX_AMOUNT_MINOR, TRANSACTION_TYPE

_ID_PATTERN = r"^[!-~]+$"

Identifier = Annotated[str, Field(min_length=1, max_length=MAX_IDENTIFIER_LENGTH, pattern=_ID_PATTERN)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Outcome = Literal["approve", "review", "decline"]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Transaction(_Shape):
    """One card payment attempt."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "transaction_id": "t-0001",
                    "customer_id": "c-17",
                    "terminal_id": "m-4",
                    "amount_minor": 1250,
                    "currency": "EUR",
                    "event_time": "2026-11-21T10:15:30.000001Z",
                }
            ]
        }
    )

    transaction_id: Identifier = Field(
        description="Idempotency key, chosen by the sender; it must say nothing about a person."
    )
    customer_id: Identifier = Field(description="Whose card.")
    terminal_id: Identifier = Field(description="Where.")
    amount_minor: int = Field(ge=1, le=MAX_AMOUNT_MINOR, description="Amount in minor units: 1250 is 12.50.")
    currency: str = Field(pattern="^[A-Z]{3}$", description="The deployment's reference currency, ISO 4217.")
    event_time: str = Field(
        json_schema_extra={"format": "date-time"},
        description="When it happened at the source: RFC 3339 with an offset, no finer than a microsecond, at most "
        "5 minutes ahead of and 7 days behind the server's clock.",
    )
    type: Literal["tollgate.transaction"] = Field(default=TRANSACTION_TYPE, description="May be left out.")


class Transactions(_Shape):
    """Up to a thousand transactions; each is answered on its own."""

    transactions: list[Transaction] = Field(min_length=1, max_length=1000)


class Reason(_Shape):
    """Why a score is as high as it is."""

    code: str = Field(description="Stable; never reused for another meaning.")
    text: str
    feature: str
    value: float | None = Field(description="The feature's value; null if there was nothing to compute it from.")
    contribution: float = Field(description="How much it raised the model's output, in log-odds.")


class Model(_Shape):
    """Which model."""

    name: str
    version: int
    digest: Digest


class FixedPolicy(_Shape):
    """From score to decision by two thresholds."""

    name: Literal["fixed-v1"]
    review_threshold: float
    decline_threshold: float


class ExpectedLossPolicy(_Shape):
    """From score and amount to the decision that is expected to cost least; costs in minor units."""

    name: Literal["expected-loss-v1"]
    review_cost_minor: int
    decline_margin_bp: int = Field(description="Share of the amount that a wrong decline costs, basis points.")
    goodwill_cost_minor: int = Field(description="What a wrong decline costs beside that.")
    declines: bool = Field(description="Whether declining may be chosen.")
    review_shadow_price_minor: int = Field(description="What a review must save beyond its cost.")


class RuleHit(_Shape):
    """A rule that applied."""

    rule_id: str
    outcome: Outcome


class Rules(_Shape):
    """The rule set it went through."""

    version: str
    hits: list[RuleHit]


class Decision(_Shape):
    """A durable decision; the same bytes for the same transaction at any time."""

    transaction_id: str
    event_time: str
    decision: Outcome
    score: float = Field(ge=0, le=1, description="Calibrated probability of fraud.")
    raw_score: float = Field(ge=0, le=1, description="The model's output before calibration.")
    reasons: list[Reason] = Field(description="Ranked, strongest first; what lowered the score is no reason.")
    others: float = Field(description="All other contributions; with base and reasons they make the raw score's logit.")
    base: float = Field(description="The model's output for nothing known, in log-odds.")
    model: Model
    policy: FixedPolicy | ExpectedLossPolicy
    rules: Rules
    late_for: list[Literal["customer", "terminal"]] = Field(
        description="Whose state it came too late for; what lay before it was decided without."
    )


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = Field(default=None, description="The offending field; empty for the body as a whole.")
    rule: str | None = Field(default=None, description="The rule it breaks.")


class Decided(_Shape):
    """An item that has a decision."""

    status: Literal[200]
    replayed: bool = Field(description="Whether it was decided before, or earlier in this request.")
    decision: Decision


class Refused(_Shape):
    """An item that has none."""

    status: int = Field(ge=400)
    problem: Problem
    transaction_id: str | None = None


class Results(_Shape):
    """One verdict for each transaction, in their order."""

    results: list[Decided | Refused]


class EntityRead(_Shape):
    """An entity as the decision knew it."""

    surrogate: str
    version: int = Field(ge=0, description="It knew the entity's events up to this one.")


class Difference(_Shape):
    """A field that came out otherwise."""

    field: str
    stored: str
    replayed: str


class Replay(_Shape):
    """The decision, decided again from its stored vector and the bundle it names."""

    verdict: Literal["equal", "different", "unchecked"]
    obstacle: str = Field(description="Why it could not be checked; empty if it could.")
    differences: list[Difference]


class KnownDecision(Decision):
    """All that a decision knew."""

    amount_minor: int
    currency: str
    customer: EntityRead
    terminal: EntityRead
    view: str
    features: dict[str, float | None]
    fingerprint: Digest
    replay: Replay | None = None


class ServedModel(Model):
    """The model that this process decides with."""

    view: str
    base: float
    fingerprint: Digest
    policy: FixedPolicy | ExpectedLossPolicy
    policy_from: Literal["settings", "bundle"] = Field(
        description="Who says the policy's thresholds, or its shadow price of capacity."
    )
    policy_note: str = Field(
        description="Why the bundle's shadow price does not hold although a capacity is set; empty if all is well."
    )


class RoleState(_Shape):
    """Who plays a role, and since when."""

    role: Literal["champion", "challenger", "shadow"]
    digest: Digest | None = Field(description="Null for nobody.")
    name: str | None
    version: int | None
    since: str = Field(description="When it was given, RFC 3339 UTC.")
    refused: str = Field(description="Why this process does not use the bundle; empty if it does or would.")


class GivenRole(RoleState):
    """Also who gave it, and why."""

    by: str = Field(description="Who gave it.")
    reason: str = Field(description="Why.")


class Models(_Shape):
    """Which model decides, and what the pointers in storage say."""

    serving: ServedModel | None
    problem: str = Field(description="Why there is no other or newer one; empty if all is well.")
    roles: list[RoleState] | None = Field(description="Roles that were ever given; null while storage is away.")


class GivenRoles(_Shape):
    """Who plays which role, who gave it to them, and why."""

    problem: str = Field(description="Why the roles cannot be read; empty if all is well.")
    roles: list[GivenRole] | None = Field(description="Roles that were ever given; null while storage is away.")


class Live(_Shape):
    """The process answers."""

    status: Literal["live"]


class DependencyState(_Shape):
    """One thing that the app needs."""

    name: str
    usable: bool
    problem: str


class Ready(_Shape):
    """Everything can be used."""

    status: Literal["ready"]
    dependencies: list[DependencyState]


class Status(_Shape):
    """One worker process at this moment."""

    process_id: int
    model: ServedModel | None
    problem: str
    waiting: int
    in_flight: int
