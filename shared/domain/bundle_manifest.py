"""What a bundle says of itself: `manifest.json`, its form, and how the form changes.

Format 2. The manifest is canonical JSON (sorted keys, no spaces, ASCII) and holds no time of making and no machine, so
that the same training data and parameters give the same bytes. It names every other file of the bundle with its size
and SHA-256; the SHA-256 of the manifest itself is therefore the digest of the whole bundle.

To change the form: raise `FORMAT_VERSION`; keep reading every older version here (`_READABLE`), filling what it lacks
with what it meant; add a golden bundle of the new version to `tests/golden/bundles` beside the old ones; describe the
change in docs/bundles.md. A reader refuses versions that it does not know, so readers are deployed before writers.

    1  the first
    2  `capacity`: the shadow price that was fitted to the model's scores, or null; format 1 means null
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from shared.domain.cost_policy import Capacity, CostPolicy, Costs, FittedCapacity
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.score import CalibrationTable

KIND: Final = "tollgate.bundle"
FORMAT_VERSION: Final = 2
_READABLE: Final = (1, 2)
_CAPACITY_SINCE: Final = 2

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
BOOSTER: Final = "booster.json"
TABLES: Final = "tables.safetensors"
PROBES: Final = "probes.safetensors"
REFERENCE: Final = "reference.json"
FILES: Final = (MODEL, BOOSTER, TABLES, PROBES, REFERENCE)
"""Every file of a bundle besides the manifest; the names are part of the format."""

MAX_FILE_BYTES: Final = 256 << 20
MAX_MANIFEST_BYTES: Final = 4 << 20

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle.

    Attributes:
        n_bytes: Its size.
        sha256: Its digest, 64 hexadecimal digits.
    """

    n_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FeatureEntry:
    """A column of the model's input.

    Attributes:
        name: The feature's name in its view.
        dtype: numpy's name of its type.
    """

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class LabelDefinition:
    """What counted as a label in training.

    Attributes:
        delay_us: How long after it was known a label counts for features, microseconds.
        maturity_us: How old a transaction must be before its label counts for training, microseconds.
    """

    delay_us: int
    maturity_us: int


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of event times, and what was in it.

    Attributes:
        start_us: Microseconds since 1970 UTC.
        end_us: The first microsecond after it.
        n_rows: Transactions used.
        n_frauds: Of these, frauds.
    """

    start_us: int
    end_us: int
    n_rows: int
    n_frauds: int


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure with its interval.

    Attributes:
        name: Such as `average_precision`.
        value: The figure on the test span.
        low: Lower end of its interval.
        high: Upper end.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Operating points recommended for the policy `fixed-v1`, calibrated probabilities.

    Attributes:
        review: From here on a person looks.
        decline: From here on it is refused.
    """

    review: float
    decline: float


