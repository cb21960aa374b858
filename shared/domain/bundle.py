"""A model bundle: bytes in, checked and typed parts out. Nothing in it is executed, imported or unpickled here.

A bundle is a set of named files, see `bundle_manifest.FILES`. `open_bundle` accepts it only as a whole: right digest,
a format that this release reads, every file there and unchanged, the very feature view that this release computes,
trees within the budget, tables and reference that fit the view. What it does not do is run the model: whoever loads
the ONNX graph runs the bundle's probes through it (recorded rows with the outputs and contributions that training saw)
and refuses the bundle if they come out otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_arrays import read_arrays, write_arrays
from shared.domain.bundle_manifest import (
    BOOSTER,
    FILES,
    MANIFEST,
    MODEL,
    PROBES,
    REFERENCE,
    TABLES,
    FileEntry,
    Manifest,
    read_manifest,
    write_manifest,
)
from shared.domain.bundle_reference import Reference, read_reference, write_reference
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import FEATURE_DTYPE, VIEWS, FeatureView
from shared.domain.score import Scored
from shared.domain.tree_budget import TREE_BUDGET, TreeBudget
from shared.domain.tree_tables import TreeTables, tables_from_arrays, tables_to_arrays

PARITY_TOLERANCE: Final = 1e-5
"""Greatest difference of an output, or of a contribution in log-odds, to what training saw (record 0002)."""

MAX_PROBES: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Rows with what the model says of them, recorded when it was trained.

    Attributes:
        vectors: (n, n_features) float32.
        raw: (n,) float32, outputs.
        contributions: (n, n_features) float64, log-odds.
    """

    vectors: NDArray[np.float32]
    raw: NDArray[np.float32]
    contributions: NDArray[np.float64]

    def check(self, scored: Scored, tolerance: float = PARITY_TOLERANCE) -> None:
        """Compare what a loaded model says of the probes with what was recorded.

        Raises:
            BrokenInvariant: They differ by more than the tolerance.
        """
        for what, found, recorded in (
            ("outputs", scored.raw, self.raw),
            ("contributions", scored.contributions, self.contributions),
        ):
            if found.shape != recorded.shape:
                raise BrokenInvariant(f"the model's {what} have the shape {found.shape}, not {recorded.shape}")
            difference = float(np.max(np.abs(found.astype(np.float64) - recorded), initial=0.0))
            if not difference <= tolerance:  # NaN fails too
                raise BrokenInvariant(f"the model's {what} differ from the recorded ones by {difference:.2g}")


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle that was checked.

    Attributes:
        digest: Of the bundle, 64 hexadecimal digits.
        manifest: What it says of itself.
        view: The feature view, as this release computes it.
        model: The ONNX graph.
        booster: The trees as JSON; what the tables were made from.
        tables: Of reasons.
        probes: Recorded rows.
        reference: What features and scores looked like.
    """

    digest: str
    manifest: Manifest
    view: FeatureView
    model: bytes
    booster: bytes
    tables: TreeTables
    probes: Probes
    reference: Reference


def bundle_digest(manifest: bytes) -> str:
    """The digest of a bundle by its manifest, 64 hexadecimal digits."""
    return hashlib.sha256(manifest).hexdigest()


def pack_bundle(
    manifest: Manifest, *, model: bytes, booster: bytes, tables: TreeTables, probes: Probes, reference: Reference
) -> dict[str, bytes]:
    """The files of a bundle.

    Args:
        manifest: Its `files` are filled in here.
        model: The ONNX graph.
        booster: The trees as JSON.
        tables: Of reasons.
        probes: Recorded rows.
        reference: What features and scores looked like.

    Raises:
        BrokenInvariant: A reader would refuse it.
    """
    contents = {
        MODEL: model,
        BOOSTER: booster,
        TABLES: write_arrays(tables_to_arrays(tables)),
        PROBES: write_arrays(
            {"vectors": probes.vectors, "raw": probes.raw, "contributions": probes.contributions},
        ),
        REFERENCE: write_reference(reference),
    }
    entries = {name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    files = {MANIFEST: write_manifest(replace(manifest, files=entries)), **contents}
    open_bundle(files)
    return files


def open_bundle(
    files: Mapping[str, bytes], expected_digest: str | None = None, *, budget: TreeBudget = TREE_BUDGET
) -> Bundle:
    """Check a bundle's files and take them apart.

    Args:
        files: By name.
        expected_digest: The digest it was asked for by.
        budget: What it may cost.

    Raises:
        BrokenInvariant: Says why it is refused: damaged, incomplete, foreign, over budget, or for another view.
    """
    if MANIFEST not in files:
        raise BrokenInvariant(f"the bundle lacks {MANIFEST}: it was not uploaded to its end, or is none")
    digest = bundle_digest(files[MANIFEST])
    if expected_digest is not None and digest != expected_digest:
        raise BrokenInvariant(f"the bundle's digest is {digest[:12]}, not {expected_digest[:12]}: it was damaged")
    manifest = read_manifest(files[MANIFEST])
    for name in FILES:
        data, entry = files.get(name), manifest.files[name]
        if data is None:
            raise BrokenInvariant(f"the bundle lacks {name}: it was not uploaded to its end")
        if len(data) != entry.n_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BrokenInvariant(f"{name} is not what the manifest says: it was damaged")
    view = _view(manifest)
    n_features = len(view.features)
    tables = tables_from_arrays(read_arrays(files[TABLES]), n_features)
    if tables.n_bytes != manifest.size.table_bytes:
        raise BrokenInvariant(f"the tables take {tables.n_bytes:,} bytes, not {manifest.size.table_bytes:,}")
    budget.check(manifest.size.n_trees, manifest.size.depth, tables.n_bytes)
    return Bundle(
        digest=digest,
        manifest=manifest,
        view=view,
        model=files[MODEL],
        booster=files[BOOSTER],
        tables=tables,
        probes=_probes(read_arrays(files[PROBES]), n_features),
        reference=read_reference(files[REFERENCE], view),
    )


def _view(manifest: Manifest) -> FeatureView:
    """The view of this release that the manifest names; it must be the very same."""
    view = VIEWS.get(manifest.view)
    if view is None:
        raise BrokenInvariant(f"the bundle needs the feature view {manifest.view}, which this release cannot compute")
    found = [(feature.name, feature.dtype) for feature in manifest.features]
    for place, (ours, theirs) in enumerate(zip([(name, FEATURE_DTYPE) for name in view.names], found, strict=False)):
        if ours != theirs:
            raise BrokenInvariant(f"feature {place} of {view.name} is {ours}, and {theirs} in the bundle")
    if len(found) != len(view.features):
        raise BrokenInvariant(f"{view.name} has {len(view.features)} features, and {len(found)} in the bundle")
    if manifest.label.delay_us != view.label_delay_us:
        raise BrokenInvariant(f"{view.name} delays labels by {view.label_delay_us} us, not {manifest.label.delay_us}")
    return view


def _probes(arrays: Mapping[str, NDArray[Any]], n_features: int) -> Probes:
    shapes = {"vectors": (2, np.float32), "raw": (1, np.float32), "contributions": (2, np.float64)}
    for name, (n_dimensions, dtype) in shapes.items():
        if name not in arrays or arrays[name].ndim != n_dimensions or arrays[name].dtype != dtype:
            raise BrokenInvariant(f"the probes lack {name}, or it has another form")
    probes = Probes(arrays["vectors"], arrays["raw"], arrays["contributions"])
    n_rows = len(probes.raw)
    if not 0 < n_rows <= MAX_PROBES or {probes.vectors.shape, probes.contributions.shape} != {(n_rows, n_features)}:
        raise BrokenInvariant("the probes have different lengths, or there are none")
    if not (np.isfinite(probes.raw).all() and np.isfinite(probes.contributions).all()):
        raise BrokenInvariant("the probes hold an output that is not finite")
    return probes
