"""Run all benchmarks, or those that are named: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import time
from typing import Protocol, cast

import benchmarks
from benchmarks.report import Report


class _Benchmark(Protocol):
    def run(self) -> Report: ...


def names() -> list[str]:
    """The benchmarks there are: a module `bench_<name>` each, with a function `run` that returns its Report."""
    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removeprefix("bench_") for name in modules if name.startswith("bench_"))


def main() -> None:
    """Run what was asked for, one after the other, so that no benchmark disturbs another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"which to run (default: all): {', '.join(names())}")
    chosen = parser.parse_args().name or names()
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names())}")
    for name in chosen:
        print(f"bench-{name}: running", flush=True)
        started = time.monotonic()
        module = cast("_Benchmark", importlib.import_module(f"benchmarks.bench_{name}"))
        path = module.run().finish()
        print(f"bench-{name}: {time.monotonic() - started:.0f} s, {path}", flush=True)


if __name__ == "__main__":
    main()
