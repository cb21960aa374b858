"""Become a service: write down who we are, then turn into the program, keeping the process id.

The record is written by the process that it describes, before the program starts. So there is no moment at which a
service runs and nobody knows it, even if `tollgate up` is killed right after starting it.

usage: launch.py RECORD FINGERPRINT COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Write the record atomically and replace this process by the command."""
    record, fingerprint, *command = arguments
    document = {"pid": os.getpid(), "recorded_at": time.time(), "fingerprint": fingerprint, "command": command}
    path = Path(record)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(document), encoding="utf-8")
    partial.replace(path)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
