"""The RSA key that signs tokens. Entra signs with RS256 keys of 2,048 bits, so do we."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from twin.identity import files

if TYPE_CHECKING:
    from pathlib import Path

KEY_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Files of a key pair, PEM: `private` has mode 0600, `public` is for those who check tokens."""

    private: Path
    public: Path


def ensure(folder: Path) -> SigningKey:
    """Return the folder's signing key; make it if missing or damaged. Tokens of a lost key are no longer accepted."""
    files_of_key = SigningKey(folder / "signing-key.pem", folder / "signing-public.pem")
    try:
        key = load_private(files_of_key.private)
    except (FileNotFoundError, ValueError):
        key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        content = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.write(files_of_key.private, content, files.PRIVATE)
    public = public_pem(key)
    if not files_of_key.public.exists() or files_of_key.public.read_bytes() != public:
        files.write(files_of_key.public, public, files.PUBLIC)
    return files_of_key


def load_private(path: Path) -> rsa.RSAPrivateKey:
    """Read an RSA key of at least 2,048 bits.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no such key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:
        raise ValueError("the key is protected by a password") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
        raise ValueError(f"not an RSA key of at least {KEY_BITS} bits")
    return key


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public half as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
