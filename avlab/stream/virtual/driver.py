"""One run in virtual time: a `Sender` and a `Player`, a network between them, what wakes them. No thread, no socket.

What a server and a client do at their sockets, this does between moments: each machine is called as on sockets, with
the same bytes. What fills a picture or a chunk of sound is a filler of the right size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import (
    ClockTold,
    Doubted,
    FrameToDecode,
    KeyAsked,
    Offered,
    PacketsTaken,
    Path,
    Sent,
)
from avlab.core.player import Player
from avlab.core.repairing import Repair
from avlab.core.sender import Outlet, Sender
from avlab.measure.record.trace import Recorder
from avlab.network.ownrepair import OwnRepair, Protection, RepairSender
from avlab.network.parity import ParityEncoder
from avlab.network.ratecontrol import RateController
from avlab.network.retransmission import RtxSender
from avlab.network.settings import Network
from avlab.parts import Call, Choice, PartError, called
from avlab.stream.ends import parts_of
from avlab.stream.recording import PlayerRecording, SenderRecording
from avlab.stream.sending.adapting import Adapting
from avlab.stream.virtual import filler
from avlab.stream.virtual.departures import Departure
from avlab.stream.virtual.device import Device, WorkingDevice
from avlab.stream.virtual.ownpictures import OwnPictures
from avlab.stream.ways import Way
from avlab.timing.target import DelayTarget
from avlab.wire.batch import Batch
from avlab.wire.rtp import JPEG, MAX_PACKET, VIDEO_CLOCK, Packed, rtp_timestamp
from avlab.wire.units import NS

VIDEO, RTX, AUDIO, PLAYER, OWN = 1, 2, 3, 4, 5
"""The sources of a simulated run: the pictures, those of their packets that are sent again, the sound, the client, and
what anyone's own repair sends."""

RTX_TYPE, FEC_TYPE, OWN_TYPE = 98, 99, 112
"""Payload types, as a server has them."""

CHUNK_NS = NS // filler.CHUNKS_A_SECOND

QUIET_NS = NS
"""With nothing under way and nothing come for so long, it has ended without a BYE, which may be lost."""

BECOME, DELIVER, RISE, CHUNK, FRAME, TEND, END, HEED, PLAY = range(9)
"""The turns of a moment, in their order: what arrives before what leaves, the sound before the pictures."""

NEVER = 1 << 62

TOLD_TOGETHER = 64
"""Of so many of its turns the player's events are written down together."""

PATIENCE = 4
"""How many times its own length a run may last: a pacer that waits longer and longer would have it last for years."""
PATIENCE_NS = 60 * NS
"""And this long beyond that."""

_new = tuple.__new__  # a named tuple's own constructor takes twice as long

Failed = Callable[[PartError], None]
"""Told why a part has failed."""


@dataclass(slots=True)
class RunSettings:
    """What a run is like; see `simulate`."""

    networks: tuple[tuple[int, Network], ...]
    """Moments in ns, the first of them 0, and the network that there is from each on."""
    whole: bool
    """Whether frames travel whole, in one packet each, of which there is no record."""
    until_ns: int
    interval_ns: int
    """From one frame to the next, by the clip."""
    width: int
    quality: int
    sizes: Callable[[int, int], tuple[int, ...]]
    """Bytes of each frame's scan, over and over, at a width and quality."""
    sound: filler.Sound | None = None
    device: Device = field(default_factory=Device)
    delay_ns: int | None = None
    """The playout delay; None: adaptive, by `target`."""
    target: DelayTarget | None = None
    buffer: tuple[Any, Failed] | None = None
    """A jitter buffer of anyone's own, and who is told when it fails."""
    repair: Repair | None = None
    own_repair: OwnRepair | None = None
    parity: float = 0.25
    spread: float = 0.0
    pictures: OwnPictures | None = None
    """What pictures are where their codec or payload format is anyone's own."""
    packet_size: int = MAX_PACKET
    call: Call = called


class VirtualEncoding:
    """What is encoded at which moment: a `sending.adapting.Encoding`."""

    def __init__(self, quality: int, width: int) -> None:
        self.quality = quality
        self.width: int | None = width
        self.encoded_width: int | None = width
        self._since: list[tuple[int, Choice]] = [(0, Choice(quality, width))]  # newest last

    def choose(self, choice: Choice, now_ns: int) -> None:
        """Another quality and width for what is encoded from now on."""
        self.quality, self.width = choice
        self._since.append((now_ns, choice))

    def at(self, chosen_ns: int) -> Choice:
        """The quality and width of a picture whose encoding began at a moment; later ones have no earlier moments."""
        while len(self._since) > 1 and self._since[1][0] <= chosen_ns:
            del self._since[0]
        choice = self._since[0][1]
        self.encoded_width = choice.width
        return choice


