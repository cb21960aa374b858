"""The deployed score app under the twin's host: each champion brings the shadow price that was fitted to its scores."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files
from tests.integration.score_app import Models, fields, login, running, settings


def test_a_champion_brings_its_price_and_older_decisions_keep_theirs(
    tmp_path: Path, migrated_database: MigratedDatabase, storage: str
) -> None:
    models = Models(storage)
    first = models.promote(golden_files("format-2"))
    asked = {"POLICY": "expected-loss-v1", "REVIEWS_PER_DAY": "1", "REVIEW_SHADOW_PRICE_MINOR": "77"}
    with running(tmp_path, settings(storage, login(migrated_database), models.name, **asked)) as app:
        app.serves(first)
        told = app.host.get("/api/models").json()["serving"]
        assert (told["policy_from"], told["policy_note"]) == ("bundle", "")
        assert told["policy"]["review_shadow_price_minor"] == 403
        sent = fields(amount_minor=9_000)
        decided = app.score(sent)
        assert decided.json()["policy"] == told["policy"]
        second = models.promote(golden_files("format-1"))
        app.serves(second)
        told = app.host.get("/api/models").json()["serving"]
        assert (told["policy_from"], told["policy_note"]) == ("settings", "the bundle has no shadow price")
        assert app.score(fields()).json()["policy"] == {**decided.json()["policy"], "review_shadow_price_minor": 77}
        assert app.score(sent).body == decided.body
        replayed = app.host.get(f"/api/decisions/{sent['transaction_id']}?replay=true").json()
        assert replayed["replay"]["verdict"] == "equal"
        assert replayed["policy"] == decided.json()["policy"]
    models.close()
