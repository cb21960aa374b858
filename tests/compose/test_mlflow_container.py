"""The script that makes MLflow's blob container, on a real Azurite."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.compose.conftest import ROOT


def test_container_is_made_once(storage: str) -> None:
    command = [sys.executable, str(ROOT / "monitoring" / "mlflow" / "make_container.py"), "mlflow"]
    environment = {**os.environ, "AZURE_STORAGE_CONNECTION_STRING": storage}
    said = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
        for _ in range(2)
    ]
    assert said == ["container mlflow made\n", "container mlflow was there\n"]
