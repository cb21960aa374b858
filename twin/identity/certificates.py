"""A certificate authority of this checkout and the server certificate it signs, for loopback names only.

Everything is made once in a folder and kept; what is near its end, damaged or does not fit together is made again.
The authority is constrained to loopback names, so that its key is worth nothing against any other host, and it is
never installed in the system: processes that should trust it are told by environment variables.

P-256 keys, because OpenSSL (Python, Node, libpq) and .NET all take them. Python 3.13 verifies strictly
(`VERIFY_X509_STRICT`): that is why the key identifiers and critical flags of RFC 5280 are all there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twin.identity import files

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY_LIFE: Final = timedelta(days=1825)
# CA/Browser Forum's limit, which Apple's clients enforce also for private authorities.
SERVER_LIFE: Final = timedelta(days=397)
RENEW_BEFORE: Final = timedelta(days=30)
HOST_NAME: Final = "localhost"
ADDRESSES: Final = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
# Clocks of containers and virtual machines may lag behind.
_BACKDATE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of one authority and its server certificate, all PEM.

    Attributes:
        authority: The authority's certificate alone.
        certificate: The server's certificate.
        key: The server's key, mode 0600.
        bundle: Public roots and our authority: with it a process trusts the twin and the rest of the world.
    """

    authority: Path
    certificate: Path
    key: Path
    bundle: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(folder: Path, now: datetime, roots: Path | None = None) -> Certificates:
    """Return the folder's certificates; make or renew what is missing, damaged or within 30 days of its end.

    Idempotent. A renewed server certificate of the same authority needs a restart of the servers only; a renewed
    authority (every five years) also one of its clients.

    Args:
        folder: Where the files are; made if missing.
        now: Aware time.
        roots: File of the roots to trust besides ours, such as a company's `SSL_CERT_FILE`; certifi's unless given.

    Raises:
        OSError: `roots` cannot be read, or the folder cannot be written.
    """
    authority = _load(folder / "ca.pem", folder / "ca-key.pem")
    if authority is None or _is_near_end(authority.certificate, now):
        authority = _make_authority(now)
        _store(authority, folder / "ca.pem", folder / "ca-key.pem")
    server = _load(folder / "server.pem", folder / "server-key.pem")
    if server is None or _is_near_end(server.certificate, now) or not _is_signed_by(server.certificate, authority):
        server = _make_server(authority, now)
        _store(server, folder / "server.pem", folder / "server-key.pem")
    _write_bundle(folder / "bundle.pem", authority, roots)
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server-key.pem", folder / "bundle.pem")


def trust_environment(certificates: Certificates) -> dict[str, str]:
    """Return the environment variables that make the usual clients trust the twin's servers.

    * `REQUESTS_CA_BUNDLE`: requests, so the synchronous Azure SDKs and MSAL;
    * `SSL_CERT_FILE`: Python's `ssl` defaults, so aiohttp and the asynchronous Azure SDKs (read once, at import);
    * `PGSSLROOTCERT`: libpq, so psycopg and psql;
    * `NODE_EXTRA_CA_CERTS`: Node, in addition to its own roots.

    Each replaces what the user may have set; therefore `ensure` takes the user's roots into the bundle.

    The Event Hubs SDK reads none of them: it has to be given `connection_verify=bundle`.
    """
    bundle = str(certificates.bundle)
    return dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PGSSLROOTCERT", "NODE_EXTRA_CA_CERTS"), bundle)


def _make_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own for each authority: a client that still has the old one says "unknown", not "bad signature".
    name = _name(f"Tollgate twin {x509.random_serial_number():x}"[:40])
    loopback = [x509.IPAddress(ipaddress.ip_network(address)) for address in ADDRESSES]
    builder = (
        _builder(name, key, now, AUTHORITY_LIFE)
        .issuer_name(name)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(HOST_NAME), *loopback], None), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _make_server(authority: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(HOST_NAME), *(x509.IPAddress(address) for address in ADDRESSES)]
    issuer_key = authority.key.public_key()
    builder = (
        _builder(_name(HOST_NAME), key, now, min(SERVER_LIFE, authority.certificate.not_valid_after_utc - now))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    """Return what authority and server certificates have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load(certificate_file: Path, key_file: Path) -> _Pair | None:
    """Return a stored pair, or None when a file is missing or damaged or the two do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return _Pair(certificate, key)


def _store(pair: _Pair, certificate_file: Path, key_file: Path) -> None:
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.write(key_file, key, files.PRIVATE)
    files.write(certificate_file, pair.certificate.public_bytes(serialization.Encoding.PEM), files.PUBLIC)


def _write_bundle(path: Path, authority: _Pair, roots: Path | None) -> None:
    """Write roots and authority, unless they are there already: certifi moves on with its releases."""
    # A process that we started may start us again, with our own bundle as its roots: it must not grow each time.
    given = (
        roots.read_bytes() if roots is not None and roots.resolve() != path.resolve() else certifi.contents().encode()
    )
    content = given.rstrip() + b"\n\n" + authority.certificate.public_bytes(serialization.Encoding.PEM)
    if not path.exists() or path.read_bytes() != content:
        files.write(path, content, files.PUBLIC)


def _is_near_end(certificate: x509.Certificate, now: datetime) -> bool:
    return not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _is_signed_by(certificate: x509.Certificate, authority: _Pair) -> bool:
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
