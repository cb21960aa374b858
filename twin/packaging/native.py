"""Native modules: can the cloud's Python load them.

The header fields are those of the ELF specification; the file-name tags those of PEP 3149 and PEP 384.
"""

from __future__ import annotations

import re

from twin.packaging.policy import GLIBC

_ELF = b"\x7fELF"
_CLASS_64 = 2
_LITTLE_ENDIAN = 1
_MACHINE_X86_64 = 62
_FOREIGN = {b"MZ": "Windows", b"\xcf\xfa\xed\xfe": "macOS", b"\xca\xfe\xba\xbe": "macOS"}
_FOREIGN_SUFFIXES = (".pyd", ".dll", ".dylib")
_SHARED_OBJECT = re.compile(r"\.so(\.[0-9.]+)?$")
_TAG = re.compile(r"\.(?P<tag>[a-z]+-?[0-9]*[a-z0-9_-]*|abi3)\.so$")
_LOADABLE_TAGS = ("cpython-313-x86_64-linux-gnu", "abi3")
_GLIBC_VERSION = re.compile(rb"GLIBC_(\d+)\.(\d+)(?:\.\d+)?\x00")


def native_problem(path: str, content: bytes) -> str | None:
    """Why the platform could not load this file, or None; files that are not native are fine.

    Looks at the magic bytes, word size, byte order, machine, the tag in the name and the newest glibc symbol version.
    """
    name = path.rpartition("/")[2]
    for magic, system in _FOREIGN.items():
        if content.startswith(magic) and (name.endswith(_FOREIGN_SUFFIXES) or _SHARED_OBJECT.search(name)):
            return f"is a library for {system}"
    if name.endswith(_FOREIGN_SUFFIXES):
        return "is a library for another system"
    if not content.startswith(_ELF):
        return "is named like a library and is none" if name.endswith(".so") else None
    return _header_problem(content) or _tag_problem(name) or _glibc_problem(content)


def _header_problem(content: bytes) -> str | None:
    if len(content) < 20:
        return "is a truncated library"
    machine = int.from_bytes(content[18:20], "little")
    if (content[4], content[5], machine) != (_CLASS_64, _LITTLE_ENDIAN, _MACHINE_X86_64):
        return f"is not built for x86_64 (ELF class {content[4]}, machine {machine})"
    return None


def _tag_problem(name: str) -> str | None:
    tag = _TAG.search(name)
    if tag is not None and tag["tag"] not in _LOADABLE_TAGS:
        return f"is built for {tag['tag']}, not for {_LOADABLE_TAGS[0]}"
    return None


def _glibc_problem(content: bytes) -> str | None:
    needed = max(((int(major), int(minor)) for major, minor in _GLIBC_VERSION.findall(content)), default=(0, 0))
    if needed > GLIBC:
        return f"needs glibc {needed[0]}.{needed[1]}, newer than {GLIBC[0]}.{GLIBC[1]}"
    return None
