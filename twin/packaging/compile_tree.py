"""Compile every module below a folder; run as a script, in a process of its own.

A code object's bytes depend a little on what the interpreter compiled before it (which strings it had interned). A
fresh process that compiles the same files in the same order gives the same bytes, so that is what this script is for.

The bytecode is of the kind that is valid unconditionally (PEP 552, unchecked hash): the platform may set any time on
the files it unpacks, and a package never changes after it was built, so there is nothing to check at each import.
"""

from __future__ import annotations

import py_compile
import sys
import warnings
from pathlib import Path


def compile_tree(folder: Path, shown_as: str) -> list[str]:
    """Compile all modules below `folder`, in sorted order; code objects name them below `shown_as`.

    Returns:
        The files that are no Python, relative to `folder`: libraries may carry templates with that suffix.
    """
    failed = []
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder).as_posix()
        try:
            py_compile.compile(
                str(path),
                dfile=f"{shown_as}/{relative}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except py_compile.PyCompileError:
            failed.append(relative)
    return failed


if __name__ == "__main__":
    # Libraries warn about their own string escapes; that is not this build's business.
    warnings.simplefilter("ignore")
    sys.stdout.writelines(f"{path}\n" for path in compile_tree(Path(sys.argv[1]), sys.argv[2]))
