"""Composition root, a module for each app: builds each app's parts from its settings, lazily, once per process.

Nothing happens at import. The first call reads the environment and makes the clients, none of which connects before it
is used; so an app with broken settings still loads, answers `health/live`, and says what is wrong at the first use.
"""
