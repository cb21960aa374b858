"""Check what would be sent against the argument classes and enums of the installed SDK.

The program hands over many values that neither Python nor the mocks look at: keys of plain mappings, members of enums
that also take any text, required parts of nested objects. The SDK's classes know all of them.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pulumi
from pulumi import _types

# Enums of another API that share a type's name: the value in brackets is right, the SDK's enum is not.
# Source: REST reference of scheduled query rules and of role assignments of flexible servers.
FALSE_ALARMS = {
    ("azure-native:monitor:ScheduledQueryRule", "GreaterThan"),
    ("azure-native:dbforpostgresql:AdministratorsMicrosoftEntra", "Group"),
}


def problems(typ: str, inputs: Mapping[str, Any]) -> list[str]:
    """What the SDK would not let through if it looked; a path and a sentence for each."""
    found: list[str] = []
    _check_object(inputs, _args_class(typ), "", found)
    return [text for text in found if not any(typ == t and repr(value) in text for t, value in FALSE_ALARMS)]


@cache
def _args_class(typ: str) -> type:
    _, module, name = typ.split(":")
    resource = getattr(importlib.import_module(f"pulumi_azure_native.{module}"), name)
    home = sys.modules[resource.__module__]
    # `<Type>InitArgs` where `<Type>Args` is the name of a nested type.
    found: type = getattr(home, f"{name}InitArgs", None) or getattr(home, f"{name}Args")
    return found


@cache
def _fields(cls: type) -> dict[str, tuple[Any, bool]]:
    """Wire name -> annotation, and whether it has to be there."""
    home = sys.modules[cls.__module__]
    package = importlib.import_module(cls.__module__.rsplit(".", 1)[0])
    names = {**vars(package), **vars(home), "Output": pulumi.Output, "T": typing.TypeVar("T")}
    wire = _types.input_type_py_to_pulumi_names(cls)
    constructor = vars(cls)["__init__"]
    signature = inspect.signature(constructor)
    # The local names are a copy: typing caches what a forward reference meant by their identity.
    hints = typing.get_type_hints(constructor, globalns=names, localns=dict(names))
    parameters = list(signature.parameters.values())[1:]
    return {wire.get(p.name, p.name): (hints[p.name], p.default is inspect.Parameter.empty) for p in parameters}


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a value may have, without awaitables and outputs of the same."""
    origin = typing.get_origin(annotation)
    if origin is typing.Union or isinstance(annotation, types.UnionType):
        return [found for argument in typing.get_args(annotation) for found in _alternatives(argument)]
    if origin is not None and getattr(origin, "__name__", "") in {"Awaitable", "Output"}:
        return []
    return [] if annotation is type(None) else [annotation]


def _check_object(value: Mapping[str, Any], cls: type, path: str, found: list[str]) -> None:
    fields = _fields(cls)
    found += [f"{path}.{key}: no such property" for key in value if key not in fields]
    for key, (annotation, required) in fields.items():
        if value.get(key) is not None:
            _check(value[key], _alternatives(annotation), f"{path}.{key}", found)
        elif required:
            found.append(f"{path}.{key}: missing")


def _check(value: Any, alternatives: list[Any], path: str, found: list[str]) -> None:
    classes = [a for a in alternatives if inspect.isclass(a)]
    objects = [a for a in classes if _types.is_input_type(a)]
    enums = [a for a in classes if issubclass(a, enum.Enum)]
    if not alternatives or Any in alternatives:
        return
    if isinstance(value, Mapping):
        mappings = [a for a in alternatives if typing.get_origin(a) in {dict, Mapping}]
        if objects:
            attempts: list[list[str]] = []
            for cls in objects:
                attempts.append([])
                _check_object(value, cls, path, attempts[-1])
            best = min(range(len(attempts)), key=lambda index: len(attempts[index]))
            found += attempts[best]
        elif mappings:
            for key, item in value.items():
                _check(item, _alternatives(typing.get_args(mappings[0])[1]), f"{path}.{key}", found)
        else:
            found.append(f"{path}: an object, where none belongs")
    elif isinstance(value, list):
        sequences = [a for a in alternatives if typing.get_origin(a) in {list, Sequence}]
        if not sequences:
            found.append(f"{path}: a list, where none belongs")
        for index, item in enumerate(value):
            if sequences:
                _check(item, _alternatives(typing.get_args(sequences[0])[0]), f"{path}[{index}]", found)
    elif enums:
        members = [member.value for cls in enums for member in cls]
        if value not in members:
            found.append(f"{path}: {value!r} is none of {members[:6]}")
    elif objects:
        found.append(f"{path}: {value!r}, where an object belongs")
    else:
        wanted = {a for a in alternatives if a in {bool, str, int, float}}
        fits = {bool: isinstance(value, bool), str: isinstance(value, str)}
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits |= {float: number, int: number and float(value).is_integer()}
        if wanted and not any(fits[a] for a in wanted):
            found.append(f"{path}: {value!r}, where {' or '.join(sorted(a.__name__ for a in wanted))} belongs")