@dataclass(frozen=True, slots=True)
class TreeSize:
    """What the model costs, see `tree_budget`.

    Attributes:
        n_trees: Trees.
        depth: Of the deepest.
        table_bytes: Of the tables of reasons.
    """

    n_trees: int
    depth: int
    table_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        name: The model's name.
        version: Rises with each training.
        view: Name of the feature view.
        features: The model's input, in order.
        label: What counted as a label.
        calibration: From the model's output to a probability.
        thresholds: Recommended operating points.
        metrics: Figures on the test span.
        confidence: Of the metrics' intervals, such as .95.
        spans: By name (`train`, `calibration`, `test`) the event times used.
        as_of_us: Labels known by then were used, microseconds since 1970 UTC.
        data_digest: SHA-256 of the training input, 64 hexadecimal digits.
        size: What the model costs.
        parameters: What training was told.
        libraries: Library to version, of the training.
        files: By name, all of `FILES`.
        capacity: The shadow price that was fitted to its scores; None if no capacity was asked for.
        format_version: Of the form.
    """

    name: str
    version: int
    view: str
    features: tuple[FeatureEntry, ...]
    label: LabelDefinition
    calibration: CalibrationTable
    thresholds: Thresholds
    metrics: tuple[Metric, ...]
    confidence: float
    spans: Mapping[str, Span]
    as_of_us: int
    data_digest: str
    size: TreeSize
    parameters: Mapping[str, int | float | str]
    libraries: Mapping[str, str]
    files: Mapping[str, FileEntry]
    capacity: FittedCapacity | None = None
    format_version: int = FORMAT_VERSION


def model_name(text: str) -> str:
    """A model's name: lower-case letters, digits, dots, dashes and underscores, at most 64.

    Raises:
        InvalidInput: It is another text.
    """
    if not _NAME.fullmatch(text):
        raise InvalidInput("name", "must be 1 to 64 lower-case letters, digits, dots, dashes or underscores")
    return text


def is_digest(text: str) -> bool:
    """Whether a text is a digest: 64 hexadecimal digits, lower case."""
    return _SHA256.fullmatch(text) is not None


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest's bytes.

    Raises:
        BrokenInvariant: A number is not finite, or the form has no place for what the manifest says.
    """
    document: dict[str, Any] = {
        "kind": KIND,
        "format_version": manifest.format_version,
        "name": manifest.name,
        "version": manifest.version,
        "view": {
            "name": manifest.view,
            "features": [{"name": feature.name, "dtype": feature.dtype} for feature in manifest.features],
        },
        "label": {"delay_us": manifest.label.delay_us, "maturity_us": manifest.label.maturity_us},
        "calibration": {
            "edges": list(manifest.calibration.edges),
            "probabilities": list(manifest.calibration.probabilities),
        },
        "thresholds": {"review": manifest.thresholds.review, "decline": manifest.thresholds.decline},
        "confidence": manifest.confidence,
        "metrics": {
            metric.name: {"value": metric.value, "low": metric.low, "high": metric.high} for metric in manifest.metrics
        },
        "spans": {
            name: {
                "start_us": span.start_us,
                "end_us": span.end_us,
                "n_rows": span.n_rows,
                "n_frauds": span.n_frauds,
            }
            for name, span in manifest.spans.items()
        },
        "as_of_us": manifest.as_of_us,
        "data_digest": manifest.data_digest,
        "size": {
            "n_trees": manifest.size.n_trees,
            "depth": manifest.size.depth,
            "table_bytes": manifest.size.table_bytes,
        },
        "parameters": dict(manifest.parameters),
        "libraries": dict(manifest.libraries),
        "files": {name: {"n_bytes": entry.n_bytes, "sha256": entry.sha256} for name, entry in manifest.files.items()},
    }
    fitted = manifest.capacity
    if manifest.format_version >= _CAPACITY_SINCE:
        document["capacity"] = fitted and {
            "reviews_per_day": fitted.capacity.reviews_per_day,
            **fitted.policy.parameters,
        }
    elif fitted is not None:
        raise BrokenInvariant(f"format {manifest.format_version} has no place for a capacity")
    return canonical_json(document)


def canonical_json(document: object) -> bytes:
    """JSON with sorted keys and without spaces, ASCII.

    Raises:
        BrokenInvariant: A number is not finite.
    """
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise BrokenInvariant("a number to be written as JSON is not finite") from error
    return text.encode("ascii")


