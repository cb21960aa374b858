"""Bodies of `POST labels`: one JSON object, a JSON array of objects, or CSV with a header row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Final

from shared.domain.errors import InvalidInput
from shared.domain.event import parse_object
from shared.domain.labels import parse_label
from shared.services.label_feed import LabelRow

COLUMNS: Final = ("transaction_id", "verdict", "source", "event_time", "known_at", "confidence", "author")
"""The columns of CSV, in any order; the names are those of the fields in JSON."""

_ARRAY: Final = b'{"labels":'
"""Put before an array, so that arrays are read with the same strictness as objects."""


def is_array(body: bytes) -> bool:
    """Whether a JSON body is an array, as far as its first character tells."""
    return body.lstrip(b" \t\r\n")[:1] == b"["


def read_array(body: bytes, max_bytes: int) -> list[object]:
    """The items of a JSON array.

    Raises:
        InvalidInput: Not UTF-8, not JSON, or more than an array.
    """
    try:
        fields = parse_object(_ARRAY + body + b"}", max_bytes + len(_ARRAY) + 1)
    except InvalidInput as error:
        if isinstance(error.__cause__, json.JSONDecodeError):
            place = min(error.__cause__.pos - len(_ARRAY), len(body))
            raise InvalidInput("", f"must be JSON (character {place})") from error
        raise
    items = fields["labels"]
    if len(fields) > 1 or not isinstance(items, list):
        raise InvalidInput("", "must be one JSON array")
    return items


def read_item(item: object, now_us: int) -> LabelRow:
    """One item of an array."""
    if not isinstance(item, dict):
        return InvalidInput("", "must be a JSON object")
    try:
        return parse_label(item, now_us)
    except InvalidInput as error:
        return error


def read_csv(body: bytes, now_us: int) -> Iterator[LabelRow]:
    """The rows of CSV as RFC 4180 has it, commas and double quotes; lines without anything are passed over.

    Raises:
        InvalidInput: Not UTF-8, not CSV, or the header row lacks, repeats or invents a column.
    """
    try:
        # Not splitlines: it would also cut at characters that only look like the end of a line.
        lines = io.StringIO(body.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise InvalidInput("", f"must be UTF-8; byte {error.start} is not") from error
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        for cells in reader:
            if cells:
                yield _read_cells(header, cells, now_us)
    except csv.Error as error:
        raise InvalidInput("", f"must be CSV; line {reader.line_num} is not") from error


def csv_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of a row of text: whole numbers become numbers where a number is wanted."""
    confidence = fields.get("confidence")
    if isinstance(confidence, str):
        text = confidence.strip()
        return {**fields, "confidence": int(text) if text.isascii() and text.isdigit() and len(text) < 4 else text}
    return dict(fields)


def _check_header(header: list[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            raise InvalidInput(name[:64], f"is not a known column; the first row names them: {', '.join(COLUMNS)}")
        if header.count(name) > 1:
            raise InvalidInput(name, "must not be given twice")
    for name in COLUMNS:
        if name not in header:
            raise InvalidInput(name, "is missing; the first row must name all columns")


def _read_cells(header: list[str], cells: list[str], now_us: int) -> LabelRow:
    if len(cells) != len(header):
        return InvalidInput("", f"must have {len(header)} cells, not {len(cells)}")
    return read_item(csv_fields(dict(zip(header, map(str.strip, cells), strict=True))), now_us)
