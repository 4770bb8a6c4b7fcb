"""A student's part, held against its contract without a stream: what `avlab.testing` raises, as a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avlab import testing
from avlab.lab.check.patience import Patience, WrongError, judged
from avlab.lab.check.words import name, said, sentence
from avlab.lab.predictions import Verdict
from avlab.network.settings import Network
from avlab.parts import PartError, described

PARTS: dict[str, Callable[[Any], None]] = {
    "codec": testing.check_codec,
    "jitter_buffer": testing.check_jitter_buffer,
    "network": lambda work: testing.check_network(**_networks(work)),
    "pacer": testing.check_pacer,
    "payload": testing.check_payload,
    "playout_delay": testing.check_delay,
    "rate_control": testing.check_controller,
    "repair": testing.check_repair,
}
"""What holds a part against its contract, by the keyword that the part is handed in with."""


def part(kind: str, work: Any) -> Verdict:
    """Hold a student's part against its contract, without a stream: what `avlab.testing` raises, as a verdict.

    `kind` is the keyword by which it is handed in: "codec", "jitter_buffer", "network", "pacer", "payload",
    "playout_delay", "rate_control" or "repair"; a function as a network is its loss. ValueError for another word.

    Args:
        kind: The keyword of the part.
        work: The part: a class, an object or a function.
    """
    if kind not in PARTS:
        raise ValueError(f"a part is one of {', '.join(PARTS)}, not {kind!r}")
    return judged(work, lambda patience: _part(kind, work, patience))


def _part(kind: str, work: Any, patience: Patience) -> Verdict:
    def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return patience.call(function, *arguments, busy=True)
        except (WrongError, PartError, KeyboardInterrupt):
            raise
        except BaseException as error:  # as a stream's guard has it
            raise PartError(f"{what} failed: {described(error)}") from error

    testing.calling.set(call)  # in this check's own context
    try:
        PARTS[kind](work)
    except AssertionError as wrong:
        return Verdict(False, sentence(said(wrong)))
    return Verdict(True, f"{name(work)} is a {kind.replace('_', ' ')} that keeps to its contract.")


def _networks(work: Any) -> dict[str, Any]:
    return {"loss": work} if callable(work) and not isinstance(work, Network) else {"network": work}
