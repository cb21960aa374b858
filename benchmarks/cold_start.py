"""One worker process of the score app from nothing to its first decision; prints what that took and what it loaded.

The worker library is driven as the host's worker drives it; only the HTTP front is left out. aiohttp is hidden, which a
package does not have and azure-core would load for nothing. Run as
`python -m benchmarks.cold_start APP_DIR STARTED_AT` with the app's settings in the environment, where STARTED_AT is the
time of day at which the process was started, seconds since 1970.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any


async def _first_decision(app_dir: str) -> dict[str, Any]:
    from twin.host.protos import ParameterBinding, RpcHttp, TypedData  # noqa: PLC0415 - the clock runs already
    from twin.host.worker.runtime import App  # noqa: PLC0415

    sys.path.insert(0, app_dir)
    app = await App.load(app_dir)
    loaded_at = time.time()
    now = time.gmtime()
    body = {
        "transaction_id": f"cold-{time.time_ns()}",
        "customer_id": "cold-card",
        "terminal_id": "cold-terminal",
        "amount_minor": 4200,
        "currency": "EUR",
        "event_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
    }
    request = RpcHttp(
        method="POST",
        url="http://127.0.0.1/api/score",
        headers={"content-type": "application/json"},
        query={},
        params={},
        body=TypedData(bytes=json.dumps(body).encode()),
    )
    inputs = [ParameterBinding(name="req", data=TypedData(http=request))]
    outcome = await app.invoke(app.functions["score"], "cold", inputs, {})
    assert outcome.error is None, outcome.error
    assert outcome.returned is not None
    answer: Any = outcome.returned.value
    return {"loaded_at": loaded_at, "status": int(answer.status_code), "body": answer.body.value.decode()}


def _rss_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """Decide once and tell."""
    app_dir, started_at = sys.argv[1], float(sys.argv[2])
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
    found = asyncio.run(_first_decision(app_dir))
    decided_at = time.time()
    document = {
        "loaded_s": found["loaded_at"] - started_at,
        "decided_s": decided_at - started_at,
        "cpu_s": time.process_time(),
        "rss_mb": _rss_mb("VmRSS:"),
        "peak_mb": _rss_mb("VmHWM:"),
        "status": found["status"],
        "body": found["body"],
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
