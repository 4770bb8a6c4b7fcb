"""Streams that are cut, or not what they are called, and decoders that are missing: a sentence, and the rest plays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ports
import pytest
from described import shown
from encoded import access_units
from rawclient import until
from test_predicted import decoded, whole

import avlab
from avlab.media import sounddecoder, videodecoder
from avlab.stream.playing.predicted import CORRUPT, UNKEYED, PredictedDecoding
from avlab.stream.rtsp.playable import Playable
from avlab.stream.sockets.links import UdpLink
from avlab.wire import sdp
from avlab.wire.payloads.coded import AAC, OPUS
from avlab.wire.rtp import RtpPacket
from avlab.wire.units import H264_CODING, H265_CODING

BOTH = "v=0\nm=video 0 RTP/AVP 96\na=rtpmap:96 {}/90000\nm=audio 0 RTP/AVP 97\na=rtpmap:97 {}\n"
HBR = "a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={}\n"


# ---- what cannot be decoded here


def choice(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The kinds of media that are played, and what is said of those that are not."""
    playable, described = Playable(), sdp.parse(text).media
    wanted = playable.chosen(described)
    return list(wanted), playable.left_out(described, wanted)


@pytest.mark.parametrize(("encoding", "coding"), [("H264", H264_CODING), ("H265", H265_CODING)])
def test_pictures_without_a_decoder_are_left_out(encoding: str, coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(videodecoder.NAMES, coding, "none_such")
    kinds, [words] = choice(BOTH.format(encoding, "PCMU/8000"))
    assert kinds == ["audio"]
    assert words.startswith(f"the picture of this stream, {encoding}, is left out: this PyAV has no decoder for H.26")
    with pytest.raises(ValueError, match="this PyAV has no decoder"):
        raise ValueError(Playable().refusal(sdp.parse(BOTH.format(encoding, "x/1")).media[:1], "rtsp://there"))


@pytest.mark.parametrize(
    ("name", "coding", "more"), [("MPEG4-GENERIC/44100/2", AAC, "1210"), ("opus/48000/2", OPUS, "")]
)
def test_sound_without_a_decoder_is_left_out(
    name: str, coding: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BOTH.format("JPEG", name) + (HBR.format(more) if more else "")
    assert choice(text) == (["video", "audio"], ())
    monkeypatch.setitem(sounddecoder.NAMES, coding, ("none_such",))
    kinds, [words] = choice(text)
    assert kinds == ["video"]
    assert "is left out: this PyAV has no decoder for it" in words


@pytest.mark.parametrize("config", ["FFFFFF", "0000", "FFF0"])
def test_sound_whose_decoder_takes_nothing_of_what_is_described_is_left_out(config: str) -> None:
    kinds, [words] = choice(BOTH.format("JPEG", "MPEG4-GENERIC/44100/2") + HBR.format(config))
    assert kinds == ["video"]
    assert "the decoder does not begin with what is described of it" in words
    assert "\n" not in words


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/1"], "L16, is left out: its clock has 1 ticks a"),
        (["m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/8000/9"], "L16, is left out: it has 9 channels"),
        (["m=audio 0 RTP/AVP 97", "a=rtpmap:97 G726-32/8000"], "is G726-32, which avlab does not"),
        (["m=audio 0 RTP/AVP 97"], "is payload type 97, which avlab does not"),
    ],
)
def test_sound_that_cannot_be_played_is_named_with_what_is_wrong_with_it(lines: list[str], words: str) -> None:
    kinds, said = choice("\n".join(["v=0", "m=video 0 RTP/AVP 26", *lines, ""]))
    assert kinds == ["video"]
    assert [words in one for one in said] == [True]


