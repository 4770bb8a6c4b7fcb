"""Pictures and sound of clips and arrays: one origin, exact chunks, loops without a seam, damage said in sentences."""

from __future__ import annotations

import random
import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest

from avlab.media.packets import MediaError
from avlab.media.sources import CHUNK_NS, ArraySource, ClipSource, open_source
from avlab.wire.units import NS

DATA = Path(__file__).parent.parent / "data"


def make(
    path: Path,
    *,
    ticks: Iterable[int] = (),
    base: Fraction = Fraction(1, 30),
    video: str = "mpeg4",
    sound: np.ndarray | None = None,
    rate: int = 44100,
    layout: str = "stereo",
    audio: str = "flac",
    audio_starts: Iterable[tuple[int, int, int]] = (),
    block: int = 1024,
    gop: int | None = None,
) -> Path:
    """A clip: grey frames at `ticks`, and `sound` (int16, (n, channels)); `audio_starts` are (from, to, pts) pieces."""
    with av.open(str(path), "w") as out:
        pictures = out.add_stream(video, rate=round(1 / base)) if ticks else None
        sounds = out.add_stream(audio, rate=rate, layout=layout) if sound is not None else None
        if pictures:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            pictures.codec_context.time_base = base
            if gop:
                pictures.codec_context.gop_size = gop
            for n, tick in enumerate(ticks):
                image = np.full((48, 64, 3), n * 5 % 250, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, "bgr24")
                frame.pts, frame.time_base = tick, base
                out.mux(pictures.encode(frame))
            out.mux(pictures.encode(None))
        if sounds and sound is not None:
            kind = sounds.codec_context.format.name
            for first, last, pts in audio_starts or [(0, len(sound), 0)]:
                for at in range(first, last, block):
                    piece = np.ascontiguousarray(sound[at : min(at + block, last)])
                    packed = av.AudioFrame.from_ndarray(piece.reshape(1, -1), "s16", layout)
                    packed.sample_rate, packed.time_base = rate, Fraction(1, rate)
                    frame = av.AudioResampler(kind, layout, rate).resample(packed)[0]
                    frame.pts, frame.time_base = pts + at - first, Fraction(1, rate)
                    out.mux(sounds.encode(frame))
            out.mux(sounds.encode(None))
    return path


def wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.ascontiguousarray(samples, np.int16).tobytes())
    return path


def noise(n: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20_000, 20_000, (n, channels), np.int16)


