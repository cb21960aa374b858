"""Tokens: their claims, and that everyone has the same one until it is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
import pytest
from azure.identity._constants import DEFAULT_REFRESH_OFFSET

from tests.identity.servers import ISSUER, TENANT
from twin.identity import signing
from twin.identity.config import Identity
from twin.identity.tokens import Issuer, margin_s

if TYPE_CHECKING:
    from pathlib import Path

SCORE = Identity("score", "0d0e2b5c-6f0c-4f7e-9d36-3c1c5c7e0a01", "9a1f5f0e-1f55-4a6e-8a53-1b8a0f3d2c01")
OTHER = Identity("other", "0d0e2b5c-6f0c-4f7e-9d36-3c1c5c7e0a02", "9a1f5f0e-1f55-4a6e-8a53-1b8a0f3d2c02")
STORAGE = "https://storage.azure.com"
NOW = 1_790_000_000.5


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> signing.SigningKey:
    return signing.ensure(tmp_path_factory.mktemp("key"))


def issuer(key: signing.SigningKey, lifetime_s: int = 3600) -> Issuer:
    return Issuer(signing.load_private(key.private), ISSUER, TENANT, lifetime_s)


def claims(key: signing.SigningKey, text: str) -> dict[str, Any]:
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    return jwt.decode(text, key.public.read_bytes(), ["RS256"], audience=STORAGE, issuer=ISSUER, options=options)


def test_the_claims_are_those_of_entra(key: signing.SigningKey) -> None:
    token = issuer(key).token(SCORE, STORAGE, NOW)
    found = claims(key, token.text)
    assert found["exp"] - found["iat"] == 3600
    assert (found["iat"], found["exp"]) == (token.issued_at, token.expires_on)
    assert found["nbf"] <= NOW < found["exp"] - 300
    del found["iat"], found["nbf"], found["exp"], found["uti"]
    assert found == {
        "aud": STORAGE,
        "iss": ISSUER,
        "idp": ISSUER,
        "appid": SCORE.client_id,
        "appidacr": "2",
        "idtyp": "app",
        "oid": SCORE.object_id,
        "sub": SCORE.object_id,
        "tid": TENANT,
        "ver": "1.0",
    }
    assert jwt.get_unverified_header(token.text)["kid"]


@pytest.mark.parametrize("lifetime_s", [4, 30, 600, 3600, 86_400])
def test_a_token_is_replaced_exactly_when_clients_stop_using_it(key: signing.SigningKey, lifetime_s: int) -> None:
    source = issuer(key, lifetime_s)
    first = source.token(SCORE, STORAGE, NOW)
    replaced_at = first.expires_on - margin_s(lifetime_s)
    assert source.token(SCORE, STORAGE, replaced_at - 0.001) == first
    second = source.token(SCORE, STORAGE, replaced_at)
    assert second.issued_at == replaced_at
    assert second.text != first.text


def test_a_restarted_endpoint_hands_out_the_same_token(key: signing.SigningKey) -> None:
    assert issuer(key).token(SCORE, STORAGE, NOW).text == issuer(key).token(SCORE, STORAGE, NOW + 1).text


def test_each_identity_and_resource_has_its_own(key: signing.SigningKey) -> None:
    source = issuer(key)
    texts = {source.token(who, what, NOW).text for who in (SCORE, OTHER) for what in (STORAGE, "https://x.test")}
    assert len(texts) == 4


def test_the_margin_is_that_of_azure_identity() -> None:
    assert margin_s(3600) == DEFAULT_REFRESH_OFFSET == 300
    assert margin_s(10) == 5


def test_a_token_is_not_in_its_repr(key: signing.SigningKey) -> None:
    token = issuer(key).token(SCORE, STORAGE, NOW)
    assert token.text not in repr(token)


def test_the_signing_key_is_private_made_once_and_made_again_when_damaged(tmp_path: Path) -> None:
    made = signing.ensure(tmp_path)
    first = made.private.read_bytes()
    assert made.private.stat().st_mode & 0o777 == 0o600
    made.public.unlink()
    signing.ensure(tmp_path)
    assert made.private.read_bytes() == first
    assert made.public.read_bytes() == signing.public_pem(signing.load_private(made.private))
    made.private.write_bytes(first[:100])
    signing.ensure(tmp_path)
    assert made.private.read_bytes() != first
    assert made.public.read_bytes() == signing.public_pem(signing.load_private(made.private))
