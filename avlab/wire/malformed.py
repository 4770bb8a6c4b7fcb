"""Malformed packets and pictures of one peer: which of them are told of, in the record and to a person. Pure."""

from __future__ import annotations

from typing import NamedTuple

from avlab.wire.text import printable
from avlab.wire.units import WireError

MALFORMED_RECORDED = 100
"""How many of a peer's malformed packets or pictures the record names; a hostile sender could fill it with them."""

MALFORMED_TOLD = 3
"""So many of them are worth a notice; one may be anybody's."""

MALFORMED_PICTURES = "what comes from {where} as pictures cannot be read, and is passed over ({why}): see what it sends"


class MalformedTold(NamedTuple):
    """What is to be said of a malformed packet or picture; None each where nothing is."""

    record: str | None
    notice: str | None
    """Why it cannot be read, for the middle of a sentence."""


class MalformedCount:
    """Counts a peer's malformed packets or pictures, and says which of them are told of."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, error: Exception) -> MalformedTold:
        """One more, on which reading it came to grief so."""
        self._count += 1
        if self._count > MALFORMED_RECORDED:
            return MalformedTold(None, None)
        words = str(error) if isinstance(error, WireError) else f"{type(error).__name__}: {error}"
        return MalformedTold(words, printable(words).rstrip(".") if self._count == MALFORMED_TOLD else None)
