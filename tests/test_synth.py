"""The sample clips are what their table says, and every flash begins with its own tone."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avlab.media import synth
from avlab.media.codec import decode_jpeg, encode_jpeg
from avlab.media.probe import probe
from avlab.media.sources import ClipSource

DATA = Path(__file__).parent.parent / "data"
SHORT = synth.constant("short.mp4", Fraction(30_000, 1001), 2)


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth.write(SHORT, tmp_path_factory.mktemp("synth"))


def patch(image: np.ndarray) -> np.ndarray:
    """The colour in the middle of the flash's place."""
    height, width = image.shape[:2]
    left, top, right, bottom = synth.FLASH_RECT
    cut = 0.15 * (right - left), 0.15 * (bottom - top)
    inside = image[
        round((top + cut[1]) * height) : round((bottom - cut[1]) * height),
        round((left + cut[0]) * width) : round((right - cut[0]) * width),
    ]
    return np.median(inside.reshape(-1, 3), axis=0)


def nearest_colour(colour: np.ndarray) -> int | None:
    """The index of the flash's colour, None for the colour between flashes."""
    choices = np.array([*synth.FLASH_COLOURS, synth.FLASH_OFF], float)
    found = int(np.abs(choices - colour).sum(axis=1).argmin())
    return found if found < len(synth.FLASH_COLOURS) else None


def flashes(path: Path, width: int = 320, quality: int = 50) -> list[tuple[float, int]]:
    """(seconds, colour) of each flash's first picture, seen through a small and poor JPEG."""
    found: list[tuple[float, int]] = []
    before = None
    for picture in ClipSource(path).pictures():
        jpeg, _, _ = encode_jpeg(picture.image, width=width, quality=quality)
        colour = nearest_colour(patch(decode_jpeg(jpeg)))
        if colour is not None and colour != before:
            found.append((picture.pts_ns / 1e9, colour))
        before = colour
    return found


def tones(samples: np.ndarray) -> list[tuple[float, int]]:
    """(seconds, tone) of each onset in int16 samples of shape (n,) at 44.1 kHz; the tone from 50 ms after it."""
    found: list[tuple[float, int]] = []
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 1600)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-(10**6)) > 4410)]
    for start in starts:
        piece = samples[start : start + synth.RATE // 20]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), n=synth.RATE))
        levels = [spectrum[tone] for tone in synth.TONES_HZ]
        first, second = sorted(levels)[:-3:-1]
        assert first > 20 * second, "the tone stands alone"
        found.append((start / synth.RATE, int(np.argmax(levels))))
    return found


def sound(path: Path) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in ClipSource(path).chunks()])[:, 0]


@pytest.mark.parametrize("name", [recipe.name for recipe in synth.RECIPES])
def test_each_flash_begins_with_its_own_tone(name: str) -> None:
    recipe = next(recipe for recipe in synth.RECIPES if recipe.name == name)
    seen, heard = flashes(DATA / name), tones(sound(DATA / name))
    expected = [(float(time), k % 6) for k, time in enumerate(recipe.flashes)]
    assert len(expected) == recipe.seconds
    assert [colour for _, colour in seen] == [tone for _, tone in heard] == [k for _, k in expected]
    for (flash, _), (tone, _), (wanted, _) in zip(seen, heard, expected, strict=True):
        assert flash == pytest.approx(wanted, abs=1e-6)
        assert tone == pytest.approx(flash, abs=0.001)


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_hears_the_tones_where_the_flashes_are(short: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-i", str(short), "-map", "a", "-ac", "1", "-f", "s16le", "-"]
    raw = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    heard = tones(np.frombuffer(raw, np.int16))
    assert [tone for _, tone in heard] == [0, 1]
    for (tone, _), (flash, _) in zip(heard, flashes(short), strict=True):
        assert tone == pytest.approx(flash, abs=0.002)


def test_the_onset_is_clean() -> None:
    samples = sound(DATA / "count.mp4").astype(int)
    for k in range(1, 20):
        start = k * synth.RATE
        before, after = np.abs(samples[start - 4410 : start - 5]).max(), np.abs(samples[start : start + 44]).max()
        assert before < 400 < 8000 < after, "silence, and within 1 ms at least half of the tone's height"


def test_the_clips_are_what_the_table_says() -> None:
    for recipe in synth.RECIPES:
        info = probe(DATA / recipe.name)
        assert (info.claims.width, info.claims.height) == (640, 360)
        assert (info.claims.audio_rate, info.claims.channels) == (44100, 2)
        assert info.claims.frames == info.measured.frames == info.opencv.frames == len(recipe.ticks)
        assert info.measured.variable == (recipe.rate is None)
        if recipe.rate:
            assert info.claims.fps == recipe.rate
            assert info.measured.fps == pytest.approx(float(recipe.rate), rel=1e-4)
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 2_000_000


def test_a_variable_clip_keeps_its_times() -> None:
    recipe = synth.RECIPES[-1]
    times = [picture.pts_ns for picture in ClipSource(DATA / recipe.name).pictures()]
    assert times == pytest.approx([float(t) * 1e9 for t in recipe.pts], abs=1)
    gaps = np.diff(times) / 1e6
    assert gaps.min() < 20
    assert gaps.max() > 80


def test_colours_and_tones_are_well_apart() -> None:
    colours = [np.array(colour) for colour in (*synth.FLASH_COLOURS, synth.FLASH_OFF)]
    for i, one in enumerate(colours):
        assert all(np.abs(one - other).max() >= 120 for other in colours[:i])
    assert np.diff(sorted(synth.TONES_HZ)).min() >= 110
    assert len(synth.TONES_HZ) == len(synth.FLASH_COLOURS) >= 6


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path, short: Path) -> None:
    assert synth.write(SHORT, tmp_path).read_bytes() == short.read_bytes()


def test_main_makes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "RECIPES", (synth.constant("a.mp4", 10, 1),))
    (path,) = synth.main(tmp_path / "new")
    assert path == tmp_path / "new" / "a.mp4"
    assert probe(path).measured.frames == 10
