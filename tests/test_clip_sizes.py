"""Frame sizes of a clip that nobody has recorded: its own, measured once and kept; and a rate that varies."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import avlab
from avlab.media import clip_sizes, synth
from avlab.media.codec import encode_jpeg
from avlab.media.sources import ClipSource
from avlab.stream.recorded_sizes import frame_bytes, sizes_of
from avlab.wire.payloads.jpeg import check_jpeg

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth.write(synth.constant("one.mp4", 12, 1), tmp_path_factory.mktemp("clip"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, of which nothing is known yet."""
    monkeypatch.setenv("AVLAB_CACHE", str(tmp_path / "cache"))
    clip_sizes._measured.cache_clear()
    return tmp_path / "cache"


def encoded(clip: Path, width: int, quality: int) -> list[int]:
    infos = (
        check_jpeg(encode_jpeg(p.image, width=width, quality=quality, matrix=p.matrix)[0])
        for p in ClipSource(clip).pictures()
    )
    return [info.end - info.scan for info in infos]


def test_sizes_are_the_clips_own(clip: Path, cache: Path) -> None:
    sizes = sizes_of(clip)
    assert list(sizes(640, 80)) == encoded(clip, 640, 80)
    assert sizes(500, 70) == pytest.approx(encoded(clip, 500, 70), rel=0.15)
    with pytest.raises(ValueError, match="width must be"):
        sizes(3, 80)
    frames = avlab.simulate(clip, seconds=1, network=avlab.Network(), work=0, audio=False).frames
    assert frames["bytes"].to_numpy() - encoded(clip, 640, 80) == pytest.approx(np.full(12, 615), abs=20)


def test_they_are_measured_once_whatever_the_clip_is_called(
    clip: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sizes_of(clip)(640, 80)
    kept = list(cache.iterdir())
    assert len(kept) == 1
    clip_sizes._measured.cache_clear()  # as in another process
    monkeypatch.setattr(clip_sizes, "measure", lambda path: pytest.fail("measured again"))
    moved = shutil.copy(clip, tmp_path / "count.mp4")  # a name that a sample clip has
    assert sizes_of(moved)(640, 80) == first
    assert first != frame_bytes("count.mp4", 640, 80)[: len(first)]


@pytest.mark.parametrize("data", [b"", b"PK\3\4 torn", b"\0" * 100])
def test_a_cache_that_is_broken_or_cannot_be_written_is_none(clip: Path, cache: Path, data: bytes) -> None:
    first = sizes_of(clip)(640, 80)
    (kept,) = cache.iterdir()
    kept.write_bytes(data)
    clip_sizes._measured.cache_clear()
    assert sizes_of(clip)(640, 80) == first
    shutil.rmtree(cache)
    cache.write_text("a file")
    clip_sizes._measured.cache_clear()
    assert sizes_of(clip)(640, 80) == first


def test_sample_clips_come_with_their_sizes(cache: Path, tmp_path: Path) -> None:
    for sample in sorted(DATA.glob("*.mp4")):
        assert sizes_of(sample)(640, 80) == frame_bytes(sample.name, 640, 80)
    renamed = shutil.copy(DATA / "count-15.mp4", tmp_path / "mine.mp4")
    assert sizes_of(renamed)(400, 50) == frame_bytes("count-15.mp4", 400, 50)
    assert not cache.exists()


def test_of_a_long_clip_some_pictures_stand_for_their_neighbours(
    clip: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = clip_sizes.measure(clip)[640, 80]
    for through in (clip_sizes.READ_THROUGH, 5):
        monkeypatch.setattr(clip_sizes, "READ_THROUGH", through)
        monkeypatch.setattr(clip_sizes, "MOST", 4)
        some = clip_sizes.measure(clip)[640, 80]
        assert len(some) == 12
        assert set(some) <= set(whole)
        assert 1 <= len(set(some)) <= 4


def test_what_is_no_clip_is_said(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sizes_of(tmp_path / "nowhere.mp4")
    (tmp_path / "words.txt").write_text("words")
    with pytest.raises(ValueError, match=r"words\.txt"):
        sizes_of(tmp_path / "words.txt")


def test_of_an_incomplete_frame_the_bytes_are_those_that_were_sent() -> None:
    def sizes(loss: float) -> np.ndarray:
        network = avlab.Network(loss=loss, seed=3)
        frames = avlab.simulate(DATA / "count.mp4", seconds=4, network=network, work=0, audio=False).frames
        assert loss == 0 or (frames["fate"] == "incomplete").sum() > 10
        return frames["bytes"].to_numpy(float)

    # Of a frame that is whole, a receiver leaves out some bytes of the header.
    assert sizes(0.05) == pytest.approx(sizes(0), rel=0.01)


# ---- a rate that varies


def changing() -> list[float]:
    return [*np.arange(0, 3, 1 / 30), *np.arange(3, 6, 1 / 60)]


def test_a_clip_whose_rate_varies_is_judged_by_its_own_timestamps() -> None:
    well = avlab.metrics.convergence(avlab.simulate(changing(), seconds=6, work=0.00005))
    assert well.settled_s is not None
    assert well.settled_s < 0.1
    assert well.overshoot_percent == pytest.approx(0, abs=0.5)
    sample = avlab.simulate(DATA / "count-vfr.mp4", seconds=20, work=0.00005, audio=False)
    for at in ("sent", "shown"):
        found = avlab.metrics.convergence(sample, at=at)
        assert found.settled_s is not None
        assert found.settled_s < 0.1
        assert found.overshoot_percent == pytest.approx(0, abs=0.5)


def test_one_that_is_not_delivered_well_is_still_told() -> None:
    assert avlab.metrics.convergence(avlab.simulate(changing(), seconds=6, pacer="tutorial")).settled_s is None
    lossy = avlab.simulate(changing(), seconds=6, network=avlab.Network(loss=0.05))
    assert avlab.metrics.convergence(lossy).settled_s is None


def test_a_clip_of_one_rate_is_judged_as_before() -> None:
    for fps in (15, 29.97, 60):
        found = avlab.metrics.convergence(avlab.simulate(fps, seconds=5, work=0))
        assert found.settled_s is not None
        assert found.overshoot_percent == pytest.approx(0, abs=0.01)
