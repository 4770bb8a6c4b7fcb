"""What a clip is in packets: its tracks, and frames and chunks cut to size, once for all who are sent them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from avlab.media.soundencoder import opus_chunks
from avlab.media.sources import Source
from avlab.network.ownrepair import Protection
from avlab.network.settings import Network
from avlab.stream.clock import Clock
from avlab.stream.ends import SoundPart, parts_of
from avlab.stream.rtsp.dispatch import Dispatch
from avlab.stream.rtsp.peer import sound_of, tracks_of
from avlab.stream.sending.adapting import Delivery
from avlab.stream.sending.pictures import Pictures
from avlab.wire import sdp
from avlab.wire.payloads.formats import fmtp
from avlab.wire.rtp import PACKET_SIZES, Packed
from avlab.wire.units import NS, Chunk, EncodedFrame, WireError

MAX_DRAIN_NS = 2 * NS
"""At the end, what is under way in the network has so long to arrive, at the most."""


def too_large(size: int, largest: int) -> str:
    """What to tell of packets that the system does not send."""
    return (
        f"this system sends no datagram of {size:,} bytes, so packets have {largest:,} at the most: on macOS "
        "'sudo sysctl -w net.inet.udp.maxdgram=65535' makes room for larger ones"
    )


class Cut:
    """A frame or a chunk as packets of at most `size` bytes, and of fewer for clients that ask for fewer: once each."""

    def __init__(self, make: Callable[[int], Packed], size: int) -> None:
        self.size, self._make = size, make
        self._made = {size: make(size)}

    def at_most(self, size: int | None) -> Packed:
        """The packets for a client that asks for no more than `size` bytes each; None: it does not ask."""
        size = self.size if size is None or size > self.size else size
        if (made := self._made.get(size)) is None:
            made = self._made[size] = self._make(size)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """A pacer that was in use may hold some, and be sent to another process: they go there as they are cut."""
        return Cut, (partial(_as_cut, self._made[self.size]), self.size)


def _as_cut(packed: Packed, size: int) -> Packed:
    return packed


class Packing:
    """The tracks of a source, and their packets. `prepare` and `chunks` are for the threads of their feeds."""

    def __init__(
        self,
        source: Source,
        *,
        chance: random.Random,
        pictures: Pictures,
        audio_codec: str | None,
        delivery: Delivery,
        notice: Callable[[str, str], None],
        protections: Mapping[str, Protection] = MappingProxyType({}),
    ) -> None:
        self._source, self._chance, self._pictures = source, chance, pictures
        self._audio_codec, self._delivery, self._notice = audio_codec, delivery, notice
        sound = sound_of(source, audio_codec)
        self._sound = {} if sound is None else {"audio": sound}  # what a chunk is, by its track
        self.tracks = tracks_of(
            source,
            chance,
            pictures=pictures.form,
            further=pictures.further,
            sound=sound,
            protections=protections,
        )
        self.largest = PACKET_SIZES[-1]
        """Bytes that this system sends in one datagram."""
        self._too_large = 0  # a size that it does not, and that was told of

    def media(self) -> list[sdp.Media]:
        """The tracks as a description has them now: with H.264's parameter sets, as far as they are known."""
        form = self._pictures.described()
        told = {value.partition(" ")[0]: value for _, value in fmtp(form.payload_type, form)}
        found = []
        for track in self.tracks.values():
            now = told if track.stream == "video" else {}
            attributes = (
                (name, now.get(value.partition(" ")[0], value) if name == "fmtp" else value)
                for name, value in track.media.attributes
            )
            found.append(replace(track.media, attributes=tuple(attributes)))
        return found

    def restart(self) -> None:
        """The clip begins again, with other timestamps."""
        for track in self.tracks.values():
            track.restart(self._chance)

    def chunks(self) -> Iterator[Chunk]:
        """The sound as it is, or as Opus: a description says what it is like."""
        chunks = self._source.chunks()
        return chunks if self._audio_codec is None else opus_chunks(chunks, channels=self._source.channels or 1)

    def prepare(self, frame: EncodedFrame) -> Cut:
        """A frame cut into packets. WireError for one that cannot be sent."""
        pictures = self._pictures
        try:
            return Cut(lambda size: pictures.pack(frame, packet_size=size), self._packet_size())
        except WireError as error:
            encoding = self._pictures.form.encoding
            raise WireError(f"frame {frame.index} cannot be sent as RTP/{encoding}: {error}") from error

    def cut_sound(self, chunk: Chunk) -> Cut:
        """A chunk cut into packets: each is a unit of its own to a client."""
        form = self._sound["audio"]
        make = partial(form.pack, chunk, payload_type=form.payload_type)
        return Cut(lambda size: make(packet_size=size), self._packet_size())

    def sound_parts(self, chunk: Chunk, cut: Cut) -> Sequence[SoundPart]:
        """What the packets of a chunk carry, for the record."""
        track = self.tracks["audio"]
        return parts_of(cut.at_most(None), chunk.pts_ns, track.timestamp(chunk.pts_ns), track.rate)

    def _packet_size(self) -> int:
        """Bytes that a packet may have now: as many as were asked for, if the system sends them in one datagram."""
        size = self._delivery.packet_size
        if size > self.largest:
            if self._too_large != size:
                self._too_large = size
                self._notice("packets too large", too_large(size, self.largest))
            size = max(PACKET_SIZES[0], self.largest)
        return size


