"""Plain classes in place of the worker protocol's generated protobuf code.

`azure_functions_runtime` is handed a `protos` namespace and uses nothing of protobuf itself; Microsoft's own in-process
worker passes plain classes too. Two rules of that library shape these: `.TypedData` on a datum must raise
AttributeError (it is probed), and any other unset field must read None.
"""

from __future__ import annotations

from types import SimpleNamespace

DATUM_KINDS = frozenset(
    {
        "string",
        "json",
        "bytes",
        "http",
        "int",
        "double",
        "stream",
        "collection_bytes",
        "collection_string",
        "collection_double",
        "collection_sint64",
        "model_binding_data",
        "collection_model_binding_data",
    }
)


class Message:
    """A protocol message: keyword arguments become fields, a field never set reads None."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> object:
        if name == "TypedData" or name.startswith("__"):
            raise AttributeError(name)
        return None


class TypedData:
    """One value of the protocol's union: exactly one kind is set, or none."""

    __slots__ = ("kind", "value")

    def __init__(self, **field: object) -> None:
        self.kind: str | None = None
        self.value: object = None
        for kind, value in field.items():
            if value is not None:
                self.kind, self.value = kind, value

    def __getattr__(self, name: str) -> object:
        if name == self.kind:
            return self.value
        if name in DATUM_KINDS:
            return None
        raise AttributeError(name)

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802  (the protocol's own spelling)
        """The kind that is set."""
        return self.kind


class ParameterBinding(Message):
    """A named value that goes into or comes out of a function."""

    name: str
    data: TypedData

    def WhichOneof(self, _group: str) -> str:  # noqa: N802  (the protocol's own spelling)
        """Always the inline value: shared memory is never used."""
        return "data"


class Collection:
    """The payload of the `collection_*` kinds; the attribute that is read is the kind's second half."""

    __slots__ = ("bytes", "string")

    def __init__(self, *, binary: list[bytes] | None = None, string: list[str] | None = None) -> None:
        self.bytes = binary or []
        self.string = string or []


class RpcHttp(Message):
    """An HTTP request on the way in or a response on the way out."""


class RpcHttpCookie(Message):
    """One Set-Cookie; its optional fields are Nullable messages."""

    SameSite = SimpleNamespace(**{"None": 0, "Lax": 1, "Strict": 2, "ExplicitNone": 3})


class StatusResult(Message):
    """How a call ended."""

    Failure = 0
    Success = 1
    Cancelled = 2


class BindingInfo(Message):
    """Type and direction of a binding."""

    undefined = 0
    out = 1
    inout = 2
    string = 1
    binary = 2
    stream = 3


class RpcException(Message):
    """An exception as text."""


class WorkerInitResponse(Message):
    """Answer to loading the app."""


class WorkerMetadata(Message):
    """Versions of the worker."""


class FunctionMetadataResponse(Message):
    """The app's functions."""


class RpcFunctionMetadata(Message):
    """One function: name, id, bindings as JSON, retry policy."""


class RpcRetryOptions(Message):
    """A function's retry policy."""


class FunctionLoadResponse(Message):
    """Acknowledges a function."""


class FunctionEnvironmentReloadResponse(Message):
    """Never used here: a reload is a new process."""


class InvocationResponse(Message):
    """Outcome, return value and outputs of one call."""


class NullableString(Message):
    """A string or nothing."""


class NullableBool(Message):
    """A bool or nothing."""


class NullableDouble(Message):
    """A number or nothing."""


class NullableTimestamp(Message):
    """A point in time or nothing."""


class Timestamp(Message):
    """A point in time in whole seconds since 1970; without this name the library would look for protobuf's."""

    seconds: int
