"""Whether a receiver report can be true, by its own numbers and by what was sent. Pure.

Who understates what it receives is not found out by this: then its own path is what it says, and the others' count.
"""

from __future__ import annotations

from typing import NamedTuple

from avlab.wire.rtcp import ReportBlock
from avlab.wire.units import NS

MOST_JITTER_NS = 30 * NS
"""No path spreads packets further than they are kept."""

MISSED_REPORTS = 4
"""A report may follow on so many lost ones: what was lost in its own stretch is at most all that was lost since."""

OVERTAKEN = 64
"""A receiver counts from the packet that came first; so many may come after it that were sent before it."""


class Account(NamedTuple):
    """What was sent to a receiver of one stream, by the time its report comes."""

    first: int
    """The first packet's sequence number."""
    packets: int
    copies: int
    """What a network of this side's own has duplicated."""
    since_ns: int
    """How long ago the first packet left."""
    rate: int
    """Of the media clock, in hertz."""


def doubt(block: ReportBlock, sent: Account, before: ReportBlock | None = None) -> str | None:
    """Why a report cannot be true, in a few words; None when it can. `before` is the last one that was heard.

    A receiver counts the wraps of sequence numbers from its own first packet on (RFC 3550 A.1).
    """
    last = sent.first + sent.packets - 1
    highest = last - ((last - block.highest_sequence) & 0xFFFF)  # the latest packet that it can be
    if highest < sent.first or block.highest_sequence > highest:
        return "its highest packet was never sent"
    expected = highest - sent.first + 1
    if block.cumulative_lost > expected:
        return "more is lost than was sent"
    if expected - block.cumulative_lost > sent.packets + sent.copies + OVERTAKEN:
        return "more was received than was sent"
    if block.jitter * NS > min(sent.since_ns, MOST_JITTER_NS) * sent.rate:
        return "its jitter is longer than it has been there"
    if before is None:
        span, lost = expected, block.cumulative_lost
    else:
        span = (block.highest_sequence - before.highest_sequence) & 0xFFFFFFFF
        lost = block.cumulative_lost - before.cumulative_lost
        if span >= 1 << 31:
            return "its numbers run backwards"
    if lost > span + OVERTAKEN:
        return "more is lost than was sent"
    # A.3: what was expected and did not come, as a fraction; duplicates may hide a loss, and reports may be missing.
    most = min(255, MISSED_REPORTS * 256 * max(0, lost) / span + 4) if span else 0
    if block.fraction_lost > most:
        return "its fraction lost is more than it counts"
    return None
