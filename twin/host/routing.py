"""Which HTTP function answers a path: templates, constraints and their precedence.

Follows ASP.NET Core's documented route templates, which the cloud's host uses: literals beat constrained parameters,
those beat free parameters, those beat catch-alls; literals compare without case; an optional parameter may be absent; a
method that a function does not list is no match, so the answer is 404 rather than 405.
Source: learn.microsoft.com, "Routing in ASP.NET Core", route template and constraint reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

type Check = Callable[[str], bool]

_GUID = re.compile(r"\{?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\}?", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?")


class BadTemplate(ValueError):
    """A route template that this host cannot serve; the text names the part."""


def _is_integer(bits: int) -> Check:
    limit = 2 ** (bits - 1)

    def check(text: str) -> bool:
        return bool(re.fullmatch(r"[+-]?\d+", text, re.ASCII)) and -limit <= int(text) < limit

    return check


def _int_or_none(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else None


def _length(arguments: Sequence[str]) -> Check:
    low, high = int(arguments[0]), int(arguments[-1])
    return lambda text: low <= len(text) <= high


def _between(low: int | None, high: int | None) -> Check:
    def check(text: str) -> bool:
        value = _int_or_none(text)
        return value is not None and (low is None or value >= low) and (high is None or value <= high)

    return check


_PLAIN: dict[str, Check] = {
    "int": _is_integer(32),
    "long": _is_integer(64),
    "bool": lambda text: text.lower() in {"true", "false"},
    "guid": lambda text: bool(_GUID.fullmatch(text)),
    "alpha": lambda text: bool(re.fullmatch("[a-zA-Z]*", text)),
    "decimal": lambda text: bool(_NUMBER.fullmatch(text)),
    "double": lambda text: bool(_NUMBER.fullmatch(text)),
    "float": lambda text: bool(_NUMBER.fullmatch(text)),
    "datetime": lambda text: bool(_DATE.fullmatch(text)),
    "required": bool,
}

_WITH_ARGUMENTS: dict[str, Callable[[Sequence[str]], Check]] = {
    "length": _length,
    "minlength": lambda given: lambda text: len(text) >= int(given[0]),
    "maxlength": lambda given: lambda text: len(text) <= int(given[0]),
    "min": lambda given: _between(int(given[0]), None),
    "max": lambda given: _between(None, int(given[0])),
    "range": lambda given: _between(int(given[0]), int(given[1])),
}


def constraint(text: str) -> Check:
    """The check behind `int`, `length(2,5)`, `regex(^a+$)` and so on. Raises BadTemplate for one not known here."""
    name, _, rest = text.partition("(")
    name = name.strip().lower()
    try:
        if rest and rest.endswith(")"):
            if name == "regex":
                pattern = re.compile(rest[:-1].replace("{{", "{").replace("}}", "}"), re.IGNORECASE)
                return lambda value: bool(pattern.search(value))
            check = _WITH_ARGUMENTS[name]([part.strip() for part in rest[:-1].split(",")])
            check("")  # a bad argument shows here and not in the first request
            return check
        return _PLAIN[name]
    except (KeyError, ValueError, IndexError, re.error):
        raise BadTemplate(f"route constraint {text!r} is not supported") from None


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a template between slashes.

    Attributes:
        name: The parameter's name; None for a literal.
        literal: The literal's text in lower case; empty for a parameter.
        checks: What the parameter's value must satisfy.
        optional: May be absent (`{x?}` or `{x=5}`).
        default: Value of an absent parameter, if the template names one.
        catch_all: Takes the rest of the path, slashes included.
    """

    name: str | None
    literal: str = ""
    checks: tuple[Check, ...] = ()
    optional: bool = False
    default: str | None = None
    catch_all: bool = False

    @property
    def rank(self) -> int:
        """Lower wins, as ASP.NET's inbound precedence digit."""
        if self.name is None:
            return 1
        return (4 if self.catch_all else 2) + (0 if self.checks else 1)


