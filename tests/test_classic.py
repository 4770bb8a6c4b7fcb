"""The tutorial's wire: its own bytes there and back, and everything else refused without being executed."""

from __future__ import annotations

import ast
import base64
import contextlib
import os
import pickle
import pickletools
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import ports
import pytest
import tutorial
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire import classic
from avlab.wire.classic import (
    ClassicChunk,
    ClassicEnd,
    ClassicFrame,
    ClassicSound,
    ClassicVideo,
    ForeignPickleError,
    read_pickle,
    sound_port,
    write_pickle,
)
from avlab.wire.units import Chunk, EncodedFrame, Samples, Wire, WireError

NOW = 5_000_000_000
VIDEO: Wire = ClassicVideo()
SOUND: Wire = ClassicSound()


def picture(width: int = 400, height: int = 225) -> tutorial.Image:
    noise = np.random.default_rng(1).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg_of(image: tutorial.Image, quality: int = 80) -> bytes:
    return cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def frame_of(jpeg: bytes, width: int = 400, height: int = 225, index: int = 12) -> EncodedFrame:
    return EncodedFrame(index, 0, jpeg, width, height)


JPEG = jpeg_of(picture())


def samples(count: int, seed: int = 1) -> Samples:
    return np.random.default_rng(seed).integers(-32_768, 32_768, (count, 2)).astype(np.int16)


def chunk(count: int = 1024) -> Chunk:
    return Chunk(0, 0, samples(count), 44_100)


def heard(units: list[ClassicChunk | ClassicEnd]) -> list[bytes]:
    """Each unit's sound in the wire's own bytes; the end is empty."""
    return [unit.samples.tobytes() if isinstance(unit, ClassicChunk) else b"" for unit in units]


def message(pickled: bytes) -> bytes:
    return struct.pack("Q", len(pickled)) + pickled


# ---- pictures


def test_a_frame_is_the_tutorials_datagram() -> None:
    assert ClassicVideo().pack(frame_of(JPEG)) == [tutorial.datagram_of(picture())]


