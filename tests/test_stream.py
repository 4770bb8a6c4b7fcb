"""A clip end to end over real sockets in one process: every frame accounted for, and the handles that carry it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ports
import pytest
from numpy.typing import NDArray
from rawclient import until

import avlab
from avlab.core import presenting
from avlab.measure.numbers import metrics
from avlab.media import codec, synth
from avlab.media.packets import MediaError
from avlab.media.sources import CHUNK_NS
from avlab.stream.handle import Handle
from avlab.stream.playing.tap import Received, Tap
from avlab.timing import skipping
from avlab.timing.jitterbuffer import Frame
from avlab.wire.units import NS

Image = NDArray[np.uint8]

pytestmark = pytest.mark.slow


def plain(count: int, size: int = 64) -> list[Image]:
    """Pictures that can be told apart: number n is grey of level 2 n + 10."""
    return [np.full((size, size, 3), 2 * n + 10, np.uint8) for n in range(count)]


def number_of(image: Image) -> int:
    return round((float(image.mean()) - 10) / 2)


def noise(count: int) -> list[Image]:
    """Pictures whose JPEGs are large, and much smaller at a lower quality or width."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(count)]


def ledgers_close(trace: avlab.Trace, *streams: str) -> None:
    assert metrics.packet_ledger(trace).closes, metrics.packet_ledger(trace)
    for stream in streams:
        assert metrics.packet_ledger(trace, stream).closes, metrics.packet_ledger(trace, stream)
        assert metrics.frame_ledger(trace, stream).closes, metrics.frame_ledger(trace, stream)
        frames = trace.frames[trace.frames["stream"] == stream]
        assert not frames["fate"].isna().any()
        assert not frames["timestamp"].duplicated().any()  # one row a frame, and no more


def shown(client: avlab.Client) -> int:
    """How many pictures were shown so far."""
    frames = client.recent(3600, joined=False).frames
    return int(((frames["stream"] == "video") & (frames["fate"] == "shown")).sum())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]


# ---- a clip, once through, and a second client


@pytest.fixture(scope="module")
def played(data: Path) -> dict[str, Any]:
    """count-15.mp4 to its end at one client, whose pictures are kept; then its first moments at another."""
    with avlab.Server(data / "count-15.mp4") as server:
        with avlab.Client(server.url, audio="null") as first:
            pictures = [(picture.pts, picture.image) for picture in first.frames()]
            ended = first.wait(60) and not first.running
            goes_on = server.running
        with avlab.Client(server.url, audio="null") as second:
            until(lambda: shown(second) > 15)
    return {
        "first": first.trace,
        "second": second.trace,
        "pictures": pictures,
        "ended": ended,
        "goes_on": goes_on,
        "audio_seconds": first.audio_seconds,
        "error": first.error,
    }


def test_bye_ends_the_client_and_not_the_server(played: dict[str, Any]) -> None:
    assert played["ended"]
    assert played["error"] is None
    assert played["goes_on"]


def test_both_ledgers_close(played: dict[str, Any]) -> None:
    trace = played["first"]
    assert trace.meta["joined"]
    ledgers_close(trace, "video", "audio")
    frames = metrics.frame_ledger(trace)
    assert (frames.offered, frames.in_flight) == (75, 0)
    packets = metrics.packet_ledger(trace, "audio")
    assert (packets.lost, packets.socket_dropped, packets.received) == (0, 0, packets.sent)  # over TCP
    assert metrics.frame_ledger(trace, "audio").offered == packets.sent


def test_the_joined_trace_knows_both_sides(played: dict[str, Any]) -> None:
    video = played["first"].frames.query("stream == 'video'")
    assert list(video["index"]) == list(range(75))
    np.testing.assert_allclose(video["pts"], np.arange(75) / 15, atol=1e-6)
    sent = video[video["fate"] != "skipped"]
    shown = video[video["fate"] == "shown"]
    assert len(shown) > 10
    assert (sent["sent"] >= sent["due"]).all()
    assert (sent["sent"] >= sent["encoded"]).all()
    assert (shown["first_packet"] >= shown["sent"]).all()
    assert (shown["complete"] >= shown["first_packet"]).all()
    assert (shown["shown"] >= shown["complete"]).all()
    assert video[video["fate"] != "shown"]["shown"].isna().all()
    assert (sent["packets"] > 1).all()
    packets = played["first"].packets
    assert packets["bytes"].max() <= 1200
    assert (packets.query("fate == 'used'")["received"] >= packets.query("fate == 'used'")["sent"]).all()
    assert 4.5 < played["audio_seconds"] <= 5.2


