"""Codecs and payload formats of one's own at both ends, without sockets; and what takes over from them."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import avlab
from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import FrameDecided, FrameDue, FrameToDecode, Path
from avlab.core.player import Player
from avlab.core.sender import Outlet, Sender
from avlab.media import codec as jpeg_codec
from avlab.media.codec import Picture
from avlab.media.owncodec import OwnCodec, codec_name
from avlab.parts import Encoded, PartError
from avlab.stream.guard import Guard
from avlab.stream.handle import Worker
from avlab.stream.playing.decoding import MOST_WAITING, Decoding
from avlab.stream.playing.tap import Received
from avlab.stream.sending.pictures import FURTHER_TYPE, Pictures
from avlab.timing.jitterbuffer import Frame
from avlab.wire.batch import Batch
from avlab.wire.payloads.formats import BytesFormat
from avlab.wire.payloads.ownpayload import OwnFormat
from avlab.wire.rtp import RtpPacket
from avlab.wire.units import JPEG_CODING, OWN_CODING

MS = 1_000_000
GAP_NS = 33 * MS


class Grey:
    """As a student would write it: zlib of a small grey picture."""

    def encode(self, image: Any, quality: int) -> bytes:
        height, width, _ = image.shape
        small = image[::4, ::4].mean(axis=2).astype(np.uint8)
        return bytes(height.to_bytes(2, "big") + width.to_bytes(2, "big") + zlib.compress(small.tobytes()))

    def decode(self, data: bytes) -> Any:
        height, width = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        small = np.frombuffer(zlib.decompress(data[4:]), np.uint8).reshape(-(-height // 4), -(-width // 4))
        large = small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
        return np.stack([large] * 3, axis=-1)


class Difference:
    """With key frames: others are the difference to the one before."""

    def __init__(self) -> None:
        self.before: Any = None
        self.seen: Any = None

    def reset(self) -> None:
        self.before = None

    def encode(self, image: Any, quality: int, *, key: bool, pts: float) -> Encoded:
        key = key or self.before is None
        data = image if key else image - self.before
        self.before = image.copy()
        height, width, _ = image.shape
        head = bytes([key]) + height.to_bytes(2, "big") + width.to_bytes(2, "big")
        return Encoded(head + zlib.compress(data.tobytes()), key)

    def decode(self, data: bytes) -> Any:
        shape = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big"), 3
        image = np.frombuffer(zlib.decompress(data[5:]), np.uint8).reshape(shape)
        if not data[0]:
            if self.seen is None:
                raise ValueError("nothing was seen before")
            image = image + self.seen
        self.seen = image
        return image


class Numbered:
    """Four bytes before each piece: its number, and how many there are."""

    name = "mine"

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        room = most - 4
        count = -(-len(frame) // room)
        heads = [at.to_bytes(2, "big") + count.to_bytes(2, "big") for at in range(count)]
        return [head + frame[at * room : (at + 1) * room] for at, head in enumerate(heads)]

    def unpack(self, payloads: list[bytes | None]) -> bytes | None:
        return None if None in payloads else b"".join(payload[4:] for payload in payloads if payload)


def fails(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("by hand")


def spins(*_: Any, **__: Any) -> Any:
    while True:
        pass


def picture(index: int = 0, height: int = 48, width: int = 64) -> Picture:
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([4 * columns + index, 5 * rows, 40 + 0 * rows], axis=-1).astype(np.uint8)
    return Picture(index, index * GAP_NS, image)


def of(part: type, **changed: Any) -> type:
    return type("Mine", (part,), changed)


class Told:
    """Who is told of what failed."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def __call__(self, error: PartError, instead: str = "") -> None:
        self.errors.append((str(error), instead))


# ---- a codec, asked and looked at


def test_a_codec_of_ones_own_encodes_and_decodes() -> None:
    codec = OwnCodec(Grey)
    image = picture().image
    data, key = codec.encode(image, 80, key=False, pts=0.0)
    assert key
    assert not codec.full
    np.testing.assert_array_equal(codec.decode(data), Grey().decode(data))


def test_key_frames_are_asked_for_at_the_start_and_when_somebody_joins() -> None:
    pictures = Pictures(codec=Difference)
    pictures.begin()
    keys = []
    for index in range(6):
        if index == 3:
            pictures.refresh()
        keys.append(pictures.encoded(picture(index), width=None, quality=80).key)
    pictures.begin()
    keys.append(pictures.encoded(picture(6), width=None, quality=80).key)
    assert keys == [True, False, False, True, False, False, True]


