"""The commands `tollgate dead-letters`: look at events that could not be used, and hand them in again.

Bodies may tell of persons: `list` never prints them, `show` only with `--body`. `replay` takes an event as the ingest
app would, with its settings, and not through the hub.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.domain.dead_letter import KeptLetter, LetterId, LetterSelection, parse_letter_id
from shared.domain.errors import InvalidInput, NotFound
from shared.domain.instants import US_PER_SECOND, format_instant, parse_instant
from twin.feed_connections import DATABASE, REFUSED, ingest_environment, say, told

if TYPE_CHECKING:
    from shared.adapters.postgres_dead_letters import PostgresDeadLetters

app = typer.Typer(help="Events that could not be used: look at them, hand them in again.", no_args_is_help=True)

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

type ReasonOption = Annotated[str | None, typer.Option("--reason", help="Text that stands in the reason.")]
type HubOption = Annotated[str | None, typer.Option("--hub", help="Name of the hub.")]
type SinceOption = Annotated[
    str | None, typer.Option("--since", help="Given up since a day (2026-11-01) or an instant (...T12:00:00Z), UTC.")
]
type UntilOption = Annotated[str | None, typer.Option("--until", help="Likewise; given up before it.")]


@app.command(name="list")
def list_letters(
    *,
    reason: ReasonOption = None,
    hub: HubOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="Those that were taken after all as well.")] = False,
    after: Annotated[int, typer.Option("--after", min=0, help="Those above this number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="So many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per line.")] = False,
) -> None:
    """List dead letters by number, without their bodies; exit code 2 if it cannot be done."""
    with told():
        selection = _selection(reason, hub, since, until, waiting_only=not replayed)
        with _kept() as kept:
            letters = kept.page(selection, LetterId(after), limit)
    for letter in letters:
        say(json.dumps(_document(letter)) if as_json else _line(letter))
    if not as_json:
        more = f"; there may be more: --after {letters[-1].letter_id}" if len(letters) == limit else ""
        say(f"{len(letters)} dead letters{more}")


@app.command()
def show(
    number: Annotated[str, typer.Argument(help="Number of a letter.")],
    *,
    body: Annotated[bool, typer.Option("--body", help="Print the body too; it may tell of persons.")] = False,
) -> None:
    """Show one dead letter; exit code 2 if there is none."""
    with told():
        letter_id = parse_letter_id(number)
        with _kept() as kept:
            found = kept.find(letter_id)
        if found is None:
            raise NotFound("id", f"{letter_id} is no dead letter")
    letter, data = found
    for name, value in _document(letter).items():
        say(f"{name:<15} {'' if value is None else value}")
    if body:
        text, encoding = _printable(data)
        say(f"{'body':<15} {encoding}")
        say(text)


@app.command()
def replay(
    numbers: Annotated[list[str] | None, typer.Argument(help="Numbers of letters.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that wait and fit the other options.")] = False,
    reason: ReasonOption = None,
    hub: HubOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    body: Annotated[Path | None, typer.Option("--body", help="File with a mended body, for one letter.")] = None,
) -> None:
    """Hand letters in again as new events (0 all taken, 1 some are still wrong, 2 not done). Idempotent."""
    from shared.bootstrap.ingest import dead_letter_replay  # noqa: PLC0415 - commands import what they use
    from shared.services.dead_letter_replay import ReplayOutcome  # noqa: PLC0415

    counts: Counter[ReplayOutcome] = Counter()
    with told():
        if everything == bool(numbers):
            raise InvalidInput("", "must be numbers of letters, or --all")
        if not everything and (reason or hub or since or until):
            raise InvalidInput("", "must not be numbers and a selection at once; a selection goes with --all")
        if body is not None and (everything or len(numbers or ()) != 1):
            raise InvalidInput("--body", "goes with the number of one letter")
        selection = _selection(reason, hub, since, until, waiting_only=True)
        letter_ids = [parse_letter_id(text) for text in numbers or ()]
        mended = None if body is None else body.read_bytes()
        with dead_letter_replay(ingest_environment()) as replaying:
            # Those that wait now: one that is still wrong stays in the selection, and is not tried twice.
            chosen = [letter.letter_id for letter in replaying.selected(selection)] if everything else letter_ids
            for letter_id in chosen:
                result = replaying.replay(letter_id, mended)
                counts[result.outcome] += 1
                say(f"{letter_id} {result.outcome}{': ' if result.reason else ''}{result.reason}")
    say(", ".join(f"{counts[outcome]} {outcome}" for outcome in ReplayOutcome))
    raise typer.Exit(REFUSED if counts[ReplayOutcome.REFUSED] else 0)


@contextmanager
def _kept() -> Iterator[PostgresDeadLetters]:
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415
    from shared.adapters.postgres_dead_letters import PostgresDeadLetters  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    session = PostgresSession(parse_postgres(DATABASE, ingest_environment()), "tollgate-dead-letters")
    try:
        yield PostgresDeadLetters(session)
    finally:
        session.close()


def _selection(
    reason: str | None, hub: str | None, since: str | None, until: str | None, *, waiting_only: bool
) -> LetterSelection:
    return LetterSelection(reason, hub, _moment("--since", since), _moment("--until", until), waiting_only)


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    return parse_instant(option, f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)


def _document(letter: KeptLetter) -> dict[str, object]:
    """What is told about a letter."""
    return {
        "id": letter.letter_id,
        "given_up_at": format_instant(letter.recorded_at_us),
        "replayed_at": None if letter.replayed_at_us is None else format_instant(letter.replayed_at_us),
        "hub": letter.hub,
        "partition": letter.partition,
        "offset": letter.offset,
        "enqueued_at": format_instant(letter.enqueued_at_us),
        "field": letter.field,
        "rule": letter.rule,
        "body_bytes": letter.body_bytes,
    }


def _line(letter: KeptLetter) -> str:
    moment = datetime.fromtimestamp(letter.recorded_at_us / US_PER_SECOND, tz=UTC)
    place = f"{letter.hub}/{letter.partition}@{letter.offset}"
    taken = "  (taken after all)" if letter.replayed_at_us is not None else ""
    return f"{letter.letter_id:>8}  {moment:%Y-%m-%d %H:%M:%S}Z  {place}  {letter.reason}{taken}"


def _printable(data: bytes) -> tuple[str, str]:
    """A body as text, and how it is written; what could change the terminal is written in base64."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\x00"
    if all(character.isprintable() or character in "\n\r\t" for character in text):
        return text, "text"
    return base64.b64encode(data).decode("ascii"), "base64"
