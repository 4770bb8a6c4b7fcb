"""A server that is reached by RTSP: its streams as they arrive, packet by packet, and the reports that go back.

The dialogue is in `rtsp_client`; what has been taken goes to the presentation. All of it belongs to the client's
thread, but for `open` and `play`, which come before it.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from avlab.measure.trace import Recorder
from avlab.stream.clock import MonotonicClock
from avlab.stream.ends import Offer
from avlab.stream.links import TcpLink, UdpLink, interest, udp_pair
from avlab.stream.opening import SHUT_NS, knock, opens
from avlab.stream.origin import Origin
from avlab.stream.presentation import Presentation
from avlab.stream.repairing import Repair, Repairing
from avlab.stream.rtsp_client import Granted, RefusedError, Session
from avlab.timing.drift import Timeline
from avlab.timing.jitterbuffer import Run
from avlab.wire import rtcp, rtsp, sdp
from avlab.wire.rtp import ReceiverStats, RtpPacket, RtpRun, Unwrapper, parse_l16, runs
from avlab.wire.units import NS, WireError

BYE_PATIENCE_NS = NS // 4
"""How long after the connection's end a BYE that comes over UDP may be."""

SILENCE_NS = 10 * NS
"""With no packet for this long, while playing, the server is taken for gone."""

REPORT_NS = NS // 2
"""As often as the server's own; see there."""

STRANGER_REPORT_NS = 5 * NS
"""To an address that nobody has vouched for, no more often than RFC 3550 6.2 allows: it might be anybody's."""

FALL_BACK_TIMEOUT = 3.0
"""Seconds at most for each answer when everything is asked for over TCP: the server has just answered."""

MALFORMED_TOLD = 100
"""How many malformed packets the record names; a hostile sender could fill it with them."""


@dataclass(slots=True)
class Incoming:
    """One stream as it arrives."""

    stream: str
    granted: Granted
    stats: ReceiverStats
    origin: Origin
    sequence: Unwrapper = field(default_factory=lambda: Unwrapper(16))
    ticks: Unwrapper = field(default_factory=lambda: Unwrapper(32))
    ssrc: int | None = None
    ended: bool = False
    seen: set[int] = field(default_factory=set)
    repairing: Repairing | None = None
    again: Unwrapper = field(default_factory=lambda: Unwrapper(16))  # of packets sent again
    reported_ns: int | None = None  # when a report went to an address that nobody has vouched for


