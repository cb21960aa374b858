"""A Prometheus of Debian's for the tests and for `tollgate`'s users who have no Docker: unpacked, not installed.

`python -m twin.services.prometheus` (part of `make setup`) takes the package with apt, which checks its signature, and
unpacks it into `build/prometheus`; nothing of it needs root. One that is on the path is used as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twin.services.settings import HOST, REPOSITORY

FOLDER: Final = REPOSITORY / "build" / "prometheus"
PROGRAMS: Final = ("prometheus", "promtool")
PACKAGE: Final = "prometheus"


class PrometheusMissing(RuntimeError):
    """There is no Prometheus here; the text says what to do."""


def program(name: str, folder: Path = FOLDER) -> Path:
    """The path of `prometheus` or `promtool`.

    Raises:
        PrometheusMissing: Neither unpacked nor on the path.
    """
    unpacked = folder / "usr" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    if found is None:
        raise PrometheusMissing(
            f"{name} is neither in {unpacked.parent} nor on the path: `make setup` takes it from Debian's package "
            f"`{PACKAGE}` where there is apt; elsewhere install Prometheus 2.42 or newer and put it on the path"
        )
    return Path(found)


def unpack(folder: Path = FOLDER) -> None:
    """Have Prometheus in `folder`, unless it is there or on the path already.

    Raises:
        PrometheusMissing: There is no apt here, or it has no such package.
    """
    try:
        for name in PROGRAMS:
            program(name, folder)
    except PrometheusMissing:
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise
        folder.mkdir(parents=True, exist_ok=True)
        package = _download(folder)
        _run("dpkg-deb", "-x", str(package), str(folder))
        package.unlink()
        for name in PROGRAMS:
            program(name, folder)


@contextmanager
def running(configuration: Path, port: int, *, lookback: str = "5m") -> Iterator[str]:
    """A Prometheus with this configuration until the block ends; yields its address.

    Args:
        configuration: Its file; data and log go beside it.
        port: On loopback.
        lookback: How old a sample may be and still count as present.

    Raises:
        PrometheusMissing: There is none, or it does not start; then the text has its log.
    """
    address, log = f"http://{HOST}:{port}", configuration.with_suffix(".log")
    command = [
        str(program("prometheus")),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={configuration.with_suffix('.data')}",
        f"--web.listen-address={HOST}:{port}",
        f"--query.lookback-delta={lookback}",
        "--log.level=warn",
    ]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            deadline = time.monotonic() + 30
            while not _answers(f"{address}/-/ready"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PrometheusMissing(f"Prometheus does not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _download(folder: Path) -> Path:
    """Take the package with apt; with lists of its own where the machine's are missing or too old."""
    lists = folder / "apt"
    own = [f"-oDir::State::lists={lists / 'lists'}", f"-oDir::Cache={lists / 'cache'}"]
    for name in ("lists/partial", "cache/archives/partial"):
        (lists / name).mkdir(parents=True, exist_ok=True)
    problem = ""
    for update, options in ((False, []), (True, own)):
        try:
            if update:
                _run("apt-get", *options, "update", folder=folder)
            _run("apt-get", *options, "download", PACKAGE, folder=folder)
        except PrometheusMissing as error:
            problem = str(error)
            continue
        shutil.rmtree(lists, ignore_errors=True)
        return max(folder.glob(f"{PACKAGE}_*.deb"), key=lambda path: path.stat().st_mtime)
    raise PrometheusMissing(problem)


def _run(*command: str, folder: Path | None = None) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise PrometheusMissing(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")


def main() -> None:
    """Have it, or say why not."""
    try:
        unpack()
    except PrometheusMissing as error:
        sys.exit(f"setup: {error}")


if __name__ == "__main__":
    main()