def test_the_pictures_are_the_clips(played: dict[str, Any]) -> None:
    recipe = next(recipe for recipe in synth.RECIPES if recipe.name == "count-15.mp4")
    left, top, right, bottom = (round(f * n) for f, n in zip(synth.FLASH_RECT, (640, 360) * 2, strict=True))
    drawn = [synth.draw(n, float(recipe.pts[n]), recipe.label, recipe.lit[n]).astype(np.int16) for n in range(75)]
    seen = []
    for pts, image in played["pictures"]:
        at = round(pts * 15)
        assert pts == pytest.approx(at / 15, abs=1e-4)
        assert image.shape == (360, 640, 3)
        nearby = [n for n in (at - 1, at, at + 1) if 0 <= n < 75]
        errors = [np.abs(image - drawn[n]).mean() for n in nearby]
        assert nearby[int(np.argmin(errors))] == at
        lit = recipe.lit[at]
        colour = synth.FLASH_OFF if lit is None else synth.FLASH_COLOURS[lit % 6]
        np.testing.assert_allclose(image[top + 8 : bottom - 8, left + 8 : right - 8].mean((0, 1)), colour, atol=14)
        seen.append(at)
    assert seen == sorted(set(seen))
    assert len(seen) > 10


def test_the_server_rewinds_for_the_next_client(played: dict[str, Any]) -> None:
    video = played["second"].frames.query("stream == 'video'")
    assert list(video["index"])[:10] == list(range(10))
    assert video["pts"].iloc[0] == pytest.approx(0, abs=1e-6)
    ledgers_close(played["second"], "video", "audio")
    both = played["first"].frames["timestamp"], video["timestamp"]
    assert not set(both[0]) & set(both[1])


def test_pictures_and_sound_are_read_in_step(played: dict[str, Any]) -> None:
    sync = played["first"].sync
    assert len(sync) > 10
    assert (sync["offset"].abs() < 0.5).all()  # a wild guess at one stream's time would be off by more


def test_once_ends_the_server_with_the_clip() -> None:
    with avlab.Server(plain(10), once=True) as server, avlab.Client(server.url, audio="null") as client:
        assert server.wait(60)
        assert not server.running
        assert client.wait(60)
    assert server.error is None
    assert metrics.frame_ledger(client.trace).offered == 10
    assert "end of clip" in list(server.trace.settings["name"])


# ---- settings


