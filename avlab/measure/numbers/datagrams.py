"""How large frames are on each wire. Pure: bytes of JPEGs in, as a number or a table, bytes of datagrams out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from avlab.wire.classic import MACOS_DATAGRAM, MAX_DATAGRAM
from avlab.wire.rtp import MAX_PACKET

if TYPE_CHECKING:
    import pandas as pd

Bytes = TypeVar("Bytes", int, "pd.DataFrame", "pd.Series[int]")

LIMITS = {"one fragment": MAX_PACKET, "macOS's datagram": MACOS_DATAGRAM, "the largest datagram": MAX_DATAGRAM}
"""Bytes beyond which a frame does not fit: an RTP packet here, one datagram on macOS as it comes, one on any system."""


def in_base64(size: Bytes) -> Bytes:
    """Bytes of `size` bytes in base64: four characters for every three bytes begun (RFC 4648 section 4)."""
    return (size + 2) // 3 * 4


def largest(sizes: pd.DataFrame, limit: int = MAX_DATAGRAM) -> pd.Series[float]:
    """The best quality at which a frame has at most `limit` bytes, width by width; NaN where none does.

    `sizes` is a table of bytes with a row a quality and a column a width, as `avlab.frame_sizes` makes it.
    """
    import numpy as np

    fits = sizes.le(limit)
    best = fits.mul(fits.index.to_numpy(), axis=0).max()
    return best.where(fits.any(), np.nan).rename("quality")
