"""Libraries that the cloud's Python could not load are told by their first bytes, name and symbols."""

from __future__ import annotations

import pytest

from twin.packaging.native import native_problem


def elf(*, bits: int = 64, machine: int = 62, symbols: bytes = b"GLIBC_2.17\0") -> bytes:
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    return ident + (3).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(40) + symbols


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a/b.cpython-313-x86_64-linux-gnu.so", elf()),
        ("a/b.abi3.so", elf(symbols=b"GLIBC_2.28\0")),
        ("a.libs/libssl-1f2e.so.3", elf()),
        ("a/lib.so", elf()),
        ("a/text.py", b"MZ = 1"),
        ("a/data.bin", b"\xca\xfe\xba\xbe"),
    ],
)
def test_loadable_files_pass(path: str, content: bytes) -> None:
    assert native_problem(path, content) is None


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("a/b.cpython-312-x86_64-linux-gnu.so", elf(), "built for cpython-312"),
        ("a/b.cpython-313-aarch64-linux-gnu.so", elf(machine=183), "not built for x86_64"),
        ("a/b.cpython-313-x86_64-linux-musl.so", elf(), "linux-musl"),
        ("a/b.cpython-313t-x86_64-linux-gnu.so", elf(), "cpython-313t"),
        ("a/b.abi3.so", elf(machine=183), "not built for x86_64"),
        ("a/b.so", elf(bits=32, machine=3), "not built for x86_64"),
        ("a/b.cpython-313-darwin.so", b"\xcf\xfa\xed\xfe" + bytes(40), "macOS"),
        ("a/b.dylib", b"\xca\xfe\xba\xbe" + bytes(40), "macOS"),
        ("a/b.cp313-win_amd64.pyd", b"MZ" + bytes(40), "Windows"),
        ("a/b.so", b"not a library", "is none"),
        ("a/b.so", b"\x7fELF\x02\x01", "truncated"),
        ("a/b.abi3.so", elf(symbols=b"GLIBC_2.17\0GLIBC_2.34\0"), "needs glibc 2.34"),
    ],
)
def test_others_are_named(path: str, content: bytes, why: str) -> None:
    problem = native_problem(path, content)
    assert problem is not None
    assert why in problem
