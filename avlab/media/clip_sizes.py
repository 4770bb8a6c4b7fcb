"""How large a clip's own frames are as JPEGs: measured once, over a grid of widths and qualities, and kept.

Reads a clip, encodes at most `MOST` of its pictures, spread over it; what is found goes into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from avlab.media.codec import Picture, encode_jpeg
from avlab.media.packets import MediaError
from avlab.media.sources import ClipSource
from avlab.wire.payloads.jpeg import check_jpeg
from avlab.wire.units import NS

MOST = 200
"""Pictures of a clip that are encoded."""

READ_THROUGH = 1_500
"""A clip of no more pictures is decoded whole; of a longer one, what decoding can begin with is looked for."""

QUALITIES = (10, 30, 50, 80, 95)
VERSION = 1
"""Of what is measured and how it is kept: another one is measured anew."""

_EDGE = 1 << 20
"""Bytes at either end of a large file by which it is told from others, with its size."""

Sizes = NDArray[np.float64]
Table = dict[tuple[int, int], Sizes]
"""By width and quality, the bytes of each frame's scan, for every frame of the clip."""


def measured(path: str | os.PathLike[str]) -> Table:
    """A clip's frame sizes: from the cache, or measured and put there. A cache that cannot be written is none.

    FileNotFoundError and MediaError for the clip.
    """
    return _measured(os.fspath(path), digest(path))


@lru_cache(maxsize=32)
def _measured(path: str, told_by: str) -> Table:
    kept = cache_folder() / f"sizes-{VERSION}-{told_by}.npz"
    errors = OSError, EOFError, ValueError, KeyError, BadZipFile
    with suppress(*errors), np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as there:
        grid = zip(there["at"], there["sizes"], strict=True)
        return {(int(width), int(quality)): sizes for (width, quality), sizes in grid}
    table = measure(path)
    with suppress(OSError):
        _keep(table, kept)
    return table


def _keep(table: Table, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=".sizes-", dir=kept.parent)
    try:
        with open(number, "wb") as file:
            np.savez_compressed(file, at=np.array(list(table)), sizes=np.array(list(table.values())))
        os.replace(name, kept)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def measure(path: str | os.PathLike[str]) -> Table:
    """Encode the pictures, with a progress bar on a terminal. Seconds of work: a picture that is not read has the bytes
    of the one before.
    """
    from tqdm.auto import tqdm

    source = ClipSource(path)
    stamps = source.timestamps_ns()
    if not stamps:
        raise MediaError(f"{os.fspath(path)} has no pictures, only sound")
    found: dict[tuple[int, int], list[int]] = {}
    times: list[int] = []
    widths = _widths(source)
    name = Path(path).name
    for picture in tqdm(
        _spread(source, stamps), total=min(MOST, len(stamps)), desc=f"frame sizes of {name}", disable=None
    ):
        times.append(picture.pts_ns)
        for width in widths:
            for quality in QUALITIES:
                jpeg = encode_jpeg(picture.image, width=width, quality=quality, matrix=picture.matrix)[0]
                info = check_jpeg(jpeg)
                found.setdefault((width, quality), []).append(info.end - info.scan)
    if not times:
        raise MediaError(f"{os.fspath(path)} has no picture that can be decoded")
    order = np.argsort(times, kind="stable")
    # Of each of the clip's frames, which measured one it is, or comes after.
    which = order[np.clip(np.searchsorted(np.array(times)[order], stamps, side="right") - 1, 0, None)]
    return {at: np.array(sizes, np.float64)[which] for at, sizes in found.items()}


def _widths(source: ClipSource) -> tuple[int, int, int]:
    return 320, 640, max(1280, min(2040, source.width or 0))


def _spread(source: ClipSource, stamps: list[int]) -> Iterator[Picture]:
    count = len(stamps)
    if count <= READ_THROUGH:
        chosen = {at * count // min(MOST, count) for at in range(min(MOST, count))}
        yield from (picture for at, picture in enumerate(source.pictures()) if at in chosen)
        return
    step, asked = (stamps[-1] + NS // 100) // MOST, 0

    def leap() -> int | None:
        nonlocal asked
        asked += 1
        return (asked - 1) * step or None

    yield from islice(source.pictures(leap), MOST)


def digest(path: str | os.PathLike[str]) -> str:
    """By which a clip is told from others, whatever it is called: its bytes, of a large one those at its ends."""
    found = os.stat(path)
    return _digest(os.fspath(path), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: str, size: int, _changed_ns: int) -> str:
    with open(path, "rb") as file:
        data = file.read(_EDGE)
        if size > 2 * _EDGE:
            file.seek(size - _EDGE)
        data += file.read(_EDGE)
    return hashlib.sha256(f"{size} ".encode() + data).hexdigest()[:24]


def cache_folder() -> Path:
    """Where the user's caches are on this system, avlab's in it; or what the variable AVLAB_CACHE says."""
    if said := os.environ.get("AVLAB_CACHE"):
        return Path(said)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "avlab" / "Cache"
    elif sys.platform == "darwin":  # noqa: RET505 - mypy takes what follows for unreachable
        return home / "Library" / "Caches" / "avlab"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")  # a relative one is ignored (XDG Base Directory, 0.8)
        return (Path(given) if os.path.isabs(given) else home / ".cache") / "avlab"
