"""Anyone's own loss and delay: asked, looked at, and kept from ending a stream that goes on without them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from avlab.network.settings import LONGEST, Network
from avlab.parts import Call, Packet, PartError, called, named, number, shown


def whether_lost(part: Any, packet: Packet, state: dict[Any, Any], call: Call = called) -> bool:
    """What a loss says of a packet. PartError when it fails, or returns anything but a truth."""
    what = f"the network's loss {named(part)}"
    given = _written(call(what, part, packet, state), what, "True for a packet that is lost, and False else")
    if isinstance(given, bool) or (isinstance(given, int) and given in (0, 1)):
        return bool(given)
    if type(given).__module__ == "numpy" and type(given).__name__ in ("bool", "bool_"):
        return bool(given)
    raise PartError(f"{what} returned {shown(given)}: it must return True for a packet that is lost, and False else")


def seconds_taken(part: Any, packet: Packet, state: dict[Any, Any], call: Call = called) -> float:
    """What a delay says of a packet. PartError when it fails, or returns anything but seconds from 0 to 3600."""
    what = f"the network's delay {named(part)}"
    given: Any = _written(call(what, part, packet, state), what, "the seconds that the packet takes")
    seconds = number(given)
    if seconds is not None and 0 <= seconds <= LONGEST:
        return seconds
    raise PartError(f"{what} returned {shown(given)}: it must return seconds, from 0 to {LONGEST:,}")


def _written(given: Any, what: str, right: str) -> Any:
    if given is ...:
        raise PartError(f"{what} is not written yet: put your own in place of ...")
    if given is None:
        raise PartError(f"{what} returned nothing: is there a return? It must return {right}")
    return given


class _Kept:
    """A function that never fails: when it has, once, it is told of, and what it is replaced by holds from then on.

    It is equal to another of the same function, so that what that remembers stays when a setting beside it is changed.
    """

    def __init__(
        self,
        part: Any,
        ask: Callable[..., Any],
        default: Any,
        call: Call,
        failed: Callable[[PartError], None],
    ) -> None:
        self.part, self.__name__ = part, named(part)
        self._ask, self._default, self._call, self._failed = ask, default, call, failed
        self._broken = False

    def __call__(self, packet: Packet, state: dict[Any, Any]) -> Any:
        if self._broken:
            return self._default
        try:
            return self._ask(self.part, packet, state, self._call)
        except PartError as error:
            self._broken = True
            self._failed(error)
            return self._default

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and self.part == other.part

    def __hash__(self) -> int:
        return hash(self.part)


def kept_going(network: Network, call: Call, failed: Callable[[PartError], None]) -> Network:
    """The same network, whose own functions are asked by `call`; one that fails is told of, and no more asked.

    Nothing is lost, and nothing is delayed, by a function that has failed.
    """
    changed: dict[str, Any] = {}
    if callable(network.loss):
        changed["loss"] = _Kept(network.loss, whether_lost, False, call, failed)
    if callable(network.delay):
        changed["delay"] = _Kept(network.delay, seconds_taken, 0.0, call, failed)
    return replace(network, **changed) if changed else network