class PacketAudience:
    """What audiences of RTP have in common: what they are sent is cut into packets once, and leaves by one dispatch."""

    def __init__(self, packing: Packing, dispatch: Dispatch, clock: Clock) -> None:
        self._packing, self._dispatch, self._clock = packing, dispatch, clock
        self.tracks = packing.tracks

    @property
    def network(self) -> Network:
        """The network that all packets are sent through; to be set from any thread."""
        return self._dispatch.network

    @network.setter
    def network(self, value: Network) -> None:
        self._dispatch.network = value

    @property
    def sent_bytes(self) -> int:
        """Bytes of RTP and RTCP that were handed over so far, to all clients. From any thread."""
        return self._dispatch.sent_bytes

    def chunks(self) -> Iterator[Chunk]:
        """The sound as it is, or as Opus: a description says what it is like."""
        return self._packing.chunks()

    def prepare(self, frame: EncodedFrame) -> Cut:
        """A frame cut into packets, once for all."""
        return self._packing.prepare(frame)

    def timestamp(self, stream: str, pts_ns: int) -> int:
        """The RTP timestamp of a presentation time."""
        return self.tracks[stream].timestamp(pts_ns)

    def send_frame(self, unit: Cut, pts_ns: int) -> tuple[int | None, int | None]:
        """Send a frame's packets to every client that plays."""
        return self._to_all("video", unit, pts_ns)

    def send_sound(self, chunk: Chunk) -> tuple[int | None, Sequence[SoundPart]]:
        """Send a chunk to every client that plays: a packet is a unit of its own to the client."""
        cut = self._packing.cut_sound(chunk)
        sent_ns, count = self._to_all("audio", cut, chunk.pts_ns)
        return sent_ns, () if count is None else self._packing.sound_parts(chunk, cut)

    def _to_all(self, stream: str, unit: Cut, pts_ns: int) -> tuple[int | None, int | None]:
        """Send one unit to every client that plays: when the first send began, and that client's packets."""
        raise NotImplementedError

    def _under_way_until_ns(self) -> int:
        """Until when to wait at the end for what is under way in the network."""
        network = self.network
        slow_ns = round((network.steady_delay + 5 * network.jitter + network.queue * bool(network.rate)) * NS)
        return self._clock.now_ns() + min(slow_ns, MAX_DRAIN_NS)
