"""Pictures on their way out: a codec makes bytes of them, a payload format makes packets of the bytes.

Either may be anyone's own. When one fails in mid-stream, what takes over has to be understood by clients that were told
of it: JPEG in X-bytes, whose packets say what they carry, under a payload type that the description has as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avlab.media import codec as jpeg_codec
from avlab.media.codec import Picture
from avlab.media.owncodec import OwnCodec, check_codec, codec_name
from avlab.media.sources import ClipSource, Source
from avlab.media.videoencoder import H264Encoder
from avlab.parts import Call, PartError, called
from avlab.wire.payloads.formats import BytesFormat, H264Format, JpegFormat, VideoFormat
from avlab.wire.payloads.h264 import parameter_sets_in
from avlab.wire.payloads.ownpayload import OwnFormat, check_payload
from avlab.wire.rtp import MAX_PACKET, Packed
from avlab.wire.units import H264_CODING, NS, OWN_CODING, EncodedFrame

KEY_APART_NS = NS // 4
"""Key frames that are asked for come no closer than this: they are large, and clients may ask as often as they like."""

BIT_RATE, KEY_INTERVAL = 2_000, 2.0
"""Kilobits a second, and seconds from one key frame to the next, where nothing else is asked for."""

FURTHER_TYPE = 110
"""The payload type of X-bytes, where it stands in for a payload format of anyone's own."""


