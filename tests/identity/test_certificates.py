"""The authority and what it signs: made once, renewed in time, private, and good for loopback only."""

from __future__ import annotations

import http.server
import ssl
import stat
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from twin.identity import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from twin.identity.certificates import Certificates

NOW = datetime.now(UTC)


def content(made: Certificates) -> tuple[bytes, bytes]:
    return made.authority.read_bytes(), made.certificate.read_bytes()


@pytest.fixture
def https_port(tls: Certificates) -> Iterator[int]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_strict_verification_accepts_the_loopback_names(tls: Certificates, https_port: int, host: str) -> None:
    context = ssl.create_default_context(cafile=str(tls.bundle))
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    with urllib.request.urlopen(f"https://{host}:{https_port}/", context=context, timeout=10) as response:
        assert response.status == 204


def test_public_roots_alone_do_not_trust_it(https_port: int) -> None:
    context = ssl.create_default_context(cafile=certifi.where())
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://localhost:{https_port}/", context=context, timeout=10)


def test_they_are_made_once(tmp_path: Path) -> None:
    first = certificates.ensure(tmp_path, NOW)
    before = content(first)
    assert content(certificates.ensure(tmp_path, NOW + timedelta(days=300))) == before


def test_the_server_certificate_is_renewed_before_its_end_and_the_authority_stays(tmp_path: Path) -> None:
    authority, server = content(certificates.ensure(tmp_path, NOW))
    later = NOW + certificates.SERVER_LIFE - timedelta(days=29)
    renewed = certificates.ensure(tmp_path, later)
    assert renewed.authority.read_bytes() == authority
    assert renewed.certificate.read_bytes() != server
    ends = x509.load_pem_x509_certificate(renewed.certificate.read_bytes()).not_valid_after_utc
    assert ends > later + timedelta(days=300)


def test_a_renewed_authority_renews_all_and_stays_in_the_bundle_alone(tmp_path: Path) -> None:
    old = content(certificates.ensure(tmp_path, NOW))
    made = certificates.ensure(tmp_path, NOW + certificates.AUTHORITY_LIFE - timedelta(days=29))
    new = content(made)
    assert old[0] != new[0]
    assert old[1] != new[1]
    assert new[0] in made.bundle.read_bytes()
    assert old[0] not in made.bundle.read_bytes()


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"])
@pytest.mark.parametrize("damage", ["missing", "torn", "foreign"])
def test_damaged_files_are_made_again(tmp_path: Path, name: str, damage: str) -> None:
    made = certificates.ensure(tmp_path / "own", NOW)
    other = certificates.ensure(tmp_path / "other", NOW)
    file = made.key.parent / name
    if damage == "missing":
        file.unlink()
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[:80])
    else:
        file.write_bytes((other.key.parent / name).read_bytes())
    again = certificates.ensure(tmp_path / "own", NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(again.certificate, again.key)
    server = x509.load_pem_x509_certificate(again.certificate.read_bytes())
    server.verify_directly_issued_by(x509.load_pem_x509_certificate(again.authority.read_bytes()))
    assert again.authority.read_bytes() in again.bundle.read_bytes()


def test_keys_are_private(tmp_path: Path) -> None:
    made = certificates.ensure(tmp_path, NOW)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"ca-key.pem", made.key.name}
    assert len(modes) == 5  # and nothing temporary is left


def test_the_bundle_keeps_the_users_own_roots_and_does_not_grow(tmp_path: Path) -> None:
    roots = tmp_path / "company.pem"
    roots.write_text("# the company's roots\n")
    made = certificates.ensure(tmp_path / "tls", NOW, roots)
    assert made.bundle.read_bytes() == b"# the company's roots\n\n" + made.authority.read_bytes()
    again = certificates.ensure(tmp_path / "tls", NOW, made.bundle)
    assert again.bundle.read_bytes().count(made.authority.read_bytes()) == 1
    assert certifi.contents().splitlines()[1].encode() in again.bundle.read_bytes()


def test_every_client_is_told_of_the_same_bundle(tls: Certificates) -> None:
    variables = certificates.trust_environment(tls)
    assert set(variables) == {"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PGSSLROOTCERT", "NODE_EXTRA_CA_CERTS"}
    assert set(variables.values()) == {str(tls.bundle)}


def test_a_stolen_authority_key_is_worth_nothing_elsewhere(tls: Certificates, tmp_path: Path) -> None:
    """OpenSSL refuses a certificate for another name, though our authority signed it: it is constrained."""
    authority = x509.load_pem_x509_certificate(tls.authority.read_bytes())
    signer = serialization.load_pem_private_key((tls.key.parent / "ca-key.pem").read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("login.microsoftonline.com")]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    (tmp_path / "forged.pem").write_bytes(forged.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "forged-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    assert "permitted subtree violation" in handshake_error(tmp_path, tls.bundle, "login.microsoftonline.com")


def handshake_error(folder: Path, roots: Path, name: str) -> str:
    """Shake hands in memory and return the client's reason for refusing."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "forged.pem", folder / "forged-key.pem")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = ssl.create_default_context(cafile=str(roots)).wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return "accepted"