def test_a_datagram_is_the_frame_it_was_made_of() -> None:
    [datagram] = ClassicVideo().pack(frame_of(JPEG))
    assert ClassicVideo().feed(datagram, NOW) == [ClassicFrame(JPEG, 400, 225, NOW)]
    np.testing.assert_array_equal(tutorial.image_of(datagram), cv2.imdecode(np.frombuffer(JPEG, np.uint8), 1))


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace(b"+", b" "),
        lambda text: base64.encodebytes(base64.b64decode(text)),
        lambda text: b"\0" + text + b"\r\n",
        lambda text: text[:77] + b"*~" + text[77:],
    ],
    ids=["space for plus", "lines", "around", "within"],
)
def test_what_the_tutorials_client_passes_over_is_passed_over(changed: Callable[[bytes], bytes]) -> None:
    datagram = changed(base64.b64encode(JPEG))
    assert [frame.jpeg for frame in ClassicVideo().feed(datagram, NOW)] == [JPEG]
    assert tutorial.image_of(datagram).shape == (225, 400, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@given(st.text("AQZz059+/ =\n*", max_size=24).map(str.encode))
def test_a_datagram_is_base64_where_the_tutorials_client_says_so(tail: bytes) -> None:
    # A picture of which three bytes in four are given, so that the text may go on at will.
    start = base64.b64encode(JPEG[: len(JPEG) // 3 * 3])
    try:
        expected = base64.b64decode(start + tail, b" /")
    except ValueError:
        with pytest.raises(WireError, match="no base64"):
            ClassicVideo().feed(start + tail, NOW)
    else:
        assert ClassicVideo().feed(start + tail, NOW)[0].jpeg == expected


def test_a_pictures_size_is_found_whatever_its_coding_and_headers() -> None:
    progressive = cv2.imencode(".jpeg", picture(40, 24), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    gray = jpeg_of(np.zeros((24, 40), np.uint8))
    noted = progressive[:2] + b"\xff\xff\xff\xfe\0\6text" + progressive[2:]  # fill bytes and a comment
    for jpeg in (progressive, gray, noted):
        assert ClassicVideo().feed(base64.b64encode(jpeg), NOW) == [ClassicFrame(jpeg, 40, 24, NOW)]


def with_size(width: int, height: int) -> bytes:
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + struct.pack("!HH", height, width) + JPEG[place + 4 :]


@pytest.mark.parametrize(
    ("datagram", "sentence"),
    [
        (b"", "no JPEG"),
        (b"Hello", "no base64"),
        (base64.b64encode(b"Hello"), "no JPEG"),
        (JPEG, "no base64|no JPEG"),
        (base64.b64encode(cv2.imencode(".png", picture(16, 16))[1].tobytes()), "no JPEG"),
        (base64.b64encode(JPEG)[:-1], "no base64"),
        (b"A" * 65_536, "65,536 bytes are no datagram"),
        (base64.b64encode(with_size(65_535, 65_535)), "claims 65535x65535"),
        (base64.b64encode(with_size(400, 0)), "claims 400x0"),
        (base64.b64encode(b"\xff\xd8\xff\xda" + bytes(100)), "no frame header"),
        (base64.b64encode(b"\xff\xd8" + b"\xff" * 40_000), "no frame header"),
        (base64.b64encode(b"\xff\xd8" + b"\xff\xe0\0\0" * 10_000), "no frame header"),
    ],
)
def test_a_datagram_without_a_picture_is_refused_and_the_next_is_not(datagram: bytes, sentence: str) -> None:
    video = ClassicVideo()
    with pytest.raises(WireError, match=sentence):
        video.feed(datagram, NOW)
    assert video.feed(base64.b64encode(JPEG), NOW)


def test_every_truncation_of_a_picture_is_a_picture_or_refused() -> None:
    header = JPEG.index(b"\xff\xc0") + 9
    for end in range(header + 20):
        datagram = base64.b64encode(JPEG[:end])
        if end < header:
            with pytest.raises(WireError):
                ClassicVideo().feed(datagram, NOW)
        else:
            assert ClassicVideo().feed(datagram, NOW)[0].width == 400


@given(st.binary(max_size=300), st.booleans())
def test_no_datagram_does_more_than_be_refused(data: bytes, encoded: bool) -> None:
    with contextlib.suppress(WireError):
        ClassicVideo().feed(base64.b64encode(b"\xff\xd8\xff" + data) if encoded else data, NOW)


@pytest.mark.parametrize("size", [4, 9_216, 65_507])
def test_a_frame_fits_to_the_last_byte(size: int) -> None:
    jpeg = bytes(size // 4 * 3)
    video = ClassicVideo(max_datagram=size)
    assert [len(datagram) for datagram in video.pack(frame_of(jpeg))] == [size // 4 * 4]
    with pytest.raises(WireError, match=f"a datagram carries {size:,}"):
        video.pack(frame_of(jpeg + b"\0"))


@pytest.mark.parametrize(("limit", "width", "quality"), [(9_216, 640, 80), (9_216, 400, 95), (65_507, 1280, 98)])
def test_a_frame_that_does_not_fit_gets_advice_that_helps(limit: int, width: int, quality: int) -> None:
    height = width * 9 // 16
    image = picture(width, height)
    video = ClassicVideo(max_datagram=limit)
    with pytest.raises(WireError) as refusal:
        video.pack(frame_of(jpeg_of(image, quality), width, height))
    sentence = str(refusal.value)
    assert f"Frame 12 ({width}x{height})" in sentence
    smaller = int(sentence.split("lower the width to about ")[1].split(",")[0])
    assert smaller % 8 == 0
    small = np.asarray(cv2.resize(image, (smaller, smaller * 9 // 16), interpolation=cv2.INTER_AREA), np.uint8)
    datagram = base64.b64encode(jpeg_of(small, quality))
    assert 0.25 * limit < len(datagram) < 1.05 * limit
    fewer = int(sentence.split("until a frame has ")[1].split(" %")[0])
    assert len(jpeg_of(image, quality)) * (100 - fewer) / 100 * 4 / 3 <= limit
    assert ("sudo sysctl -w net.inet.udp.maxdgram=65535" in sentence) == (limit == classic.MACOS_DATAGRAM)


@pytest.mark.parametrize("size", [0, 3, 65_508])
def test_a_limit_that_no_datagram_has_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"max_datagram must be from 4 to 65507 bytes, not {size}"):
        ClassicVideo(max_datagram=size)


def test_the_sound_is_on_the_port_below() -> None:
    assert [sound_port(port) for port in (classic.PORT, classic.PORT_B)] == [9687, 9698]
    for port in (-1, 0, 1, 65_536):
        with pytest.raises(ValueError, match=f"port must be from 2 to 65535.*not {port}"):
            sound_port(port)


# ---- sound


@pytest.mark.parametrize("count", [1, 882, 1024])
def test_a_chunk_is_the_tutorials_message(count: int) -> None:
    one = chunk(count)
    assert ClassicSound().pack(one) == [message(pickle.dumps(one.samples.astype("<i2").tobytes(), protocol=3))]
    assert ClassicSound().pack(ClassicEnd()) == [message(pickle.dumps(b"", protocol=3))]


def test_long_chunks_are_cut_at_1024_sample_frames_and_empty_ones_are_not_the_end() -> None:
    long = chunk(2500)
    units = ClassicSound().feed(b"".join(ClassicSound().pack(long)), NOW)
    assert [len(unit.samples) for unit in units if isinstance(unit, ClassicChunk)] == [1024, 1024, 452]
    assert b"".join(heard(units)) == long.samples.tobytes()
    assert ClassicSound().pack(chunk(0)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        Chunk(0, 0, samples(10), 48_000),
        Chunk(0, 0, samples(10)[:, :1], 44_100),
        Chunk(0, 0, samples(10).reshape(-1), 44_100),
    ],
    ids=["48 kHz", "mono", "flat"],
)
def test_a_chunk_that_the_wire_cannot_tell_is_refused(wrong: Chunk) -> None:
    with pytest.raises(WireError, match=r"2 channels at 44100 Hz.*Resample"):
        ClassicSound().pack(wrong)


def test_a_chunk_comes_back_with_its_samples() -> None:
    one = chunk()
    [unit] = ClassicSound().feed(ClassicSound().pack(one)[0], NOW)
    assert isinstance(unit, ClassicChunk)
    assert unit.arrived_ns == NOW
    assert unit.samples.dtype == np.int16
    np.testing.assert_array_equal(unit.samples, one.samples)


def test_both_byte_orders_and_no_third() -> None:
    packed = ClassicSound(byteorder="big").pack(chunk(3))[0]
    assert packed[:8] == bytes(7) + bytes([len(packed) - 8])
    assert heard(ClassicSound(byteorder="big").feed(packed, NOW)) == [samples(3).tobytes()]
    assert ClassicSound().pack(chunk(3)) == ClassicSound(byteorder=sys.byteorder).pack(chunk(3))
    with pytest.raises(WireError, match=f"In the other byte order it would be {len(packed) - 8}: serve from"):
        ClassicSound(byteorder="little").feed(packed, NOW)
    with pytest.raises(ValueError, match="byteorder must be 'little' or 'big', not 'middle'"):
        ClassicSound(byteorder="middle")  # type: ignore[arg-type]


SOUNDS = [samples(3).tobytes(), samples(70).tobytes(), samples(1).tobytes(), b""]
STREAM = b"".join(message(pickle.dumps(sound, protocol)) for sound, protocol in zip(SOUNDS, (3, 4, 5, 4), strict=True))


def test_the_stream_may_be_cut_anywhere() -> None:
    assert heard(ClassicSound().feed(STREAM, NOW)) == SOUNDS
    for cut in range(len(STREAM) + 1):
        sound = ClassicSound()
        assert heard(sound.feed(STREAM[:cut], NOW) + sound.feed(STREAM[cut:], NOW)) == SOUNDS
    single = ClassicSound()
    assert heard([unit for place in range(len(STREAM)) for unit in single.feed(STREAM[place:][:1], NOW)]) == SOUNDS
    assert single.ended


@given(st.lists(st.integers(1, 400)))
def test_the_stream_may_be_cut_often(sizes: list[int]) -> None:
    sound, units, rest = ClassicSound(), [], STREAM
    for size in [*sizes, len(STREAM)]:
        units += sound.feed(rest[:size], NOW)
        rest = rest[size:]
    assert heard(units) == SOUNDS


def test_what_follows_the_end_is_passed_over() -> None:
    sound = ClassicSound()
    empty = message(pickle.dumps(b""))
    assert sound.feed(empty * 3 + message(pickle.dumps("text")), NOW) == [ClassicEnd(NOW)]
    assert sound.ended
    assert sound.feed(empty * 1000 + STREAM, NOW) == []


@pytest.mark.parametrize("length", [classic.MAX_OBJECT + 65, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_a_length_over_a_mebibyte_is_refused_before_anything_is_held_for_it(length: int) -> None:
    with pytest.raises(WireError, match=f"announces {length:,} bytes of sound at once"):
        ClassicSound().feed(struct.pack("Q", length), NOW)


def test_another_protocol_on_the_port_is_no_sound() -> None:
    with pytest.raises(WireError, match=r"Is this the sound port of a classic server\?"):
        ClassicSound().feed(b"RTSP/1.0 400 Bad Request\r\n\r\n", NOW)


def test_the_largest_chunk_is_a_mebibyte() -> None:
    most = bytes(classic.MAX_OBJECT)
    for protocol in (3, 4, 5):
        assert heard(ClassicSound().feed(message(pickle.dumps(most, protocol)), NOW)) == [most]
        with pytest.raises(ForeignPickleError, match="1,048,576 is the most"):
            ClassicSound().feed(message(pickle.dumps(most + b"four", protocol)), NOW)


def test_cut_samples_are_refused() -> None:
    for size in (1, 2, 3, 4095):
        with pytest.raises(WireError, match=f"{size} bytes of sound, which are not whole"):
            ClassicSound().feed(message(pickle.dumps(bytes(size))), NOW)


def test_after_an_error_nothing_is_read_any_more() -> None:
    sound = ClassicSound()
    for data in (message(pickle.dumps("text")), STREAM, b""):
        with pytest.raises(ForeignPickleError):
            sound.feed(data, NOW)
    assert not sound.ended


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_do_more_than_be_refused(data: bytes, framed: bool) -> None:
    with contextlib.suppress(WireError):
        ClassicSound().feed(message(data) if framed else data, NOW)


# ---- pickles

SIZES = sorted({*range(300), 4096, 4097, *range(65_500, 65_560), *range(0, 70_001, 997), 70_000})


def test_our_pickles_are_pythons() -> None:
    for size in SIZES:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert write_pickle(data) == pickle.dumps(data, protocol=3)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "dumps",
    [
        pickle.dumps,
        pickle._dumps,  # type: ignore[attr-defined]
        lambda data, protocol: pickletools.optimize(pickle.dumps(data, protocol)),
    ],
    ids=["C", "Python", "without a memo"],
)
def test_pythons_pickles_are_read(dumps: Callable[[bytes, int], bytes], protocol: int) -> None:
    for size in SIZES if dumps is pickle.dumps else (0, 1, 255, 256, 4096, 65_530, 65_536, 70_000):
        data = b"\x80\x04." * (size // 3) + bytes(size % 3)
        assert read_pickle(dumps(data, protocol)) == data


class Attack:
    """A pickle of this calls `call` in whoever unpickles it."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
def test_an_attack_is_refused_and_not_executed(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    attack = pickle.dumps(Attack(os.mkdir, str(trace)), protocol)
    for refuse in (read_pickle, lambda data: ClassicSound().feed(message(data), NOW)):
        with pytest.raises(
            ForeignPickleError, match=r"something else than sound: .* nothing was unpickled or executed"
        ):
            refuse(attack)
        assert not trace.exists()
    pickle.loads(attack)
    assert trace.exists()  # it would have worked


OTHERS: list[object] = ["text", 1, None, True, [b"a"], (b"a",), {b"a": b"b"}, {1}, bytearray(b"ab"), [], b"".join]
OTHERS += [Attack(os.system, "true"), Attack(eval, "1"), Attack(bytes, 8), Attack(bytearray, b"ab"), [b"a", [b"b"]]]


@pytest.mark.parametrize("protocol", range(6))
def test_every_other_object_is_refused(protocol: int) -> None:
    for thing in OTHERS:
        with pytest.raises(ForeignPickleError, match="A peer tried to send something else than sound"):
            read_pickle(pickle.dumps(thing, protocol))


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


THREE, FOUR, FIVE, SHORT = b"\x80\x03", b"\x80\x04", b"\x80\x05", b"C\x02ab"


@pytest.mark.parametrize(
    "pickled",
    [
        THREE + SHORT + b".",
        THREE + SHORT + b"q\x07.",
        THREE + SHORT + b"r" + u32(300) + b".",
        THREE + b"B" + u32(2) + b"abq\0.",
        FOUR + b"\x8e" + u64(2) + b"ab\x94.",
        FIVE + SHORT + b"\x94.",
        FOUR + b"\x95" + u64(4) + SHORT + b"\x94.",
        FOUR + b"\x95" + u64(4) + SHORT + b"\x95" + u64(2) + b"\x94.",
        FIVE + b"\x95" + u64(4) + SHORT + b"\x95" + u64(1) + b"\x94" + b"\x95" + u64(1) + b".",
    ],
)
def test_every_way_to_write_one_bytes_object_is_read(pickled: bytes) -> None:
    assert read_pickle(pickled) == pickle.loads(pickled) == b"ab"
    for end in range(len(pickled)):
        with pytest.raises(ForeignPickleError):
            read_pickle(pickled[:end])


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"", "does not begin"),
        (b"\x80", "does not begin"),
        (SHORT + b".", "does not begin"),
        (b"\x80\x02" + SHORT + b".", "does not begin"),
        (b"\x80\x06" + SHORT + b".", "does not begin"),
        (THREE + b".", "more or less than one"),
        (THREE + b"q\0.", "more or less than one"),
        (THREE + SHORT, "cut short"),
        (THREE + SHORT + SHORT + b".", "more or less than one"),
        (THREE + SHORT + b"q\0" + SHORT + b".", "more or less than one"),
        (THREE + SHORT + b"q\0q\0.", "more or less than one"),
        (THREE + SHORT + b"q\0.x", "1 more bytes follow"),
        (THREE + SHORT + b"." + THREE + SHORT + b".", "7 more bytes follow"),
        (THREE + THREE + SHORT + b".", "opcode 0x80"),
        (THREE + SHORT + b"0" + SHORT + b".", "opcode 0x30"),
        (THREE + SHORT + b"\x85.", "opcode 0x85"),
        (THREE + b"cos\nsystem\n" + SHORT + b"\x85R.", "opcode 0x63"),
        (THREE + b"C\xffab.", "claims more"),
        (THREE + b"B" + u32(0xFFFFFFFF) + b"ab.", "claims more"),
        (FOUR + b"\x8e" + u64((1 << 64) - 1) + b"ab.", "claims more"),
        (THREE + SHORT + b"\x94.", "opcode 0x94"),
        (THREE + b"\x8e" + u64(2) + b"ab.", "opcode 0x8e"),
        (THREE + b"\x95" + u64(5) + SHORT + b".", "opcode 0x95"),
        (FOUR + b"\x95" + u64(0) + SHORT + b".", "without content"),
        (FOUR + b"\x95" + u64(14) + b"\x95" + u64(5) + SHORT + b".", "frame within a frame"),
        (FOUR + b"\x95" + u64(6) + SHORT + b".", "claims more"),
        (FOUR + b"\x95" + u64((1 << 64) - 1) + SHORT + b".", "claims more"),
        (FOUR + b"\x95" + u64(3) + SHORT + b".", "claims more"),  # the frame ends inside the bytes
        (FOUR + b"\x95" + u64(5) + SHORT + b"q\0.", "claims more"),  # and inside an argument
        (FOUR + b"\x95" + u64(5) + SHORT + b".\x94", "1 more bytes follow"),
        (FIVE + b"\x96" + u64(2) + b"ab.", "opcode 0x96"),
        (FIVE + b"\x97.", "opcode 0x97"),
    ],
)
def test_anything_else_is_refused_with_its_reason(pickled: bytes, reason: str) -> None:
    with pytest.raises(ForeignPickleError, match=reason):
        read_pickle(pickled)
    with pytest.raises(ForeignPickleError, match=reason):
        ClassicSound().feed(message(pickled), NOW)


def test_every_truncation_of_pythons_pickles_is_refused() -> None:
    for protocol in (3, 4, 5):
        for size in (0, 5, 300):
            whole = pickle.dumps(bytes(size), protocol)
            for end in range(len(whole)):
                with pytest.raises(ForeignPickleError):
                    read_pickle(whole[:end])


PIECES = st.one_of(
    st.sampled_from(
        [SHORT, b"B" + u32(2) + b"ab", b"\x8e" + u64(2) + b"ab", b"\x94", b"q\0", b"r" + u32(0), b".", b"0"]
    ),
    st.integers(0, 12).map(lambda size: b"\x95" + u64(size)),
    st.binary(max_size=2),
)


@given(st.sampled_from([THREE, FOUR, FIVE]), st.lists(PIECES, max_size=7))
def test_what_is_read_is_what_python_reads(protocol: bytes, pieces: list[bytes]) -> None:
    pickled = protocol + b"".join(pieces)
    try:
        data = read_pickle(pickled)
    except ForeignPickleError:
        return
    assert pickle.loads(pickled) == data  # only what was accepted gets here


def test_the_pickle_module_is_not_imported() -> None:
    tree = ast.parse(Path(classic.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name != "__future__"} == {
        *(
            "avlab.wire.jpegsize",
            "avlab.wire.units",
            "base64",
            "binascii",
            "dataclasses",
            "numpy",
            "struct",
            "sys",
            "typing",
        )
    }


# ---- the tutorial's scripts, over sockets


def bound_pair() -> tuple[socket.socket, socket.socket, int]:
    """A UDP socket, a TCP socket on the port below it, and the port."""
    port = ports.free(2) + 1
    pictures, listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    pictures.bind(("127.0.0.1", port))
    listener.bind(("127.0.0.1", port - 1))
    return pictures, listener, port


@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("edition", ["a", "b"])
def test_the_tutorials_server_and_client_understand_each_other(edition: str, clip: Path) -> None:
    port = ports.free(2) + 1
    with (
        tutorial.peer(f"server-{edition}", port=port, clip=clip, seconds=2) as server,
        tutorial.peer(f"client-{edition}", port=port, seconds=1) as client,
    ):
        received, sent = client.report(), server.report()
    assert sent["errors"] == received["errors"] == []
    assert (sent["ended"], received["ended"]) == ("seconds", "seconds")
    assert 0 < received["frames"] <= sent["frames"]
    # Sent as fast as the connection takes it, played no faster than it sounds.
    assert 0 < received["sound_bytes"] < 4 * 44_100 * 4
    assert received["sound_bytes"] < sent["sound_bytes"]


@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
def test_the_tutorials_server_is_read(clip: Path) -> None:
    port = ports.free(2) + 1
    video, sound = ClassicVideo(), ClassicSound()
    frames: list[ClassicFrame] = []
    units: list[ClassicChunk | ClassicEnd] = []
    with (
        tutorial.peer("server-a", port=port, clip=clip, seconds=20),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pictures,
        socket.create_connection(("127.0.0.1", sound_port(port)), timeout=10) as connection,
    ):
        pictures.settimeout(60)
        pictures.sendto(classic.HELLO, ("127.0.0.1", port))
        while len(frames) < 5:
            frames += video.feed(pictures.recv(65_536), len(frames))
        while not sound.ended:
            units += sound.feed(connection.recv(65_536), 0)
    assert [(frame.width, frame.height, frame.arrived_ns) for frame in frames] == [(400, 225, i) for i in range(5)]
    chunks = [unit for unit in units if isinstance(unit, ClassicChunk)]
    assert units[-1:] == [ClassicEnd()]
    assert {len(unit.samples) for unit in chunks[:-1]} == {1024}
    assert sum(len(unit.samples) for unit in chunks) == pytest.approx(20 * 44_100, rel=0.01)


@pytest.mark.slow
def test_the_tutorials_client_reads_what_is_sent() -> None:
    pictures, listener, port = bound_pair()
    with pictures, listener:
        listener.listen()
        listener.settimeout(60)
        pictures.settimeout(60)
        with tutorial.peer("client-b", port=port) as client:
            hello, address = pictures.recvfrom(65_536)
            connection, _ = listener.accept()
            with connection:
                # Small ones: the client's socket buffer holds a few of the tutorial's own size before it drops them.
                small = frame_of(jpeg_of(picture(64, 32)), 64, 32)
                for _ in range(5):
                    pictures.sendto(ClassicVideo().pack(small)[0], address)
                wire = ClassicSound()
                for packed in wire.pack(chunk(20 * 1024)) + wire.pack(ClassicEnd()):
                    connection.sendall(packed)
            report = client.report()
    assert hello == classic.HELLO
    assert report["errors"] == []
    assert (report["frames"], report["chunks"], report["empty_chunks"], report["ended"]) == (5, 20, 1, "closed")
    assert report["sound_bytes"] == 20 * 1024 * 4
