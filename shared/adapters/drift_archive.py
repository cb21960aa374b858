"""What drift compared, as Parquet in a blob container: one file an hour, columns by name.

    drift/<yyyy>/<mm>/<dd>/<hh>.parquet

Columns: `event_time_us`, the features of the view, `raw`, `score`, `outcome`, `is_champions`. No identifiers: features
alone are kept, and a row cannot be told to be anybody's. A file is written to local disk piece by piece and uploaded
whole, so memory stays bounded and a reader never finds half of one.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final

from shared.adapters.blob_errors import translated
from shared.domain.instants import US_PER_SECOND

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from shared.domain.drift_counts import DecidedRows

PREFIX: Final = "drift/"


class BlobDriftArchive:
    """Files in a container, which must be there."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def begin(self, start_us: int, names: Sequence[str]) -> BlobArchiveFile:
        """Begin the file of an hour on local disk."""
        return BlobArchiveFile(self._container, blob_name(start_us), names)


class BlobArchiveFile:
    """A file on local disk that becomes a blob."""

    def __init__(self, container: ContainerClient, name: str, names: Sequence[str]) -> None:
        self._container = container
        self._name = name
        pa, parquet = _pyarrow(), importlib.import_module("pyarrow.parquet")
        self._schema = pa.schema(
            [
                ("event_time_us", pa.int64()),
                *((name, pa.float32()) for name in names),
                ("raw", pa.float32()),
                ("score", pa.float64()),
                ("outcome", pa.int8()),
                ("is_champions", pa.bool_()),
            ]
        )
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._writer: Any = parquet.ParquetWriter(self._file, self._schema, compression="zstd")

    def add(self, rows: DecidedRows) -> None:
        """Write some rows as a row group."""
        pa = _pyarrow()
        columns = [
            rows.event_time_us,
            *(rows.vectors[:, place] for place in range(rows.vectors.shape[1])),
            rows.raw,
            rows.score,
            rows.outcome,
            rows.is_champions,
        ]
        self._writer.write_table(pa.table([pa.array(column) for column in columns], schema=self._schema))

    def finish(self) -> None:
        """Upload the file; a later one of the same hour takes its place."""
        self._writer.close()
        self._file.seek(0)
        with translated("archiving what drift compared"):
            self._container.upload_blob(self._name, self._file, overwrite=True)

    def close(self) -> None:
        """Let the local file go."""
        if self._writer.is_open:
            self._writer.close()
        self._file.close()


def _pyarrow() -> Any:
    """At the first use: it takes a fifth of a second to import, and has no types."""
    return importlib.import_module("pyarrow")


def blob_name(start_us: int) -> str:
    """The name of an hour's file, by its start in microseconds since 1970 UTC.

    >>> blob_name(3_600_000_000)
    'drift/1970/01/01/01.parquet'
    """
    return f"{PREFIX}{datetime.fromtimestamp(start_us // US_PER_SECOND, UTC):%Y/%m/%d/%H}.parquet"