def _split_outside_parentheses(text: str, separator: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == separator and not depth:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def _segments_of(template: str) -> list[str]:
    """Cut at slashes that are outside braces."""
    parts, depth, current = [], 0, ""
    for character in template:
        depth += (character == "{") - (character == "}")
        if character == "/" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def parse_segment(text: str) -> Segment:
    """A literal, `{name}`, `{name:constraint}`, `{name?}`, `{name=default}` or `{*name}`."""
    if "{" not in text and "}" not in text:
        return Segment(name=None, literal=text.lower())
    if not (text.startswith("{") and text.endswith("}")):
        raise BadTemplate(f"route segment {text!r} mixes text and a parameter, which is not supported")
    inner = text[1:-1]
    stars = len(inner) - len(inner.lstrip("*"))
    inner = inner[stars:]
    name, *constraints = _split_outside_parentheses(inner, ":")
    last = constraints[-1] if constraints else name
    optional, default = last.endswith("?"), None
    if optional:
        last = last[:-1]
    elif "=" in last and not last.rstrip().endswith(")"):
        last, default = last.split("=", 1)
    if constraints:
        constraints[-1] = last
    else:
        name = last
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise BadTemplate(f"route segment {text!r} has no valid parameter name")
    return Segment(
        name=name,
        checks=tuple(constraint(part) for part in constraints),
        optional=optional or default is not None or stars > 0,
        default=default,
        catch_all=stars > 0,
    )


@dataclass(frozen=True, slots=True)
class Route:
    """A function's route: where it answers and to which methods (upper case; None means every method)."""

    function: str
    segments: tuple[Segment, ...]
    methods: frozenset[str] | None

    @property
    def precedence(self) -> tuple[int, ...]:
        """Sorts routes so that the more specific one is tried first."""
        return tuple(segment.rank for segment in self.segments)

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """The route's parameters for a path cut at slashes, or None when it does not match."""
        values: dict[str, str] = {}
        for index, segment in enumerate(self.segments):
            if segment.catch_all:
                rest = "/".join(parts[index:])
                if rest and not all(check(rest) for check in segment.checks):
                    return None
                if rest or segment.default is not None:
                    values[segment.name or ""] = rest or segment.default or ""
                return values
            if index >= len(parts) or not parts[index]:
                if not segment.optional:
                    return None
                if segment.default is not None:
                    values[segment.name or ""] = segment.default
            elif segment.name is None:
                if parts[index].lower() != segment.literal:
                    return None
            elif all(check(parts[index]) for check in segment.checks):
                values[segment.name] = parts[index]
            else:
                return None
        return values if len(parts) <= len(self.segments) else None


def parse_route(function: str, template: str, methods: Iterable[str] | None, prefix: str) -> Route:
    """A route from a function's template and the app's prefix. Raises BadTemplate naming the offending part."""
    whole = "/".join(part for part in (prefix.strip("/"), template.strip("/")) if part)
    segments = tuple(parse_segment(part) for part in _segments_of(whole)) if whole else ()
    for index, segment in enumerate(segments):
        if segment.catch_all and index != len(segments) - 1:
            raise BadTemplate(f"route {template!r}: a catch-all must be the last segment")
        if segment.name is None and not segment.literal:
            raise BadTemplate(f"route {template!r} has an empty segment")
    names = [segment.name.lower() for segment in segments if segment.name]
    if len(set(names)) != len(names):
        raise BadTemplate(f"route {template!r} names a parameter twice")
    wanted = None if methods is None else frozenset(method.upper() for method in methods)
    return Route(function=function, segments=segments, methods=wanted)


def split_path(raw_path: bytes) -> list[str]:
    """The decoded segments of a request path; an encoded slash stays encoded, so it never cuts a segment."""
    text = raw_path.decode("latin-1").strip("/")
    if not text:
        return []
    if "%" not in text:
        return text.split("/")
    return [unquote(re.sub("%2f", "%252F", part, flags=re.IGNORECASE)) for part in text.split("/")]


class Router:
    """All routes of an app, the most specific first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = sorted(routes, key=lambda route: route.precedence)

    def find(self, method: str, raw_path: bytes) -> tuple[str, dict[str, str]] | None:
        """The function and its route parameters, or None (404)."""
        parts = split_path(raw_path)
        for route in self._routes:
            if route.methods is None or method in route.methods:
                values = route.match(parts)
                if values is not None:
                    return route.function, values
        return None
