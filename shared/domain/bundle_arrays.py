"""Named arrays as bytes, in the layout of safetensors: a length, a JSON header, then the numbers.

Eight bytes little-endian give the header's length; the header names each array's dtype, shape and place in what
follows. There is nothing in it that could run, it reads without copying, other tools read it too, and the same arrays
always give the same bytes.

Source: the safetensors format description (github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant

_DTYPES: Final = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U16": "<u2", "BOOL": "|b1"}
_NAMES: Final = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNMENT: Final = 8
_MAX_HEADER: Final = 1 << 20


def write_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of named arrays; a function of names and values, not of the mapping's order.

    Raises:
        BrokenInvariant: An array of another dtype than float32, float64, int64, uint16 or bool.
    """
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    place = 0
    # Widest numbers first, so that every array starts at a multiple of its width.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if array.dtype not in _NAMES:
            raise BrokenInvariant(f"the array {name} is {array.dtype}, which a bundle cannot hold")
        data = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [place, place + len(data)],
        }
        parts.append(data)
        place += len(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of `write_arrays`; read-only views of the bytes.

    Raises:
        BrokenInvariant: The bytes end early, overlap, leave gaps or name an unknown dtype.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MAX_HEADER, len(data) - 8):
        raise BrokenInvariant("the arrays' header is longer than the file")
    start = 8 + size
    try:
        header = json.loads(data[8:start])
        entries = sorted(((entry["data_offsets"], name, entry) for name, entry in header.items()), key=lambda e: e[0])
        found: dict[str, NDArray[Any]] = {}
        place = 0
        for (low, high), name, entry in entries:
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            if not all(type(side) is int and side >= 0 for side in shape):
                raise BrokenInvariant(f"the array {name} has no shape")
            if low != place or high - low != math.prod(shape) * dtype.itemsize or start + high > len(data):
                raise BrokenInvariant(f"the array {name} does not lie where the header says")
            if dtype == np.bool_ and max(data[start + low : start + high], default=0) > 1:
                raise BrokenInvariant(f"the array {name} holds a byte that is neither true nor false")
            found[name] = np.frombuffer(data, dtype, math.prod(shape), start + low).reshape(shape)
            place = high
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenInvariant(f"the arrays' header cannot be read: {type(error).__name__}") from error
    if start + place != len(data):
        raise BrokenInvariant("the arrays are followed by bytes that belong to none")
    return found