class RtspReceiver:
    """An `ends.Receiver`: JPEG and L16 over RTP. `over` maps video and audio to udp or tcp; those in `fixed` were asked
    for so, and when they are over UDP nothing makes them come over TCP.

    `notice(name, words)` tells a person a sentence, once, and puts it into the record each time.
    """

    def __init__(
        self,
        url: str,
        *,
        over: Mapping[str, str],
        fixed: Collection[str] = (),
        repair: Repair | None,
        timeout: float,
        presentation: Presentation,
        clock: MonotonicClock,
        recorder: Recorder,
        notice: Callable[[str, str], None],
    ) -> None:
        self._session = Session(url, timeout=timeout, repair=repair)
        self._url, self._timeout = url, timeout
        self._over, self._fixed, self._repair = over, fixed, repair
        self._presentation, self._clock, self._recorder = presentation, clock, recorder
        self._notice = notice
        self.incoming: dict[str, Incoming] = {}
        self._timeline = Timeline(reference="audio")
        self._first_media_ns = 0
        self._links: list[UdpLink] = []
        self._link: TcpLink | None = None
        self._malformed = 0
        self._lost_ns: int | None = None  # when the connection ended
        self._last_call_ns: int | None = None  # when the first stream's BYE was seen

    @property
    def ssrcs(self) -> set[int]:
        """The sources of the streams, as far as they are known."""
        return {incoming.ssrc for incoming in self.incoming.values() if incoming.ssrc is not None}

    @property
    def said_goodbye(self) -> bool:
        """Whether a BYE has come for each stream."""
        return bool(self.incoming) and all(incoming.ended for incoming in self.incoming.values())

    # ---- before and after the client's thread

    def open(self) -> Offer:
        """Describe and set up; what will be sent."""
        granted = self._session.open(self._over, self._bind, fixed=self._fixed)
        for words in self._session.moves:
            self._notice("sent on", words)
        if any(self._session.plan[stream] != self._over[stream] for stream in granted):
            ways = ", ".join(f"{stream} over {way.upper()}" for stream, way in self._session.plan.items())
            self._notice(
                "other transports", f"the server at {self._session.where} refused the transports asked for: {ways} now"
            )
        self._take_grants(granted)
        if self._repair is not None and not any(i.repairing for i in self.incoming.values()):
            self._recorder.event(self._clock.now_ns(), "no repair", f"the server offers no {self._repair} over UDP")
        for words in self._session.left_out:
            self._notice("left out", words)
        self._write_ssrcs()
        sound = granted["audio"].media if "audio" in granted else None
        return Offer(
            frozenset(granted),
            fps=granted["video"].media.framerate if "video" in granted else None,
            rate=sound.clock_rate if sound else None,
            channels=sound.channels if sound else None,
            clip=self._session.description.name,
        )

    def _take_grants(self, granted: Mapping[str, Granted]) -> None:
        """What is to come, before anything has."""
        self.incoming.clear()
        self._timeline = Timeline(reference="audio")
        for stream, grant in granted.items():
            origin = Origin(
                grant.host,
                source=grant.source,
                server_port=grant.server_port,
                payload_type=grant.media.payload_type,
                ssrc=grant.ssrc,
            )
            stats = ReceiverStats(grant.media.clock_rate)
            self.incoming[stream] = incoming = Incoming(stream, grant, stats, origin, ssrc=grant.ssrc)
            self._timeline.add(stream, grant.media.clock_rate)
            if self._repair is not None and grant.repair is not None and stream == "video":
                incoming.repairing = Repairing(self._repair, grant.media, grant.rtx_ssrc)
            self._recorder.setting(self._clock.now_ns(), f"{stream}_over", self._session.plan[stream])

    def play(self, selector: selectors.BaseSelector) -> None:
        """PLAY, and register the sockets. Where no datagram comes through, everything is asked for over TCP."""
        playing = self._play()
        over_udp = [stream for stream, way in self._session.plan.items() if way == "udp"]
        links = [link for stream in over_udp for link in self.incoming[stream].granted.links or ()]
        if links and not set(over_udp) & set(self._fixed) and not opens(links, self._session, self._clock):
            playing = self._fall_back() or playing
        self._play_ns = self._heard_ns = self._clock.now_ns()
        self._recorder.event(self._play_ns, "play")
        self._anchor(playing)
        self._selector = selector
        self._link = TcpLink(self._session.detach())
        selector.register(self._link, selectors.EVENT_READ)
        for incoming in self.incoming.values():
            for link in incoming.granted.links or ():
                selector.register(link, selectors.EVENT_READ, incoming)
        self._report_ns = self._play_ns + NS
        self._alive_ns = self._play_ns + self._session.keep_alive_ns

    def _play(self) -> rtsp.Response:
        """Open the ways of datagrams, and PLAY."""
        for incoming in self.incoming.values():
            if incoming.granted.links is not None:
                knock(incoming.granted.media, incoming.granted.links, incoming.origin, self._session.ssrc)
        return self._session.play()

    def _fall_back(self) -> rtsp.Response | None:
        """Everything over TCP, in a session of its own: PLAY's answer, or None when the server will not have it.

        The new session plays before the old one ends, as a server that nobody is left at would begin again; one that
        takes a single connection is left first.
        """
        old, plan = self._session, dict.fromkeys(self._over, "tcp")
        for left_first in (False, True):
            new = Session(self._url, timeout=min(self._timeout, FALL_BACK_TIMEOUT), repair=self._repair)
            new.ssrc = old.ssrc
            try:
                granted = new.open(plan, self._bind)
                alike = {stream: _format(one.media) for stream, one in granted.items()} == {
                    stream: _format(one.granted.media) for stream, one in self.incoming.items()
                }
                playing = new.play() if alike else None
            except RefusedError:
                playing = None
            except OSError:
                new.close()
                if left_first:
                    raise
                old.leave()
                continue
            if playing is None:
                new.leave()
                return None
            break
        self._session = new
        self._take_grants(granted)
        self._write_ssrcs()
        old.leave()
        for link in self._links:
            link.close()
        self._links.clear()
        self._notice(
            "tcp instead of udp",
            f"no datagram has come from {new.where} for {SHUT_NS / NS:g} s, so everything comes over TCP now: a "
            "firewall may hold back UDP, and video_over='udp' keeps to it all the same",
        )
        return playing

    def leave(self, now_ns: int) -> None:
        """TEARDOWN."""
        if self._link is not None:
            self._send(self._session.teardown(), now_ns)

    def close(self) -> None:
        """Close every socket."""
        self._session.close()
        if self._link is not None:
            self._link.close()
        for link in self._links:
            link.close()

    def _bind(self, host: str) -> tuple[UdpLink, UdpLink]:
        pair = udp_pair(host)
        self._links += pair
        return pair

    def _write_ssrcs(self) -> None:
        again = (i.repairing.rtx.rtx_ssrc for i in self.incoming.values() if i.repairing and i.repairing.rtx)
        ssrcs = [*(i.ssrc for i in self.incoming.values()), *again]
        self._recorder.meta["ssrcs"] = [ssrc for ssrc in ssrcs if ssrc is not None]

    def _anchor(self, playing: rtsp.Response) -> None:
        """RTP-Info says which timestamps stand for the start of the range (RFC 2326 12.33)."""
        start_ns, infos = self._session.positions(playing)
        self._first_media_ns = start_ns
        for stream, rtptime in infos.items():
            self._timeline.anchor(stream, self.incoming[stream].ticks(rtptime), start_ns)

    # ---- what arrives

    def attend(self, what: Incoming | None, link: Any) -> None:
        """A socket is ready: packets over UDP, or whatever comes over the connection."""
        if what is None:
            self._receive_tcp()
            return
        assert what.granted.links is not None
        packets = link.receive()
        now_ns = self._clock.now_ns()
        if dropped := link.dropped():
            self._recorder.event(now_ns, "socket_dropped", dropped)
        control = link is what.granted.links[1]
        judge = what.origin.control if control else what.origin.media
        before = what.origin.host
        self._take(what, judge(packets), now_ns, control=control)
        if what.origin.host != before:
            self._recorder.event(now_ns, f"{what.stream} from another address", what.origin.host)

    def _receive_tcp(self) -> None:
        assert self._link is not None
        try:
            self._link.flush(self._clock.now_ns())
            data = self._link.receive()
        except OSError:
            data = None
        now_ns = self._clock.now_ns()
        if data is None:
            self._selector.unregister(self._link)
            self._alive_ns = 1 << 62
            self._lost_ns = now_ns
            return
        skipped = self._session.skipped
        for event in self._session.feed(data):
            if isinstance(event, rtsp.Interleaved):
                self._take_interleaved(event, now_ns)
        if self._session.skipped != skipped:
            self._recorder.event(now_ns, "stray bytes", self._session.skipped - skipped)
        interest(self._selector, self._link)

    def _take_interleaved(self, event: rtsp.Interleaved, now_ns: int) -> None:
        for incoming in self.incoming.values():
            channels = incoming.granted.channels
            if channels and event.channel in channels:
                self._take(incoming, [event.data], now_ns, control=event.channel == channels[1])

    def _take(self, incoming: Incoming, packets: Iterable[bytes], now_ns: int, *, control: bool) -> None:
        """RTP or RTCP packets that came together; one that is neither is counted and passed over."""
        if not control:
            self._take_packets(incoming, packets, now_ns)
            return
        for data in packets:
            try:
                self._take_report(incoming, data, now_ns)
            except WireError as error:
                self._note_malformed(error, now_ns)

    def _note_malformed(self, error: WireError, now_ns: int) -> None:
        self._malformed += 1
        if self._malformed <= MALFORMED_TOLD:
            self._recorder.event(now_ns, "malformed packet", str(error))

    def _take_report(self, incoming: Incoming, data: bytes, now_ns: int) -> None:
        for packet in rtcp.parse_compound(data):
            if isinstance(packet, rtcp.SenderReport) and incoming.ssrc in (None, packet.ssrc):
                incoming.ssrc = packet.ssrc
                incoming.stats.sender_report(packet.ntp, now_ns)
                ticks = incoming.ticks(packet.rtp_timestamp)
                self._timeline.report(incoming.stream, ticks, rtcp.ntp_to_ns(packet.ntp))
            elif isinstance(packet, rtcp.Bye) and incoming.ssrc in packet.ssrcs:
                incoming.ended = True

    def _take_packets(self, incoming: Incoming, packets: Iterable[bytes], now_ns: int) -> None:
        """RTP packets that came together: the stream's own in runs, and what repairs it."""
        for run in runs(packets):
            try:
                if isinstance(run, WireError):
                    raise run
                if run.payload_type == incoming.granted.media.payload_type:
                    self._take_run(incoming, run, now_ns)
                elif incoming.repairing is not None:
                    for data in run.packets:
                        self._take_repair(incoming, incoming.repairing, RtpPacket.parse(data), data, now_ns)
            except WireError as error:
                self._note_malformed(error, now_ns)

    def _take_run(self, incoming: Incoming, run: RtpRun, now_ns: int) -> None:
        """Packets of media: to whom they are for, into the record, and to the repair."""
        if incoming.ssrc is None:
            incoming.ssrc = run.ssrc
            self._write_ssrcs()
        if run.ssrc != incoming.ssrc:
            return
        self._heard_ns = now_ns
        sequence, ticks = incoming.sequence(run.sequence), incoming.ticks(run.timestamp)
        incoming.sequence((run.sequence + len(run.packets) - 1) & 0xFFFF)
        incoming.stats.update(run.sequence, run.timestamp, now_ns, count=len(run.packets))
        if not self._timeline.anchored(incoming.stream):
            self._timeline.anchor(incoming.stream, ticks, self._first_media_ns)
        media_ns = self._timeline.media_ns(incoming.stream, ticks)
        fates: Sequence[str | None]
        if incoming.stream == "video":
            fates = self._presentation.take_run(Run(sequence, ticks, media_ns, run.marker, run.payloads), now_ns)
        else:
            fates = [
                self._take_sound(incoming, payload, number, ticks, now_ns)
                for number, payload in enumerate(run.payloads, sequence)
            ]
        self._write_run(incoming, run, sequence, fates, now_ns)
        repairing = incoming.repairing
        if repairing is None:
            return
        for number, data in enumerate(run.packets, sequence):
            if repairing.requester is not None:
                marker = run.marker and data is run.packets[-1]
                repairing.requester.arrived(number, media_ns, marker, now_ns)
            self._take_rebuilt(incoming, repairing, data, now_ns)

    def _write_run(
        self, incoming: Incoming, run: RtpRun, sequence: int, fates: Sequence[str | None], now_ns: int
    ) -> None:
        """A row for each packet of a run, but for those without a fate."""
        first = 0
        for fate, alike in groupby(fates):
            after = first + len(list(alike))
            if fate is not None:
                self._recorder.packet_batch(
                    after - first,
                    stream=incoming.stream,
                    ssrc=run.ssrc,
                    seq=np.arange(sequence + first, sequence + after),
                    timestamp=run.timestamp,
                    marker=[run.marker and at == len(fates) - 1 for at in range(first, after)],
                    size=list(map(len, run.packets[first:after])),
                    received_ns=now_ns,
                    fate=fate,
                )
            first = after

    def _write_packet(
        self, incoming: Incoming, packet: RtpPacket, sequence: int, size: int, now_ns: int, fate: str
    ) -> None:
        row = (incoming.stream, packet.ssrc, sequence, packet.timestamp, packet.marker, size, None, now_ns, fate)
        self._recorder.packets([row])

    def _take_repair(
        self, incoming: Incoming, repairing: Repairing, packet: RtpPacket, data: bytes, now_ns: int
    ) -> None:
        """A packet that is not media: one sent again, or parity."""
        if incoming.ssrc is None or incoming.sequence.highest is None:
            return
        if repairing.rtx is not None and repairing.rtx.takes(packet):
            original = repairing.rtx.restore(packet, incoming.ssrc)
            sequence, ticks = incoming.sequence.peek(original.sequence), incoming.ticks.peek(original.timestamp)
            media_ns = self._timeline.media_ns("video", ticks)
            fate = "duplicate"
            if repairing.asked_for(packet, original, sequence, media_ns, now_ns):
                self._write_ssrcs()
                fate = self._take_back(incoming, original, len(data) - 2, now_ns)
            self._write_packet(incoming, packet, incoming.again(packet.sequence), len(data), now_ns, fate)
        elif (
            repairing.parity is not None
            and packet.payload_type == repairing.parity.parity_type
            and packet.ssrc == incoming.ssrc
        ):
            sequence = incoming.sequence(packet.sequence)
            incoming.stats.update(packet.sequence, packet.timestamp, now_ns)
            fate = "duplicate" if sequence in incoming.seen else "used"
            self._write_packet(incoming, packet, sequence, len(data), now_ns, fate)
            if fate == "used":
                self._remember(incoming, sequence)
                self._take_rebuilt(incoming, repairing, data, now_ns)

    def _take_rebuilt(self, incoming: Incoming, repairing: Repairing, data: bytes, now_ns: int) -> None:
        for packet, size in repairing.rebuilt(data):
            self._take_back(incoming, packet, size, now_ns)

    def _take_back(self, incoming: Incoming, packet: RtpPacket, size: int, now_ns: int) -> str:
        """A packet that was lost is here after all; its fate says whether that was in time."""
        sequence, ticks = incoming.sequence(packet.sequence), incoming.ticks(packet.timestamp)
        media_ns = self._timeline.media_ns("video", ticks)
        run = Run(sequence, ticks, media_ns, packet.marker, (packet.payload,))
        [fate] = self._presentation.take_run(run, now_ns, back=True)
        if fate == "used":
            self._write_packet(incoming, packet, sequence, size, now_ns, "recovered")
        return fate

    def _take_sound(self, incoming: Incoming, payload: bytes, sequence: int, ticks: int, now_ns: int) -> str | None:
        """A packet of sound; its fate, None when it is malformed."""
        if sequence in incoming.seen:
            return "duplicate"
        self._remember(incoming, sequence)
        try:
            samples = parse_l16(payload, incoming.granted.media.channels)
        except WireError as error:
            self._note_malformed(error, now_ns)
            return None
        pts_ns = self._timeline.media_ns("audio", ticks)
        return self._presentation.take_sound(samples, ticks=ticks, pts_ns=pts_ns, now_ns=now_ns)

    @staticmethod
    def _remember(incoming: Incoming, sequence: int) -> None:
        incoming.seen.add(sequence)
        if len(incoming.seen) > 8192:
            incoming.seen = {s for s in incoming.seen if s > sequence - 4096}

    # ---- what the moment asks for

    def wake_at(self) -> int:
        """When to report, to ask again, or to say that one is there; the end is looked for ten times a second."""
        asks = [
            wake_ns
            for i in self.incoming.values()
            if i.repairing and i.repairing.requester and (wake_ns := i.repairing.requester.wake_at()) is not None
        ]
        return min(self._report_ns, self._alive_ns, self._clock.now_ns() + NS // 10, *asks)

    def move_along(self, now_ns: int) -> None:
        """Reports, and signs of life."""
        for incoming in self.incoming.values():
            if incoming.repairing is not None and incoming.ssrc is not None:
                base_ns = self._presentation.base_ns
                if (nack := incoming.repairing.nack(self._session.ssrc, incoming.ssrc, base_ns, now_ns)) is not None:
                    self._send_rtcp(incoming, nack, now_ns)
                self._presentation.least_ns = incoming.repairing.least_delay_ns
        if now_ns >= self._report_ns:
            self._send_reports(now_ns)
        if now_ns >= self._alive_ns:
            self._send(self._session.keep_alive(), now_ns)
            self._alive_ns = now_ns + self._session.keep_alive_ns

    def over(self, now_ns: int) -> bool:
        """Whether BYE has come. One over UDP may be lost: a second after the first stream's, all have ended."""
        ended = [incoming.ended for incoming in self.incoming.values()]
        if not any(ended):
            self._see_that_it_lives(now_ns)
            return False
        self._last_call_ns = self._last_call_ns or now_ns
        return all(ended) or self._lost_ns is not None or now_ns - self._last_call_ns >= NS

    def _see_that_it_lives(self, now_ns: int) -> None:
        if self._lost_ns is not None and now_ns - self._lost_ns > BYE_PATIENCE_NS:
            raise ConnectionError(
                f"the server at {self._session.where} closed the connection in mid-stream: "
                "see whether it still runs, then play again"
            )
        mute = [i.stream for i in self.incoming.values() if i.sequence.highest is None]
        if mute and now_ns - self._play_ns > SILENCE_NS:
            raise TimeoutError(
                f"no {' and no '.join(mute)} has come from {self._session.where} for {SILENCE_NS // NS} s: if a "
                f"firewall holds back datagrams, ask for {mute[0]}_over='tcp'"
            )
        if now_ns - self._heard_ns > SILENCE_NS:
            raise TimeoutError(
                f"nothing has come from {self._session.where} for {SILENCE_NS // NS} s: the server is gone"
            )

    def _send_reports(self, now_ns: int) -> None:
        self._report_ns = now_ns + REPORT_NS
        for incoming in self.incoming.values():
            reception = incoming.stats.report(now_ns)
            if reception is None or incoming.ssrc is None:
                continue
            block = rtcp.ReportBlock.of(incoming.ssrc, reception)
            own = self._session.ssrc
            data = rtcp.serialize_compound([rtcp.ReceiverReport(own, (block,)), rtcp.Sdes(own, "avlab")])
            self._send_rtcp(incoming, data, now_ns)

    def _send_rtcp(self, incoming: Incoming, data: bytes, now_ns: int) -> None:
        granted, origin = incoming.granted, incoming.origin
        if granted.channels is not None:
            self._send(rtsp.interleave(granted.channels[1], data), now_ns)
        elif granted.links is not None and (to := origin.reports_to) is not None:
            if origin.adopted:
                if incoming.reported_ns is not None and now_ns - incoming.reported_ns < STRANGER_REPORT_NS:
                    return
                incoming.reported_ns = now_ns
            granted.links[1].send([data], to)

    def _send(self, data: bytes, now_ns: int) -> None:
        assert self._link is not None
        with contextlib.suppress(OSError):  # a lost connection is noticed where it is read
            self._link.send(data, now_ns)


def _format(media: sdp.Media) -> tuple[str, int, int]:
    return media.encoding, media.clock_rate, media.channels