def read_manifest(data: bytes) -> Manifest:
    """The manifest of `write_manifest`, checked field by field.

    Raises:
        BrokenInvariant: It is no manifest, of a format that this release does not read, or breaks a rule.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BrokenInvariant(f"the manifest has {len(data):,} bytes, at most {MAX_MANIFEST_BYTES:,}")
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenInvariant("the manifest is no JSON") from error
    root = Fields(document, "the manifest")
    if root.text("kind") != KIND:
        raise BrokenInvariant(f"the manifest is of a {root.text('kind')!r}, not of a {KIND!r}")
    if (version := root.integer("format_version")) not in _READABLE:
        raise BrokenInvariant(f"the bundle has format {version}; this release reads {', '.join(map(str, _READABLE))}")
    view, label, calibration = root.fields("view"), root.fields("label"), root.fields("calibration")
    thresholds, size = root.fields("thresholds"), root.fields("size")
    metrics, spans, files = root.fields("metrics"), root.fields("spans"), root.fields("files")
    manifest = Manifest(
        name=root.text("name"),
        version=root.integer("version"),
        view=view.text("name"),
        features=tuple(FeatureEntry(entry.text("name"), entry.text("dtype")) for entry in view.many("features")),
        label=LabelDefinition(label.integer("delay_us"), label.integer("maturity_us")),
        calibration=CalibrationTable(calibration.numbers("edges"), calibration.numbers("probabilities")),
        thresholds=Thresholds(thresholds.number("review"), thresholds.number("decline")),
        metrics=tuple(
            Metric(name, entry.number("value"), entry.number("low"), entry.number("high"))
            for name, entry in metrics.each()
        ),
        confidence=root.number("confidence"),
        spans={
            name: Span(*(entry.integer(field) for field in ("start_us", "end_us", "n_rows", "n_frauds")))
            for name, entry in spans.each()
        },
        as_of_us=root.integer("as_of_us"),
        data_digest=root.text("data_digest"),
        size=TreeSize(size.integer("n_trees"), size.integer("depth"), size.integer("table_bytes")),
        parameters=root.fields("parameters").values(int, float, str),
        libraries=cast("Mapping[str, str]", root.fields("libraries").values(str)),
        files={name: FileEntry(entry.integer("n_bytes"), entry.text("sha256")) for name, entry in files.each()},
        capacity=_capacity(root) if version >= _CAPACITY_SINCE else None,
        format_version=version,
    )
    _check(manifest)
    return manifest


def _capacity(root: Fields) -> FittedCapacity | None:
    """The fitted shadow price; the key is there also where nothing was fitted."""
    if root.is_null("capacity"):
        return None
    fields = root.fields("capacity")
    try:
        costs = Costs(
            fields.integer("review_cost_minor"),
            fields.integer("decline_margin_bp"),
            fields.integer("goodwill_cost_minor"),
            declines=fields.flag("declines"),
        )
        capacity = Capacity(fields.integer("reviews_per_day"), costs)
        return FittedCapacity(capacity, CostPolicy(costs, fields.integer("review_shadow_price_minor")))
    except InvalidInput as error:
        raise BrokenInvariant(f"the manifest cannot be used: its capacity is none: {error}") from error


def _check(manifest: Manifest) -> None:
    rules = (
        (_NAME.fullmatch(manifest.name) is not None, "the model's name breaks the rule for names"),
        (manifest.version >= 1, "the version is less than 1"),
        (len(manifest.features) > 0, "there are no features"),
        (min(manifest.label.delay_us, manifest.label.maturity_us) >= 0, "a duration is negative"),
        (0.0 < manifest.thresholds.review <= manifest.thresholds.decline <= 1.0, "the thresholds are out of order"),
        (0.0 < manifest.confidence < 1.0, "the confidence of the intervals is no share"),
        (is_digest(manifest.data_digest), "the digest of the data is none"),
        (set(manifest.files) == set(FILES), f"the files are not {', '.join(FILES)}"),
        (all(is_digest(entry.sha256) for entry in manifest.files.values()), "the digest of a file is none"),
        (
            all(0 < entry.n_bytes <= MAX_FILE_BYTES for entry in manifest.files.values()),
            "a file's size is out of range",
        ),
    )
    broken = [text for holds, text in rules if not holds]
    if broken:
        raise BrokenInvariant(f"the manifest cannot be used: {broken[0]}")


class Fields:
    """The fields of a JSON object, taken out by name and type; what breaks a rule is named by its path."""

    __slots__ = ("_document", "_path")

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, dict):
            raise BrokenInvariant(f"{path} is no object")
        self._document: dict[str, Any] = document
        self._path = path

    def text(self, name: str) -> str:
        """A text."""
        value = self._value(name)
        if not isinstance(value, str):
            raise BrokenInvariant(f"{self._path}: {name} is no text")
        return value

    def integer(self, name: str) -> int:
        """A whole number of 64 bits."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise BrokenInvariant(f"{self._path}: {name} is no whole number")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            raise BrokenInvariant(f"{self._path}: {name} is neither true nor false")
        return value

    def number(self, name: str) -> float:
        """A finite number."""
        return self._finite(name, self._value(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(self._finite(name, value) for value in self._list(name))

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers that are not negative."""
        values = self._list(name)
        if not all(type(value) is int and 0 <= value < 2**63 for value in values):
            raise BrokenInvariant(f"{self._path}: {name} holds something else than counts")
        return tuple(values)

    def fields(self, name: str) -> Fields:
        """An object."""
        return Fields(self._value(name), f"{self._path}: {name}")

    def many(self, name: str) -> tuple[Fields, ...]:
        """A list of objects."""
        return tuple(Fields(value, f"{self._path}: {name}[{place}]") for place, value in enumerate(self._list(name)))

    def each(self) -> tuple[tuple[str, Fields], ...]:
        """All fields, each an object."""
        return tuple((name, self.fields(name)) for name in self._document)

    def values(self, *kinds: type) -> dict[str, Any]:
        """All fields, each of one of these types."""
        for name, value in self._document.items():
            if type(value) not in kinds or (isinstance(value, float) and not math.isfinite(value)):
                raise BrokenInvariant(f"{self._path}: {name} has another type")
        return dict(self._document)

    def is_null(self, name: str) -> bool:
        """Whether a field, which must be there, is null."""
        return self._value(name) is None

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._document.get(name) is not None

    def _list(self, name: str) -> list[Any]:
        value = self._value(name)
        if not isinstance(value, list):
            raise BrokenInvariant(f"{self._path}: {name} is no list")
        return value

    def _finite(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BrokenInvariant(f"{self._path}: {name} is no number")
        number = float(value) if abs(value) < 2**1023 else math.inf
        if not math.isfinite(number):
            raise BrokenInvariant(f"{self._path}: {name} is not finite")
        return number

    def _value(self, name: str) -> Any:
        if name not in self._document:
            raise BrokenInvariant(f"{self._path} lacks {name}")
        return self._document[name]
