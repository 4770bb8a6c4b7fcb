"""Two clocks against each other: RTP timestamps on one media clock, and how fast one clock runs on another."""

from __future__ import annotations

import math
import random

import pytest

from avlab.timing.drift import RateEstimator
from avlab.timing.timeline import Timeline
from avlab.wire.rtp import Unwrapper, rtp_timestamp
from avlab.wire.units import NS

MS = 1_000_000
VIDEO, AUDIO = 90_000, 44_100
WALL = 1_700_000_000 * NS  # the sender's wall clock


def timeline(*, video_start: int = 5_000, audio_start: int = 77_000, media_ns: int = 0) -> Timeline:
    """Both streams anchored by RTP-Info: their timestamps stand for `media_ns`."""
    line = Timeline(reference="audio")
    line.add("video", VIDEO)
    line.add("audio", AUDIO)
    line.anchor("video", video_start, media_ns)
    line.anchor("audio", audio_start, media_ns)
    return line


@pytest.mark.parametrize("media_ns", [0, 12_345 * MS])
@pytest.mark.parametrize(("video_start", "audio_start"), [(0, 0), (5_000, 77_000), (4_000_000_000, 1)])
def test_rtp_info_alone_aligns_streams(media_ns: int, video_start: int, audio_start: int) -> None:
    line = timeline(video_start=video_start, audio_start=audio_start, media_ns=media_ns)
    assert line.media_ns("video", video_start) == line.media_ns("audio", audio_start) == media_ns
    assert line.media_ns("video", video_start + 3003) == media_ns + 33_366_667  # to the nearest nanosecond
    assert line.media_ns("audio", audio_start + AUDIO) == media_ns + NS
    assert line.media_ns("video", video_start - VIDEO) == media_ns - NS  # what came before the range