BROKEN_ENCODE: dict[str, Any] = {
    "failed: ZeroDivisionError": fails,
    "returned nothing: is there a return?": lambda self, image, quality: None,
    "returned 7: it must be bytes": lambda self, image, quality: 7,
    "returned b''": lambda self, image, quality: b"",
    "it is Encoded(data, key)": lambda self, image, quality, *, key, pts: b"data",
    "was asked for a key frame, and made none": lambda self, image, quality, *, key, pts: Encoded(b"data", False),
    "had not returned after 1.5 s": spins,
}


@pytest.mark.parametrize("words", BROKEN_ENCODE)
def test_jpeg_takes_over_from_a_codec_that_does_not_encode(words: str) -> None:
    told = Told()
    with Guard(lambda words: None) as guard:
        pictures = Pictures(codec=of(Grey, encode=BROKEN_ENCODE[words]), call=guard.call, failed=told)
        frames = [pictures.encoded(picture(index), width=None, quality=80) for index in range(3)]
    assert [(frame.coding, frame.data[:2]) for frame in frames] == [(JPEG_CODING, b"\xff\xd8")] * 3
    [(error, instead)] = told.errors
    assert error.startswith("the codec Mine")
    assert words in error
    assert instead == "Pictures are sent as JPEG now"
    packet = RtpPacket.parse(pictures.pack(frames[0]).batch.datagrams()[0])
    assembler = BytesFormat(codec="Mine").assembler()
    assembler.add_run(0, True, pictures.pack(frames[0]).batch)
    assert (packet.payload_type, assembler.frame(), assembler.coding) == (96, frames[0].data, JPEG_CODING)


BROKEN_DECODE: dict[str, Any] = {
    "failed: ZeroDivisionError": fails,
    "returned nothing: is there a return?": lambda self, data: None,
    "returned 7: it must be an array": lambda self, data: 7,
    "an array of (4, 4), uint8": lambda self, data: np.zeros((4, 4), np.uint8),
    "an array of (4, 4, 3), float64": lambda self, data: np.zeros((4, 4, 3)),
    "an array of (3, 4, 4), uint8": lambda self, data: np.zeros((3, 4, 4), np.uint8),
    "sides of 1 to 4,096": lambda self, data: np.zeros((1, 5000, 3), np.uint8),
}


@pytest.mark.parametrize("words", BROKEN_DECODE)
def test_what_a_codec_does_not_decode_is_named(words: str) -> None:
    with pytest.raises(PartError, match=r"the codec Mine(: decode\(\) of| failed)") as caught:
        OwnCodec(of(Grey, decode=BROKEN_DECODE[words])).decode(b"data")
    assert words in str(caught.value)


def test_a_codec_is_called_by_its_name_or_by_its_class() -> None:
    assert codec_name(Grey) == codec_name(Grey()) == "Grey"
    assert codec_name(of(Grey, name="my codec; v=2")) == "my-codec--v-2"
    assert len(codec_name(of(Grey, name="x" * 80))) == 32


# ---- packed


def test_what_is_described_is_what_is_handed_in() -> None:
    assert (Pictures().form.encoding, Pictures().further) == ("JPEG", {})
    generic = Pictures(codec=Grey)
    assert (generic.form.encoding, generic.form.parameters, generic.further) == ("X-bytes", "codec=Grey", {})
    own = Pictures(payload=Numbered, codec=Grey)
    assert (own.form.encoding, own.form.parameters) == ("X-mine", "codec=Grey")
    assert [(kind, form.encoding) for kind, form in own.further.items()] == [(FURTHER_TYPE, "X-bytes")]


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"codec": 7}, "the codec int has no method encode"),
        ({"codec": type("Mine", (), {"encode": fails})}, "the codec Mine has no method decode"),
        ({"payload": Grey}, "the payload format Grey has no method pack"),
    ],
)
def test_what_is_no_part_is_refused_at_once(keywords: dict[str, Any], words: str) -> None:
    for takes in (Pictures, lambda **given: avlab.Client("rtsp://127.0.0.1:1/x", **given)):
        with pytest.raises(TypeError) as caught:
            takes(**keywords)
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["payload", "codec"])
def test_the_classic_wire_has_no_place_for_either(name: str, clip: Any) -> None:
    part = {"payload": Numbered, "codec": Grey}[name]
    with pytest.raises(ValueError, match=f"{name} acts on the rtsp wire alone"):
        avlab.Server(clip, wire="classic", **{name: part})
    with pytest.raises(ValueError, match=f"{name}='(Numbered|Grey)' cannot be had: the classic wire"):
        avlab.Client("classic://127.0.0.1:9688", **{name: part})