@pytest.mark.slow
def test_a_client_without_a_decoder_plays_the_other_track(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with avlab.Server(data / "count-15.mp4", width=320, codec="h264", audio_codec="opus", loop=True) as server:
        with monkeypatch.context() as patch:
            patch.setitem(videodecoder.NAMES, H264_CODING, "none_such")
            with avlab.Client(server.url, audio="null") as client:
                until(lambda: client.audio_seconds > 0.5)
            assert ["H264, is left out: this PyAV has no decoder" in words for words in client.notices] == [True]
        with monkeypatch.context() as patch:
            patch.setitem(sounddecoder.NAMES, OPUS, ("none_such",))
            with avlab.Client(server.url, audio="null", playout_delay=0.3) as client:
                until(lambda: shown(client) > 5)
            assert ["OPUS, is left out: this PyAV has no decoder" in words for words in client.notices] == [True]
    assert client.error is None


# ---- what is cut


def told_of(frames: list[Any]) -> tuple[list[Any], list[str]]:
    said: list[str] = []
    out = decoded(PredictedDecoding(H264_CODING, notice=lambda name, words: said.append(words)), frames)
    return out, said


def test_pictures_that_are_cut_are_damaged_until_a_key_frame_and_a_sentence_says_so() -> None:
    units = access_units(5 * (CORRUPT + 2), size=(320, 240), key_every=5)
    cut = [(n, data[: max(10, len(data) // 2)] if n % 5 == 2 else data) for n, data in units]
    out, said = told_of([whole(n, data, key=n % 5 == 0) for n, data in cut])
    assert [each.frame.damaged for each in out] == [n % 5 >= 2 for n in range(len(units))]
    [words] = said
    assert "come damaged, though no packet of them is missing" in words


def test_what_a_loss_has_spoilt_is_no_fault_of_the_sender() -> None:
    units = access_units(60, size=(320, 240), key_every=10)
    frames = [whole(n, data, key=n % 10 == 0, after_loss=n % 10 == 4) for n, data in units if n % 10 != 3]
    out, said = told_of(frames)
    assert sum(each.frame.damaged for each in out) == 6 * 6
    assert said == []


def test_where_no_key_frame_ever_comes_a_sentence_says_so() -> None:
    units = access_units(UNKEYED + 5, key_every=10_000)[1:]
    out, [words] = told_of([whole(n, data, key=False) for n, data in units])
    assert not any(each.image is not None for each in out)
    assert "none that needs no other" in words


# ---- what is something else


@contextmanager
def sent(folder: Path, lines: str, payload: Callable[[int], bytes], kind: int) -> Iterator[avlab.Client]:
    """A client of what is described so, and gets other payloads, one a timestamp."""
    port, here = ports.free(4), UdpLink("127.0.0.1")
    file = folder / "session.sdp"
    file.write_text(f"v=0\nc=IN IP4 127.0.0.1\n{lines.format(port)}")
    try:
        with avlab.Client(file, audio="null") as client:
            number = 0

            def more() -> bool:
                nonlocal number
                number += 1
                here.send(
                    [RtpPacket(kind, number, number * 960, 7, True, payload(number)).serialize()], ("127.0.0.1", port)
                )
                return bool(client.notices)

            until(more)
            yield client
    finally:
        here.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "kind", "payload"),
    [
        ("m=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n", 96, lambda n: b"\x7e" + bytes(range(200))),
        ("m=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n", 96, lambda n: b"\x78\x00\xff" + bytes(20)),
        ("m=video {} RTP/AVP 96\na=rtpmap:96 H265/90000\n", 96, lambda n: b"\x7e\x01" + bytes(range(200))),
        ("m=video {} RTP/AVP 26\n", 26, lambda n: b"\0\0\0\0\xff\xff" + bytes(range(200))),
        ("m=audio {} RTP/AVP 97\na=rtpmap:97 opus/48000/2\n", 97, lambda n: b"\xff" * 9),
        (
            "m=audio {} RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/48000/2\n" + HBR.format("1190"),
            97,
            lambda n: b"\0\x10" * 20,
        ),
    ],
)
def test_what_is_something_else_than_it_is_called_is_a_sentence(
    tmp_path: Path, lines: str, kind: int, payload: Callable[[int], bytes]
) -> None:
    with sent(tmp_path, lines, payload, kind) as client:
        assert "packets come that cannot be read, and are passed over" in client.notices[0]
        assert client.running
    assert client.error is None


@pytest.mark.slow
def test_pictures_that_no_decoder_makes_anything_of_are_a_sentence(tmp_path: Path) -> None:
    chance = random.Random(1)
    lines = "m=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    with sent(tmp_path, lines, lambda n: b"\x65" + chance.randbytes(300), 96) as client:
        assert "pictures come as H.264 and cannot be decoded" in client.notices[0]
    assert client.error is None