@pytest.mark.parametrize(("setting", "value"), [("quality", 5), ("width", 64)])
def test_a_setting_acts_three_frames_later_at_most(setting: str, value: int) -> None:
    with (
        avlab.Server(noise(8), fps=30, loop=True, quality=90) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        until(lambda: shown(client) > 5)
        setattr(server, setting, value)
        until(lambda: (server.trace.frames["encoded"] > server.trace.settings["time"].max()).sum() > 8)
        trace = server.trace
    settings = trace.settings[trace.settings["name"] == setting]
    assert settings["value"].iloc[-1] == value
    changed = settings["time"].iloc[-1]
    frames = trace.frames.dropna(subset=["sent"]).sort_values("sent")
    large = frames["bytes"] > 25_000
    before, after = frames[frames["sent"] < changed], frames[frames["sent"] >= changed]
    assert large[before.index].all()
    assert ((after["encoded"] < changed) & large[after.index]).sum() <= 3
    assert large[after.index].sum() <= 3
    assert not large[after.index].iloc[3:].any()


def test_a_pacer_chosen_in_mid_stream_loses_no_frame() -> None:
    with avlab.Server(plain(20), fps=30) as server, avlab.Client(server.url, audio="null") as client:
        until(lambda: len(server.trace.frames) > 5)
        for choice in ("none", "deadline", avlab.DeadlinePacer()):
            server.pacer = choice
        assert isinstance(server.pacer, avlab.DeadlinePacer)
        assert client.wait(60)
        assert list(server.trace.frames["index"]) == list(range(20))
        ledgers_close(client.trace, "video")


def test_a_pacer_chosen_in_mid_stream_acts() -> None:
    with avlab.Server(plain(20), fps=1) as server, avlab.Client(server.url, audio="null"):
        until(lambda: len(server.trace.frames) > 0)
        server.pacer = "none"
        until(lambda: len(server.trace.frames) == 20)  # of which the deadlines are twenty seconds apart


@pytest.mark.parametrize("setting", [{"quality": 0}, {"quality": 101}, {"width": 0}, {"width": 4000}, {"pacer": "x"}])
def test_a_setting_out_of_range_is_refused_and_the_old_one_kept(setting: dict[str, Any]) -> None:
    [(name, value)] = setting.items()
    server = avlab.Server(plain(3))
    before = getattr(server, name)
    with pytest.raises(ValueError, match=name):
        setattr(server, name, value)
    assert getattr(server, name) == before
    with pytest.raises(ValueError, match=name):
        avlab.Server(plain(3), **setting)


def test_the_playout_delay_may_change_while_it_plays(data: Path) -> None:
    with (
        avlab.Server(data / "count-15.mp4", loop=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        for delay in (0.1, 0.0, 0.3, 0.0, 0.05):
            before = shown(client)
            client.playout_delay = delay
            assert client.playout_delay == delay
            until(lambda: shown(client) > before + 20)  # noqa: B023
    ledgers_close(client.trace, "video", "audio")
    set_to = client.trace.settings.query("name == 'playout_delay'")["value"]
    assert list(set_to) == [0.1, 0.1, 0.0, 0.3, 0.0, 0.05]
    for wrong in (-0.1, 5.1, float("nan")):
        with pytest.raises(ValueError, match="playout_delay must be 0 to 5 seconds"):
            client.playout_delay = wrong


# ---- arrays


def test_arrays_in_and_arrays_out() -> None:
    pictures = plain(30)
    with avlab.Server(pictures, fps=20) as server, avlab.Client(server.url, audio="null") as client:
        got = [(picture.pts, number_of(picture.image), picture.image.shape) for picture in client.frames()]
        assert client.speaker_name == ""
        assert client.audio_seconds == 0
    assert len(got) >= 5
    for pts, number, shape in got:
        assert pts == pytest.approx(number / 20, abs=1e-3)
        assert shape == (64, 64, 3)
    ledgers_close(client.trace, "video")
    assert metrics.frame_ledger(client.trace).offered == 30


def test_seconds_and_arrays_come_back_when_they_say() -> None:
    times = [7.0, 7.05, 7.2, 7.21, 7.5, 7.9]
    with (
        avlab.Server(list(zip(times, plain(6), strict=True)), once=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        assert client.wait(60)
        assert server.wait(60)
    frames = client.trace.frames
    np.testing.assert_allclose(frames["pts"], np.subtract(times, 7.0), atol=1e-3)
    np.testing.assert_allclose(np.diff(frames["due"]), np.diff(times), atol=1e-6)


def test_a_slow_taker_gets_the_newest_and_holds_up_nobody() -> None:
    with avlab.Server(plain(30), fps=30, loop=True) as server, avlab.Client(server.url, audio="null") as client:
        slow = client.frames()
        first = next(slow)
        until(lambda: shown(client) > 25)
        newest = client.trace.frames.query("fate == 'shown'")["pts"].max()
        second = next(slow)
        assert second.pts >= newest - 1e-3
        assert second.pts - first.pts > 20 / 30
        slow.close()
        assert client.presentation.taps == []
    ledgers_close(client.trace, "video")


def test_a_clip_that_loops_has_no_seam(tmp_path: Path) -> None:
    recipe = synth.constant("second.mp4", 15, 1)
    with (
        avlab.Server(synth.write(recipe, tmp_path), loop=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        until(lambda: len(server.trace.frames.query("stream == 'video'")) >= 48)  # three joins and more
    frames = client.trace.frames
    ledgers_close(client.trace, "video", "audio")
    for stream in ("video", "audio"):
        steps = frames[frames["stream"] == stream].sort_values("pts")
        assert (np.diff(steps["pts"]) > 0).all()
        assert (np.diff(steps["due"]) >= 0).all()
    video = frames.query("stream == 'video'")
    assert list(video["index"]) == list(range(len(video)))
    turn = video["pts"].iloc[15]
    np.testing.assert_allclose(video["pts"], [n // 15 * turn + n % 15 / 15 for n in range(len(video))], atol=1e-6)
    # Both are due at the same distance from their pts, before and after every join: nothing slides.
    begin = (frames["due"] - frames["pts"])[frames["stream"] == "video"]
    assert np.ptp(begin) < 1e-6
    sound = frames.query("stream == 'audio'")
    chunk = sound.groupby("index")["pts"].min()
    np.testing.assert_allclose(np.diff(chunk), CHUNK_NS / NS, atol=1e-6)
    due = sound.groupby("index")["due"].min()
    assert np.ptp(due - chunk) < 1e-6
    assert (due - chunk).iloc[0] == pytest.approx(begin.iloc[0], abs=1e-6)


# ---- handles


def test_nothing_happens_before_start() -> None:
    server = avlab.Server(plain(3))
    assert not server.running
    assert threads() == []
    with pytest.raises(RuntimeError, match="no address before start"):
        server.url  # noqa: B018
    client = avlab.Client("rtsp://127.0.0.1:9/x", audio="null")
    assert threads() == []
    pictures = client.frames()
    assert threads() == []
    assert len(client.trace.frames) == len(server.trace.frames) == 0
    server.stop()
    client.stop()
    for handle in (server, client):
        assert "not" in repr(handle)
    with pytest.raises(ConnectionRefusedError, match="nothing listens"):
        next(pictures)
    with pytest.raises(RuntimeError, match="could not be started"):
        next(client.frames())


def test_a_name_with_blanks_makes_an_address(tmp_path: Path, data: Path) -> None:
    clip = tmp_path / "my clip, née 100%.mp4"
    clip.write_bytes((data / "count-15.mp4").read_bytes())
    with avlab.Server(clip) as server, avlab.Client(server.url, audio="null") as client:
        assert " " not in server.url
        assert next(client.frames()).image.shape == (360, 640, 3)
        assert client.trace.meta["clip"] == "my clip, née 100%"


def test_handles_start_once_and_stop_from_anywhere() -> None:
    server = avlab.Server(plain(3), loop=True)
    assert server.start() is server
    client = avlab.Client(server.url, audio="null").start()
    for handle in (server, client):
        with pytest.raises(RuntimeError, match="was started before"):
            handle.start()
    url = server.url
    stopper = threading.Thread(target=client.stop)
    stopper.start()
    assert client.wait(60)
    stopper.join(10)
    client.stop()
    server.stop()
    server.stop()
    assert threads() == []
    assert server.url == url
    assert list(client.frames()) == []


def test_a_port_can_be_served_on_again_at_once() -> None:
    port = ports.free()
    with (
        avlab.Server(plain(3), port=port) as server,
        avlab.Client(server.url, audio="null"),
        pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use"),
    ):
        avlab.Server(plain(3), port=port).start()
    with avlab.Server(plain(3), port=port) as again:
        assert f":{port}/" in again.url


def test_stop_all_stops_servers_and_clients() -> None:
    servers = [avlab.Server(plain(3), loop=True).start() for _ in range(2)]
    clients = [avlab.Client(server.url, audio="null").start() for server in servers]
    avlab.stop_all()
    assert threads() == []
    handles: list[Handle] = [*servers, *clients]
    for handle in handles:
        assert not handle.running
        handle.stop()


def test_stopping_the_server_ends_its_clients_without_an_error() -> None:
    with avlab.Server(plain(3), loop=True) as server:
        clients = [avlab.Client(server.url, audio="null", video_over=way).start() for way in ("udp", "tcp")]
        for client in clients:
            next(client.frames())
        server.stop()
        for client in clients:
            assert client.wait(60)
            assert client.error is None
            client.stop()


class Broken:
    """An iterable that gives some pictures and then raises, or gives what is no picture."""

    def __init__(self, good: int, then: object) -> None:
        self.good, self.then = good, then

    def __iter__(self) -> Iterator[object]:
        yield from plain(self.good)
        if isinstance(self.then, Exception):
            raise self.then
        yield self.then


@pytest.mark.parametrize(
    ("then", "kind", "words"),
    [
        (ZeroDivisionError("my own mistake"), ZeroDivisionError, "my own mistake"),
        (np.zeros((64, 64), np.uint8), ValueError, r"Frame 10 has shape \(64, 64\)"),
        (np.zeros((64, 64, 3), np.float32), ValueError, "Frame 10 has dtype float32"),
        ("picture", TypeError, "Frame 10 is of type str"),
    ],
)
def test_a_source_that_fails_in_mid_stream(then: object, kind: type[Exception], words: str) -> None:
    """What came before is played to its end, clients get BYE, and then the server says what it was."""
    with (
        avlab.Server(Broken(10, then), fps=30) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        assert client.wait(60)
        with pytest.raises(kind, match=words):
            server.wait(60)
        until(lambda: not any("server" in name or "video" in name for name in threads()))
        assert client.error is None
    assert metrics.frame_ledger(client.trace).offered == 10
    assert metrics.frame_ledger(client.trace).in_flight == 0
    ledgers_close(client.trace, "video")
    assert isinstance(server.error, kind)


def test_a_source_that_fails_at_once_needs_no_client() -> None:
    server = avlab.Server(Broken(0, ZeroDivisionError("at once"))).start()
    with pytest.raises(ZeroDivisionError, match="at once"):
        server.wait(60)
    until(lambda: threads() == [])
    server.stop()


def test_a_looped_source_that_fails_ends_though_its_sound_would_go_on(tmp_path: Path) -> None:
    server = avlab.Server(synth.write(synth.constant("second.mp4", 15, 1), tmp_path), loop=True)
    source = server.source
    pictures = list(itertools.islice(source.pictures(), 8))

    def failing(leap: Any = None) -> Iterator[Any]:
        yield from pictures
        raise MediaError("the pictures stop here")

    source.pictures = failing  # type: ignore[method-assign]
    with server, avlab.Client(server.url, audio="null") as client:
        assert client.wait(60)
        with pytest.raises(MediaError, match="the pictures stop here"):
            server.wait(60)
    assert metrics.frame_ledger(client.trace).offered == 8


def test_a_clip_cut_short_is_played_to_where_it_ends(tmp_path: Path, data: Path) -> None:
    whole = (data / "count-15.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 2 // 5])
    read: list[Any] = []
    with pytest.raises(MediaError, match="stops after"):
        read.extend(avlab.Server(cut).source.pictures())
    assert 3 < len(read) < 70
    with avlab.Server(cut) as server, avlab.Client(server.url, audio="null") as client:
        assert client.wait(60)
        with pytest.raises(MediaError, match=r"cut\.mp4.*stops after .* the rest of the file is missing"):
            server.wait(60)
    frames = metrics.frame_ledger(client.trace)
    assert (frames.offered, frames.in_flight) == (len(read), 0)
    ledgers_close(client.trace, "video", "audio")
    assert client.error is None


def test_a_speaker_that_is_demanded_and_missing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avlab.media import speaker

    def missing(**_: object) -> speaker.Speaker:
        raise speaker.SpeakerError("none here")

    monkeypatch.setattr(speaker, "PyAudioSpeaker", missing)
    monkeypatch.setattr(speaker, "SoundDeviceSpeaker", missing)
    with avlab.Server(data / "count-15.mp4") as server:
        client = avlab.Client(server.url, audio="speaker")
        with pytest.raises(speaker.SpeakerError, match="no sound output here"):
            client.start()
        assert not any("client" in name or "speaker" in name for name in threads())
        until(lambda: server.clients == 0)


def test_a_device_that_does_not_open_gives_way_to_the_null_speaker(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avlab.media import speaker

    class Shut:
        name, latency_ns, error, stalled = "shut", 0, None, False

        def start(self, fill: object) -> None:
            raise speaker.SpeakerError("it does not open")

        def stop(self) -> None:
            pass

    monkeypatch.setattr("avlab.stream.playing.sound.open_speaker", lambda *_, **__: Shut())
    with avlab.Server(data / "count-15.mp4") as server:
        with avlab.Client(server.url, audio="auto") as client:
            assert "null speaker" in client.speaker_name
            assert "sound device refused" in list(client.trace.settings["name"])
            assert [words for words in client.notices if words.startswith("there is no sound to be heard. ")]
        with pytest.raises(speaker.SpeakerError, match="it does not open"):
            avlab.Client(server.url, audio="speaker").start()


# ---- views: taps that decide


def test_every_picture_of_a_view_has_exactly_one_verdict() -> None:
    """A view that shows every other picture, is replaced by another in mid-stream, and is slow at the end."""
    with avlab.Server(plain(60), fps=30) as server, avlab.Client(server.url, audio="null") as client:
        tap = client.tap(decides=True)
        presented: list[int] = []
        while (frame := tap.take(0.5)) is not None or client.running:
            if frame is None:
                continue
            if len(presented) % 10 == 9:
                client.untap(tap)
                tap = client.tap(decides=True)
            client.presented(frame, client.clock.now_ns())
            client.presented(frame, client.clock.now_ns())  # said twice, written once
            presented.append(frame.ticks & 0xFFFFFFFF)
        client.untap(tap)
    trace = client.trace
    ledgers_close(trace, "video")
    video = trace.frames
    assert len(video) == 60
    assert set(presented) == set(video[video["fate"] == "shown"]["timestamp"])


def test_the_end_waits_for_the_last_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presenting, "VERDICT_PATIENCE_NS", 8 * 10**9)
    with avlab.Server(plain(5), fps=30) as server, avlab.Client(server.url, audio="null") as client:
        tap = client.tap(decides=True)
        until(lambda: all(incoming.ended for incoming in client.presentation.player.streams.values()))
        assert not client.wait(0.3)
        while (frame := tap.take(0)) is not None:
            client.presented(frame, client.clock.now_ns())
        assert client.wait(60)
    ledgers_close(client.trace, "video")
    frames = metrics.frame_ledger(client.trace)
    assert (frames.shown, frames.offered, frames.in_flight) == (1, 5, 0)


def test_a_view_that_says_nothing_holds_up_neither_stream_nor_record() -> None:
    with avlab.Server(plain(10), fps=30) as server, avlab.Client(server.url, audio="null") as client:
        tap = client.tap(decides=True)
        frame = tap.take(10)
        assert frame is not None
        assert client.wait(60)
        client.presented(frame, client.clock.now_ns())  # too late: the books are closed
        assert tap.closed
    ledgers_close(client.trace, "video")
    frames = metrics.frame_ledger(client.trace)
    assert frames.offered == 10
    assert frames.in_flight == 2  # the one taken, and the last one waiting


def frame(ticks: int) -> Frame:
    jpeg = codec.encode_jpeg(plain(1)[0])[0]
    return Frame(ticks, ticks * 1_000_000, jpeg, len(jpeg), 1, 0, 0, 0)


def test_a_tap_keeps_the_newest_and_tells_of_the_rest() -> None:
    missed: list[int] = []
    tap = Tap(lambda _, verdict: missed.append(verdict.frame.ticks), decides=True)
    assert tap.decides
    for ticks in (1, 2, 3):
        tap.put(frame(ticks))
    assert missed == [1, 2]
    taken = tap.take(0)
    assert taken is not None
    assert taken.ticks == 3
    assert tap.take(0) is None
    tap.put(frame(4))
    tap.close()
    tap.put(frame(5))
    assert missed == [1, 2, 5]
    last = tap.take()
    assert last is not None
    assert last.ticks == 4
    assert tap.take() is None  # closed: nobody waits for ever
    assert not Tap().decides


def test_a_tap_may_keep_several_and_gives_the_oldest_first() -> None:
    missed: list[int] = []
    tap = Tap(lambda _, verdict: missed.append(verdict.frame.ticks), waiting=2)
    for ticks in (1, 2, 3):
        tap.put(frame(ticks))
    assert missed == [1]
    assert [taken.ticks for _ in range(3) if (taken := tap.take(0)) is not None] == [2, 3]


def test_a_received_picture_is_decoded_when_asked() -> None:
    picture = Received(codec.encode_jpeg(plain(1, 32)[0])[0], 1.5)
    assert picture.image.shape == (32, 32, 3)
    assert picture.image.dtype == np.uint8


@pytest.mark.parametrize(("pacer", "skips"), [("deadline", True), ("pi", False)])
def test_a_sender_long_behind_skips_frames_only_for_a_pacer_that_keeps_deadlines(
    monkeypatch: pytest.MonkeyPatch, pacer: str, skips: bool
) -> None:
    monkeypatch.setattr(skipping, "HOPELESS_NS", 100_000_000)

    def slowly() -> Iterator[NDArray[np.uint8]]:
        for picture in plain(20):
            time.sleep(0.06)  # half as fast as the clip is to be played
            yield picture

    with avlab.Server(slowly(), fps=30, pacer=pacer) as server, avlab.Client(server.url, audio="null") as client:
        assert client.wait(60)
        assert any("too slow" in words for words in server.notices) is skips
    ledgers_close(client.trace, "video")
    assert (metrics.frame_ledger(server.trace).skipped > 0) is skips
    assert metrics.frame_ledger(server.trace).offered == 20
