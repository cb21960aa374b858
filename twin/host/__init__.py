"""A functions host for one machine: drives Microsoft's own Python worker library.

`python -m twin.host --config FILE` runs ONE function app: this process owns triggers, bindings, keys and supervision,
and its worker processes (`twin.host.worker`) import the app, run it and answer HTTP themselves.
"""