def test_x_bytes_take_over_from_a_format_that_does_not_pack() -> None:
    told = Told()
    broken = of(Numbered, pack=lambda self, frame, most: [bytes(most + 1)])
    pictures = Pictures(payload=broken, codec=Grey, failed=told)
    frame = pictures.encoded(picture(), width=None, quality=80)
    for _ in range(2):
        packed = pictures.pack(frame)
        assert RtpPacket.parse(packed.batch.datagrams()[0]).payload_type == FURTHER_TYPE
        assembler = pictures.further[FURTHER_TYPE].assembler()
        assembler.add_run(0, True, packed.batch)
        assert (assembler.frame(), assembler.coding) == (frame.data, OWN_CODING)
    [(error, instead)] = told.errors
    assert "the payload format Mine: pack() of" in error
    assert instead == "Pictures are sent as X-bytes now"


# ---- from a sender to a player, on literal times


class Chain:
    """A server's pictures, a sender, packets of which some are lost, a player, and a codec that decodes at once."""

    def __init__(self, *, payload: Any = None, codec: Any = None, failed: Any = None) -> None:
        self.pictures = Pictures(payload=payload, codec=codec, failed=failed)
        self.sender = Sender(unix_offset_ns=0, budget=FeedbackBudget())
        self.sender.add(Outlet("video", rate=90_000, ssrc=7, sequence=65_530, timestamp_offset=1))
        self.player = Player(ssrc=9)
        form = self.pictures.form
        if payload is not None:
            form = OwnFormat(payload, codec=form.parameters.partition("=")[2], failed=failed)
        formats = {form.payload_type: form, **self.pictures.further}
        self.player.add("video", Described(form.payload_type, 90_000, encoding=form.encoding, pictures=formats))
        self.player.prepare(streams={"video"}, delay_ns=100 * MS)
        self.decoder = None if codec is None else OwnCodec(codec)
        self.fates: dict[int, str] = {}
        self.shown: list[Frame] = []
        self.sent = 0

    def run(self, frames: int, lost: Callable[[int], bool] = lambda number: False) -> None:
        self.player.begin(0, {}, 0)
        self.sender.play(0, 0)
        for index in range(frames):
            now_ns = index * GAP_NS
            frame = self.pictures.encoded(picture(index, 480, 640), width=None, quality=90)
            self.sender.send("video", self.pictures.pack(frame), frame.pts_ns, now_ns)
            for path, batch, _ in self.sender.outgoing():
                if path.control:
                    continue
                for data in batch.datagrams():
                    self.sent += 1
                    if not lost(self.sent - 1):
                        self.player.receive(Path("video"), Batch(data, len(data)), now_ns)
            for at_ns in range(now_ns, now_ns + GAP_NS, MS):
                self.move_on(at_ns)
        for at_ns in range(frames * GAP_NS, frames * GAP_NS + 300 * MS, MS):
            self.move_on(at_ns)

    def move_on(self, now_ns: int) -> None:
        timer_ns = self.player.timer_at()
        if timer_ns is not None and timer_ns <= now_ns:
            self.player.handle_timer(now_ns)
        while events := self.player.events():
            for event in events:
                match event:
                    case FrameToDecode(frame):
                        image = None
                        if self.decoder is not None and frame.data is not None:
                            image = self.decoder.decode(frame.data)
                        self.player.decoded(frame, image, now_ns)
                    case FrameDue(_, frame, _, _):
                        self.shown.append(frame)
                    case FrameDecided(frame, fate, _, _):
                        self.fates[round(frame.pts_ns / GAP_NS)] = fate


@pytest.mark.parametrize("parts", [{"codec": Grey}, {"payload": Numbered}, {"payload": Numbered, "codec": Grey}])
def test_pictures_go_through_parts_of_ones_own(parts: dict[str, Any]) -> None:
    chain = Chain(**parts)
    chain.run(20)
    assert chain.fates == dict.fromkeys(range(20), "shown")
    for frame in chain.shown:
        index = round(frame.pts_ns / GAP_NS)
        assert frame.data is not None
        image = Received(frame.data, 0.0, frame.image).image
        sent: Any = picture(index, 480, 640).image
        if "codec" in parts:
            np.testing.assert_array_equal(image, Grey().decode(Grey().encode(sent, 90)))
        else:
            assert np.abs(image.astype(int) - sent).mean() < 12
        assert Received(frame.data, 0.0, frame.image).jpeg[:2] == b"\xff\xd8"


