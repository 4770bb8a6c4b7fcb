"""Makes the sample clips of data/: a counting picture whose every second opens with a flash and its own tone.

Draws with cv2, encodes with PyAV, and may touch only the files that it is told to write:
`python -m avlab.media.synth data/`. The same libraries give the same bytes; the pictures need no font file.
"""

from __future__ import annotations

import math
import random
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 360
"""The size of every sample clip, in pixels."""

RATE = 44100
"""Sample frames of sound a second; the clips are stereo."""

FLASH_SECONDS = 0.1
"""How long each flash and its tone last, from the start of every second."""

FLASH_COLOURS: tuple[tuple[int, int, int], ...] = (
    (40, 40, 235),  # red
    (235, 215, 30),  # cyan
    (30, 220, 240),  # yellow
    (240, 80, 30),  # blue
    (50, 200, 40),  # green
    (225, 40, 220),  # magenta
)
"""Blue, green and red (0 to 255) of second k's flash at index k % 6: neighbours differ in at least two channels."""

TONES_HZ: tuple[int, ...] = (440, 880, 550, 1100, 660, 1320)
"""The tone of second k at index k % 6. All lie 110 Hz or more apart, over five bins of a transform of 50 ms."""

FLASH_RECT = (0.60, 0.10, 0.94, 0.60)
"""Where the flash is: left, top, right, bottom as fractions of the picture's width and height."""

FLASH_OFF = (44, 34, 28)
"""The colour (BGR) of the flash's place between flashes."""

_BACKGROUND, _INK, _FAINT, _LINE, _ACCENT = (26, 18, 14), (245, 242, 238), (170, 158, 146), (74, 60, 50), (80, 170, 255)
_FONT, _BOLD = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX
_SHIFT = 4  # cv2 draws at 1/16 of a pixel, so that what moves moves evenly
_LEVEL = 0.5  # of full scale

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One clip: `ticks` are the presentation times of its frames in units of `time_base` seconds, first one 0."""

    name: str
    label: str
    ticks: tuple[int, ...]
    time_base: Fraction
    seconds: int
    rate: Fraction | None = None

    @property
    def pts(self) -> list[Fraction]:
        """When each frame is shown, in seconds, exactly."""
        return [tick * self.time_base for tick in self.ticks]

    @property
    def flashes(self) -> list[Fraction]:
        """When second k's flash and tone begin: at the first frame that is shown at k seconds or later."""
        pts = self.pts
        return [pts[i] for k in range(self.seconds) if (i := bisect_left(pts, k)) < len(pts)]

    @property
    def lit(self) -> list[int | None]:
        """For each frame, the second whose flash it shows, or None."""
        starts = self.flashes
        seconds = [bisect_right(starts, time) - 1 for time in self.pts]
        length = Fraction(str(FLASH_SECONDS))
        return [k if time - starts[k] < length else None for k, time in zip(seconds, self.pts, strict=True)]


def constant(name: str, fps: Fraction | int, seconds: int) -> Recipe:
    """A clip of a constant rate; `fps` may be a fraction such as 30000/1001."""
    fps = Fraction(fps)
    ticks = tuple(range(math.ceil(fps * seconds)))
    label = f"{float(fps):.5g} fps"
    return Recipe(name=name, label=label, ticks=ticks, time_base=1 / fps, seconds=seconds, rate=fps)


