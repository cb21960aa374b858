"""Deterministic deployment packages, and the static checks of what is deployed."""
