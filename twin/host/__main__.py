"""`python -m twin.host --config FILE`: run one function app. Exit codes: see `twin.host.errors`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from twin.host import logs
from twin.host.config import load_config
from twin.host.errors import BrokenApp, HostError, InvalidConfig
from twin.host.host import serve

log = logging.getLogger("twin.host")


def main(arguments: list[str] | None = None) -> int:
    """Run to the end; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m twin.host", description="Run one function app on this machine.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file, see twin/host/config.py")
    chosen = parser.parse_args(arguments)
    logs.install("host", "INFO", "text")
    try:
        config = load_config(chosen.config)
        logs.install("host", config.log_level, config.log_format)
        asyncio.run(serve(config))
    except (InvalidConfig, BrokenApp) as problem:
        for line in problem.problems:
            log.error("%s", line)  # noqa: TRY400  (the reader needs the rule, not our stack)
        return problem.exit_code
    except HostError as problem:
        log.error("%s", problem)  # noqa: TRY400  (the reader needs the rule, not our stack)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
