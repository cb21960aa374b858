"""What Evidently or NannyML say of hours of features, in a process of its own: `drift_peers.py PEER FOLDER QUIET`.

It runs under the peer's own Python and so imports nothing of the product. The folder holds `reference.npz`, `quiet.npz`
and `drifted.npz` with `vectors` (n, n_features) and `hour` (n,). The last line printed is a JSON object.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def columns_of(path: Path) -> tuple[Any, Any]:
    """A data frame of features, and the hour of each row."""
    pandas: Any = importlib.import_module("pandas")
    with np.load(path) as held:
        vectors, hour = held["vectors"], held["hour"]
    return pandas.DataFrame({f"f{place}": vectors[:, place] for place in range(vectors.shape[1])}), hour


def evidently(reference: Any, window: Any) -> list[bool]:
    """Which columns drift, by the preset's defaults."""
    evidently_module: Any = importlib.import_module("evidently")
    presets: Any = importlib.import_module("evidently.presets")
    definition = evidently_module.DataDefinition(numerical_columns=list(reference.columns))
    dataset = evidently_module.Dataset.from_pandas
    done = evidently_module.Report([presets.DataDriftPreset()]).run(
        dataset(window, definition), dataset(reference, definition)
    )
    found = []
    for metric in json.loads(done.json())["metrics"]:
        config = metric["config"]
        if config["type"].endswith("ValueDrift"):
            is_p_value = "p_value" in config["method"]
            value, threshold = float(metric["value"]), float(config["threshold"])
            found.append(value < threshold if is_p_value else value >= threshold)
    return found


def by_evidently(folder: Path, quiet_seen: int) -> dict[str, Any]:
    """Some quiet hours, and the six of the drift."""
    reference, _ = columns_of(folder / "reference.npz")
    quiet, quiet_hour = columns_of(folder / "quiet.npz")
    drifted, drifted_hour = columns_of(folder / "drifted.npz")
    chosen = np.unique(quiet_hour)[:: max(1, len(np.unique(quiet_hour)) // quiet_seen)]
    evidently(reference, quiet[quiet_hour == chosen[0]])  # imports are not counted
    started = time.process_time()
    alarms = [evidently(reference, quiet[quiet_hour == hour]) for hour in chosen]
    cpu_s = (time.process_time() - started) / len(chosen)
    later = [evidently(reference, drifted[drifted_hour == hour]) for hour in np.unique(drifted_hour)]
    return summed(alarms, later, cpu_s)


def by_nannyml(folder: Path, quiet_seen: int) -> dict[str, Any]:
    """All quiet hours, and the six of the drift, as chunks."""
    del quiet_seen  # it is fast enough for all
    nannyml: Any = importlib.import_module("nannyml")
    pandas: Any = importlib.import_module("pandas")
    frames = {}
    for name in ("reference", "quiet", "drifted"):
        frame, hour = columns_of(folder / f"{name}.npz")
        frame["at"] = pandas.Timestamp("2026-01-01") + pandas.to_timedelta(hour, unit="h")
        frames[name] = frame
    features = [name for name in frames["reference"].columns if name != "at"]
    calculator = nannyml.UnivariateDriftCalculator(column_names=features, timestamp_column_name="at", chunk_period="h")
    calculator.fit(frames["reference"])
    started = time.process_time()
    alarms = _nannyml_alarms(calculator, frames["quiet"], features)
    cpu_s = (time.process_time() - started) / len(alarms)
    return summed(alarms, _nannyml_alarms(calculator, frames["drifted"], features), cpu_s)


def _nannyml_alarms(calculator: Any, frame: Any, features: list[str]) -> list[list[bool]]:
    result = calculator.calculate(frame).filter(period="analysis").to_df()
    alerts = result.xs("alert", axis=1, level=2)
    by_feature = {name: alerts[name].any(axis=1).to_numpy() for name in features}
    return [[bool(by_feature[name][row]) for name in features] for row in range(len(result))]


def summed(alarms: list[list[bool]], later: list[list[bool]], cpu_s: float) -> dict[str, Any]:
    """The figures."""
    half = [sum(one) * 2 >= len(one) for one in later]
    any_one = [any(one) for one in later]
    return {
        "quiet_seen": len(alarms),
        "any": sum(any(one) for one in alarms) / len(alarms),
        "half": sum(sum(one) * 2 >= len(one) for one in alarms) / len(alarms),
        "delay_any": any_one.index(True) + 1 if any(any_one) else None,
        "delay_half": half.index(True) + 1 if any(half) else None,
        "cpu_s": cpu_s,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    """The most memory that this program had. What getrusage says of a child begins with what its parent had."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Run a peer."""
    peer, folder, quiet_seen = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    print(json.dumps((by_evidently if peer == "evidently" else by_nannyml)(folder, quiet_seen)))


if __name__ == "__main__":
    main()
