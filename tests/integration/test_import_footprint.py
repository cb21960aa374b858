"""What an app loads at start: cold start is a feature, so heavy libraries stay out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from twin.services.settings import APPS

ROOT = Path(__file__).resolve().parents[2]
# Not aiohttp: azure-core loads it wherever it is installed, and in a package it is not.
NEVER = {"mlflow", "pandas", "pyarrow", "scipy", "shap", "sklearn", "sqlalchemy", "twin", "uvicorn", "xgboost"}


@pytest.mark.parametrize("app", APPS)
def test_an_app_loads_only_what_it_needs(app: str) -> None:
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import function_app;"
        "print(json.dumps([type(function_app.app).__name__, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(ROOT / "functions" / app)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    kind, loaded = json.loads(done.stdout)
    assert kind == "FunctionApp"
    assert not NEVER & set(loaded)