class Pictures:
    """How pictures are encoded and packed. `codec` and `payload` are anyone's own; without them it is RTP/JPEG,
    and `jpeg` encodes, `codec.encode_jpeg` by default. The codec "h264" is one that comes with avlab, at `bit_rate`
    (kilobits a second) with a key frame each `key_interval` seconds, and whenever one is asked for; both may be set at
    any time.

    TypeError for what is neither. They are asked by `call`; when one fails `failed` is told, with what is done instead,
    and JPEG or X-bytes takes over. `encoded` is for one thread.
    """

    def __init__(
        self,
        *,
        codec: Any = None,
        payload: Any = None,
        jpeg: Callable[..., tuple[bytes, int, int]] | None = None,
        call: Call = called,
        failed: Callable[[PartError, str], None] | None = None,
    ) -> None:
        self.codec, self.payload = codec, payload
        self.key_interval = KEY_INTERVAL
        self.setup = b""
        """The parameter sets of H.264, as a byte stream, as far as they are known: those of the newest key frame."""
        self._h264: H264Encoder | None = None
        self._keyed_ns: int | None = None  # the pts of the newest key frame
        name = ""
        if isinstance(codec, str):
            if codec != "h264":
                raise ValueError(f"codec is {codec!r}: 'h264', or one of your own; without it pictures are JPEG")
            if payload is not None:
                raise ValueError("codec='h264' has a payload format of its own: leave out payload=")
            self._h264 = H264Encoder(bit_rate=BIT_RATE)
        elif codec is not None:
            check_codec(codec)
            name = codec_name(codec)
        if payload is not None:
            check_payload(payload)
        self._failed = failed
        self._jpeg = jpeg_codec.encode_jpeg if jpeg is None else jpeg
        self._codec = None if codec is None or self._h264 is not None else OwnCodec(codec, call=call)
        self._own = None if payload is None else OwnFormat(payload, codec=name, call=call)
        self._generic = BytesFormat(codec=name)
        self._wants_key = True
        self.form: VideoFormat = self._own or (JpegFormat() if codec is None else self._generic)
        if self._h264 is not None:
            self.form = H264Format()
        """The payload format that the description names."""
        self.further: dict[int, VideoFormat] = {} if self._own is None else {FURTHER_TYPE: self._generic}
        """What may stand in for it, by payload type."""

    def begin(self) -> None:
        """The clip begins, again perhaps: the first picture is one that needs no other."""
        self._wants_key, self._keyed_ns = True, None
        if self._h264 is not None:
            self._h264.reset()
        if self._codec is not None:
            try:
                self._codec.reset()
            except PartError as error:
                self._codec = None
                self._tell(error, "Pictures are sent as JPEG now")

    def foretell(self, source: Source, *, width: int | None, quality: int) -> None:
        """Find out the parameter sets of a clip's H.264 before it begins: they are those of its first picture."""
        if self._h264 is None or source.live or not isinstance(source, ClipSource):
            return
        first = next(iter(source.pictures()), None)
        if first is not None:
            scratch = H264Encoder(bit_rate=self._h264.bit_rate)
            given: dict[str, Any] = {"width": width, "matrix": first.matrix, "quality": quality, "pts_ns": 0}
            self.setup = parameter_sets_in(scratch.encode(first.image, key=True, **given).data)

    def described(self) -> VideoFormat:
        """The payload format as a description tells it now."""
        return H264Format(setup=self.setup) if self._h264 is not None else self.form

    def refresh(self) -> None:
        """Somebody joins: the next picture is one that needs no other. From any thread."""
        self._wants_key = True

    def encoded(self, picture: Picture, *, width: int | None, quality: int) -> EncodedFrame:
        """A picture as bytes, at a width (None: its own) and a quality of 1 to 100."""
        index, pts_ns = picture.index, picture.pts_ns
        if self._h264 is not None:
            return self._predicted(self._h264, picture, width=width, quality=quality)
        if self._codec is not None:
            key, self._wants_key = self._wants_key, False
            image = jpeg_codec.to_bgr(picture.image, width=width, matrix=picture.matrix)
            height, across = image.shape[:2]
            try:
                made = self._codec.encode(image, quality, key=key, pts=pts_ns / NS)
                return EncodedFrame(index, pts_ns, made.data, across, height, coding=OWN_CODING, key=made.key)
            except PartError as error:
                self._codec = None
                self._tell(error, "Pictures are sent as JPEG now")
        data, across, height = self._jpeg(picture.image, width=width, quality=quality, matrix=picture.matrix)
        return EncodedFrame(index, pts_ns, data, across, height)

    def _predicted(self, encoder: H264Encoder, picture: Picture, *, width: int | None, quality: int) -> EncodedFrame:
        index, pts_ns = picture.index, picture.pts_ns
        since_ns = None if self._keyed_ns is None else pts_ns - self._keyed_ns
        key = since_ns is None or since_ns >= self.key_interval * NS
        key = key or (self._wants_key and since_ns is not None and since_ns >= KEY_APART_NS)
        if key:
            self._wants_key = False  # before it is made: whoever asks meanwhile is to get another one
        made = encoder.encode(
            picture.image, width=width, matrix=picture.matrix, key=key, quality=quality, pts_ns=pts_ns
        )
        if made.key:
            self._keyed_ns, self.setup = pts_ns, parameter_sets_in(made.data)
        return EncodedFrame(index, pts_ns, made.data, made.width, made.height, coding=H264_CODING, key=made.key)

    @property
    def bit_rate(self) -> int:
        """Kilobits a second that the codec which comes with avlab aims at."""
        return BIT_RATE if self._h264 is None else self._h264.bit_rate

    @bit_rate.setter
    def bit_rate(self, kbps: int) -> None:
        if self._h264 is not None:
            self._h264.bit_rate = kbps

    def pack(self, frame: EncodedFrame, *, packet_size: int = MAX_PACKET) -> Packed:
        """A picture as packets of at most `packet_size` bytes. WireError for one that cannot be sent."""
        own = self._own
        if own is None:
            form = self._generic if self.further else self.form
            kind = FURTHER_TYPE if self.further else form.payload_type
            return form.pack(frame, payload_type=kind, packet_size=packet_size)
        if bool(own.codec) == (frame.coding == OWN_CODING):
            try:
                return own.pack(frame, payload_type=own.payload_type, packet_size=packet_size)
            except PartError as error:
                self._own = None
                self._tell(error, "Pictures are sent as X-bytes now")
        return self._generic.pack(frame, payload_type=FURTHER_TYPE, packet_size=packet_size)

    def _tell(self, error: PartError, instead: str) -> None:
        if self._failed is None:
            raise error
        self._failed(error, instead)
