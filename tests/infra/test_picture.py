"""The README of infra shows the program as it is."""

from __future__ import annotations

from tests.infra import picture


def test_the_readme_is_current() -> None:
    text = picture.README.read_text(encoding="utf-8")
    assert picture.filled(text, picture.sections(picture.recorded())) == text, f"run {picture.COMMAND}"
