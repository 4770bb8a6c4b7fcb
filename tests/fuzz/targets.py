"""What in avlab reads bytes of others, and the errors that each documents: parsers, and the loops around them.

A target takes one input, so that a failure can be kept as bytes. Where several datagrams, lines or reads make an input,
`joined` puts them behind each other and `pieces` takes them apart again, whatever became of the lengths between.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import random
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import captures
import numpy as np
import packets
import traces
from encoded import access_units
from packing import JpegPacketizer, L16Packetizer, fragments

from avlab.core import events
from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import Path as StreamPath
from avlab.core.sender import Outlet, Sender
from avlab.measure.numbers import metrics, recent
from avlab.measure.record.tables import TABLES
from avlab.measure.record.trace import Recorder, SettingRow, Trace
from avlab.media import codec
from avlab.media.sounddecoder import DecodedSound
from avlab.media.videodecoder import CALLED, MOST_PIXELS, DecodeError, VideoDecoder
from avlab.network.parity import ParityDecoder, ParityEncoder, parse_parity
from avlab.network.ratecontrol import Aimd, Report
from avlab.network.retransmission import CREDIT_BYTES, SHARE, Requester, RtxReceiver, RtxSender
from avlab.stream.described.found import SHARE as SENDERS_SHARE
from avlab.stream.described.found import FoundSender, parted
from avlab.stream.playing.presentation import Presentation
from avlab.stream.recording import PlayerRecording
from avlab.stream.relaying.relaydialogue import Dialogue
from avlab.stream.rtsp.origin import Origin
from avlab.stream.rtsp.peer import Peer, Track
from avlab.timing.jitterbuffer import AssemblingBuffer, Run
from avlab.timing.stage import Dropped
from avlab.wire import classic, digest, fields, rtcp, rtp, rtsp, sdp, urls
from avlab.wire import jpegsize as jpeg
from avlab.wire.admission import Admission
from avlab.wire.answers import Answers
from avlab.wire.batch import Batch, batches
from avlab.wire.destinations import MOST_SOURCES, destination_of, why_not
from avlab.wire.payloads import jpeg as rtpjpeg
from avlab.wire.payloads import l16
from avlab.wire.payloads.formats import (
    AacFormat,
    BytesFormat,
    H264Format,
    H265Format,
    OpusFormat,
    PcmFormat,
    sound_format,
    video_format,
)
from avlab.wire.payloads.nal import START
from avlab.wire.payloads.ownpayload import OwnFormat
from avlab.wire.units import H264_CODING, H265_CODING, NS, Chunk, EncodedFrame, WireError

from .running import Target

# ---- several pieces in one input


class Piece(NamedTuple):
    """One datagram or read: what kind it is, how long after the one before it came, and its bytes."""

    kind: int
    after_ns: int
    data: bytes


_WAITS_NS = (0, 100_000, 1_000_000, 20_000_000, 33_000_000, 500_000_000, 3 * NS, 3600 * NS)


def joined(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """One input of several; a kind is 0 to 31. Waits are drawn in turn."""
    return b"".join(struct.pack("!BH", kind | (at % 5) << 5, len(data)) + data for at, (kind, data) in enumerate(parts))


def pieces(data: bytes, most: int = 400) -> Iterator[Piece]:
    """The pieces of an input; the last may be cut short."""
    position = 0
    for _ in range(most):
        if len(data) - position < 3:
            return
        head, size = struct.unpack_from("!BH", data, position)
        yield Piece(head & 31, _WAITS_NS[head >> 5], data[position + 3 : position + 3 + size])
        position += 3 + size


def cut(data: bytes) -> Iterator[bytes]:
    """A stream as it comes from a connection, cut at any place; the same bytes are always cut alike."""
    rng = random.Random(zlib.crc32(data))
    most = rng.choice((1, 7, 100, 5000, len(data) + 1))
    if most == 1 and len(data) > 3000:
        most = 100
    position = 0
    while position < len(data):
        size = rng.randint(1, most)
        yield data[position : position + size]
        position += size


# ---- good inputs


@cache
def _jpegs() -> list[bytes]:
    rng = np.random.default_rng(1)
    smooth = np.broadcast_to(np.arange(160, dtype=np.uint8)[None, :, None], (96, 160, 3))
    noise = rng.integers(0, 255, (48, 64, 3), np.uint8)
    made = [codec.encode_jpeg(np.ascontiguousarray(image), quality=q)[0] for image in (smooth, noise) for q in (20, 80)]
    return [*made, _frame_of("ffmpeg_jpeg"), _frame_of("gstreamer_jpeg")]


def _frame_of(name: str) -> bytes:
    assembler = rtpjpeg.FrameAssembler()
    for data in packets.stored(name):
        packet = rtp.RtpPacket.parse(data)
        assembler.add(packet.sequence, packet.marker, packet.payload)
        if assembler.complete:
            break
    return assembler.frame()


@cache
def _datagrams() -> list[bytes]:
    return [data for name in ("ffmpeg_jpeg", "gstreamer_jpeg", "ffmpeg_l16") for data in packets.stored(name)[:40]]


@cache
def _own_frames(count: int = 6) -> list[list[bytes]]:
    """Frames as packets of this product's own server."""
    stream = JpegPacketizer(payload_type=26, ssrc=0x1234, sequence=65_530, timestamp_offset=2**32 - 9000)
    return [
        stream.pack(EncodedFrame(at, at * NS // 30, _jpegs()[at % 4], *((160, 96), (64, 48))[at % 4 // 2]))
        for at in range(count)
    ]


@cache
def _reports() -> list[bytes]:
    block = rtcp.ReportBlock(0x1234, 12, 5, 70_000, 90, 0x12345678, 6553)
    answer = rtcp.ExtendedReport(0x1234, delays=(rtcp.Delay(7, 9, 3), rtcp.Delay(8, 1, 1)))
    compounds: list[list[rtcp.RtcpPacket]] = [
        [rtcp.SenderReport(0x1234, rtcp.ns_to_ntp(1_700_000_000 * NS), 5000, 40, 40_000), rtcp.Sdes(0x1234, "a@b")],
        [rtcp.ReceiverReport(7, (block,)), rtcp.Sdes(7, "c@d"), rtcp.Bye((7,), "the end")],
        [rtcp.ReceiverReport(7, (block, block)), rtcp.Sdes(7, "c@d"), rtcp.Nack(7, 0x1234, (65_530, 65_531, 3, 40))],
        [rtcp.SenderReport(0x1234, 0, 0, 0, 0), rtcp.Sdes(0x1234, "a@b"), rtcp.Bye((0x1234,))],
        [
            rtcp.ReceiverReport(7, (block,)),
            rtcp.Sdes(7, "c@d"),
            rtcp.ExtendedReport(7, reference=0xE9A1_0000_8000_0001),
        ],
        [rtcp.SenderReport(0x1234, 1 << 32, 0, 0, 0), rtcp.Sdes(0x1234, "a@b"), answer],
    ]
    made = [rtcp.serialize_compound(compound) for compound in compounds]
    return [*made, *packets.stored("ffmpeg_video_rtcp"), *packets.stored("ffmpeg_audio_rtcp")]


DESCRIPTION = (
    b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=clip\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\na=range:npt=0-20.5\r\n"
    b"m=video 0 RTP/AVPF 26 98 99\r\nb=RS:20000\r\nb=RR:100000\r\na=rtpmap:26 JPEG/90000\r\na=framerate:29.97\r\n"
    b"a=ssrc-group:FID 4369 4370\r\na=ssrc:4369 cname:a@b\r\na=rtpmap:98 rtx/90000\r\n"
    b"a=fmtp:98 apt=26;rtx-time=1000\r\na=rtpmap:99 ulpfec/90000\r\na=rtcp-fb:26 nack\r\na=control:video\r\n"
    b"a=x-dimensions:640,360\r\nm=audio 0 RTP/AVP 10\r\na=rtpmap:10 L16/44100/2\r\na=control:rtsp://h/clip/audio\r\n"
)

URL = "rtsp://127.0.0.1:8554/clip"
_TRANSPORTS = (
    "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=PLAY",
    "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0000ABCD,RTP/AVP;multicast",
    "RTP/AVP;unicast;source=10.0.0.1;client_port=5000-5001;server_port=6000-6001;ssrc=1234ABCD",
)


def _asked() -> list[rtsp.Event]:
    def request(number: int, method: str, uri: str = URL, **headers: str) -> rtsp.Request:
        return rtsp.Request(method, uri, rtsp.Headers({"CSeq": str(number), **headers}))

    return [
        request(1, "OPTIONS"),
        request(2, "DESCRIBE", Accept="application/sdp"),
        request(3, "SETUP", f"{URL}/video", Transport=_TRANSPORTS[0]),
        request(4, "SETUP", f"{URL}/audio", Transport=_TRANSPORTS[1]),
        request(5, "PLAY", Range="npt=0-", Session="1"),
        rtsp.Interleaved(1, _reports()[2]),
        request(6, "PAUSE", Session="1"),
        request(7, "GET_PARAMETER", Session="1"),
        request(8, "TEARDOWN", Session="1"),
    ]


def _answered() -> list[rtsp.Event]:
    def response(number: int, body: bytes = b"", **headers: str) -> rtsp.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return rtsp.Response(200, "OK", rtsp.Headers({"CSeq": str(number), **named}), body)

    info = f"url={URL}/video;seq=65530;rtptime=4294958296,url={URL}/audio;seq=1;rtptime=7"
    return [
        response(1, Public="OPTIONS, DESCRIBE, SETUP, PLAY"),
        response(2, DESCRIPTION, Content_Type="application/sdp", Content_Base=f"{URL}/"),
        response(3, Transport=_TRANSPORTS[2], Session="12ab;timeout=60"),
        response(4, Transport=_TRANSPORTS[1], Session="12ab"),
        response(5, Range="npt=0-20", RTP_Info=info),
        *(rtsp.Interleaved(0, data) for data in _own_frames()[0]),
        rtsp.Interleaved(1, _reports()[0]),
        response(8),
    ]


def _bytes_of(events: list[rtsp.Event]) -> list[bytes]:
    each = [event.serialize() for event in events]
    return [b"".join(each), *each]


_RTSP_WORDS = (
    b"RTSP/1.0 200 OK\r\n", b"RTSP/1.0 ", b"rtsp://", b"rtsp://[", b"rtsp://[::1%25eth0]:8554/", b"user:pass@",
    b"CSeq: ",
    b"Content-Length: ", b"Transport: ", b"Session: ", b"RTP/AVP", b"client_port=", b"interleaved=", b"npt=",
    b"$\0\0\4",
    b"$\1\xff\xff", b"url=", b"seq=", b"rtptime=", b"DESCRIBE ", b"SETUP ", b"PLAY ", b"application/sdp", b"ssrc=",
)  # fmt: skip
_SDP_WORDS = (
    b"v=0", b"o=", b"m=video 0 RTP/AVP 26", b"m=audio 0 RTP/AVP 10", b"a=rtpmap:", b"a=fmtp:", b"apt=", b"a=control:",
    b"a=range:", b"a=framerate:", b"c=IN IP6 ::1", b"L16/44100/2", b"JPEG/90000", b"rtx/90000", b"H264/90000",
)  # fmt: skip

# ---- calls: wire


def _rtp(data: bytes) -> object:
    packet = rtp.RtpPacket.parse(data)
    assert packet.payload in data
    fields.rtp_fields(data)
    return rtp.is_rtcp(data)


def _runs(data: bytes) -> object:
    stats, numbers, ticks = rtp.ReceiverStats(90_000), rtp.SequenceNumbers(90_000), rtp.Unwrapper(32)
    now_ns, kinds = 0, []
    for piece in pieces(data):
        now_ns += piece.after_ns
        size = len(piece.data) // (1 + piece.kind % 4) or 1  # several in one batch, too
        for run in rtp.runs(Batch(piece.data, size)):
            if isinstance(run, WireError):
                kinds.append(0)
                continue
            stats.update(run.sequence, run.timestamp, now_ns, count=run.batch.total)
            numbers(run.sequence, run.timestamp, now_ns)
            ticks(run.timestamp)
            kinds.append(len(run.payloads))
        stats.report(now_ns)
    return kinds


def _fragment(data: bytes) -> object:
    fragment = rtpjpeg.parse_fragment(data)
    return fragment.offset > 0, len(fragment)


def _assembled(data: bytes) -> object:
    assembler = rtpjpeg.FrameAssembler()
    refused: WireError | None = None
    for number, piece in enumerate(pieces(data)):
        try:
            assembler.add(number + (piece.kind >> 2), bool(piece.kind & 1), piece.data)
        except WireError as error:
            refused = error
    made = len(assembler.missing)
    picture = assembler.frame()
    with contextlib.suppress(ValueError):
        codec.decode_jpeg(picture)
    return made, refused is None


class _Joined:
    """A payload format as a student's first one is."""

    name = "joined"

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        return [frame[at : at + most] for at in range(0, len(frame), most)]

    def unpack(self, payloads: list[bytes | None]) -> bytes | None:
        return None if None in payloads else b"".join(payload or b"" for payload in payloads)


def _other_pictures(data: bytes) -> object:
    """Pictures that are no RTP/JPEG, with numbers left out and passed over: each leaves once, and as it was told."""
    buffer, number, ticks, left = AssemblingBuffer(), 65_000, 0, []
    forms = BytesFormat(codec="grey"), OwnFormat(_Joined(), codec="grey", failed=lambda error: None)
    for piece in pieces(data):
        number += 1 + (piece.kind >> 2 & 1) - 3 * (piece.kind >> 3 & 1)
        if piece.kind >> 4:
            buffer.pass_over(number, 0)
            number += 1
        run = Run.of(number, ticks, ticks, bool(piece.kind & 1), (piece.data or b"x",), forms[piece.kind >> 1 & 1])
        buffer.push_run(run, 0)
        if piece.after_ns > NS // 2:
            buffer.ripen(ticks - 3000, 0)
            buffer.expire(ticks - 6000)
        left += buffer.pull(0)
        ticks += 3000 * (piece.kind & 1)
    buffer.flush()
    frames = [each.item if isinstance(each, Dropped) else each for each in left + buffer.pull(0)]
    assert len({frame.ticks for frame in frames}) == len(frames)
    return [frame.data is not None for frame in frames], len(buffer.refusals())


def _other_frames() -> list[bytes]:
    out = []
    for kind, form in enumerate((BytesFormat(codec="grey"), OwnFormat(_Joined(), codec="grey"))):
        made = [form.pack(EncodedFrame(0, 0, bytes(size), 8, 8, "own")) for size in (1, 3_000, 700)]
        sent = [data for each in made for batch in (each.batch, *each.rest) for data in batch.datagrams()]
        out.append(joined((kind << 1 | data[1] >> 7, data[12:]) for data in sent))
    return out


_CODED = {H264_CODING: ("libx264", H264Format), H265_CODING: ("libx265", H265Format)}


@cache
def _access_units(coding: str) -> list[tuple[int, bytes]]:
    return access_units(12, name=_CODED[coding][0], key_every=5)


def _nal_payloads(coding: str) -> list[bytes]:
    """A few pictures each, as payloads; the kind's lowest bit is the marker."""
    form, out = _CODED[coding][1](), []
    for first in (0, 4, 8):
        made = [
            form.pack(EncodedFrame(n, 0, data, 64, 48), payload_type=96, packet_size=576)
            for n, data in _access_units(coding)[first : first + 4]
        ]
        sent = [data for each in made for batch in (each.batch, *each.rest) for data in batch.datagrams()]
        out.append(joined((data[1] >> 7, data[12:]) for data in sent))
    return out


def _nal_units(coding: str, data: bytes) -> object:
    """Payloads as pictures, each of which leaves once."""
    buffer, form, ticks = AssemblingBuffer(), _CODED[coding][1](), 0
    for number, piece in enumerate(pieces(data), 1):
        number += piece.kind >> 3  # some are lost
        buffer.push_run(Run.of(number, ticks, ticks, bool(piece.kind & 1), (piece.data or b"x",), form), 0)
        ticks += 3000 * (piece.kind & 1)
    buffer.flush()
    frames = [each.item if isinstance(each, Dropped) else each for each in buffer.pull(0)]
    assert len({frame.ticks for frame in frames}) == len(frames)
    return [frame.data is not None for frame in frames]


def _parameters(data: bytes) -> object:
    """What an fmtp line may say of any payload format."""
    text = data.decode("latin-1")
    words = dict(word.partition("=")[::2] for word in text.split(";"))
    for encoding in ("H264", "H265"):
        with contextlib.suppress(WireError):
            form = video_format(encoding, words)
            assert form is not None
            assert form.parameters is not None
    for encoding in ("MPEG4-GENERIC", "OPUS", "PCMU", "L24"):
        with contextlib.suppress(WireError):
            sound_format(encoding, 48_000, 2, words)
    return "read"


def _predicted(coding: str, data: bytes) -> object:
    """Access units of a stranger, and parameter sets before them, in a decoder."""
    units = [piece.data for piece in pieces(data, most=40)]
    decoder, seen = VideoDecoder(coding, setup=units[0] if units else b""), 0
    for number, unit in enumerate(units[1:]):
        with contextlib.suppress(DecodeError):
            for each in decoder.decode(unit, number):
                assert each.image.shape[0] * each.image.shape[1] <= MOST_PIXELS
                seen += 1
    return seen + len(decoder.drain())


def _whole_pictures(coding: str) -> list[bytes]:
    units = [data for _, data in _access_units(coding)]
    return [joined((0, unit) for unit in (START, *units[at : at + 4])) for at in (0, 5)]


def _aac(data: bytes) -> object:
    form = AacFormat(48_000, 2, AAC_HBR)
    return [len(unit) for piece in pieces(data) for unit in form.units(piece.data)]


def _opus(data: bytes) -> object:
    sound = DecodedSound(OpusFormat())
    return [len(sound.samples(piece.data)) for piece in pieces(data)]


def _pcm(data: bytes) -> object:
    channels = 1 + data[0] % 4 if data else 1
    return [len(PcmFormat(kind, 8_000, channels).samples(data[1:])) for kind in ("PCMU", "L8", "L24")]


_AAC_TWO = b"\0\x20\0\x80\0\x80" + bytes(32)
_AAC_PART = b"\0\x10\1\0" + bytes(16)  # half of a unit


AAC_HBR = {"mode": "AAC-hbr", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3", "config": "1190"}


def _decoded(data: bytes) -> object:
    image = codec.decode_jpeg(data)
    assert image.shape[0] <= jpeg.MAX_SIDE >= image.shape[1]
    return "decoded"


def _cut_up(data: bytes) -> object:
    rtpjpeg.check_jpeg(data)
    return "fits" if fragments(data) else "no"


def _rtsp(data: bytes) -> object:
    receiver, events = rtsp.MessageReader(), []
    for part in cut(data):
        fresh = receiver.feed(part)
        events += fresh
        for event in fresh:
            if not isinstance(event, rtsp.Interleaved):
                with contextlib.suppress(WireError):
                    _ = event.cseq
    return events


def _answers(data: bytes) -> object:
    answers, events = Answers(), []
    answers.channels = (0, 1) if len(data) % 2 else ()
    for part in cut(data):
        events += answers.feed(part)
    return events + answers.end()


def _header(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    read = []
    for parse in (rtsp.parse_transport, rtsp.parse_rtp_info, rtsp.SessionHeader.parse, sdp.NptRange.parse):
        with contextlib.suppress(WireError):
            made = parse(text)
            read.append(made)
            if isinstance(made, rtsp.SessionHeader | sdp.NptRange):
                made.serialize()
    return read


def _login(data: bytes) -> object:
    """A challenge at a client, and the same text as credentials at a server; what answers a good one is let in."""
    text = data.decode("utf-8", "replace")
    admission = Admission({}, draw=random.Random(1).randbytes)
    admission.let_in("class", "BCDFGH")
    credentials, said = digest.Credentials("class", "BCDFGH", allow_basic=True), []
    for value in (text, f"Digest {text}"):
        credentials.take(value, answered=False)
        told = credentials.header("PLAY", URL, cnonce="c")
        said.append(told is not None and rtsp.Headers({"Authorization": told})["Authorization"][:6])
        for moment, shown in enumerate((value, told)):
            refusal = admission.check("PLAY", URL, shown, host="::1", now_ns=moment)
            assert refusal is not None
            said.append((refusal.status, refusal.wrong))
    return said


def _sdp(data: bytes) -> object:
    session = sdp.parse(data.decode("utf-8", "replace"))
    for medium in session.media:
        sdp.resolve_control(f"{URL}/", medium.control)
        assert len(medium.repairs) <= 2
        assert (medium.again_from(4369) or 0) >> 32 == 0
        to = destination_of(session, medium)
        assert 0 < to.control_port <= 65_536
        assert len(to.sources) <= MOST_SOURCES
        assert isinstance(why_not(medium), str)
    return session.media


def _found(data: bytes) -> object:
    """A stream whose sender is not known: whose packets are taken, and whose reports."""
    sender = FoundSender(kinds={26, 96})
    now_ns, came, went = 0, 0, 0
    for piece in pieces(data):
        now_ns += piece.after_ns
        datagram = Batch(piece.data, len(piece.data) or 1)
        datagrams = [(datagram, (f"10.0.0.{piece.kind >> 3}", 5000 + (piece.kind & 4)))]
        media, control = parted(datagrams) if piece.kind & 2 else (datagrams, [])
        if piece.kind & 1:
            media, control = control, media
        taken = [*sender.media(media, now_ns), *sender.early(), *sender.control(control, now_ns)]
        came += sum(len(batch.data) for batch in taken)
        went += 60 * (sender.reports_to is not None and sender.affords(60))
        assert went * SENDERS_SHARE <= came, "no more goes back than a small part of what was taken"
    return bool(sender.host), went > 0


def _url(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    urls.redacted(text), urls.request_uri(text), urls.track_of(text), urls.ip_address(text), urls.same_host(text, "::1")
    place = urls.Place.parse(text)
    assert "\n" not in place.uri
    return ":" in place.host


def _picture(data: bytes) -> object:
    with contextlib.suppress(WireError):
        fields.classic_picture_fields(data)
    return [frame.jpeg[:2] for frame in classic.ClassicVideo().feed(data, 0)]


def _sound(data: bytes) -> object:
    sound, read = classic.ClassicSound(), []
    for part in cut(data):
        read += sound.feed(part, 0)
    return read


def _pickle(data: bytes) -> object:
    with contextlib.suppress(WireError):
        fields.classic_sound_fields(data)
    return len(classic.read_pickle(data))


# ---- calls: repair


def _parity(data: bytes) -> object:
    decoder, back = ParityDecoder(payload_type=26, parity_type=99), []
    for piece in pieces(data):
        back += decoder.feed(piece.data)
    return back


def _rtx(data: bytes) -> object:
    """What a client takes as sent again, and asks for; the numbers and media times are whatever arrives."""
    receiver, requester = RtxReceiver(payload_type=26, rtx_payload_type=98), Requester()
    sender = RtxSender(ssrc=9, payload_type=98, sequence=5)
    unwrap, ticks, now_ns, asked = rtp.Unwrapper(16), rtp.Unwrapper(32), 0, 0
    for piece in pieces(data):
        now_ns += piece.after_ns
        with contextlib.suppress(WireError):
            if piece.kind & 1:
                for packet in rtcp.parse_compound(piece.data):
                    if isinstance(packet, rtcp.Nack):
                        asked += len(sender.answer(packet.sequences, now_ns))
                continue
            if len(piece.data) > rtp.HEADER_BYTES:
                sender.sent(Batch(piece.data, len(piece.data)), now_ns)
            packet = rtp.RtpPacket.parse(piece.data)
            media_ns = rtp.ticks_to_ns(ticks(packet.timestamp), 90_000)
            if receiver.takes(packet):
                original = receiver.restore(packet, 7)
                requester.restored(unwrap.peek(original.sequence), media_ns, original.marker, now_ns)
            else:
                requester.arrived(unwrap(packet.sequence), media_ns, packet.marker, now_ns)
        numbers = requester.pull(now_ns)
        assert len(numbers) <= 10_000
        wake_ns = requester.wake_at()
        assert wake_ns is None or isinstance(wake_ns, int)
    return asked


def _rated(data: bytes) -> object:
    """Reports of a client that lies, as they reach a rate controller."""
    controller, now, made = Aimd(), 0.0, 0
    for piece in pieces(data):
        now += piece.after_ns / NS
        try:
            heard = rtcp.parse_compound(piece.data)
        except WireError:
            continue
        for packet in heard:
            for block in getattr(packet, "blocks", ()):
                trip = block.delay_since_sr / 65_536 if piece.kind & 1 else None
                loss, jitter = block.fraction_lost / 256, block.jitter / 90_000
                choice = controller.update(
                    Report(
                        time=now, client=block.ssrc, loss=loss, jitter=jitter, round_trip=trip,
                        sent_kbps=800.0, quality=80, width=640,
                    )
                )  # fmt: skip
                if choice is not None:
                    assert 1 <= choice.quality <= 100
                    assert choice.width >= 16
                    made += 1
    return made


# ---- calls: loops without their sockets


class _Sounding:
    """Sound that is taken, and never heard."""

    channels = 1
    least_delay_ns = sink_lead_ns = lead_ns = 0
    drained = back = True
    heard_seconds = 0.0

    def take(self, samples: Any, *, ticks: int, pts_ns: int, now_ns: int) -> bool:
        assert samples.ndim == 2
        return True

    def take_together(self, chunk: Any) -> list[bool]:
        packets = list(chunk.apart())
        assert all(len(samples) == chunk.step for samples, _, _ in packets[:-1])
        assert sum(len(samples) for samples, _, _ in packets) == len(chunk.samples)
        return [
            self.take(samples, ticks=ticks, pts_ns=pts_ns, now_ns=chunk.now_ns) for samples, ticks, pts_ns in packets
        ]

    def heard(self, now_ns: int) -> tuple[int | None, int, float]:
        return None, 0, 0.0

    def readings(self) -> list[Any]:
        return []

    def begin(self, base_ns: int) -> None: ...

    def shift(self, by_ns: int) -> None: ...

    def ease(self, by_ns: int) -> None: ...

    def offer(self) -> None: ...

    def follow(self, by_ns: int) -> None: ...

    def played(self, *, last: bool = False) -> list[Any]:
        return []


@cache
def _media() -> dict[str, sdp.Media]:
    return {media.kind: media for media in sdp.parse(DESCRIPTION.decode()).media}


def _playing(data: bytes) -> object:
    """A client between its sockets and its screen: packets, reports and moments, for one second to hours."""
    rng = random.Random(zlib.crc32(data))
    recorder = Recorder(side="client", epoch_ns=0, clock="virtual")
    told: list[str] = []
    presentation = Presentation(PlayerRecording(recorder), told.append)
    player = presentation.player
    sounding: Any = _Sounding() if rng.random() < 0.5 else None
    streams = {"video", "audio"} if sounding is not None else {"video"}
    origins = {}
    for stream in sorted(streams):
        media, ssrc = _media()[stream], 0x1234 if rng.random() < 0.5 else None
        origins[stream] = Origin("127.0.0.1", payload_type=media.payload_type)
        repair: Any = rng.choice((None, "rtx", "fec")) if stream == "video" else None
        described = Described(
            media.payload_type, media.clock_rate, media.channels, media.encoding, ssrc, media.repairs, repair
        )
        player.add(stream, described)
    delay_ns = rng.choice((None, 0, NS // 10))
    presentation.begin(streams=streams, delay_ns=delay_ns, sounding=sounding)
    player.begin(0, {"video": 0xFFFFDCD8} if rng.random() < 0.5 else {}, 0)
    now_ns = 0
    for piece in pieces(data, 200):
        now_ns += piece.after_ns
        stream = "audio" if piece.kind & 2 and "audio" in origins else "video"
        host = "127.0.0.1" if piece.kind & 4 == 0 else "10.9.8.7"
        datagram = Batch(piece.data, len(piece.data) or 1)
        for batch in origins[stream].media([(datagram, (host, 5000 + (piece.kind >> 3)))]):
            presentation.receive(events.Path(stream, bool(piece.kind & 1)), batch, now_ns)
        presentation.move_along(now_ns)
        assert all(path.control and rtcp.parse_compound(batch.data) for path, batch in player.outgoing())
        assert (wake_ns := player.timer_at()) is None or isinstance(wake_ns, int)
    if rng.random() < 0.05:  # which takes ten times as long as all before it
        metrics.summary(recorder.trace())
    assert len(told) < 20
    assert len(player.streams["video"].seen) < 100_000
    return len(told), presentation.received[1] > 0


class _Link:
    """A connection that takes everything, and a socket without one."""

    port, waiting = 5000, 0

    def __init__(self) -> None:
        self.sent = 0

    def send(self, data: bytes, now_ns: int) -> None:
        self.sent += len(data)


def _logins() -> list[bytes]:
    asked = digest.challenge("avlab", "0" * 64, stale=True)
    credentials = digest.Credentials("class", "BCDFGH")
    credentials.take(asked, answered=False)
    told = credentials.header("PLAY", URL, cnonce="c") or ""
    return [
        text.encode() for text in (asked, f'{asked}, Basic realm="cam"', told, told.partition(" ")[2], "Basic YTpi")
    ]


def _stage(tracks: dict[str, Track]) -> Any:
    pair: Any = (_Link(), _Link())
    return SimpleNamespace(
        tracks=tracks,
        session_timeout=60.0,
        chance=random.Random(1),
        describe=lambda host, tell: DESCRIPTION.decode(),
        udp=lambda stream: pair,
        play=lambda peer, now_ns: 0,
        clip_ns=lambda: 20 * NS,
        admit=lambda peer: None,
        group_route=lambda peer, track: None,
        set_up=lambda peer, outlet: None,
        tear_down=lambda peer, outlet: None,
    )


def _told(data: bytes) -> object:
    """What a client tells the sender of its pictures, between one frame and the next: nothing but sends and reports."""
    sender = Sender(unix_offset_ns=1_700_000_000 * NS, budget=FeedbackBudget())
    again = RtxSender(ssrc=9, payload_type=98, sequence=5)
    outlet = Outlet("video", rate=90_000, ssrc=0x1234, sequence=65_530, timestamp_offset=9, spreads=True, again=again)
    sender.add(outlet)
    sender.play(0, 0)
    packed, path, now_ns, sent, back = rtpjpeg.packed(_jpegs()[0]), StreamPath("video", control=True), 0, 0, 0
    for piece in pieces(data):
        now_ns += piece.after_ns
        sender.handle_timer(now_ns)
        sender.send("video", packed, now_ns, now_ns)
        sender.receive(path, Batch(piece.data, max(1, piece.kind * len(piece.data) // 31)), now_ns)
        sender.events()
        for leaving in sender.outgoing():
            if leaving.sent is not None:
                sent += leaving.batch.length if not leaving.sent.repair else 0
                back += leaving.batch.length if leaving.sent.repair else 0
        due_ns = sender.timer_at()
        assert due_ns is not None
        assert due_ns >= now_ns
    assert back <= CREDIT_BYTES + SHARE * sent + 2 * 2000
    return sender.heard_ns is not None, back > 0


def _serving(data: bytes) -> object:
    """A server at one client's connection."""
    kinds = {"video": (26, 90_000, 1), "audio": (10, 44_100, 2)}
    tracks = {name: Track(name, *kind, 99, _media()[name]) for name, kind in kinds.items()}
    link: Any = _Link()
    sender = Sender(unix_offset_ns=0, budget=FeedbackBudget())
    peer = Peer(link, ("127.0.0.1", 40_000), ("127.0.0.1", 8554), _stage(tracks), 0, sender)
    reports = 0
    for at, part in enumerate(cut(data)):
        taken = peer.feed(part, at)
        reports += len(taken)
    assert link.sent < 100 * len(data) + 100_000
    return str(peer.state), reports.bit_length()


def _relaying(data: bytes) -> object:
    """Both sides of a session through a relay; a piece's kind says which one speaks."""
    ports = iter(range(10_000, 60_000, 4))

    def bind() -> tuple[tuple[int, int], tuple[int, int]]:
        port = next(ports)
        return (port, port + 1), (port + 2, port + 3)

    dialogue = Dialogue("127.0.0.1:8554", bind=bind, changed=lambda track: None)
    asking, answering, passed = rtsp.MessageReader(), rtsp.MessageReader(), []
    for piece in pieces(data):
        for event in (answering if piece.kind & 1 else asking).feed(piece.data):
            if isinstance(event, rtsp.Request):
                passed.append(dialogue.request(event).serialize())
            elif isinstance(event, rtsp.Response):
                passed.append(dialogue.response(event).serialize())
            else:
                dialogue.stream_of(event.channel)
    return passed


# ---- calls: files


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="avlab-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _trace() -> Trace:
    return traces.run(seconds=1, packets=2, loss=0.1).client


@cache
def _saved() -> bytes:
    path = _folder() / "good.avtrace"
    _trace().save(path)
    return path.read_bytes()


def _load(data: bytes) -> object:
    path = _folder() / "odd.avtrace"
    path.write_bytes(data)
    trace = Trace.load(path)
    metrics.summary(trace)
    repr(trace)
    return "loaded"


def _members() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_saved())) as archive:
        return [bytes([at]) + archive.read(name) for at, name in enumerate(archive.namelist())]


def _load_member(data: bytes) -> object:
    """A trace of which one member is odd, with a right checksum: the first byte says which."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_saved())) as good, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as odd:
        names = good.namelist()
        chosen = names[data[0] % len(names)] if data else names[0]
        for name in names:
            odd.writestr(name, data[1:] if name == chosen else good.read(name))
    return _load(packed.getvalue())


def _captures() -> list[bytes]:
    """Files of both kinds, of several links, with RTP, RTCP and RTSP in them."""
    packets = [(time_ns, captures.udp(data)) for time_ns, data in [*captures.film(0.4), *captures.sound(0.4)]]
    packets += [(at * 20_000_000, captures.udp(data)) for at, data in enumerate(_reports())]
    said = b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DESCRIPTION) + DESCRIPTION
    said += b"".join(b"$\0" + struct.pack("!H", len(data)) + data for _, data in captures.film(0.2))
    packets += [(at * 1_000, captures.tcp(said[at : at + 700], at)) for at in range(0, len(said), 700)]
    made = [captures.pcap(packets), captures.pcap(packets, order=">", nano=False), captures.pcapng(packets)]
    for number, wrap in captures.LINKS.values():
        made.append(captures.pcapng([(time_ns, wrap(packet)) for time_ns, packet in packets[:60]], link=number))
    six = [(time_ns, captures.udp(data, ends=("2001:db8::1", "2001:db8::2"))) for time_ns, data in captures.film(0.4)]
    return [*made, captures.pcapng(six, order=">", resolution=0x80 | 20), captures.AIORTC.read_bytes()[:20_000]]


def _analyse(data: bytes) -> object:
    path = _folder() / "odd.pcapng"
    path.write_bytes(data)
    trace = Trace.from_pcap(path)
    trace.to_pcap(_folder() / "back.pcap")
    return [metrics.summary(trace), metrics.packet_ledger(trace), metrics.loss(trace), repr(trace)]


def _tables() -> list[bytes]:
    return [joined((at, _trace().rows(name)[:300].tobytes()) for at, name in enumerate(TABLES))]


def _load_rows(data: bytes) -> object:
    """A trace whose rows hold any bytes, saved, loaded and folded: numbers and times may be whatever they are."""
    rows = {name: np.zeros(0, table.dtype) for name, table in TABLES.items()}
    for piece in pieces(data, len(TABLES)):
        name = list(TABLES)[piece.kind % len(TABLES)]
        size = TABLES[name].dtype.itemsize
        rows[name] = np.frombuffer(piece.data[: len(piece.data) // size * size], TABLES[name].dtype).copy()
        for column, kind in TABLES[name].columns.items():
            if isinstance(kind, tuple):  # a word of a list: a file has the word, and no number of it
                rows[name][column] = np.abs(rows[name][column]) % len(kind)
    made = Trace(**{name: (part,) for name, part in rows.items()}, settings=_settings(), meta=_trace().meta)
    metrics.summary(made)
    metrics.reports(made)
    recent.numbers(made, made.epoch_ns + 3_000_000_000)
    return "folded"


def _settings() -> list[SettingRow]:
    return list(_trace().setting_rows)


# ---- all of them


def _own_sequence() -> list[bytes]:
    frames = [(0, data) for frame in _own_frames() for data in frame]
    encoder = ParityEncoder(payload_type=99, overhead=0.5)
    parity = [(0, data) for frame in _own_frames() for data in (*frame[1:], *encoder.protect(frame))]
    again = RtxSender(ssrc=9, payload_type=98, sequence=5)
    for batch in batches(data for frame in _own_frames() for data in frame):
        again.sent(batch, 0)
    sent_again = [(0, data) for data in again.answer(range(65_530, 65_536), 0)]
    report = [(1, data) for data in _reports()]
    sound = L16Packetizer(payload_type=10, ssrc=0x1234, sequence=3, timestamp_offset=0, rate=44_100, channels=2)
    heard = [(2, data) for data in sound.pack(Chunk(0, 0, np.zeros((882, 2), np.int16), 44_100))]
    return [
        joined([*report[:1], *frames, *report]),
        joined([*frames[:3], *frames[5:], *sent_again, *report]),
        joined([*parity, *report]),
        joined([*heard, *frames[:4], *heard, *report]),
        joined((0, data) for data in _datagrams()[:30]),
    ]


def _classic_pictures() -> list[bytes]:
    return [
        datagram
        for data, size in zip(_jpegs(), ((160, 96), (160, 96), (64, 48), (64, 48)), strict=False)
        for datagram in classic.ClassicVideo().pack(EncodedFrame(0, 0, data, *size))
    ]


def _classic_sound() -> list[bytes]:
    sound = classic.ClassicSound()
    chunk = sound.pack(Chunk(0, 0, np.zeros((200, 2), np.int16), 44_100))
    end = sound.pack(classic.ClassicEnd(0))
    return [b"".join([*chunk, *chunk, *end])]


def _relay_good() -> list[bytes]:
    asked, answered = ([event.serialize() for event in events] for events in (_asked(), _answered()))
    pairs = [part for pair in zip(asked[:5], answered[:5], strict=True) for part in zip((0, 1), pair, strict=True)]
    return [joined(pairs), joined([*pairs, *((1, data) for data in answered[5:])])]


WIRE = (WireError,)
TARGETS = (
    Target("an RTP packet", _rtp, _datagrams, WIRE),
    Target("RTP packets in runs, counted", _runs, _own_sequence, ()),
    Target("an RTCP datagram", rtcp.parse_compound, _reports, WIRE),
    Target("an RTP/JPEG payload", _fragment, lambda: [data[12:] for data in _datagrams()], WIRE),
    Target(
        "RTP/JPEG fragments, put together",
        _assembled,
        lambda: [joined((data is frame[-1], data[12:]) for data in frame) for frame in _own_frames(8)],
        WIRE,
    ),
    Target("pictures of other formats, put together", _other_pictures, _other_frames, ()),
    *(
        Target(f"{name} payloads, put together", partial(_nal_units, coding), partial(_nal_payloads, coding), ())
        for coding, name in CALLED.items()
    ),
    *(
        Target(f"{name}, decoded", partial(_predicted, coding), partial(_whole_pictures, coding), ())
        for coding, name in CALLED.items()
    ),
    Target(
        "parameters of payload formats",
        _parameters,
        lambda: [
            b"packetization-mode=1;sprop-parameter-sets=Z0LAH9kAUAW7ARAAAAMAEAAAAwPA8YMkgA==,aMuMsg==",
            b"sprop-vps=QAEMAf//AWAAAAMAkAAAAwAAAwA8lZgJ;sprop-sps=QgEBAWAAAAMAkAAAAwAAAwA8oAoIDxZZWaSTJrgC;sprop-pps=RAHA",
            ";".join(f"{name}={value}" for name, value in AAC_HBR.items()).encode(),
        ],
        (),
    ),
    Target("AAC payloads", _aac, lambda: [joined([(0, _AAC_TWO), (0, _AAC_PART), (0, _AAC_PART)])], WIRE),
    Target("Opus payloads, decoded", _opus, lambda: [joined([(0, b"\xfc\xff\xfe")] * 3)], WIRE),
    Target("PCM samples", _pcm, lambda: [b"\0" + bytes(range(96))], WIRE),
    Target(
        "L16 samples",
        lambda data: len(l16.parse_l16(data[1:], 1 + data[0] % 8 if data else 1)),
        lambda: [b"\1" + data[12:] for data in packets.stored("ffmpeg_l16")],
        WIRE,
    ),
    Target("a JPEG, before it is decoded", lambda data: jpeg.check_jpeg(data)[0] > 99, _jpegs, WIRE),
    Target("a JPEG, decoded", _decoded, _jpegs, (ValueError,)),
    Target("a JPEG, before it is sent", _cut_up, _jpegs, WIRE),
    Target("RTSP requests, cut anywhere", _rtsp, lambda: _bytes_of(_asked()), WIRE, _RTSP_WORDS),
    Target("RTSP answers, cut anywhere", _answers, lambda: _bytes_of(_answered()), WIRE, _RTSP_WORDS),
    Target(
        "RTSP headers' values",
        _header,
        lambda: [*(text.encode() for text in _TRANSPORTS), b"12ab;timeout=60", b"npt=0-20.5", b"npt=now-",
                 f"url={URL}/video;seq=65530;rtptime=4294958296,url={URL}/audio;seq=1;rtptime=7".encode()],
        (),
        _RTSP_WORDS,
    ),
    Target(
        "challenges and credentials",
        _login,
        _logins,
        (),
        (b"Digest ", b'realm="avlab"', b"nonce=", b'"', b"\\", b","),
    ),
    Target("a session description", _sdp, lambda: [DESCRIPTION], WIRE, _SDP_WORDS),
    Target("datagrams of a sender who is not known", _found, _own_sequence, ()),
    Target(
        "an address",
        _url,
        lambda: [URL.encode(), b"rtsp://user:pass@[fe80::1%25eth0]:554/a?b=c", b"rtsp://host", b"classic://h:1"],
        (ValueError,),
        _RTSP_WORDS,
    ),
    Target("a classic picture", _picture, _classic_pictures, WIRE),
    Target("classic sound, cut anywhere", _sound, _classic_sound, WIRE),
    Target("a classic pickle", _pickle, lambda: [classic.write_pickle(bytes(99)), classic.write_pickle(b"")], WIRE),
    Target("a parity payload", lambda data: parse_parity(data).length > 9, lambda: [
        data[12:] for frame in _own_frames() for data in ParityEncoder(payload_type=99).protect(frame)], WIRE),
    Target("parity among packets", _parity, _own_sequence, ()),
    Target("retransmissions and NACKs", _rtx, _own_sequence, ()),
    Target(
        "reports, as a rate controller is told", _rated, lambda: [joined((1, data) for data in _reports() * 5)], ()
    ),
    Target("a client's packets, reports and clocks", _playing, _own_sequence, (), share=15),
    Target("what a client tells a sender", _told, lambda: [
        joined((at % 32, data) for at, data in enumerate(_reports() * 5)), *_own_sequence()[:1]], ()),
    Target("a server's connection", _serving, lambda: _bytes_of(_asked()), (WireError, OSError), _RTSP_WORDS),
    Target("a session through a relay", _relaying, _relay_good, WIRE, _RTSP_WORDS),
    Target("a saved trace", _load, lambda: [_saved()], (ValueError,), share=40, seconds=10.0),
    Target("a saved trace's tables and settings", _load_member, _members, (ValueError,), share=40, seconds=10.0),
    Target("a capture, analysed", _analyse, _captures, (ValueError,), share=60, seconds=10.0),
    Target("a trace's rows, summed up", _load_rows, _tables, (), share=20, seconds=10.0),
)  # fmt: skip
