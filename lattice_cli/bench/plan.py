"""What a benchmark is asked to do. Plain data, for it travels to the processes that do it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from lattice_core.errors import InvalidRequest, TooLarge
from lattice_core.tls import ClientTLS
from lattice_core.tokens import read_token_file

if TYPE_CHECKING:
    from lattice_core.client import Consistency

Mix = Literal["put", "get", "mixed"]

MAX_CALLERS = 65_536
"""As many operations as one client lets wait at once (lattice_core/client/writes.py)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that callers need to know."""

    endpoints: str
    timeout_seconds: float
    callers: int
    processes: int
    seconds: float
    warm_up_seconds: float
    value_bytes: int
    mix: Mix
    keys: int
    read_consistency: Consistency
    rate: float | None
    """Operations a second that are to be begun, whether or not earlier ones have been answered as long as a caller
    is free; None: each caller begins the next as soon as it has its answer."""
    prefix: str
    """Of every key: this run's own."""
    recorded: bool
    """Whether a history is written: then every value is unique, and a mix is of every kind of operation."""
    token_file: str | None = None
    """Where the token is: each process reads it for itself."""

    def token(self) -> str | None:
        """Raises ConfigurationError."""
        return read_token_file(self.token_file) if self.token_file is not None else None

    tls: ClientTLS | None = None
    """How members are reached; None: plain text."""

    def validate(self) -> None:
        """Raises InvalidRequest for what could not be done, naming both sides of a contradiction."""
        if not 1 <= self.callers <= MAX_CALLERS:
            raise InvalidRequest(f"bench: --callers is {self.callers}, must be 1 to {MAX_CALLERS}")
        if self.processes > self.callers:
            raise InvalidRequest(
                f"bench: --processes {self.processes} is more than --callers {self.callers}",
                hint=f"lattice bench --callers {self.processes} --processes {self.processes}",
            )
        if self.recorded and self.processes > 1:
            raise InvalidRequest(
                f"bench: --history is written by one process, --processes is {self.processes}",
                hint="lattice bench --history FILE --processes 1",
            )
        from lattice_core.kv.commands import MAX_VALUE_BYTES

        if self.value_bytes > MAX_VALUE_BYTES:
            raise TooLarge(
                f"bench: --value-size is {self.value_bytes} bytes, more than {MAX_VALUE_BYTES}",
                limit=MAX_VALUE_BYTES,
                actual=self.value_bytes,
            )

    def key(self, number: int) -> bytes:
        return b"%s%08d" % (self.prefix.encode(), number)

    def callers_of(self, process: int) -> range:
        """The callers that live in the process of this number: as equal shares as there are."""
        share, more = divmod(self.callers, self.processes)
        first = process * share + min(process, more)
        return range(first, first + share + (process < more))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        tls = document.pop("tls")
        return cls(**document, tls=ClientTLS(**tls) if tls is not None else None)
