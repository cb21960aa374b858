"""The page of a verdict: whole, offline, and inert whatever the texts in it say."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from shared.domain.evaluation import Interval
from shared.domain.promotion import Acceptance, Ceiling, Check, CheckName, FrontierPoint, GateRules, Verdict, Window
from shared.domain.promotion_page import verdict_page

HOSTILE = "<script>alert(1)</script>\" onload='x' & more"
VOID = {"meta"}

VERDICT = Verdict(
    challenger="a" * 64,
    champion="b" * 64,
    model="card-fraud 7",
    as_of_us=1_700_006_400_000_000,
    rules=GateRules(),
    window=Window(1_690_000_000_000_000, 1_691_000_000_000_000, 12_345, 67, 890),
    checks=(
        Check(CheckName.OPENS, None, None, "every digest", True, "7 files"),
        Check(CheckName.RECALL, 0.5787, Interval(0.52, 0.62), "at least 0.8", False, HOSTILE),
        Check(CheckName.PARITY, 8.9e-8, None, "at most 1e-05", True, "booster and graph"),
    ),
    frontier=(FrontierPoint(0.9, 0.95, 0.25, 1.5), FrontierPoint(0.1, 0.2, 1.0, 90.0)),
    ceilings=(Ceiling(604_800_000_000, 0.6, 0.2, 0.68), Ceiling(0, 0.8, 0.2, 0.84)),
    advice=("Label faster.", HOSTILE),
    floors_unreachable=True,
)


class Balanced(HTMLParser):
    """Notes tags, attributes and text, and that every tag is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(verdict: Verdict) -> Balanced:
    parser = Balanced()
    parser.feed(verdict_page(verdict))
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_says_what_the_verdict_says() -> None:
    text = re.sub(r"\s+", " ", parsed(VERDICT).text)
    for part in (
        "card-fraud 7: refused",
        "Refused by: recall floor.",
        "0.5787",
        "0.5200 to 0.6200",
        "at least 0.8",
        "8.9e-08",
        "12,345 transactions of 890 customers, 67 frauds",
        "Label faster.",
        "7 days, as it is",
        "recall 0.8, precision 0.75",
        HOSTILE,
    ):
        assert part in text


def test_hostile_texts_stay_texts_and_nothing_is_fetched_or_run() -> None:
    hostile = replace(
        VERDICT, model=HOSTILE, champion=HOSTILE, challenger=HOSTILE, acceptance=Acceptance(HOSTILE, HOSTILE, 1)
    )
    found = parsed(hostile)
    assert not found.seen & {"script", "link", "img", "iframe", "object", "form", "a"}
    assert not {name for name in found.attributes if name.startswith("on")}
    assert not found.attributes & {"src", "href", "srcset", "action"}
    page = verdict_page(hostile)
    assert "url(" not in page
    assert "http" not in page
    assert "@import" not in page


def test_a_challenger_that_could_not_be_read_has_a_page_too() -> None:
    bare = Verdict("c" * 64, None, "", 0, GateRules(), None, ())
    text = parsed(bare).text
    assert "A challenger that cannot be read: refused" in text
    assert "nothing was checked" in text
    passed = replace(bare, checks=(Check(CheckName.OPENS, 1.0, None, "x", True, "y"),))
    assert "Every check passed." in parsed(passed).text


def test_an_acceptance_is_not_shown_as_a_pass() -> None:
    accepted = replace(VERDICT, champion=None, acceptance=Acceptance("ada", "watched for a month", 1))
    page = verdict_page(accepted)
    assert "refused, and accepted by a person" in page
    assert "watched for a month" in page
