"""How many bytes a clip's frames have as JPEGs, over quality and width. Reads a clip, encodes a few of its pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from avlab.media.codec import Picture, check_quality, check_width, encode_jpeg
from avlab.media.packets import MediaError
from avlab.media.sources import ClipSource

if TYPE_CHECKING:
    import pandas as pd

WIDTHS = (80, 160, 240, 320, 400, 480, 640, 800, 960, 1120, 1280)
QUALITIES = (5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 98, 100)


def frame_sizes(
    clip: str | os.PathLike[str],
    *,
    widths: Sequence[int] = WIDTHS,
    qualities: Sequence[int] = QUALITIES,
    pictures: int = 6,
) -> pd.DataFrame:
    """Mean bytes of a frame as a JPEG: a row a quality, a column a width in pixels.

    Encodes `pictures` of the clip's first two seconds or so, spread out, at every width and quality; a second or two of
    work. ValueError for a width or quality out of range or no pictures, FileNotFoundError and MediaError for the clip.

    Args:
        clip: A clip's file.
        widths: Pixels, each 16 to 2040.
        qualities: JPEG qualities, each 1 to 100.
        pictures: How many are encoded, 1 or more.
    """
    import pandas as pd

    if not widths or not qualities or pictures < 1:
        raise ValueError("frame_sizes needs at least one width, one quality and one picture")
    for width in widths:
        check_width(width)
    for quality in qualities:
        check_quality(quality)
    source = ClipSource(clip)
    # 11 is no divisor of any frame rate: a flash that comes once a second is met at most once.
    chosen = list(islice(source.pictures(), 5, 5 + 11 * pictures, 11)) or list(islice(source.pictures(), 1))
    if not chosen:
        raise MediaError(f"{os.fspath(clip)} has no pictures, only sound")
    table = {width: [_mean_size(chosen, width, quality) for quality in qualities] for width in widths}
    sizes = pd.DataFrame(table, index=pd.Index(qualities, name="quality")).round().astype(int)
    sizes.columns.name = "width"
    return sizes


def _mean_size(pictures: Sequence[Picture], width: int, quality: int) -> float:
    sizes = [len(encode_jpeg(p.image, width=width, quality=quality, matrix=p.matrix)[0]) for p in pictures]
    return sum(sizes) / len(sizes)
