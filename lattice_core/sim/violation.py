"""What a check raises."""

from __future__ import annotations


class Violation(Exception):
    """A property does not hold. ``check`` is its short name."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check
        self.message = message
