"""The record as a subscriber: what the machines tell, as rows of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, repeat
from typing import Any

import numpy as np

from avlab.core.events import (
    ClockTold,
    DelayChanged,
    FrameDecided,
    FrameDue,
    FrameReady,
    LeaderChanged,
    Leapt,
    Malformed,
    NotBelieved,
    Notice,
    NumbersRestarted,
    Offered,
    PacketsTaken,
    PlayerEvent,
    Rebuffered,
    Reported,
    Sent,
    SoundDecided,
    SoundOffered,
    SourceChanged,
    SourcesKnown,
    Stray,
    SyncRead,
    TooSlow,
)
from avlab.measure.record.folded import PACKET_CODE, STREAM_CODE, PacketRun
from avlab.measure.record.tables import UNKNOWN
from avlab.measure.record.trace import FrameRow, Recorder
from avlab.timing.soundbuffer import PlayedChunk
from avlab.wire.plate import Plate
from avlab.wire.rtp import HEADER_BYTES, spanned
from avlab.wire.units import NS

_HEADERS = np.dtype([("first", "u1"), ("second", "u1"), ("sequence", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4")])
"""`rtp.HEADER`, for a batch at once."""


_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class SenderRecording:
    """Writes down what leaves a server, once its driver knows whether it did, and what comes back; on its thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._keep_run, self._keep_runs = recorder.keep_run, recorder.keep_runs

    def sent(self, event: Sent) -> None:
        """A row for each packet of a batch."""
        time_ns, stream, ssrc, number, batch, repair, fate = event
        size, count, last = batch.size, batch.total, batch.last
        if not count:
            return
        if not repair:  # a frame's packets, or a chunk's: what differs between them is known
            timestamp, ticks, marks, ends = spanned(batch)
            of, became, keep_run = STREAM_CODE[stream], PACKET_CODE[fate], self._keep_run
            known = count, of, ssrc, number, timestamp, ticks, marks, ends, size, last, time_ns, UNKNOWN, became
            keep_run(_new(PacketRun, known))
            return
        # Each packet of a batch has its header `size` after the one before; the last one has a whole header, too.
        headers = np.ndarray((count,), _HEADERS, batch.data, strides=(max(size, HEADER_BYTES),))
        self._recorder.packet_batch(
            count,
            stream=stream,
            ssrc=ssrc,
            seq=np.arange(number, number + count),
            timestamp=headers["timestamp"],
            marker=headers["second"] >> 7,
            size=size if last == size else [size] * (count - 1) + [last],
            sent_ns=time_ns,
            fate=fate,
        )

    def passed_on(self, plate: Plate, stream: str, each: Sequence[tuple[int, int, int]]) -> None:
        """Rows for the packets of one frame that went to many: source, first number and time of each client's."""
        batch, marker = plate.batch, plate.marker
        ssrcs, numbers, times_ns = zip(*each, strict=True)
        first = repeat(batch.total), repeat(STREAM_CODE[stream]), ssrcs, numbers
        alike = (plate.timestamp, plate.ticks, marker and batch.total == 1, marker, batch.size, batch.last)
        then = times_ns, repeat(UNKNOWN), repeat(PACKET_CODE[None])
        rows = zip(*first, *map(repeat, alike), *then, strict=False)
        self._keep_runs(list(map(_new, repeat(PacketRun), rows)))

    def offered(self, event: Offered | SoundOffered) -> None:
        """A row for a frame, or for what each packet of a chunk carries."""
        if isinstance(event, SoundOffered):
            self._recorder.sound_sent(*event)
            return
        stream, index, pts_ns, timestamp, due_ns, encoded_ns, sent_ns, size, packets, fate = event
        known = stream, index, pts_ns, timestamp, due_ns, encoded_ns, sent_ns
        self._recorder.frame(_new(FrameRow, (*known, None, None, None, size, packets, None, fate)))

    def reported(self, event: Reported) -> None:
        """A row for a receiver report."""
        self._recorder.report(
            event.time_ns,
            event.stream,
            event.ssrc,
            loss=event.loss,
            lost=event.lost,
            jitter_ns=event.jitter_ns,
            round_trip_ns=event.round_trip_ns,
            kbps=event.kbps,
        )

    def clock(self, event: ClockTold) -> None:
        """A row for what a client says of its clock."""
        _write_clock(self._recorder, event)


def _write_clock(recorder: Recorder, event: ClockTold) -> None:
    time_ns, stream, ssrc, peer, told_ns, echo_ns, held_ns = event
    recorder.clock(time_ns, stream, ssrc, peer=peer, told_ns=told_ns, echo_ns=echo_ns, held_ns=held_ns)


