"""The exception tree: three roots, one for each thing a caller can do about an error.

    TollgateError
    |-- InvalidInput            the sender must change something: HTTP 400, or a dead letter
    |   |-- UnknownEventType    a stream event of a type this release does not read
    |   |-- OtherCurrency       not the deployment's reference currency: HTTP 422, or a dead letter
    |   |-- Conflict            the id was used for another body: HTTP 409, or a dead letter
    |   `-- NotFound            the thing asked for is not there: HTTP 404
    |-- Transient               try again later: HTTP 503, or raise so that the batch is retried
    |   `-- Overloaded          more work waits than can be done in time; nothing of this was begun
    `-- BrokenInvariant         a bug or a broken installation: HTTP 500, page someone

Adapters turn every vendor exception into this tree; only `shared.entrypoints` knows what a root means on the wire.
"""

from __future__ import annotations


class TollgateError(Exception):
    """Anything that goes wrong in Tollgate and that a caller can tell apart."""


class InvalidInput(TollgateError):
    """Input that no retry can make valid.

    Attributes:
        field: Path of the offending field in the input, such as `probe_id`; empty for the input as a whole.
        rule: The rule it breaks, as a sentence fragment: `must be an object`.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field or 'the input'} {rule}")
        self.field = field
        self.rule = rule


class UnknownEventType(InvalidInput):
    """A well-formed stream event of a type that this release does not read."""


class OtherCurrency(InvalidInput):
    """A well-formed amount in a currency that this deployment does not decide in."""


class Conflict(InvalidInput):
    """The idempotency key belongs to something else; nothing was changed."""


class NotFound(InvalidInput):
    """The named thing does not exist, or no longer."""


class Transient(TollgateError):
    """A fault of the surroundings that is expected to pass: retry the whole unit of work."""


class Overloaded(Transient):
    """Refused before anything was done, because too much waits already.

    Attributes:
        retry_after_s: When there is likely to be room again, whole seconds, at least 1.
    """

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class BrokenInvariant(TollgateError):
    """Something that cannot be true is true; retrying does not help and nobody outside can fix it."""