@pytest.mark.parametrize("parts", [{"codec": Grey}, {"payload": Numbered}, {"payload": Numbered, "codec": Grey}])
def test_what_is_lost_costs_the_frames_that_it_was_of(parts: dict[str, Any]) -> None:
    told = Told()
    chain = Chain(**parts, failed=told)
    frames = [chain.pictures.encoded(picture(n, 480, 640), width=None, quality=90) for n in range(20)]
    each = [chain.pictures.pack(frame).total for frame in frames]
    of_frame = [n for n, count in enumerate(each) for _ in range(count)]
    hit = {at for at in range(len(of_frame)) if at % 7 == 5}
    chain.run(20, lost=lambda number: number in hit)
    spoilt = {of_frame[at] for at in hit}
    if "payload" in parts:  # after one of which nothing came, nobody can tell where the next begins
        spoilt |= {n + 1 for n in range(20) if all(at in hit for at in range(len(of_frame)) if of_frame[at] == n)}
    for index in range(20):
        fate = chain.fates.get(index)
        assert fate in ((None, "incomplete") if index in spoilt else ("shown",)), index
    assert told.errors == []


def test_a_format_that_rescues_shows_what_came() -> None:
    class Zeros:
        name = "zeros"

        def pack(self, frame: bytes, most: int) -> list[bytes]:
            return [frame[at : at + 1000] for at in range(0, len(frame), 1000)]

        def unpack(self, payloads: list[bytes | None]) -> bytes | None:
            return b"".join(payload or bytes(1000) for payload in payloads)

    class Raw:
        def encode(self, image: Any, quality: int) -> bytes:
            return bytes(image[::8, ::8, 0].tobytes())

        def decode(self, data: bytes) -> Any:
            small = np.frombuffer(data[:4800], np.uint8).reshape(60, 80)
            return np.stack([small.repeat(8, axis=0).repeat(8, axis=1)] * 3, axis=-1)

    chain = Chain(payload=Zeros, codec=Raw)
    chain.run(10, lost=lambda number: number in (12, 23))
    assert chain.fates == dict.fromkeys(range(10), "shown")
    spoilt = [round(frame.pts_ns / GAP_NS) for frame in chain.shown if (frame.image == 0).mean() > 0.15]
    assert spoilt == [2, 4]
    assert [frame.packets_lost for frame in chain.shown if round(frame.pts_ns / GAP_NS) in spoilt] == [1, 1]


def test_a_player_without_the_codec_shows_nothing_and_says_so_of_each() -> None:
    chain = Chain(codec=Grey)
    chain.decoder = None
    chain.run(5)
    assert chain.fates == dict.fromkeys(range(5), "incomplete")


def test_a_codec_that_fails_in_mid_stream_is_followed_by_jpeg_at_the_same_player() -> None:
    class Tires(Grey):
        def __init__(self) -> None:
            self.left = 8

        def encode(self, image: Any, quality: int) -> bytes:
            self.left -= 1
            return super().encode(image, quality) if self.left > 0 else fails()

    for payload in (None, Numbered):
        told = Told()
        chain = Chain(codec=Tires, payload=payload, failed=told)
        chain.run(20)
        assert chain.fates == dict.fromkeys(range(20), "shown")
        assert [frame.coding for frame in chain.shown] == [OWN_CODING] * 7 + [JPEG_CODING] * 13
        assert len(told.errors) == 1


# ---- decoding on a thread of its own


@contextmanager
def decoding(codec: Any, **settings: Any) -> Iterator[tuple[Decoding, Told, threading.Event]]:
    told, ready = Told(), threading.Event()
    made = Decoding(codec, failed=told, ready=ready.set, **settings)
    worker = Worker("decoder", made.run, wake=made.wake, failed=fails)
    worker.start()
    try:
        yield made, told, ready
    finally:
        worker.signal()
        worker.join(30)


def encoded(data: bytes, number: int = 0, *, key: bool = True) -> Frame:
    return Frame(number, number * GAP_NS, data, len(data), 1, 0, 0, 0, OWN_CODING, key)


def all_done(made: Decoding, ready: threading.Event, count: int) -> list[Any]:
    out: list[Any] = []
    deadline = time.monotonic() + 60
    while len(out) < count:
        assert time.monotonic() < deadline, "they never came"
        ready.wait(0.05)
        ready.clear()
        out += made.done()
    return out


