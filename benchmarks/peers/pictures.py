"""The pictures that are sent: as much work for a codec as a film's, with a place for a number; the same each time.

At quality 80 and 4:2:0 they are JPEGs of 46 KB at 640x360 and of 134 KB at 1280x720, as frames of a film shot with
detail and grain are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import painted
from benchmarks.peers.job import PICTURES

Image = NDArray[np.uint8]


def reel(width: int, height: int, count: int = PICTURES) -> Iterator[Image]:
    """`count` BGR pictures of shape (height, width, 3): a camera that pans over a scene, each with grain of its own."""
    scene = _scene(width + 4 * count, height + 2 * count)
    random = np.random.default_rng(2)
    for number in range(count):
        across, down = 4 * number, 2 * number
        view = scene[down : down + height, across : across + width]
        grain = _grain(width) * random.standard_normal((height, width, 1), np.float32)
        picture = np.clip(view + grain, 0, 255).astype(np.uint8)
        for top in painted.strips(height):  # gray around the number, so that its colour is none
            picture[top - painted.BLOCK : top + 2 * painted.BLOCK, : painted.LEAST] = 128
        yield picture


def _grain(width: int) -> float:
    """Its standard deviation in levels: the smaller a picture of the same film, the more is in each of its pixels."""
    return 4.4 * math.pow(1280 / width, 1.15)


def _scene(width: int, height: int) -> NDArray[np.float32]:
    """Noise whose amplitude falls with frequency, as in photographs."""
    random = np.random.default_rng(1)
    scene = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 8):
        step = 2**octave
        noise = random.normal(0, 1, (height // step + 3, width // step + 3, 3)).astype(np.float32)
        noise[..., 1:] = 0.7 * noise[..., :1] + 0.3 * noise[..., 1:]
        scene += 1.2 * step**0.9 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return scene