def joined(source: ClipSource, seconds: float | None = None) -> np.ndarray:
    chunks = source.chunks() if seconds is None else islice(source.chunks(), round(seconds * NS) // CHUNK_NS)
    return np.concatenate([chunk.samples for chunk in chunks])


def frequency(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate / len(samples)


def test_a_clip_says_what_it_is() -> None:
    clip = ClipSource(DATA / "count.mp4")
    assert (clip.width, clip.height, clip.fps, clip.rate, clip.channels) == (640, 360, 30, 44100, 2)
    assert (clip.has_video, clip.has_audio, clip.live, clip.loop) == (True, True, False, False)
    assert clip.duration_ns == 20_000_000_000


def test_pictures_and_chunks_are_all_there() -> None:
    clip = ClipSource(DATA / "count-24.mp4")
    pictures = list(clip.pictures())
    assert [picture.index for picture in pictures] == list(range(120))
    assert [picture.pts_ns for picture in pictures] == [round(n * 1e9 / 24) for n in range(120)]
    chunks = list(clip.chunks())
    assert len(chunks) == 5 * NS // CHUNK_NS
    for n, chunk in enumerate(chunks):
        assert (chunk.index, chunk.pts_ns, chunk.rate) == (n, n * CHUNK_NS, 44100)
        assert chunk.samples.shape == (44100 * CHUNK_NS // NS, 2)
        assert chunk.samples.dtype == np.int16
        assert chunk.samples.flags.c_contiguous


@pytest.mark.parametrize("name", ["count.mp4", "count-vfr.mp4", "count-29.97.mp4"])
def test_timestamps_without_decoding_are_those_of_the_pictures(name: str) -> None:
    clip = ClipSource(DATA / name)
    assert clip.timestamps_ns() == [picture.pts_ns for picture in clip.pictures()]


@pytest.mark.parametrize("ticks", [range(31), [0, 1, 2, 5, 6, 20, 21, 40]])
@pytest.mark.parametrize("sound_seconds", [0.513, 1.7])
def test_a_loop_has_no_seam(tmp_path: Path, ticks: Iterable[int], sound_seconds: float) -> None:
    sound = noise(round(sound_seconds * 44100), 2)
    path = make(tmp_path / "loop.mkv", ticks=list(ticks), sound=sound)
    once, endless = ClipSource(path), ClipSource(path, loop=True)
    period_ns, passes = endless.duration_ns, 5
    times = [picture.pts_ns for picture in once.pictures()]
    assert period_ns >= max(times[-1] + 1, round(sound_seconds * 1e9) - 1_000_000)
    seen = list(islice(endless.pictures(), passes * len(times)))
    assert [picture.index for picture in seen] == list(range(len(seen)))
    assert [picture.pts_ns for picture in seen] == [k * period_ns + t for k in range(passes) for t in times]
    assert all(before.pts_ns < after.pts_ns for before, after in pairwise(seen))

    heard = joined(endless, passes * period_ns / 1e9 + 0.02)
    alone = joined(once)
    for k in range(passes):
        start, end = (round(n * period_ns * 44100 / 1e9) for n in (k, k + 1))
        piece = heard[start:end]
        kept = min(len(piece), len(sound))
        assert np.array_equal(piece[:kept], alone[:kept])
        assert np.array_equal(piece[:kept], sound[:kept])
        assert not piece[kept:].any(), "silent until the pass ends"


def test_a_long_loop_never_slides(tmp_path: Path) -> None:
    # 1001 samples are no whole number of nanoseconds.
    path = wav(tmp_path / "click.wav", np.repeat([[20_000]] + [[0]] * 1000, 1, axis=1), 44100)
    clip = ClipSource(path, loop=True)
    heard = joined(clip, 4.0)[:, 0]
    clicks = np.flatnonzero(heard)
    assert clicks.tolist() == [round(k * clip.duration_ns * 44100 / 1e9) for k in range(len(clicks))]
    assert len(heard) == 4 * 44100


def test_sound_and_picture_loop_on_their_own_threads() -> None:
    clip = ClipSource(DATA / "count-15.mp4", loop=True)
    got: dict[str, list[int]] = {}

    def read(what: str, n: int) -> None:
        iterator = getattr(clip, what)()
        got[what] = [item.pts_ns for item in islice(iterator, n)]
        iterator.close()

    threads = [Thread(target=read, args=args) for args in (("pictures", 160), ("chunks", 600))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got["pictures"][150] == 10_000_000_000
    assert got["chunks"] == [n * CHUNK_NS for n in range(600)]


def test_a_gap_in_the_sound_is_silent_and_an_overlap_is_trimmed(tmp_path: Path) -> None:
    sound = noise(44100, 1)
    half, tenth = 22050, 4410
    path = tmp_path / "hole.mkv"
    starts = [(0, half, 0), (half, 2 * half, half + 3 * tenth)]
    make(path, sound=sound, layout="mono", audio="pcm_s16le", audio_starts=starts)
    heard = joined(ClipSource(path))[:, 0]
    assert np.array_equal(heard[:half], sound[:half, 0])
    silent = int(np.flatnonzero(heard[half:])[0])
    assert silent == pytest.approx(3 * tenth, abs=45), "to Matroska's millisecond"
    assert np.array_equal(heard[half + silent :][:half], sound[half:, 0])

    path = tmp_path / "overlap.mkv"
    starts = [(0, half, 0), (half, 2 * half, half - tenth)]
    make(path, sound=sound, layout="mono", audio="pcm_s16le", audio_starts=starts, block=half)
    heard = joined(ClipSource(path))[:, 0]
    assert np.array_equal(heard[:half], sound[:half, 0])
    assert len(np.trim_zeros(heard, "b")) == pytest.approx(2 * half - tenth, abs=45)
    assert heard[half] in sound[half + tenth - 45 : half + tenth + 45, 0]


def test_coarse_timestamps_are_no_gaps(tmp_path: Path) -> None:
    sound = noise(3 * 44100, 2)
    path = make(tmp_path / "ms.mkv", sound=sound)  # Matroska rounds each block's time to a millisecond
    assert np.array_equal(joined(ClipSource(path))[: len(sound)], sound)


def test_both_tracks_share_one_origin(tmp_path: Path) -> None:
    sound = noise(44100, 2)
    late_picture = make(tmp_path / "a.mkv", ticks=range(9, 30), sound=sound)
    clip = ClipSource(late_picture)
    assert next(clip.pictures()).pts_ns == 300_000_000
    assert np.array_equal(joined(clip)[:1000], sound[:1000])
    late_sound = make(tmp_path / "b.mkv", ticks=range(6, 36), sound=sound, audio_starts=[(0, 44100, 22050)])
    clip = ClipSource(late_sound)
    assert next(clip.pictures()).pts_ns == 0
    assert abs(np.flatnonzero(joined(clip)[:, 0])[0] - 13230) < 60
    assert clip.duration_ns == pytest.approx(1.3e9, abs=1e6)


def test_mono_of_8_khz_is_resampled_and_stays_mono(tmp_path: Path) -> None:
    time = np.arange(8000) / 8000
    tone = (20_000 * np.sin(2 * np.pi * 440 * time) * (time >= 0.5)).astype(np.int16)[:, None]
    clip = ClipSource(wav(tmp_path / "m.wav", tone, 8000))
    assert (clip.rate, clip.channels, clip.has_video, clip.width, clip.fps) == (44100, 1, False, None, None)
    assert list(clip.pictures()) == []
    heard = joined(clip)
    assert heard.shape == (44100, 1)
    onset = np.flatnonzero(np.abs(heard[:, 0]) > 2000)[0]
    assert onset == pytest.approx(22050, abs=22), "half a millisecond"
    assert frequency(heard[22050:, 0], 44100) == pytest.approx(440, abs=3)


def test_48_khz_is_kept(tmp_path: Path) -> None:
    sound = noise(48000, 2)
    clip = ClipSource(wav(tmp_path / "k.wav", sound, 48000))
    assert (clip.rate, clip.channels, clip.duration_ns) == (48000, 2, 1_000_000_000)
    assert {chunk.samples.shape for chunk in clip.chunks()} == {(48000 * CHUNK_NS // NS, 2)}
    assert np.array_equal(joined(clip), sound)


def test_5_1_is_mixed_to_stereo(tmp_path: Path) -> None:
    time = np.arange(48000) / 48000
    tones = [440, 1320, 880, 0, 0, 2000]  # left, right, centre, (low), left and right behind
    sound = np.stack([8000 * np.sin(2 * np.pi * hz * time) for hz in tones], axis=1).astype(np.int16)
    clip = ClipSource(make(tmp_path / "s.mkv", sound=sound, rate=48000, layout="5.1"))
    assert clip.channels == 2
    heard = joined(clip).astype(float)
    level = np.abs(np.fft.rfft(heard, axis=0))
    left, right = level[:, 0], level[:, 1]
    assert left[440] > 20 * right[440], "left stays left"
    assert right[1320] > 20 * left[1320], "right stays right"
    assert left[880] == pytest.approx(right[880], rel=0.01), "the centre is in both"
    assert left[880] > 0.3 * left[440]
    assert right[2000] > 20 * left[2000], "behind stays on its side"


def test_a_cover_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("libmp3lame", rate=44100, layout="stereo")
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        out.mux(cover.encode(None))
        for at in range(0, 44100, 1152):
            frame = av.AudioFrame.from_ndarray(noise(1152, 2).T.copy(), "s16p", "stereo")
            frame.sample_rate, frame.pts = 44100, at
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    clip = ClipSource(path)
    assert clip.has_audio
    assert not clip.has_video
    assert len(list(clip.chunks())) >= NS // CHUNK_NS


def test_a_raw_stream_goes_by_its_nominal_rate(tmp_path: Path) -> None:
    path = make(tmp_path / "raw.m4v", ticks=range(10))
    clip = ClipSource(path, loop=True)
    times = [picture.pts_ns for picture in islice(clip.pictures(), 25)]
    assert all(before < after for before, after in pairwise(times))
    assert times[:3] == [0, *(round(n * 1e9 / clip.fps) for n in (1, 2))]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("loop", [False, True])
def test_pictures_are_left_unread_up_to_one_that_decoding_can_begin_with(
    tmp_path: Path, suffix: str, loop: bool
) -> None:
    path = make(tmp_path / f"clip.{suffix}", ticks=range(90), gop=15)
    times = [picture.pts_ns for picture in ClipSource(path).pictures()]
    wanted: list[int | None] = [None]
    source, seen, targets = ClipSource(path, loop=loop), [], []
    for picture in source.pictures(lambda: wanted.pop() if wanted else None):
        seen.append(picture)
        if len(seen) == 40:
            break
        if len(seen) % 3 == 0:
            targets.append((len(seen), picture.pts_ns + 700_000_000))
            wanted.append(targets[-1][1])
    assert all(picture.pts_ns % source.duration_ns in times for picture in seen)
    assert np.all(np.diff([picture.pts_ns for picture in seen]) > 0)
    ends = times[75] if not loop else 10**18  # behind the last of these pictures reading just goes on
    for number, target_ns in targets:
        if number < len(seen) and target_ns <= ends:
            assert target_ns <= seen[number].pts_ns <= target_ns + 1_000_000_000
    steps = [round(picture.pts_ns * 30 / 10**9) for picture in seen]
    assert [picture.index for picture in seen] == pytest.approx(steps, abs=1), "the unread ones are counted, too"
    if not loop and suffix != "ts":
        assert seen[-1].pts_ns == times[-1], "to the end"


def test_without_a_picture_to_begin_with_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    path = make(tmp_path / "clip.mp4", ticks=range(40), gop=1000)
    whole = [picture.pts_ns for picture in ClipSource(path).pictures()]
    assert [picture.pts_ns for picture in ClipSource(path).pictures(lambda: 10**9)] == whole
    looped = list(islice(ClipSource(path, loop=True).pictures(iter([None, 10**9, *[None] * 99]).__next__), 3))
    assert [picture.pts_ns for picture in looped[:2]] == [0, ClipSource(path).duration_ns]
    assert [picture.index for picture in looped] == [0, 40, 41]


def test_a_stream_without_timestamps_is_read_through(tmp_path: Path) -> None:
    path = make(tmp_path / "clip.h264", ticks=range(30), video="libx264", gop=10)
    whole = [picture.pts_ns for picture in ClipSource(path).pictures()]
    assert [picture.pts_ns for picture in ClipSource(path).pictures(lambda: 500_000_000)] == whole


def test_closing_an_iterator_closes_the_file(tmp_path: Path) -> None:
    clip = ClipSource(make(tmp_path / "c.mkv", ticks=range(30), sound=noise(44100, 2)))
    pictures, chunks = clip.pictures(), clip.chunks()
    next(pictures)
    next(chunks)
    pictures.close()
    chunks.close()
    assert list(pictures) == list(chunks) == []
    clip.close()
    assert len(list(clip.pictures())) == 30, "it can be read again"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_short_gives_what_is_there_then_says_so(tmp_path: Path, suffix: str) -> None:
    whole = DATA / "count-15.mp4"
    if suffix == ".mkv":
        whole = make(tmp_path / "whole.mkv", ticks=range(150), sound=noise(5 * 44100, 2))
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = ClipSource(cut)
    for iterator in (clip.pictures(), clip.chunks()):
        got = []
        with pytest.raises(MediaError, match=rf"cut{suffix}' stops after \d\.\d s of 5\.0 s"):
            got += list_into(got, iterator)
        assert len(got) > 20


def list_into(got: list[object], iterator: Iterator[object]) -> list[object]:
    for item in iterator:
        got.append(item)  # noqa: PERF402  what was had before the error counts
    return []


def test_a_damaged_file_gives_what_decodes_then_says_so(tmp_path: Path) -> None:
    data = bytearray((DATA / "count-15.mp4").read_bytes())
    rng = random.Random(0)
    for at in range(len(data) // 3, len(data) * 2 // 3):
        data[at] = rng.randrange(256)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    got: list[object] = []
    with pytest.raises(MediaError, match=r"is damaged: \d+ packets of its pictures could not be decoded, the first at"):
        list_into(got, ClipSource(path).pictures())
    assert 20 < len(got) < 75
    chunks: list[object] = []
    with pytest.raises(MediaError, match="of its sound could not be decoded"):
        list_into(chunks, ClipSource(path).chunks())
    assert len(chunks) == 5 * NS // CHUNK_NS, "silence where the sound is lost"


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("none.mp4", None, FileNotFoundError, r"There is no file '.*none\.mp4'; check the name and the folder"),
        ("notes.txt", b"hello\n" * 50, MediaError, r"notes\.txt' is not a clip .*; give a video or sound file"),
        ("text.mp4", b"hello\n" * 50, MediaError, r"text\.mp4' is not a clip"),
        ("empty.mp4", b"", MediaError, r"empty\.mp4' is not a clip"),
        ("words.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhi\n\n", MediaError, r"words\.srt' is not a clip"),
        ("", b"", MediaError, r"is a folder; give a video or sound file"),
    ],
)
def test_what_is_no_clip_is_said_in_a_sentence(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], sentence: str
) -> None:
    path = tmp_path / name if name else tmp_path
    if name and content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=sentence):
        open_source(path)


def arrays(n: int, value: int = 0) -> list[np.ndarray]:
    return [np.full((48, 64, 3), value + i, np.uint8) for i in range(n)]


def test_arrays_are_shown_at_the_rate_given() -> None:
    source = open_source(arrays(4), fps=25)
    assert isinstance(source, ArraySource)
    assert (source.width, source.height, source.fps, source.has_audio) == (64, 48, 25, False)
    assert [picture.pts_ns for picture in source.pictures()] == [0, 40_000_000, 80_000_000, 120_000_000]
    assert list(source.chunks()) == []
    assert [picture.pts_ns for picture in open_source(iter(arrays(2))).pictures()] == [0, 33_333_333]


def test_pairs_are_shown_when_they_say_from_the_first() -> None:
    pairs = list(zip([7.0, 7.1, 7.5], arrays(3), strict=True))
    pictures = list(ArraySource(pairs).pictures())
    assert [picture.pts_ns for picture in pictures] == [0, 100_000_000, 500_000_000]
    assert pictures[2].image is pairs[2][1]
    looped = islice(ArraySource(pairs, loop=True).pictures(), 7)
    assert [round(picture.pts_ns / 1e6) for picture in looped] == [0, 100, 500, 900, 1000, 1400, 1800]


def test_arrays_loop() -> None:
    pictures = list(islice(ArraySource(np.stack(arrays(3)), fps=10, loop=True).pictures(), 8))
    assert [picture.pts_ns for picture in pictures] == [n * 100_000_000 for n in range(8)]
    assert [int(picture.image[0, 0, 0]) for picture in pictures] == [0, 1, 2, 0, 1, 2, 0, 1]
    with pytest.raises(ValueError, match="no pictures to stream"):
        ArraySource([], loop=True)


@pytest.mark.parametrize(
    ("frame", "error", "sentence"),
    [
        (np.zeros((4, 4, 3)), ValueError, r"Frame 0 has dtype float64; .* scale to 0\.\.255"),
        (np.zeros((4, 4), np.uint8), ValueError, r"Frame 0 has shape \(4, 4\); .*COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"Frame 0 has shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"Frame 0 has shape \(0, 4, 3\)"),
        ("frame", TypeError, r"Frame 0 is of type str; a frame is a BGR uint8 array"),
        ((float("nan"), np.zeros((4, 4, 3), np.uint8)), ValueError, "must be a finite number of seconds"),
    ],
)
def test_frames_that_are_none(frame: object, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        ArraySource([frame])
    with pytest.raises(error, match=sentence):
        next(ArraySource(iter([frame])).pictures())


def test_times_must_rise() -> None:
    source = ArraySource([(1.0, arrays(1)[0]), (1.0, arrays(1)[0])])
    with pytest.raises(ValueError, match=r"Frame 1 is at 1\.0 s, not after the one before"):
        list(source.pictures())


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
def test_bad_rates(fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be above 0 and at most 1000"):
        open_source([], fps=fps)


def test_what_is_no_source() -> None:
    with pytest.raises(TypeError, match="A source is the path of a clip, or an iterable of BGR arrays"):
        open_source(3.5)
    with pytest.raises(TypeError, match="A source is the path of a clip"):
        open_source(b"clip.mp4")
    with pytest.raises(ValueError, match="fps belongs to arrays only"):
        open_source(DATA / "count.mp4", fps=30)
    with pytest.raises(ValueError, match="loop=True needs frames that can be read again"):
        open_source(iter([]), loop=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_end_of_a_long_clip_is_looked_up(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [*range(100), 130]
    path = make(tmp_path / f"long.{suffix}", ticks=ticks, base=Fraction(1), sound=noise(3 * 44100, 2))
    seen: list[object] = []
    inner = ClipSource._last_end

    def spy(self: ClipSource, container: object, streams: object) -> Fraction:
        found = inner(self, container, streams)  # type: ignore[arg-type]
        seen.append(found)
        return found

    monkeypatch.setattr(ClipSource, "_last_end", spy)
    clip = ClipSource(path)
    assert len(seen) == 1, "once, from near the end"
    times = [picture.pts_ns for picture in clip.pictures()]
    assert times == [tick * 10**9 for tick in ticks]
    assert times[-1] < clip.duration_ns <= 161 * 10**9