def test_pictures_are_decoded_in_their_order() -> None:
    source: Any = picture().image
    data = Grey().encode(source, 80)
    with decoding(Grey) as (made, told, ready):
        for number in range(10):
            made.put(encoded(data, number))
        out = all_done(made, ready, 10)
    assert [each.frame.ticks for each in out] == list(range(10))
    np.testing.assert_array_equal(out[0].image, Grey().decode(data))
    assert told.errors == []


def test_what_needs_others_waits_for_one_that_does_not() -> None:
    codec = Difference()
    data = [codec.encode(picture(n).image, 80, key=n == 3, pts=0.0) for n in range(6)]
    with decoding(Difference) as (made, told, ready):
        for number, (bytes_, key) in enumerate(data[1:], 1):
            made.put(encoded(bytes_, number, key=key))
        out = all_done(made, ready, 5)
    assert [each.image is not None for each in out] == [False, False, True, True, True]
    np.testing.assert_array_equal(out[-1].image, picture(5).image)
    assert told.errors == []


def test_what_cannot_be_decoded_is_told_of_once_and_the_next_is_tried() -> None:
    source: Any = picture().image
    good = Grey().encode(source, 80)
    with decoding(Grey) as (made, told, ready):
        for number, data in enumerate([b"no", good, b"no", good]):
            made.put(encoded(data, number))
        out = all_done(made, ready, 4)
    assert [each.image is not None for each in out] == [False, True, False, True]
    assert {each.fate for each in out} == {"incomplete"}
    [(error, _)] = told.errors
    assert "the codec Grey failed" in error


def test_a_codec_that_never_comes_back_is_asked_no_more() -> None:
    with Guard(lambda words: None) as guard, decoding(of(Grey, decode=spins), call=guard.call) as (made, told, ready):
        for number in range(5):
            made.put(encoded(b"data", number))
        out = all_done(made, ready, 5)
    assert all(each.image is None for each in out)
    [(error, _)] = told.errors
    assert "the codec Mine had not returned after 1.5 s" in error


def test_what_stands_still_is_given_up_and_so_is_all_that_waits() -> None:
    let_go, stuck = threading.Event(), threading.Event()

    def waits(*_: Any) -> Any:
        let_go.wait(120)
        return picture().image

    with decoding(of(Grey, decode=waits), stuck=stuck.is_set) as (made, _, _):
        for number in range(3):
            made.put(encoded(b"data", number))
        assert made.done() == []
        stuck.set()
        assert [each.frame.ticks for each in made.done()] == [0, 1, 2]
        made.put(encoded(b"data", 3))
        assert [each.image for each in made.done()] == [None]
        let_go.set()


def test_a_codec_that_cannot_keep_up_skips_the_oldest() -> None:
    let_go = threading.Event()

    def waits(self: Any, data: bytes) -> Any:
        let_go.wait(120)
        return picture().image

    with decoding(of(Grey, decode=waits)) as (made, _, ready):
        count = MOST_WAITING + 10
        for number in range(count):
            made.put(encoded(b"data", number))
        let_go.set()
        out = all_done(made, ready, count)
    skipped = [each.frame.ticks for each in out if each.fate == "skipped"]
    assert len(skipped) in (9, 10)
    assert max(skipped) < MOST_WAITING
    assert sum(each.image is not None for each in out) == count - len(skipped)


# ---- pictures as arrays


def test_a_codec_is_given_an_array_of_its_own_at_the_width_that_is_sent() -> None:
    source: Any = picture(0, 48, 64).image
    for width, shape in ((None, (48, 64, 3)), (32, (24, 32, 3))):
        image = jpeg_codec.to_bgr(source, width=width)
        assert (image.shape, image.dtype) == (shape, np.uint8)
        image[:] = 0
        assert source.any()


def test_an_array_of_a_clips_picture_is_what_its_jpeg_is(clip: Any) -> None:
    from avlab.media.sources import ClipSource

    first = next(iter(ClipSource(clip).pictures()))
    image = jpeg_codec.to_bgr(first.image, width=160, matrix=first.matrix)
    jpeg, width, height = jpeg_codec.encode_jpeg(first.image, width=160, quality=95, matrix=first.matrix)
    assert image.shape == (height, width, 3)
    assert np.abs(image.astype(int) - jpeg_codec.decode_jpeg(jpeg)).mean() < 6
