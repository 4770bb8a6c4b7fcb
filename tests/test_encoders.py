"""What a server makes of pictures and sound with avlab's own codecs, without a stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import avlab
from avlab.core.budget import FeedbackBudget
from avlab.core.events import KeyAsked, Path
from avlab.core.sender import Outlet, Sender
from avlab.media.codec import Picture
from avlab.media.sounddecoder import DecodedSound
from avlab.media.soundencoder import opus_chunks
from avlab.media.videodecoder import VideoDecoder
from avlab.stream.sending.pictures import KEY_APART_NS, Pictures
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.payloads.formats import OpusFormat
from avlab.wire.rtp import HEADER_BYTES
from avlab.wire.units import H264_CODING, NS, Chunk, EncodedFrame

FPS = 25


def pictures(count: int, *, first: int = 0) -> Iterator[Picture]:
    """Noise that moves: it has to be coded anew each time."""
    chance = np.random.default_rng(5)
    noise = chance.integers(0, 255, (96, 128, 3), np.uint8)
    for index in range(first, first + count):
        yield Picture(index, index * NS // FPS, np.roll(noise, index * 3, axis=1))


def made(by: Pictures, count: int, *, first: int = 0, quality: int = 80) -> list[EncodedFrame]:
    return [by.encoded(picture, width=None, quality=quality) for picture in pictures(count, first=first)]


def kbps(frames: list[EncodedFrame]) -> float:
    return sum(len(frame.data) for frame in frames) * 8 * FPS / len(frames) / 1000


def test_key_frames_come_as_often_as_they_are_asked_for_and_no_oftener() -> None:
    by = Pictures(codec="h264")
    by.key_interval = 1.0
    by.begin()
    assert [frame.index for frame in made(by, 60) if frame.key] == [0, 25, 50]
    by.refresh()
    by.refresh()
    assert [frame.index for frame in made(by, 5, first=60) if frame.key] == [60]
    keys = []
    for picture in pictures(50, first=65):  # somebody who asks for one at each picture
        by.refresh()
        frame = by.encoded(picture, width=None, quality=80)
        keys += [frame.pts_ns] if frame.key else []
    assert min(np.diff(keys)) >= KEY_APART_NS


def test_the_bit_rate_is_followed_and_may_change() -> None:
    by = Pictures(codec="h264")
    by.bit_rate, by.key_interval = 800, 60.0
    by.begin()
    assert kbps(made(by, 75)[25:]) == pytest.approx(800, rel=0.35)
    by.bit_rate = 200
    assert kbps(made(by, 100, first=75)[50:]) == pytest.approx(200, rel=0.4)
    assert kbps(made(by, 100, first=175, quality=40)[50:]) == pytest.approx(100, rel=0.5)


def test_what_is_encoded_is_decoded_at_each_size() -> None:
    by, decoder = Pictures(codec="h264"), VideoDecoder(H264_CODING)
    by.begin()
    shapes = []
    for index, width in enumerate([128] * 3 + [64] * 3 + [128] * 3):
        [picture] = pictures(1, first=index)
        frame = by.encoded(picture, width=width, quality=80)
        assert frame.key == (index % 3 == 0)
        shapes += [(seen.image.shape[1], frame.width) for seen in decoder.decode(frame.data, index)]
    assert shapes == [(width, width) for width in [128] * 3 + [64] * 3 + [128] * 3]


def test_whoever_asks_for_a_key_frame_is_heard() -> None:
    sender = Sender(unix_offset_ns=0, budget=FeedbackBudget())
    sender.add(Outlet("video", rate=90_000, ssrc=7, sequence=1, timestamp_offset=0))

    def asked(ssrc: int) -> list[KeyAsked]:
        words = [rtcp.ReceiverReport(9), rtcp.Sdes(9, "x"), rtcp.PictureLoss(9, ssrc)]
        data = rtcp.serialize_compound(words)
        assert rtcp.parse_compound(data) == words
        assert ssrc in rtcp.subjects(data)
        sender.receive(Path("", control=True), Batch(data, len(data)), 0)
        return [event for event in sender.events() if isinstance(event, KeyAsked)]

    assert asked(7) == []  # nobody plays
    sender.play(0, 0)
    assert asked(8) == []
    assert asked(7) == [KeyAsked(0, "video", 7)]


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (22_050, 6), (8_000, 1)])
def test_opus_is_heard_when_the_sound_was(rate: int, channels: int) -> None:
    time = np.arange(2 * rate) / rate
    tone = (np.sin(time * np.pi * 1_600) * 12_000 * (time >= 1.0)).astype(np.int16)
    sound = np.repeat(tone[:, None], channels, 1)
    step = rate // 50 + 3
    chunks = [Chunk(at // step, at * NS // rate, sound[at : at + step], rate) for at in range(0, len(sound), step)]
    form = OpusFormat()
    decoder = DecodedSound(form)
    coded = list(opus_chunks(chunks, channels=channels))
    assert [chunk.pts_ns for chunk in coded] == [index * NS // 50 for index in range(len(coded))]
    heard = [decoder.samples(form.pack(chunk).batch.data[HEADER_BYTES:]) for chunk in coded]
    out = np.concatenate(heard)[:, 0].astype(int)
    assert np.argmax(np.abs(out) > 5_000) / 48_000 == pytest.approx(1.0, abs=0.004)


def test_sound_that_stands_still_and_goes_on_is_where_it_belongs() -> None:
    quiet = np.zeros((960, 2), np.int16)
    moments = [*range(0, 200, 20), *range(1_000, 1_200, 20)]
    chunks = [Chunk(at, at * NS // 1000, quiet, 48_000) for at in moments]
    coded = [chunk.pts_ns // (NS // 1000) for chunk in opus_chunks(chunks, channels=2)]
    assert set(coded) <= set(moments)
    assert any(at >= 1_000 for at in coded)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"codec": "h265"}, "codec is 'h265': 'h264', or one of your own"),
        ({"codec": "h264", "bit_rate": 10}, "bit_rate must be a whole number from 50"),
        ({"codec": "h264", "bit_rate": 100.5}, "bit_rate must be a whole number"),
        ({"codec": "h264", "key_interval": 0}, "key_interval must be 0.1 to 60 seconds"),
        ({"audio_codec": "mp3"}, "audio_codec must be 'opus'"),
        ({"audio_codec": "opus", "wire": "classic"}, "audio_codec acts on the rtsp wire alone"),
        ({"codec": "h264", "wire": "classic"}, "codec acts on the rtsp wire alone"),
        ({"codec": "h264", "payload": object()}, "leave out payload="),
    ],
)
def test_settings_that_cannot_be_are_sentences(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        avlab.Server([np.zeros((48, 64, 3), np.uint8)], fps=10, **given)
    with pytest.raises(ValueError, match="damaged must be"):
        avlab.Client("rtsp://127.0.0.1:1/x", damaged="hide")  # type: ignore[arg-type]
