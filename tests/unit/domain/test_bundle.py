"""Bundles: what is packed opens; whatever was damaged, cut short, foreign or too large is refused with its reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.bundle import MAX_PROBES, Probes, bundle_digest, open_bundle
from shared.domain.bundle_arrays import read_arrays, write_arrays
from shared.domain.bundle_manifest import (
    FILES,
    FORMAT_VERSION,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MODEL,
    PROBES,
    REFERENCE,
    TABLES,
    canonical_json,
    is_digest,
    model_name,
    read_manifest,
    write_manifest,
)
from shared.domain.bundle_pointer import Pointed, Pointer, Role, read_pointer, write_pointer
from shared.domain.cost_policy import Capacity, CostPolicy, Costs, FittedCapacity
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.feature_view import CARD_V1
from shared.domain.score import Scored
from shared.domain.tree_budget import TreeBudget
from tests.fakes.bundles import GOLDEN, golden_files


def with_manifest(change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """The recorded bundle with another manifest."""
    files = golden_files()
    document = json.loads(files[MANIFEST])
    change(document)
    return files | {MANIFEST: canonical_json(document)}


def with_file(name: str, data: bytes) -> dict[str, bytes]:
    """The recorded bundle with another file that the manifest vouches for."""

    def vouch(document: dict[str, Any]) -> None:
        document["files"][name] = {"n_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return with_manifest(vouch) | {name: data}


def test_a_bundle_opens_to_what_was_packed() -> None:
    files = golden_files()
    bundle = open_bundle(files)
    assert bundle.digest == bundle_digest(files[MANIFEST]) == hashlib.sha256(files[MANIFEST]).hexdigest()
    assert bundle.view is CARD_V1
    assert bundle.model == files[MODEL]
    assert bundle.tables.n_bytes == bundle.manifest.size.table_bytes
    assert write_manifest(bundle.manifest) == files[MANIFEST]
    assert open_bundle(files, bundle.digest).digest == bundle.digest


def test_a_bundle_of_the_first_format_says_nothing_of_a_capacity() -> None:
    assert open_bundle(golden_files("format-1")).manifest.capacity is None


def test_a_bundle_says_which_shadow_price_was_fitted_to_its_scores() -> None:
    files = golden_files("format-2")
    manifest = open_bundle(files).manifest
    assert manifest.capacity == FittedCapacity(Capacity(1, Costs(500, 200, 2_000)), CostPolicy(shadow_price_minor=403))
    assert write_manifest(manifest) == files[MANIFEST]
    unlimited = replace(manifest, capacity=None)
    assert json.loads(write_manifest(unlimited))["capacity"] is None
    assert read_manifest(write_manifest(unlimited)) == unlimited


def test_a_capacity_is_not_written_in_a_form_that_has_no_place_for_it() -> None:
    manifest = read_manifest(golden_files("format-2")[MANIFEST])
    with pytest.raises(BrokenInvariant, match="format 1 has no place for a capacity"):
        write_manifest(replace(manifest, format_version=1))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("reviews_per_day", 0, "its capacity is none: REVIEWS_PER_DAY"),
        ("reviews_per_day", 2.5, "reviews_per_day is no whole number"),
        ("review_cost_minor", 0, "its capacity is none: REVIEW_COST_MINOR"),
        ("decline_margin_bp", 10_001, "its capacity is none: DECLINE_MARGIN_BP"),
        ("goodwill_cost_minor", -1, "its capacity is none: GOODWILL_COST_MINOR"),
        ("declines", 1, "declines is neither true nor false"),
        ("review_shadow_price_minor", -1, "its capacity is none: REVIEW_SHADOW_PRICE_MINOR"),
        ("review_shadow_price_minor", None, "lacks review_shadow_price_minor"),
    ],
)
def test_a_capacity_that_breaks_a_rule_is_refused_by_name(field: str, value: object, reason: str) -> None:
    document = json.loads(golden_files("format-2")[MANIFEST])
    _set(f"capacity/{field}", value)(document)
    with pytest.raises(BrokenInvariant, match=reason):
        read_manifest(canonical_json(document))


def test_a_bundle_of_the_second_format_must_speak_of_a_capacity() -> None:
    document = json.loads(golden_files("format-2")[MANIFEST])
    del document["capacity"]
    with pytest.raises(BrokenInvariant, match="lacks capacity"):
        read_manifest(canonical_json(document))
    document["capacity"] = []
    with pytest.raises(BrokenInvariant, match="capacity is no object"):
        read_manifest(canonical_json(document))


def test_the_page_names_every_file_and_every_field() -> None:
    page = (GOLDEN.parents[2] / "docs" / "bundles.md").read_text(encoding="utf-8")
    names = [MANIFEST, *FILES, *json.loads(golden_files(f"format-{FORMAT_VERSION}")[MANIFEST])]
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_bundle_that_was_not_uploaded_to_its_end_is_refused(name: str) -> None:
    files = golden_files()
    del files[name]
    with pytest.raises(BrokenInvariant, match=f"lacks {name}: it was not uploaded to its end"):
        open_bundle(files)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([MANIFEST, *FILES]), st.integers(0), st.integers(1, 255))
def test_no_byte_can_change_unseen(name: str, place: int, flip: int) -> None:
    files = golden_files()
    digest = bundle_digest(files[MANIFEST])
    data = bytearray(files[name])
    data[place % len(data)] ^= flip
    with pytest.raises(BrokenInvariant, match="it was damaged"):
        open_bundle(files | {name: bytes(data)}, digest)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_or_lengthened_is_refused(name: str) -> None:
    files = golden_files()
    for data in (files[name][:-1], files[name] + b"\0", b""):
        with pytest.raises(BrokenInvariant, match=f"{name} is not what the manifest says"):
            open_bundle(files | {name: data})


def test_a_bundle_asked_for_by_another_digest_is_refused() -> None:
    with pytest.raises(BrokenInvariant, match="the bundle's digest is"):
        open_bundle(golden_files(), "0" * 64)


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        place: Any = document
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        if value is None:
            del place[int(last) if isinstance(place, list) else last]
        else:
            place[int(last) if isinstance(place, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("kind", "another.bundle", "is of a 'another.bundle'"),
        ("format_version", 3, "has format 3; this release reads 1, 2"),
        ("format_version", True, "format_version is no whole number"),
        ("view/name", "battles-v1", "needs the feature view battles-v1, which this release cannot compute"),
        ("view/features/3/name", "customer_count_2d", "feature 3 of card-v1"),
        ("view/features/0/dtype", "<f8", "feature 0 of card-v1"),
        ("view/features/24", None, "has 25 features, and 24 in the bundle"),
        ("view/features", [], "there are no features"),
        ("view/features", "amount", "features is no list"),
        ("label/delay_us", 1, "delays labels by"),
        ("label/maturity_us", -1, "a duration is negative"),
        ("size/n_trees", 301, "over budget: 301 trees, at most 300"),
        ("size/depth", 7, "over budget: 7 levels of depth"),
        ("size/table_bytes", 5, "the tables take"),
        ("thresholds/review", 0.0, "the thresholds are out of order"),
        ("thresholds/decline", 1.5, "the thresholds are out of order"),
        ("calibration/probabilities/0", None, "need 513 probabilities"),
        ("calibration/edges/0", "a", "edges is no number"),
        ("calibration/edges/0", True, "edges is no number"),
        ("calibration/edges/0", 10**400, "edges is not finite"),
        ("confidence", 1.0, "no share"),
        ("name", "No Name", "the rule for names"),
        ("version", 0, "the version is less than 1"),
        ("data_digest", "abc", "the digest of the data is none"),
        ("files/model.onnx", None, "the files are not"),
        ("files/model.onnx/sha256", "abc", "the digest of a file is none"),
        ("files/model.onnx/n_bytes", 0, "a file's size is out of range"),
        ("files/model.onnx", 3, "model.onnx is no object"),
        ("spans/test/n_rows", "many", "n_rows is no whole number"),
        ("libraries/numpy", 3, "numpy has another type"),
        ("parameters/n_trees", [1], "n_trees has another type"),
        ("name", 3, "name is no text"),
        ("as_of_us", None, "the manifest lacks as_of_us"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_by_name(path: str, value: object, reason: str) -> None:
    with pytest.raises(BrokenInvariant, match=reason):
        open_bundle(with_manifest(_set(path, value)))


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 100_000, b"\xff", b"{}"])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(BrokenInvariant, match="the manifest"):
        read_manifest(data)


def test_a_manifest_of_any_size_is_not_parsed() -> None:
    with pytest.raises(BrokenInvariant, match="at most"):
        read_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


def test_a_smaller_budget_refuses_what_a_larger_one_takes() -> None:
    with pytest.raises(BrokenInvariant, match="over budget"):
        open_bundle(golden_files(), budget=TreeBudget(max_trees=7, max_depth=6, max_table_bytes=1 << 30))
    with pytest.raises(BrokenInvariant, match="bytes of tables"):
        open_bundle(golden_files(), budget=TreeBudget(max_trees=8, max_depth=6, max_table_bytes=1 << 10))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (TABLES, b"\0" * 8, "the tables lack"),
        (TABLES, b"short", "longer than the file"),
        (PROBES, write_arrays({"vectors": np.zeros((1, 25), np.float32)}), "the probes lack raw"),
        (
            PROBES,
            write_arrays(
                {
                    "vectors": np.zeros((1, 24), np.float32),
                    "raw": np.zeros(1, np.float32),
                    "contributions": np.zeros((1, 24)),
                }
            ),
            "different lengths",
        ),
        (
            PROBES,
            write_arrays(
                {
                    "vectors": np.zeros((1, 25), np.float32),
                    "raw": np.full(1, np.nan, np.float32),
                    "contributions": np.zeros((1, 25)),
                }
            ),
            "not finite",
        ),
        *(
            (
                PROBES,
                write_arrays(
                    {
                        "vectors": np.zeros((count, 25), np.float32),
                        "raw": np.zeros(count, np.float32),
                        "contributions": np.zeros((count, 25)),
                    }
                ),
                "different lengths, or there are none",
            )
            for count in (0, MAX_PROBES + 1)
        ),
        (REFERENCE, b"{", "the reference is no JSON"),
        (REFERENCE, b'{"histograms":{},"start_us":0,"end_us":0}', "not those of card-v1"),
    ],
)
def test_a_file_of_another_form_is_refused_though_the_manifest_vouches(name: str, data: bytes, reason: str) -> None:
    files = with_file(name, data)
    if name == TABLES and data == b"\0" * 8:
        files = with_file(name, write_arrays({}))
    with pytest.raises(BrokenInvariant, match=reason):
        open_bundle(files)


def test_probes_tell_another_model() -> None:
    probes = open_bundle(golden_files()).probes
    good = Scored(probes.raw, probes.contributions)
    probes.check(good)
    for wrong, what in (
        (Scored(probes.raw + np.float32(1e-4), probes.contributions), "outputs"),
        (Scored(probes.raw, probes.contributions + 1e-4), "contributions"),
        (Scored(probes.raw * np.float32(np.nan), probes.contributions), "outputs"),
        (Scored(probes.raw[:1], probes.contributions), "outputs have the shape"),
    ):
        with pytest.raises(BrokenInvariant, match=what):
            probes.check(wrong)
    Probes(probes.vectors, probes.raw, probes.contributions).check(good)


def arrays_strategy() -> st.SearchStrategy[dict[str, Any]]:
    dtypes = st.sampled_from([np.float32, np.float64, np.int64, np.uint16, np.bool_])
    shape = st.lists(st.integers(0, 4), max_size=3)
    array = st.builds(
        lambda dtype, sides: np.arange(np.prod(sides, dtype=int)).reshape(sides).astype(dtype), dtypes, shape
    )
    return st.dictionaries(st.text("abc_", min_size=1, max_size=4), array, max_size=5)


@settings(deadline=None)
@given(arrays_strategy(), st.randoms(use_true_random=False))
def test_arrays_survive_as_bytes_whatever_their_order(arrays: dict[str, Any], random: Any) -> None:
    data = write_arrays(arrays)
    names = list(arrays)
    random.shuffle(names)
    assert write_arrays({name: arrays[name] for name in names}) == data
    found = read_arrays(data)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@settings(deadline=None, max_examples=200)
@given(st.integers(0), st.integers(1, 255), st.integers(0, 40))
def test_damaged_arrays_are_read_or_refused_and_nothing_else(place: int, flip: int, cut: int) -> None:
    data = bytearray(
        write_arrays({"a": np.arange(4.0), "b": np.array([True, False]), "c": np.ones((2, 2), np.float32)})
    )
    data[place % len(data)] ^= flip
    try:
        read_arrays(bytes(data[: len(data) - cut]))
    except BrokenInvariant:
        return
    assert cut == 0


@pytest.mark.parametrize(
    ("header", "tail", "reason"),
    [
        ({"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}, b"\0", "cannot be read: KeyError"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4, "has no shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8, "does not lie where"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8, "does not lie where"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4, "does not lie where"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 8, "belong to none"),
        ({"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\2", "neither true nor false"),
        ([], b"", "cannot be read: AttributeError"),
    ],
)
def test_a_header_that_lies_is_refused(header: Any, tail: bytes, reason: str) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(BrokenInvariant, match=reason):
        read_arrays(len(text).to_bytes(8, "little") + text + tail)


def test_arrays_of_other_types_are_not_written() -> None:
    with pytest.raises(BrokenInvariant, match="int32"):
        write_arrays({"a": np.zeros(1, np.int32)})


def test_numbers_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(BrokenInvariant, match="not finite"):
        canonical_json({"a": float("nan")})


def test_names_and_digests_are_what_paths_can_hold() -> None:
    assert model_name("card-fraud_2.1") == "card-fraud_2.1"
    for text in ("", "Card", "../x", "a/b", "x" * 65, "a\n"):
        with pytest.raises(InvalidInput):
            model_name(text)
    assert is_digest("0" * 64)
    assert not any(is_digest(text) for text in ("0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"))


def test_a_pointer_survives_as_bytes() -> None:
    for digest in ("a" * 64, None):
        pointer = Pointer(Role.CHALLENGER, digest, 3, 17, "a person", "because")
        assert read_pointer(write_pointer(pointer)) == pointer
    assert Pointed(None, "").next_number == 1
    assert Pointed(pointer, "x").next_number == 4
    assert Pointed(None, "").digest is None


@pytest.mark.parametrize(
    "change",
    [{"digest": "a"}, {"number": 0}, {"author": ""}, {"reason": "x" * 501}],
)
def test_a_pointer_that_no_reader_would_take_is_not_made(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"digest": None, "number": 1, "changed_at_us": 0, "author": "a", "reason": "b"}
    with pytest.raises(InvalidInput):
        Pointer(Role.CHAMPION, **(fields | change))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"role":"king"}', b"\xff"])
def test_bytes_that_are_no_pointer_are_refused(data: bytes) -> None:
    with pytest.raises(BrokenInvariant):
        read_pointer(data)
