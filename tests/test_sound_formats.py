"""Sound of cameras and calls: G.711, L8, L24, AAC and Opus in RTP, held against PyAV; what is odd is refused."""

from __future__ import annotations

from typing import Any, cast

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.media.sounddecoder import DecodedSound
from avlab.wire.payloads.coded import AacFormat, OpusFormat
from avlab.wire.payloads.formats import PcmFormat, sound_format
from avlab.wire.units import WireError

HBR = {"mode": "AAC-hbr", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3", "config": "1190"}


@pytest.mark.parametrize(("encoding", "name"), [("PCMU", "pcm_mulaw"), ("PCMA", "pcm_alaw")])
def test_g711_is_what_ffmpeg_makes_of_it(encoding: str, name: str) -> None:
    decoder = cast(av.AudioCodecContext, av.CodecContext.create(name, "r"))
    decoder.sample_rate, decoder.layout = 8_000, "mono"
    [frame] = decoder.decode(av.Packet(bytes(range(256))))
    form = sound_format(encoding, 8_000, 1)
    assert isinstance(form, PcmFormat)
    np.testing.assert_array_equal(form.samples(bytes(range(256)))[:, 0], frame.to_ndarray().ravel())
    assert form.payload_type == {"PCMU": 0, "PCMA": 8}[encoding]
    assert PcmFormat(encoding, 16_000, 1).payload_type > 95


def test_linear_sound_of_8_and_24_bits_is_16() -> None:
    assert PcmFormat("L8", 8_000, 1).samples(b"\x00\x80\xff").ravel().tolist() == [-32768, 0, 127 << 8]
    assert PcmFormat("L24", 8_000, 2).samples(b"\x12\x34\x56\xff\xff\x01").tolist() == [[0x1234, -1]]


@pytest.mark.parametrize(("encoding", "channels", "size"), [("L24", 1, 4), ("L24", 2, 3), ("L8", 2, 3), ("PCMU", 2, 5)])
def test_half_a_sample_frame_is_refused(encoding: str, channels: int, size: int) -> None:
    with pytest.raises(WireError, match="not whole sample frames"):
        PcmFormat(encoding, 8_000, channels).samples(bytes(size))


def encoded(name: str, *, seconds: float = 1.0, channels: int = 2) -> tuple[list[bytes], bytes]:
    """A tone of 1 kHz from the middle on, as packets; and what a decoder has to know."""
    context = cast(av.AudioCodecContext, av.CodecContext.create(name, "w"))
    context.sample_rate, context.layout = 48_000, "stereo" if channels == 2 else "mono"
    context.format = "fltp" if name == "aac" else "s16"
    context.open()
    size = context.frame_size or 960
    time = np.arange(int(48_000 * seconds)) / 48_000
    tone = (np.sin(time * np.pi * 2_000) * 12_000 * (time >= seconds / 2)).astype(np.int16)
    packets = []
    to = av.AudioResampler(format=context.format, layout=context.layout, rate=48_000)
    for start in range(0, len(tone) - size, size):
        samples = np.repeat(tone[start : start + size, None], channels, 1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=context.layout.name)
        frame.sample_rate, frame.pts = 48_000, start
        packets += [bytes(packet) for each in to.resample(frame) for packet in context.encode(each)]
    return packets, bytes(context.extradata or b"")


def aac_payload(units: list[bytes]) -> bytes:
    heads = b"".join((len(unit) << 3).to_bytes(2, "big") for unit in units)
    return (16 * len(units)).to_bytes(2, "big") + heads + b"".join(units)


def onset(samples: Any) -> float:
    return float(np.argmax(np.abs(samples[:, 0].astype(int)) > 4_000)) / 48_000


@pytest.mark.parametrize("together", [1, 3])
def test_aac_is_decoded_at_its_time(together: int) -> None:
    units, config = encoded("aac")
    sound = DecodedSound(AacFormat(48_000, 2, HBR | {"config": config.hex()}))
    groups = [units[at : at + together] for at in range(0, len(units), together)]
    made = [sound.samples(aac_payload(group)) for group in groups]
    assert [len(each) for each in made] == [1024 * len(group) for group in groups]
    assert onset(np.concatenate(made)) == pytest.approx(0.5 + 1024 / 48_000, abs=0.01)  # the encoder's own delay


def test_a_unit_of_aac_in_several_packets_is_one() -> None:
    form = AacFormat(48_000, 2, HBR)
    unit = bytes(range(250)) * 3
    head = b"\0\x10" + (len(unit) << 3).to_bytes(2, "big")
    assert form.units(head + unit[:300]) == []
    assert form.units(head + unit[300:600]) == []
    assert form.units(head + unit[600:]) == [unit]
    assert form.units(aac_payload([b"abc", b"de"])) == [b"abc", b"de"]


@pytest.mark.parametrize(
    "odd",
    [
        {"sizelength": "", "indexlength": "", "indexdeltalength": ""},
        {"indexdeltalength": ""},
        {"mode": ""},
        {"mode": "aac-HBR"},
        {"mode": '"AAC-hbr"', "config": '"1190"'},
    ],
)
def test_a_description_of_aac_that_leaves_out_what_the_rest_says_is_understood(odd: dict[str, str]) -> None:
    assert AacFormat(48_000, 2, HBR | odd).setup == bytes.fromhex("1190")


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_is_decoded_at_its_time(channels: int) -> None:
    packets, _ = encoded("libopus", channels=channels)
    sound = DecodedSound(OpusFormat(48_000, channels))
    made = [sound.samples(packet) for packet in packets]
    assert {len(each) for each in made} == {960}
    assert onset(np.concatenate(made)) == pytest.approx(0.5, abs=0.015)


def test_what_cannot_be_decoded_is_refused_and_the_next_is_heard() -> None:
    packets, _ = encoded("libopus")
    sound = DecodedSound(OpusFormat())
    with pytest.raises(WireError):
        sound.samples(b"")
    with pytest.raises(WireError, match="cannot be decoded"):
        sound.samples(b"\xff" + b"\xff" * 3)
    assert sum(len(sound.samples(packet)) for packet in packets[:5]) == 5 * 960


@given(st.binary(max_size=60))
def test_whatever_comes_as_aac_is_units_or_refused(payload: bytes) -> None:
    try:
        units = AacFormat(48_000, 2, HBR).units(payload)
    except WireError:
        return
    assert sum(map(len, units)) <= len(payload)


@given(st.binary(max_size=40))
def test_whatever_comes_as_opus_is_sound_or_refused(payload: bytes) -> None:
    try:
        samples = DecodedSound(OpusFormat()).samples(payload)
    except WireError:
        return
    assert samples.dtype == np.int16
    assert samples.shape[1] == 2


@pytest.mark.parametrize(
    ("encoding", "rate", "channels", "parameters", "words"),
    [
        ("MPEG4-GENERIC", 48_000, 2, {}, "in the mode AAC-hbr alone"),
        ("MPEG4-GENERIC", 48_000, 2, HBR | {"mode": "AAC-lbr"}, "this is AAC-lbr"),
        ("MPEG4-GENERIC", 48_000, 2, HBR | {"sizelength": "6"}, "has sizelength=13 .*, and this has 6"),
        ("MPEG4-GENERIC", 48_000, 2, HBR | {"mode": "", "indexlength": ""}, "this is none"),
        ("MPEG4-GENERIC", 48_000, 2, HBR | {"config": ""}, "without the configuration"),
        ("MPEG4-GENERIC", 48_000, 2, HBR | {"config": "xyz"}, "without the configuration"),
        ("OPUS", 16_000, 2, {}, "48000 Hz"),
        ("OPUS", 48_000, 6, {}, "1 or 2 channels"),
    ],
)
def test_what_is_not_played_is_a_sentence(
    encoding: str, rate: int, channels: int, parameters: dict[str, str], words: str
) -> None:
    with pytest.raises(WireError, match=words):
        sound_format(encoding, rate, channels, parameters)
