"""What can go wrong while code or schema is brought to a stack."""

from __future__ import annotations


class DeliveryError(Exception):
    """A step of the delivery failed; the text says which, what was answered and what to do."""


class PackageError(DeliveryError):
    """A package is missing, is not the one of its manifest, or is for another app."""
