"""Has reports drawn by a child process, with bounds on its memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from azure.core.exceptions import ResourceNotFoundError

from shared.adapters.blob_errors import translated
from shared.adapters.drift_archive import blob_name
from shared.adapters.evidently_report import HTML, JSON, REFERENCE, WINDOW
from shared.domain.bundle_manifest import REFERENCE as BUNDLE_REFERENCE
from shared.domain.errors import NotFound, Transient
from shared.ports.reports import ComparedWindow, Drawn

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from shared.ports.models import BundleStore

MEMORY_BYTES: Final = 1 << 30
"""Private memory of the child. It takes 460 MB with 20,000 rows a side and 28 columns; the plan's instance has 2 GB."""

TIMEOUT_S: Final = 180.0
"""Wall time of the child: 10 s on an idle core, 35 s beside much else."""

_CHILD: Final = "shared.adapters.evidently_report"


class EvidentlyDrawing:
    """Gives a child the archived rows and the bundle's histograms as files, and takes the report from it."""

    def __init__(
        self,
        archive: ContainerClient,
        bundles: BundleStore,
        *,
        memory_bytes: int = MEMORY_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Start nothing yet.

        Args:
            archive: Where drift keeps what it compared.
            bundles: For the reference.
            memory_bytes: See `MEMORY_BYTES`.
            timeout_s: See `TIMEOUT_S`.
        """
        self._archive = archive
        self._bundles = bundles
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s

    def draw(self, window: ComparedWindow) -> Drawn:
        """Draw the report on a window."""
        reference = self._bundles.get(window.bundle_digest).get(BUNDLE_REFERENCE)
        if reference is None:
            raise NotFound("digest", "names a bundle without a reference")
        with tempfile.TemporaryDirectory(prefix="tollgate-report-") as name:
            folder = Path(name)
            (folder / REFERENCE).write_bytes(reference)
            self._fetch(window, folder / WINDOW)
            self._run(folder, {"bundle_digest": window.bundle_digest})
            return Drawn((folder / HTML).read_bytes(), (folder / JSON).read_bytes())

    def _fetch(self, window: ComparedWindow, path: Path) -> None:
        with translated("reading what drift compared"):
            try:
                stream = self._archive.download_blob(blob_name(window.start_us))
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) != "BlobNotFound":
                    raise
                raise NotFound("window", "is not archived") from error
            with path.open("wb") as file:
                stream.readinto(file)

    def _run(self, folder: Path, about: dict[str, str]) -> None:
        """Run the child; it inherits what it needs to find the libraries, and no secret."""
        environment = {
            "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", _CHILD, str(folder), str(self._memory_bytes), json.dumps(about)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                timeout=self._timeout_s,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Transient(f"a report took longer than {self._timeout_s:g} s") from error
        except OSError as error:
            raise Transient("the child that draws could not be started") from error
        if done.returncode != 0:
            # The last line of a traceback names the error and no row.
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
            raise Transient(f"the child that draws ended with {done.returncode}: {last}")
