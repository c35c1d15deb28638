"""What every check of the simulator raises."""

from __future__ import annotations


class Violation(AssertionError):
    """The mesh broke a promise."""
