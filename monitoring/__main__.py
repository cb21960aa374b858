"""Writes the dashboards and alert rules: `python -m monitoring`."""

from __future__ import annotations

import sys

from monitoring.rendering import FOLDER, write

for path in write():
    sys.stdout.write(f"{path.relative_to(FOLDER)}\n")
