"""`.funcignore` means what gitignore patterns mean."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from twin.packaging.ignore import IgnoreRules

PATTERNS = """
# a comment
*.pyc
tests/
/only_here.txt
docs/**/draft.md
cache/**
!cache/keep
.env*
a?c.txt
[xy]z.py
[!m]n.py
\\#sharp
build/out
"""
PATHS = (
    "a.pyc",
    "deep/er/a.pyc",
    "tests/x.py",
    "deep/tests/x.py",
    "tests",
    "only_here.txt",
    "deep/only_here.txt",
    "docs/draft.md",
    "docs/a/b/draft.md",
    "cache/x",
    "cache/keep",
    ".env",
    ".env.local",
    "abc.txt",
    "abbc.txt",
    "xz.py",
    "zz.py",
    "an.py",
    "mn.py",
    "#sharp",
    "build/out",
    "x/build/out",
    "function_app.py",
    "a.pyc.txt",
)


@pytest.mark.parametrize("path", PATHS)
def test_agrees_with_git(path: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(PATTERNS, encoding="utf-8")
    target = tmp_path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("x", encoding="utf-8")
    done = subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "--quiet", path], check=False)
    assert IgnoreRules.parse(PATTERNS).ignores(path) == (done.returncode == 0)


def test_nothing_below_an_ignored_folder_comes_back() -> None:
    rules = IgnoreRules.parse("out/\n!out/keep.txt\n")
    assert rules.ignores("out/keep.txt")
    assert rules.ignores_folder("a/out")
    assert not rules.ignores_folder("a/output")