class PlayerRecording:
    """Writes what a player tells into a record, and what only its driver knows. One thread calls it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._keep_run = recorder.keep_run
        self._writers: dict[type, Callable[[Any], None]] = {
            PacketsTaken: self._write_packets,
            FrameDecided: self._write_frame,
            SoundDecided: self._write_sound,
            SyncRead: lambda event: recorder.sync(*event),
            ClockTold: lambda event: _write_clock(recorder, event),
            FrameReady: _pass_over,
            FrameDue: _pass_over,
        }

    def note(self, time_ns: int, name: str, value: str | int | float | None = None) -> None:
        """Something happened at the sockets or devices, which the player does not know."""
        self._recorder.event(time_ns, name, value)

    def setting(self, time_ns: int, name: str, value: str | float) -> None:
        """A setting has this value from now on."""
        self._recorder.setting(time_ns, name, value)

    def unnumbered(self, time_ns: int, stream: str, size: int) -> None:
        """So many bytes came on a wire that has neither numbers nor timestamps, and are used."""
        self._recorder.packets([(stream, None, None, None, None, size, None, time_ns, "used")])

    def __call__(self, event: PlayerEvent) -> None:
        """An event of the player; one that is no row of any table is passed over."""
        self._writers.get(type(event), self._write_event)(event)

    def all_of(self, events: Iterable[PlayerEvent]) -> None:
        """Events of the player, in their order."""
        writers, others = self._writers, self._write_event
        for event in events:
            writers.get(type(event), others)(event)

    def _write_event(self, event: PlayerEvent) -> None:
        note = self._recorder.event
        match event:
            case SourcesKnown(ssrcs, repair_ssrcs):
                self._recorder.meta["ssrcs"] = list(ssrcs)
                self._recorder.meta["repair_ssrcs"] = list(repair_ssrcs)
            case Notice(time_ns, name, words):
                note(time_ns, name, words)
            case Malformed(time_ns, error):
                note(time_ns, "malformed packet", error)
            case Stray(time_ns, stream, sequence, timestamp):
                note(time_ns, f"stray {stream} packet", f"number {sequence}, timestamp {timestamp}")
            case SourceChanged(time_ns, stream, before, ssrc):
                told = "none" if before is None else f"{before:08x}"
                note(time_ns, f"{stream} source changed", f"{told} to {ssrc:08x}")
            case NumbersRestarted(time_ns, stream, sequence):
                note(time_ns, f"{stream} numbers began again", sequence)
            case Leapt(time_ns, stream, leap_ns):
                note(time_ns, f"{stream} timestamps leapt", round(leap_ns / NS, 3))
            case NotBelieved(time_ns, stream, what):
                note(time_ns, f"{what} not believed", stream)
            case Rebuffered(time_ns, by_ns):
                note(time_ns, "rebuffer", by_ns / NS)
            case DelayChanged(time_ns, delay_ns):
                note(time_ns, "playout_target", delay_ns / NS)
            case TooSlow(time_ns, skipped):
                note(time_ns, "too slow", skipped)
            case LeaderChanged(time_ns, here):
                note(time_ns, "view", "here" if here else "gone")

    def _write_packets(self, event: PacketsTaken) -> None:
        """A row for each packet of a run, but for those without a fate."""
        time_ns, stream, ssrc, sequence, timestamp, marker, sizes, fates, ticks = event
        count, fate = len(fates), fates[0]
        if fates.count(fate) == count:
            if fate is not None:
                of, became, size, last = STREAM_CODE[stream], PACKET_CODE[fate], sizes[0], sizes[-1]
                known = count, of, ssrc, sequence, timestamp, ticks, False, marker, size, last, UNKNOWN, time_ns, became
                keep_run = self._keep_run
                keep_run(_new(PacketRun, known))
            return
        first = 0
        for fate, alike in groupby(fates):
            after = first + len(list(alike))
            if fate is not None:
                self._recorder.packet_run(
                    after - first,
                    stream,
                    ssrc,
                    sequence + first,
                    (timestamp + first * ticks) & 0xFFFFFFFF,
                    sizes[first],
                    sizes[after - 1],
                    ticks,
                    False,
                    marker and after == count,
                    None,
                    time_ns,
                    fate,
                )
            first = after

    def _write_frame(self, event: FrameDecided) -> None:
        frame, fate, shown_ns, timed = event
        known: tuple[Any, ...] = None, frame.pts_ns, frame.ticks & 0xFFFFFFFF
        if not timed:
            known = frame.ticks, None, None
        size = len(frame.data) if frame.data is not None else frame.bytes
        came = frame.first_packet_ns, frame.complete_ns, shown_ns
        packets = frame.packets, frame.packets_lost if timed else None
        # Due, encoded and sent are the server's to know.
        self._recorder.frame(_new(FrameRow, ("video", *known, None, None, None, *came, size, *packets, fate)))

    def _write_sound(self, event: SoundDecided) -> None:
        runs, channels, timed = event
        wide = 2 * channels
        for kind, alike in groupby(runs, type):
            those: list[Any] = list(alike)
            write = self._recorder.sound_heard if kind is PlayedChunk else self._recorder.sound_played
            write(those, wide=wide, timed=timed)


def _pass_over(event: PlayerEvent) -> None:
    """Is no row of any table."""
