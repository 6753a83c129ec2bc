"""Reading a range of any size page by page, all of it at one revision. Says what to ask next; asks nothing itself."""

from __future__ import annotations

from typing import Final, TypedDict

from lattice_core.client.types import RangeResult
from lattice_core.errors import InvalidRequest

PAGE_KEYS: Final = 1000
"""A page of small values is well below a message; the server cuts it short where values are large."""


class Page(TypedDict):
    """Arguments of ``client.range``."""

    start: bytes
    end: bytes | None
    limit: int
    revision: int | None


class Pages:
    """Where a scan stands. ``bounds`` are ``start <= key < end``, an empty end reaching to the end."""

    def __init__(
        self, bounds: tuple[bytes, bytes], limit: int | None, revision: int | None, reverse: bool, page_keys: int
    ) -> None:
        for name, number in (("limit", limit), ("page_keys", page_keys)):
            if number is not None and number < 1:
                raise InvalidRequest(f"scan: {name} is {number}, must be at least 1")
        self._start, self._end = bounds
        self._left = limit
        self._reverse = reverse
        self._page_keys = page_keys
        self._more = True
        self.revision = revision
        """Of all pages; None before the first has come."""

    def next_page(self) -> Page | None:
        """What to ask for; None: that was all."""
        if not self._more or self._left == 0:
            return None
        limit = self._page_keys if self._left is None else min(self._page_keys, self._left)
        return Page(start=self._start, end=self._end or None, limit=limit, revision=self.revision)

    def took(self, page: RangeResult) -> None:
        """The answer to that."""
        if self.revision is None:
            self.revision = page.revision or None  # nothing has a revision in a store that was never written to
        self._more = page.more and bool(page.kvs)
        if self._left is not None:
            self._left -= len(page.kvs)
        if not page.kvs:
            return
        last = page.kvs[-1].key
        if self._reverse:
            self._end = last
        else:
            self._start = last + b"\0"