def variable(name: str, seconds: int, seed: int = 1) -> Recipe:
    """A clip as a telephone's: the rate changes with the second, every gap is a little off; in 90 kHz ticks."""
    rng = random.Random(seed)
    ticks: list[int] = []
    for second in range(seconds):
        fps = (30, 60, 12, 24, 20)[second % 5]
        step = 90_000 // fps
        ticks.append(second * 90_000)
        ticks += [second * 90_000 + n * step + rng.randint(-step // 8, step // 8) for n in range(1, fps)]
    return Recipe(name=name, label="variable fps", ticks=tuple(ticks), time_base=Fraction(1, 90_000), seconds=seconds)


RECIPES: tuple[Recipe, ...] = (
    constant("count.mp4", 30, 20),
    constant("count-15.mp4", 15, 5),
    constant("count-24.mp4", 24, 5),
    constant("count-29.97.mp4", Fraction(30_000, 1001), 5),
    constant("count-60.mp4", 60, 5),
    variable("count-vfr.mp4", 5),
)
"""The clips of data/."""


def draw(index: int, seconds: float, label: str, flash: int | None) -> Image:
    """Frame `index` at `seconds` as BGR uint8 of shape (360, 640, 3), with second `flash`'s patch lit, if any."""
    image: Image = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
    lit = FLASH_OFF if flash is None else FLASH_COLOURS[flash % len(FLASH_COLOURS)]
    left, top, right, bottom = FLASH_RECT
    _rectangle(image, left * WIDTH, top * HEIGHT, right * WIDTH, bottom * HEIGHT, lit)

    # OpenCV 5 draws with another font than 4: fill the same place, at one size for every number.
    thick = 9
    scale = 4.0 * 316 / cv2.getTextSize("0000", _BOLD, 4.0, thick)[0][0]
    high = cv2.getTextSize("0000", _BOLD, scale, thick)[0][1]
    cv2.putText(image, f"{index:04d}", (36, 100 + high // 2), _BOLD, scale, _INK, thick, cv2.LINE_AA)
    cv2.putText(image, f"{seconds:05.2f} s", (38, 212), _BOLD, 1.2, _ACCENT, 2, cv2.LINE_AA)
    cv2.putText(image, label, (190, 212), _FONT, 0.62, _FAINT, 1, cv2.LINE_AA)

    # The ball crosses the lane in a second and turns at the wall at the very moment of flash and tone.
    x0, x1, y, radius = 52.0, 588.0, 296.0, 18.0
    _rectangle(image, x0 - radius - 6, y + radius + 6, x1 + radius + 6, y + radius + 8, _LINE)
    for tenth in range(11):
        x, tall = x0 + (x1 - x0) * tenth / 10, 8 if tenth % 5 else 14
        _rectangle(image, x - 1, y + radius + 8, x + 1, y + radius + 8 + tall, _LINE)
    phase = seconds % 2
    ball = x0 + (x1 - x0) * (phase if phase < 1 else 2 - phase)
    cv2.circle(image, _fixed(ball, y), round(radius * 2**_SHIFT), _INK, -1, cv2.LINE_AA, _SHIFT)

    # A hand goes round once a second, at the end of the line of text.
    cx, cy, r = 332.0, 202.0, 15.0
    angle = 2 * math.pi * seconds
    cv2.circle(image, _fixed(cx, cy), round(r * 2**_SHIFT), _LINE, 3, cv2.LINE_AA, _SHIFT)
    tip = _fixed(cx + r * math.sin(angle), cy - r * math.cos(angle))
    cv2.line(image, _fixed(cx, cy), tip, _ACCENT, 4, cv2.LINE_AA, _SHIFT)
    return image


def tones(recipe: Recipe) -> NDArray[np.int16]:
    """The clip's sound: int16 of shape (seconds * 44100, 2), silent but for the tone at each flash."""
    sound = np.zeros(recipe.seconds * RATE, np.float64)
    n = round(FLASH_SECONDS * RATE)
    time = np.arange(n) / RATE
    fade = np.minimum(1, (n - np.arange(n)) / (0.005 * RATE))  # starts at once, ends without a click
    for k, start in enumerate(recipe.flashes):
        first = round(start * RATE)
        tone = np.sin(2 * np.pi * TONES_HZ[k % len(TONES_HZ)] * time) * fade
        sound[first : first + n] = tone[: len(sound) - first]
    return np.repeat((sound * _LEVEL * 32767).round().astype(np.int16)[:, None], 2, axis=1)


def write(recipe: Recipe, folder: str | Path) -> Path:
    """Make one clip in `folder` (H.264 and AAC in MP4) and return its path."""
    path = Path(folder) / recipe.name
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", container_options=options) as out:
        x264 = {"crf": "20", "preset": "slow", "tune": "animation", "threads": "1", "x264-params": "keyint=120"}
        video = out.add_stream("libx264", rate=recipe.rate or 30, options=x264)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT: no version strings
        video.codec_context.time_base = recipe.time_base
        video.codec_context.colorspace = 6  # BT.601, as FFmpeg and OpenCV assume of small pictures
        audio = out.add_stream("aac", rate=RATE, layout="stereo", options={"b": "128k", "flags": "+bitexact"})
        # The muxer interleaves by itself, but holds everything back until it has seen both: feed them in step.
        sounds = _sound_frames(recipe)
        heard = 0
        for index, (tick, time, flash) in enumerate(zip(recipe.ticks, recipe.pts, recipe.lit, strict=True)):
            while heard <= time * RATE and (sound := next(sounds, None)) is not None:
                heard += sound.samples
                out.mux(audio.encode(sound))
            image = draw(index, float(time), recipe.label, flash)
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
            frame.pts, frame.time_base = tick, recipe.time_base
            out.mux(video.encode(frame))
        for sound in sounds:
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path


def _sound_frames(recipe: Recipe, size: int = 1024) -> Iterator[av.AudioFrame]:
    sound = tones(recipe)
    for first in range(0, len(sound), size):
        block = np.ascontiguousarray(sound[first : first + size]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, first, Fraction(1, RATE)
        yield frame


def _fixed(x: float, y: float) -> tuple[int, int]:
    return round(x * 2**_SHIFT), round(y * 2**_SHIFT)


def _rectangle(image: Image, x0: float, y0: float, x1: float, y1: float, colour: Sequence[int]) -> None:
    image[round(y0) : round(y1), round(x0) : round(x1)] = colour


def main(folder: str | Path = "data") -> list[Path]:
    """Make every sample clip in `folder`, which is made when it is missing; return their paths."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [write(recipe, folder) for recipe in RECIPES]


if __name__ == "__main__":
    main(*sys.argv[1:2])
