"""Codecs and payload formats of one's own on real sockets; broken ones, after which the stream goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_own_parts_live import fails, goes_on, named, shown, spins, streaming, until
from test_own_pictures import Difference, Grey, Numbered, of

import avlab
from avlab.lab.notebook.panel import noticed, situation

pytestmark = pytest.mark.slow


def playing(clip: Path, *, client: dict[str, Any] | None = None, **parts: Any) -> Any:
    """A server and a client that have the same parts, but for what else the client is given."""
    own = {name: part for name, part in parts.items() if name in ("payload", "codec")}
    return streaming(clip, client=own | (client or {}), **parts)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_stream_of_ones_own_codec_and_format(clip: Path, isolated: bool) -> None:
    with playing(clip, payload=Numbered, codec=Grey, isolated=isolated) as (server, client):
        for count, picture in enumerate(client.frames()):
            grey = picture.image
            if count == 20:
                break
        assert grey.shape[1:] == (160, 3)
        np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
        assert picture.jpeg[:2] == b"\xff\xd8"
        goes_on(client)
        assert server.error is client.error is None
        assert server.payload is client.payload is Numbered
    packets = client.trace.packets.query("stream == 'video'")
    assert set(packets["fate"]) <= {"used", "in_flight"}


@pytest.mark.parametrize(
    ("parts", "more"),
    [
        ({"payload": Numbered}, {"repair": "fec"}),
        ({"codec": Grey}, {"repair": "rtx", "playout_delay": 1.0}),
        ({"payload": Numbered, "codec": Grey}, {"repair": "rtx", "playout_delay": 1.0, "video_over": "udp"}),
        ({"payload": Numbered}, {"video_over": "tcp"}),
    ],
)
def test_what_is_lost_is_repaired_whatever_the_payload_is(
    clip: Path, parts: dict[str, Any], more: dict[str, Any]
) -> None:
    with playing(clip, client=more, network=avlab.Network(loss=0.05), **parts) as (_, client):
        until(lambda: shown(client) > 90)
        assert client.error is None
    fates = client.trace.frames.query("stream == 'video'")["fate"].value_counts()
    assert fates["shown"] / (fates.sum() - fates.get("in_flight", 0)) > 0.85
    if "repair" in more:
        assert (client.trace.packets["fate"] == "recovered").any()


def test_whoever_joins_a_codec_with_key_frames_sees_the_next_picture(clip: Path) -> None:
    with playing(clip, codec=Difference) as (server, client):
        goes_on(client)
        with avlab.Client(server.url, audio="null", codec=Difference) as late:
            goes_on(late)
            goes_on(client)
            assert late.error is client.error is server.error is None
        first = late.trace.frames.query("stream == 'video' and fate == 'shown'")["pts"].min()
        assert first > 0.2


@pytest.mark.parametrize(
    ("parts", "given", "words"),
    [
        ({"payload": Numbered}, {}, "come as X-mine, a payload format of somebody's own: hand that format to"),
        ({"codec": Grey}, {}, "are made by the codec Grey, which is somebody's own: hand it to the client, as codec="),
        ({"payload": Numbered, "codec": Grey}, {"payload": Numbered}, "are made by the codec Grey"),
        ({"payload": Numbered}, {"payload": of(Numbered, name="other")}, "and X-other was given"),
    ],
)
def test_a_client_without_the_part_says_so_in_a_sentence(
    clip: Path, parts: dict[str, Any], given: dict[str, Any], words: str
) -> None:
    arrays = [np.zeros((48, 64, 3), np.uint8)] * 300
    with avlab.Server(arrays, fps=30, **parts) as silent, pytest.raises(ValueError, match="the pictures at") as caught:
        avlab.Client(silent.url, audio="null", **given).start()
    assert words in str(caught.value)
    with streaming(clip, client=given, **parts) as (_, client):
        [told] = [each for each in client.notices if words in each]
        assert "the sound goes on without them" in told
        until(lambda: (client.trace.frames["fate"] == "shown").sum() > 20)


def test_a_part_that_the_server_was_not_given_is_named_and_does_nothing(clip: Path) -> None:
    with streaming(clip, client={"payload": Numbered, "codec": Grey}) as (_, client):
        goes_on(client)
        assert any("the payload format does nothing" in told for told in client.notices)
        assert any("the codec does nothing" in told for told in client.notices)


class Tires(Grey):
    """Has had enough after a while."""

    def __init__(self) -> None:
        self.left = 30

    def encode(self, image: Any, quality: int) -> bytes:
        self.left -= 1
        return super().encode(image, quality) if self.left > 0 else fails()


BROKEN_SERVER: list[tuple[str, dict[str, Any]]] = [
    ("the codec Mine failed: ZeroDivisionError", {"codec": of(Grey, encode=fails)}),
    ("the codec Tires failed: ZeroDivisionError", {"codec": Tires, "payload": Numbered}),
    ("encode() returned nothing", {"codec": of(Grey, encode=lambda self, image, quality: None)}),
    ("the codec Mine had not returned", {"codec": of(Grey, encode=spins)}),
    ("the codec Mine failed", {"codec": of(Grey, __init__=fails)}),
    ("the payload format Mine failed", {"payload": of(Numbered, pack=fails)}),
    ("pack() of", {"payload": of(Numbered, pack=lambda self, frame, most: [frame[:most], bytes(most + 1)])}),
    ("the payload format Mine had not returned", {"payload": of(Numbered, pack=spins), "codec": Grey}),
]


@pytest.mark.parametrize(
    ("words", "parts", "isolated"),
    [(*case, False) for case in BROKEN_SERVER] + [(*BROKEN_SERVER[1], True), (*BROKEN_SERVER[-1], True)],
)
def test_pictures_go_on_without_a_broken_part_of_their_server(
    clip: Path, words: str, parts: dict[str, Any], isolated: bool
) -> None:
    given = {name: part if name == "codec" else Numbered for name, part in parts.items()}
    with streaming(clip, client=given, isolated=isolated, **parts) as (server, client):
        named(server, words)
        goes_on(client)
        assert any(words in told for told in noticed(server, client))
        assert client.error is None
        assert situation(server, client) == ("playing", "")


def incomplete(client: avlab.Client) -> int:
    return int((client.trace.frames["fate"] == "incomplete").sum())


BROKEN_CLIENT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the codec Mine failed", {"codec": Grey}, {"codec": of(Grey, decode=fails)}),
    ("an array of (4, 4)", {"codec": Grey}, {"codec": of(Grey, decode=lambda self, data: np.zeros((4, 4)))}),
    ("the codec Mine had not returned", {"codec": Grey}, {"codec": of(Grey, decode=spins)}),
    ("the payload format Mine failed", {"payload": Numbered}, {"payload": of(Numbered, unpack=fails)}),
    ("are not the JPEG", {"payload": Numbered}, {"payload": of(Numbered, unpack=lambda self, payloads: b"no")}),
    ("the payload format Mine had not", {"payload": Numbered}, {"payload": of(Numbered, unpack=spins)}),
]


@pytest.mark.parametrize(("words", "parts", "given"), BROKEN_CLIENT)
def test_sound_goes_on_where_a_broken_part_makes_no_picture(
    clip: Path, words: str, parts: dict[str, Any], given: dict[str, Any]
) -> None:
    with streaming(clip, client=given, **parts) as (server, client):
        named(client, words)
        until(lambda: incomplete(client) > 10)
        heard = client.audio_seconds
        until(lambda: client.audio_seconds > heard + 0.3)
        assert server.error is None
        assert shown(client) == 0


@pytest.mark.parametrize("side", ["encode", "decode"])
def test_a_codec_that_cannot_be_ended_is_named_and_stop_returns(clip: Path, side: str) -> None:
    let_go = threading.Event()

    def waits(*_: Any) -> Any:
        let_go.wait(120)
        return b""

    mine = of(Grey, **{side: waits})
    server = avlab.Server(clip, width=160, loop=True, codec=mine).start()
    client = avlab.Client(server.url, audio="null", codec=mine).start()
    try:
        named(server if side == "encode" else client, "the codec Mine has not returned, and cannot be ended")
        began = time.monotonic()
        client.stop(timeout=10.0)
        server.stop(timeout=10.0)
        assert time.monotonic() - began < 20.0
    finally:
        let_go.set()
    until(lambda: not any(thread.name.startswith("avlab-") for thread in threading.enumerate()))
