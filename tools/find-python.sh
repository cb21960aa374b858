#!/usr/bin/env bash
# Prints the path of a CPython 3.13, or says what is missing. PYTHON overrides the search.
set -u
for candidate in "${PYTHON:-}" python3.13 python3 python "$HOME"/.pyenv/versions/3.13*/bin/python; do
  [ -n "$candidate" ] || continue
  path=$(command -v "$candidate" 2>/dev/null) || continue
  found=$("$path" -c 'import sys; print(sys.executable if sys.version_info[:2] == (3, 13) else "")' 2>/dev/null)
  if [ -n "$found" ]; then
    echo "$found"
    exit 0
  fi
done
echo "setup: Python 3.13 was not found; install it, or name it: make setup PYTHON=/path/to/python3.13" >&2
exit 1
