"""Which model decides, over HTTP; and what an operator may ask of a worker process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import azure.functions as func

from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.instants import format_instant
from shared.domain.policy_choice import PolicyRule
from shared.entrypoints.problems import json_response
from shared.entrypoints.wire_decision import Document
from shared.ports.models import Scorer, Scorers
from shared.services.batching import Batching
from shared.services.succession_roles import RoleState


class Refused(Protocol):
    """A bundle that is not served although it is pointed to."""

    @property
    def digest(self) -> str:
        """Which one."""
        ...

    @property
    def reason(self) -> str:
        """Why, for people."""
        ...


class ModelSource(Scorers, Protocol):
    """Where the deciding model comes from, and what is the matter with it."""

    @property
    def refusal(self) -> Refused | None:
        """The bundle that is pointed to and refused, if it is so."""
        ...

    @property
    def problem(self) -> str:
        """Why there is no model, or why a newer one was refused; empty if all is well."""
        ...

    def refresh(self) -> bool:
        """Look for another champion now and load it; what goes wrong becomes `problem`."""
        ...


class RoleBook(Protocol):
    """Who plays which role."""

    def states(self) -> Sequence[RoleState]:
        """The roles that were ever given, the champion first.

        Raises:
            Transient: The store cannot be reached now.
            BrokenInvariant: A pointer cannot be read.
        """
        ...


def models(source: ModelSource, roles: RoleBook, rule: PolicyRule) -> func.HttpResponse:
    """`GET /api/models`: 200 also while there is none, or while the store is away; what is missing is told."""
    found, problem = _roles(roles, lambda state: _role(state, source))
    return json_response({"serving": _serving(source, rule), "problem": source.problem or problem, "roles": found})


def given_roles(source: ModelSource, roles: RoleBook) -> func.HttpResponse:
    """`GET /api/manage/roles`: also who gave them and why, which names people and is for operators alone."""
    found, problem = _roles(
        roles,
        lambda state: {**_role(state, source), "by": state.pointer.author, "reason": state.pointer.reason},
    )
    return json_response({"problem": problem, "roles": found})


def status(source: ModelSource, batching: Batching, rule: PolicyRule) -> func.HttpResponse:
    """`GET /api/manage/status`: one worker process at this moment."""
    return json_response(
        {
            "process_id": os.getpid(),
            "model": _serving(source, rule),
            "problem": source.problem,
            "waiting": batching.waiting,
            "in_flight": batching.in_flight,
        }
    )


def reload(source: ModelSource, batching: Batching, rule: PolicyRule) -> func.HttpResponse:
    """`POST /api/manage/reload`: this process looks for a new champion now; the others do at their next poll."""
    source.refresh()
    return status(source, batching, rule)


def _roles(roles: RoleBook, told: Callable[[RoleState], Document]) -> tuple[list[Document] | None, str]:
    """The roles, or None and why they cannot be read."""
    try:
        return [told(state) for state in roles.states()], ""
    except (Transient, BrokenInvariant) as error:
        return None, str(error)


def _role(state: RoleState, source: ModelSource) -> Document:
    pointer, refusal = state.pointer, source.refusal
    refused = refusal.reason if refusal is not None and refusal.digest == pointer.digest else state.problem
    return {
        "role": pointer.role.value,
        "digest": pointer.digest,
        "name": state.name,
        "version": state.version,
        "since": format_instant(pointer.changed_at_us),
        "refused": refused,
    }


def _serving(source: ModelSource, rule: PolicyRule) -> Document | None:
    try:
        scorer: Scorer = source.current()
    except Transient:
        return None
    choice = rule.choice(scorer.advice)
    return {
        "name": scorer.name,
        "version": scorer.version,
        "digest": scorer.bundle_digest,
        "view": scorer.view.name,
        "base": scorer.base,
        "fingerprint": scorer.fingerprint.hex(),
        "policy": {"name": choice.policy.name, **choice.policy.parameters},
        "policy_from": choice.origin.value,
        "policy_note": choice.why,
    }