@pytest.mark.parametrize("fps", [5, 15, 25, 60])
@pytest.mark.parametrize("order", [(0, 2, 1), (0, 4, 2, 1, 3), (0, 5, 3, 1, 2, 4), (0, 3, 1, 2)])
def test_pictures_that_are_sent_in_another_order_than_they_are_seen_have_not_leapt(fps: int, order: tuple[int]) -> None:
    line = Timeline(reference="audio")
    line.add("video", VIDEO, reordered=True)
    stamps = [0] + [(lap * (len(order) - 1) + number) * VIDEO // fps for lap in range(6) for number in order[1:]]
    for at, stamp in enumerate(stamps):
        now_ns = at * NS // fps
        assert not line.leaps("video", stamp, now_ns)
        line.arrived("video", stamp, now_ns)
        assert line.media_ns("video", stamp) == round(stamp * NS / VIDEO)
    assert line.leaps("video", stamps[-1] - 2 * VIDEO, now_ns)


def test_an_anchor_comes_first() -> None:
    line = Timeline(reference="audio")
    line.add("video", VIDEO)
    assert not line.anchored("video")
    with pytest.raises(ValueError, match="the video stream has no anchor yet"):
        line.media_ns("video", 0)
    with pytest.raises(KeyError):
        line.media_ns("audio", 0)
    line.anchor("video", 10, 0)
    assert line.anchored("video")
    assert line.media_ns("video", 10 + VIDEO) == NS  # there is no reference to follow


def test_reports_correct_what_rtp_info_had_wrong() -> None:
    line = timeline()
    # RTP-Info took the first packets for simultaneous; the picture was really taken 40 ms before the sound.
    line.report("video", 5_000, WALL)
    assert line.media_ns("video", 5_000) == 0  # one report says nothing yet
    line.report("audio", 77_000, WALL + 40 * MS)
    assert line.media_ns("video", 5_000) == -40 * MS
    assert line.media_ns("audio", 77_000) == 0  # sound never jumps


def test_a_report_of_the_sound_alone_changes_nothing() -> None:
    line = timeline()
    line.report("audio", 77_000 + AUDIO, WALL)
    assert line.media_ns("video", 5_000 + VIDEO) == NS
    assert line.media_ns("audio", 77_000 + AUDIO) == NS


def test_reports_from_two_clocks_are_not_believed() -> None:
    line = timeline()
    line.report("video", 5_000, WALL)
    line.report("audio", 77_000, 3 * NS)  # since the sender's boot
    assert line.media_ns("video", 5_000 + VIDEO) == NS


def test_reports_may_speak_of_any_moment() -> None:
    line = timeline(media_ns=2 * NS)
    line.report("video", 5_000 - 30 * VIDEO, WALL - 30 * NS)
    line.report("audio", 77_000 + 60 * AUDIO, WALL + 60 * NS)
    assert line.media_ns("video", 5_000 + 7 * VIDEO) == 9 * NS


@pytest.mark.parametrize("first", ["video", "audio"])
@pytest.mark.parametrize("wrong", ["video", "audio"])
@pytest.mark.parametrize("off_s", [-30.0, -1.5, 1.5, 3.0, 30.0])
@pytest.mark.parametrize("media_ns", [0, 100 * NS])
def test_rtp_info_that_does_not_fit_misplaces_nothing_whatever_comes_first(
    media_ns: int, off_s: float, wrong: str, first: str
) -> None:
    """Reports come before any packet, and what RTP-Info says of one stream is off by seconds."""
    starts, rates = {"video": 5_000, "audio": 77_000}, {"video": VIDEO, "audio": AUDIO}
    line = timeline(media_ns=media_ns)
    line.anchor(wrong, starts[wrong] - round(off_s * rates[wrong]), media_ns)
    line.begin(media_ns, 0)
    second = "audio" if first == "video" else "video"
    for stream in starts:
        line.report(stream, starts[stream], WALL, 10 * MS)
    for stream, now_ns in ((first, 20 * MS), (second, 30 * MS)):
        line.arrived(stream, starts[stream], now_ns)
        assert line.media_ns(stream, starts[stream]) == pytest.approx(media_ns, abs=20 * MS)
    assert line.media_ns("video", starts["video"]) == line.media_ns("audio", starts["audio"])  # as the reports say


def test_pictures_follow_the_sound_of_a_sender_whose_clocks_part() -> None:
    """The sender's sound card is 200 ppm fast, its video clock exact: after an hour they are 720 ms apart."""
    line = timeline(video_start=0, audio_start=0)
    errors = []
    for second in range(0, 3600, 5):
        ticks = round(second * AUDIO * 1.0002)
        line.report("video", second * VIDEO, WALL + second * NS)
        line.report("audio", ticks, WALL + second * NS)
        assert line.media_ns("audio", ticks) == pytest.approx(second * 1.0002 * NS, abs=12_000)  # half a sample
        for later in (0, 5):  # right after the report, and right before the next
            sound_ns = line.media_ns("audio", round((second + later) * AUDIO * 1.0002))
            errors.append(line.media_ns("video", (second + later) * VIDEO) - sound_ns)
    assert max(map(abs, errors)) < 1.1 * MS


def test_timestamps_that_wrap() -> None:
    video, audio = Unwrapper(32), Unwrapper(32)
    offset = 0xFFFFFFFF - 10 * VIDEO
    line = timeline(video_start=video(offset), audio_start=audio(0xFFFFFFFF))
    for second in range(30):
        line.report("video", video(rtp_timestamp(second * NS, VIDEO, offset)), WALL + second * NS)
        line.report("audio", audio(rtp_timestamp(second * NS, AUDIO, 0xFFFFFFFF)), WALL + second * NS)
        assert line.media_ns("video", video(rtp_timestamp(second * NS, VIDEO, offset))) == second * NS


@pytest.mark.parametrize("ppm", [200, -200, 0])
@pytest.mark.parametrize("jitter_ns", [0, 2 * MS])
def test_a_rate_through_scatter(ppm: int, jitter_ns: int) -> None:
    chance = random.Random(3)
    rate = RateEstimator()
    for n in range(6000):
        on_ns = n * 50 * MS
        rate.update(on_ns + chance.randint(-jitter_ns, jitter_ns), round(on_ns * (1 + ppm * 1e-6)))
    assert rate.ppm == pytest.approx(ppm, abs=0.001 if not jitter_ns else 3)


def test_a_rate_needs_time() -> None:
    rate = RateEstimator(least_s=1)
    assert math.isnan(rate.ppm)
    rate.update(10 * NS, 0)
    assert math.isnan(rate.ppm)
    rate.update(10 * NS + 900 * MS, 900 * MS)
    assert math.isnan(rate.ppm)
    rate.update(12 * NS, 2 * NS)
    assert rate.ppm == pytest.approx(0)
    rate.update(11 * NS, NS)  # an older pair does no harm
    assert rate.ppm == pytest.approx(0)


def test_a_rate_that_changes_is_followed() -> None:
    rate = RateEstimator(time_constant_s=10)
    of_ns = 0.0
    for n in range(2000):
        of_ns += 100 * MS * (1 + (200 if n < 1000 else -100) * 1e-6)
        rate.update(n * 100 * MS, round(of_ns))
    assert rate.ppm == pytest.approx(-100, abs=1)


def test_a_day_loses_no_digits() -> None:
    rate = RateEstimator()
    origin = 10**18
    for n in range(86_400):
        rate.update(origin + n * NS, round(n * 1_000_000_050))
    assert rate.ppm == pytest.approx(0.05, abs=1e-6)