def _moment(at_ns: int | None) -> int:
    return NEVER if at_ns is None else at_ns


class VirtualRun:
    """A server and its one client. `ours` is what the server's record is written to, `theirs` the client's."""

    def __init__(self, settings: RunSettings, leaving: Iterator[Departure], ours: Recorder, theirs: Recorder) -> None:
        self._now_ns = 0
        self.encoding = VirtualEncoding(settings.quality, settings.width)
        self._adapting: Adapting | None = None
        self._settings, self._leaving, self._ours = settings, leaving, ours
        self._sent, self._seen = SenderRecording(ours), PlayerRecording(theirs)
        self._sender = self._made_sender()
        self._outlets = self._sender.outlets
        self._player = self._made_player()
        (_, network), *others = settings.networks
        self._way: Way[Path] = Way(network, client=0, carrier=self, recording=self._sent)
        self._clear = network.clear
        self._others = deque(others)  # the networks that are still to come
        self._due = [NEVER] * (PLAY + 1)  # when each turn is to be taken next
        self._turns = (
            self._become,
            self._deliver,
            self._rise,
            self._send_sound,
            self._send_frame,
            self._tend_sender,
            self._end,
            self._heed_sound,
            self._see_to_player,
        )
        if others:
            self._due[BECOME] = others[0][0]
        self._sound = settings.sound
        self._chunk = (
            None
            if self._sound is None
            else filler.chunk(self._sound, packet_size=settings.packet_size, whole=settings.whole)
        )
        # What its packets carry: how long and how many ticks after its beginning, and bytes.
        self._parts: Sequence[tuple[int, int | None, int]] = ()
        if self._chunk is not None and self._sound is not None:
            self._parts = parts_of(self._chunk, 0, 0, self._sound.rate)
            self._due[CHUNK] = 0
        self._chunks = 0
        self._frame: Departure | None = None
        self._whole = settings.whole
        self._coded = settings.pictures is not None  # there may be pictures to decode
        self._touched = False  # something has come to the player since its time was last seen to
        self._put_off = False  # its time may be later than it said, as sound has come since
        self._media_ns = 0  # where the clip ends, as far as it was sent
        self._arrived_ns = 0  # when anything came last
        self._over = False  # all has come that will, and was seen and heard
        self._untold = 0  # turns of the player since its events were written down

    def _made_sender(self) -> Sender:
        settings = self._settings
        sender = Sender(unix_offset_ns=0, budget=FeedbackBudget())
        sender.spread, sender.parity = settings.spread, settings.parity
        own = settings.own_repair
        beside = None
        if own is not None and own.protects:
            beside = RepairSender(Protection(own), ssrc=OWN, payload_type=OWN_TYPE, sequence=0)
        video = Outlet(
            "video",
            rate=VIDEO_CLOCK,
            ssrc=VIDEO,
            sequence=0,
            timestamp_offset=0,
            spreads=True,
            interval_ns=settings.interval_ns,
            again=RtxSender(ssrc=RTX, payload_type=RTX_TYPE, sequence=0) if settings.repair == "rtx" else None,
            own=beside,
            parity=ParityEncoder(payload_type=FEC_TYPE) if settings.repair == "fec" else None,
        )
        sender.add(video)
        if settings.sound is not None:
            rate = settings.sound.rate
            sender.add(Outlet("audio", rate=rate, ssrc=AUDIO, sequence=0, timestamp_offset=0, marks_first=True))
        return sender

    def _made_player(self) -> Player:
        settings, sound = self._settings, self._settings.sound
        player = Player(ssrc=PLAYER)
        repairs = {"rtx": RTX_TYPE, "fec": FEC_TYPE}
        sources = {"rtx": RTX} if settings.repair == "rtx" else {}
        own = settings.own_repair
        if own is not None and own.protects:
            repairs, sources = repairs | {own.name: OWN_TYPE}, sources | {own.name: OWN}
        known: dict[str, Any] = {
            "ssrc": VIDEO,
            "repairs": repairs,
            "repair": settings.repair,
            "own": own,
            "repair_ssrcs": sources,
            "tells_times": True,
        }
        pictures = settings.pictures
        blanks = {JPEG: filler.Blanks()}
        if pictures is None:
            described = Described(JPEG, VIDEO_CLOCK, pictures=blanks, **known)
        else:
            described = pictures.described(**known)
        player.add("video", described)
        streams = {"video"}
        self._device: WorkingDevice | None = None
        if sound is not None:
            streams.add("audio")
            form = filler.Silence(sound.rate, sound.channels)
            channels = sound.channels
            player.add(
                "audio",
                Described(sound.payload_type, sound.rate, channels=channels, ssrc=AUDIO, sound=form, tells_times=True),
            )
            self._device = WorkingDevice(settings.device, rate=sound.rate, channels=sound.channels)
        if settings.buffer is not None:
            buffer, failed = settings.buffer
            player.buffer_by(buffer, call=settings.call, failed=failed)
        if settings.target is not None:
            player.steer_by(settings.target)
        sink = None if self._device is None else self._device.sink
        player.prepare(streams=streams, delay_ns=settings.delay_ns, sound=sink)
        return player

    def adapt(
        self,
        controller: RateController | type[RateController],
        *,
        call: Call,
        failed: Callable[[PartError], None],
    ) -> None:
        """Have a rate controller choose quality and width by the reports, from the beginning."""

        def choose(choice: Choice) -> None:
            now_ns = self._now_ns
            self.encoding.choose(choice, now_ns)
            self._ours.setting(now_ns, "quality", choice.quality)
            self._ours.setting(now_ns, "width", choice.width)

        self._adapting = Adapting(self.encoding, choose, call=call, failed=failed)
        self._adapting.controller = controller

    # ---- time

    def now_ns(self) -> int:
        """The moment that it is."""
        return self._now_ns

    def moments(self) -> Generator[int, int | None, None]:
        """From PLAY to the end of what the client shows and hears, a moment at a time.

        The moment that comes next, in ns, is given before anything is done at it, but for those up to the one that was
        sent in for the moment before.
        """
        self._player.begin(0, dict.fromkeys(self._sender.outlets, 0), 0)
        self._sender.play(0, 0)
        self._send(0)
        self._next_frame()
        self._see_to_player(0)
        due, turns, device, now_ns, until_ns = self._due, self._turns, self._device, 0, -1
        longest_ns = PATIENCE * self._settings.until_ns + PATIENCE_NS
        while not self._over:
            now_ns = min(due)
            if device is not None and device.due_ns < now_ns:
                # Nothing happens before, and what it says is heard waits for the player's next turn.
                self._player.heard(*device.ask(min(now_ns, longest_ns)))
            if now_ns > longest_ns:
                self._ours.event(longest_ns, "ended early", "frames wait to be sent, and the clip would be over by now")
                now_ns = longest_ns
                break
            if now_ns > until_ns:
                until_ns = (yield now_ns) or 0
            self._now_ns = now_ns
            turns[due.index(now_ns)](now_ns)
        self._way.close()
        self._player.flush(now_ns)
        self._player.close()
        self._tell()

    # ---- turns, those of one moment in this order

    def _become(self, now_ns: int) -> None:
        """The network is another one from now on."""
        way, network = self._way, self._others.popleft()[1]
        way.become(network)
        self._clear = network.clear
        self._due[BECOME] = self._others[0][0] if self._others else NEVER
        self._due[DELIVER], self._due[RISE] = _moment(way.down.wake_at()), _moment(way.up.wake_at())
        self._ours.setting(now_ns, "network", str(network))

    def _deliver(self, now_ns: int) -> None:
        """What was sent arrives at the client."""
        later_ns, due = self._way.deliver(now_ns), self._due
        due[DELIVER] = NEVER if later_ns is None else later_ns
        if due[HEED] == now_ns and due.index(now_ns) == HEED:  # there is nothing else between
            self._heed_sound(now_ns)

    def _rise(self, now_ns: int) -> None:
        """What the client has said arrives at the server."""
        for data in self._way.risen(now_ns):
            self._hear(data, now_ns)
        self._due[RISE] = _moment(self._way.up.wake_at())

    def _tend_sender(self, now_ns: int) -> None:
        self._sender.handle_timer(now_ns)
        self._send(now_ns)

    def _end(self, now_ns: int) -> None:
        """The clip is over."""
        self._due[END] = NEVER
        self._sender.end(now_ns)
        self._send(now_ns)

    def _all_has_come(self, now_ns: int) -> bool:
        """Whether all has come that will, as the player judges by BYE; without one, once nothing is under way."""
        if self._frame is not None or self._due[CHUNK] != NEVER or self._due[END] != NEVER:
            return False
        if self._player.said_goodbye:
            return self._player.over
        idle = self._way.down.wake_at() is None and self._sender_waits_for_nothing()
        return idle and now_ns - self._arrived_ns >= QUIET_NS

    def _sender_waits_for_nothing(self) -> bool:
        return not any(outlet.waiting for outlet in self._sender.outlets.values())

    # ---- the server

    def _next_frame(self) -> None:
        """The next frame that leaves; those before it that do not are written down."""
        while True:
            frame = self._frame = next(self._leaving, None)
            if frame is None:
                self._due[FRAME] = NEVER
                self._see_whether_over()
                return
            self._media_ns = max(self._media_ns, frame.pts_ns + self._settings.interval_ns)
            if frame.sent_ns is not None:
                self._due[FRAME] = max(frame.sent_ns, self._now_ns)
                return
            held = frame.fate == "in_flight"
            self._sent.offered(
                Offered(
                    "video",
                    index=frame.index,
                    pts_ns=frame.pts_ns,
                    timestamp=rtp_timestamp(frame.pts_ns, VIDEO_CLOCK, 0),
                    due_ns=None if held else frame.pts_ns,
                    encoded_ns=frame.encoded_ns,
                    packets=None if held else 0,
                    fate=frame.fate,
                )
            )

    def _packed(self, frame: Departure) -> tuple[Packed, int | None]:
        """A frame's packets, and how many bytes the picture has; None where that is nobody's business."""
        if self._whole:
            return filler.whole_picture(), None
        quality, width = self.encoding.at(frame.chosen_ns)
        if self._settings.pictures is not None:
            return self._settings.pictures.packed(frame.index, width, quality, self._settings.packet_size)
        sizes = self._settings.sizes(width, quality)
        scan = sizes[frame.index % len(sizes)]
        packets = filler.picture(scan, width, quality, self._settings.packet_size)
        return packets, filler.picture_bytes(scan)

    def _send_frame(self, now_ns: int) -> None:
        frame = self._frame
        while frame is not None:
            index, pts_ns, _, encoded_ns, due_ns, sent_ns, _ = frame
            if sent_ns is None or sent_ns > now_ns:
                break
            packed, size = self._packed(frame)
            count = self._sender.send("video", packed, pts_ns, now_ns)
            stamp = self._outlets["video"].newest
            known = "video", index, pts_ns, stamp, due_ns, encoded_ns, now_ns, size, count, None
            self._sent.offered(_new(Offered, known))
            self._send(now_ns)
            self._next_frame()
            frame = self._frame

    def _send_sound(self, now_ns: int) -> None:
        if self._chunk is None:
            return
        self._sender.send("audio", self._chunk, now_ns, now_ns)
        stamp = self._outlets["audio"].newest
        self._ours.sound_sent(self._chunks, now_ns, now_ns, self._parts, pts_ns=now_ns, timestamp=stamp)
        self._send(now_ns)
        self._chunks += 1
        self._due[CHUNK] = next_ns = now_ns + CHUNK_NS
        if next_ns > self._media_ns:
            self._media_ns = next_ns
        if next_ns >= self._settings.until_ns:
            self._due[CHUNK] = NEVER
            self._see_whether_over()

    def _see_whether_over(self) -> None:
        """The clip is over once its last picture and sound have had their time."""
        if self._frame is None and self._due[CHUNK] == NEVER:
            self._due[END] = max(self._media_ns, self._now_ns)

    def _send(self, now_ns: int) -> None:
        """All that the sender has to say leaves."""
        way, sender, due = self._way, self._sender, self._due
        clear = self._clear and due[DELIVER] == NEVER
        for path, batch, leaving in sender.outgoing():
            if not clear:
                stream, _ = path
                way.push(path, leaving, batch, now_ns, stream, stream == "audio")
            elif leaving is not None:
                self.hand_over(path, leaving, now_ns)
            else:
                self.hand_over_rtcp(path, batch.data, now_ns)
        if not clear:
            arrives_ns = way.down.wake_at()
            due[DELIVER] = NEVER if arrives_ns is None else arrives_ns
        timer_ns = sender.timer_at()
        due[TEND] = NEVER if timer_ns is None else timer_ns if timer_ns > now_ns else now_ns

    def _hear(self, data: bytes, now_ns: int) -> None:
        """Feedback has come to the server."""
        self._sender.receive(Path("", control=True), Batch(data, len(data)), now_ns)
        self._send(now_ns)
        for event in self._sender.events():
            if isinstance(event, KeyAsked):
                continue  # every picture of a simulated run is a key picture
            if isinstance(event, Doubted):
                self._ours.event(now_ns, "report not believed", event.doubt)
            elif isinstance(event, ClockTold):
                self._sent.clock(event)
            else:
                self._sent.reported(event)
                if self._adapting is not None:
                    self._adapting.heard(event)

    # ---- between them: ways.Carrier

    def hand_over(self, route: Path, event: Sent, now_ns: int) -> None:
        """See `ways.Carrier`."""
        if not self._whole:
            self._sent.sent(event)
        self._receive(route, event.batch, now_ns)

    def hand_over_copy(self, route: Path, event: Sent, now_ns: int) -> None:
        """See `ways.Carrier`."""
        self._sender.copied(event.ssrc)
        self._receive(route, event.batch, now_ns)

    def hand_over_rtcp(self, route: Path, data: bytes, now_ns: int) -> None:
        """See `ways.Carrier`."""
        self._receive(route, Batch(data, len(data)), now_ns)

    def _receive(self, path: Path, batch: Batch, now_ns: int) -> None:
        self._player.receive(path, batch, now_ns)
        self._arrived_ns = now_ns
        stream, control = path
        if control or stream != "audio":
            self._touched = True
            self._due[PLAY] = now_ns
        else:
            self._due[HEED] = now_ns

    # ---- the client

    def _ask_device(self, now_ns: int) -> None:
        """The device takes what it wants now, too."""
        if self._device is not None and self._device.due_ns <= now_ns:
            self._player.heard(*self._device.ask(now_ns + 1))

    def _heed_sound(self, now_ns: int) -> None:
        """Sound has come, which changes nothing else as a rule."""
        self._ask_device(now_ns)
        self._due[HEED] = NEVER
        # At the end, it has to say whether it is over.
        before_ns = self._due[PLAY]
        at_ns = None if self._frame is None else self._player.heed_sound(now_ns, before_ns)
        if at_ns is None:
            self._touched = True
            self._due[PLAY] = now_ns
        else:
            self._put_off = at_ns == before_ns
            self._due[PLAY] = at_ns if at_ns > now_ns else now_ns

    def _see_to_player(self, now_ns: int) -> None:
        self._ask_device(now_ns)
        player = self._player
        if self._put_off and not self._touched:
            self._put_off = False
            self._due[PLAY] = later_ns = max(_moment(player.timer_at()), now_ns)
            if later_ns > now_ns:
                return
        self._touched = False
        player.handle_timer(now_ns)
        if outgoing := player.outgoing():
            self._answer(outgoing, now_ns)
        if self._frame is None:
            self._over = self._all_has_come(now_ns) and player.finished(now_ns)
        self._untold += 1
        if self._coded or self._untold >= TOLD_TOGETHER:
            self._tell()
        self._put_off = False
        timer_ns = now_ns if self._touched else player.timer_at()
        self._due[PLAY] = NEVER if timer_ns is None else timer_ns if timer_ns > now_ns else now_ns

    def _answer(self, outgoing: list[tuple[Path, Batch]], now_ns: int) -> None:
        """What the player has to say leaves."""
        way = self._way
        # On sockets the connection is read before datagrams are.
        if len(outgoing) > 1:
            outgoing.sort(key=lambda each: each[0].stream != "audio")
        for path, batch in outgoing:
            spared = path.stream == "audio" or (way.up.network.clear and self._due[RISE] == NEVER)
            if spared:  # over TCP, or by a network that does nothing
                self._hear(batch.data, now_ns)
            elif way.rise(path.stream, batch.data, now_ns):
                for data in way.risen(now_ns):
                    self._hear(data, now_ns)
                self._due[RISE] = _moment(way.up.wake_at())

    def _tell(self) -> None:
        player, self._untold = self._player, 0
        while events := player.events():
            if self._whole:
                events = [event for event in events if not isinstance(event, PacketsTaken)]
            self._seen.all_of(events)
            if not self._coded:
                return
            for event in events:
                if isinstance(event, FrameToDecode):  # nobody looks at it
                    player.decoded(event.frame, event.frame, self._now_ns)
