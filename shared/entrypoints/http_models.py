"""Which model decides, over HTTP; and what an operator may ask of a worker process."""

from __future__ import annotations

import os
from typing import Protocol

import azure.functions as func

from shared.domain.errors import Transient
from shared.entrypoints.problems import json_response
from shared.entrypoints.wire_decision import Document
from shared.ports.models import Scorer, Scorers
from shared.services.batching import Batching


class ModelSource(Scorers, Protocol):
    """Where the deciding model comes from, and what is the matter with it."""

    @property
    def problem(self) -> str:
        """Why there is no model, or why a newer one was refused; empty if all is well."""
        ...

    def refresh(self) -> bool:
        """Look for another champion now and load it; what goes wrong becomes `problem`."""
        ...


def models(source: ModelSource) -> func.HttpResponse:
    """`GET /api/models`: 200 also while there is none; what is missing is told."""
    return json_response({"serving": _serving(source), "problem": source.problem})


def status(source: ModelSource, batching: Batching) -> func.HttpResponse:
    """`GET /api/manage/status`: one worker process at this moment."""
    return json_response(
        {
            "process_id": os.getpid(),
            "model": _serving(source),
            "problem": source.problem,
            "waiting": batching.waiting,
            "in_flight": batching.in_flight,
        }
    )


def reload(source: ModelSource, batching: Batching) -> func.HttpResponse:
    """`POST /api/manage/reload`: this process looks for a new champion now; the others do at their next poll."""
    source.refresh()
    return status(source, batching)


def _serving(source: ModelSource) -> Document | None:
    try:
        scorer: Scorer = source.current()
    except Transient:
        return None
    return {
        "name": scorer.name,
        "version": scorer.version,
        "digest": scorer.bundle_digest,
        "view": scorer.view.name,
        "base": scorer.base,
        "fingerprint": scorer.fingerprint.hex(),
    }
