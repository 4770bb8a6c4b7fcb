"""The record of a run: every frame, packet, sync reading and receiver report, as packed rows and as DataFrames.

Pure: no clock and no file. Times come in as integer nanoseconds; whatever reaches a disk goes through a callable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from avlab.measure.record.batches import BATCH, CHUNK, Budget, Log, RowBatch, Spill, chunked
from avlab.measure.record.folded import (
    FLAG,
    FOLD,
    FRAME_CODE,
    PACKET_CODE,
    STREAM_CODE,
    UNFOLD,
    HeardChunk,
    PacketRun,
    SoundHeard,
    SoundPlayed,
    SoundSent,
)
from avlab.measure.record.tables import (
    CLOCKS,
    FRAME_FATES,
    FRAMES,
    MOST_ROWS,
    NS,
    PACKET_FATES,
    PACKETS,
    REPORTS,
    STREAMS,
    SYNC,
    TABLES,
    UNKNOWN,
    UNKNOWN32,
    Rows,
    Table,
    chosen,
)
from avlab.wire.text import Notices, printable

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

__all__ = ["BATCH", "Column", "FrameRow", "PacketTuple", "Recorder", "SettingRow", "Side", "Trace"]

Side = Literal["server", "client", "simulation", "relay", "capture"]
SIDES: tuple[Side, ...] = get_args(Side)

MOST_OF_A_NAME = 20_000
"""Settings and events of one name that a record keeps."""

MOST_REPORTS = 2_000_000
"""Receiver reports that a record keeps: four hours of thirty clients that report as often as they are heard."""

MOST_CLOCKS = 500_000
"""What a record keeps of other clocks: an hour of thirty clients, whose two streams are told of twice a second."""

MOST_LETTERS = 2_000
"""Letters of a text that a record keeps."""

MOST_NAMES = 1_000
"""Names of settings and events that a record keeps."""


class FrameRow(NamedTuple):
    """One frame of stream "video", or one chunk of sound of stream "audio"; None where this side does not know.

    Times are nanoseconds on the recorder's clock, `pts_ns` on the clip's; `timestamp` is the first packet's RTP
    timestamp, in ticks; `bytes` is the size of the JPEG or of the samples; `fate` is one of `FRAME_FATES`.
    """

    stream: str
    index: int | None = None  # type: ignore[assignment]  # tuple has a method of this name, which nobody misses
    pts_ns: int | None = None
    timestamp: int | None = None
    due_ns: int | None = None
    encoded_ns: int | None = None
    sent_ns: int | None = None
    first_packet_ns: int | None = None
    complete_ns: int | None = None
    shown_ns: int | None = None
    bytes: int | None = None
    packets: int | None = None
    packets_lost: int | None = None
    fate: str | None = None


PacketTuple: TypeAlias = tuple[
    str, int | None, int | None, int | None, bool | None, int | None, int | None, int | None, str | None
]
"""(stream, ssrc, seq, timestamp, marker, size, sent_ns, received_ns, fate), as `Recorder.packet` takes them."""


Column: TypeAlias = int | Sequence[int] | NDArray[Any]
"""A column of a batch of rows: a value for each row, or one for all."""


class SettingRow(NamedTuple):
    """A setting's new value, or an event, at a time in nanoseconds on the recorder's clock."""

    time_ns: int
    name: str
    value: str | int | float | bool | None
    kind: Literal["setting", "event"] = "setting"


_new = tuple.__new__  # past a named tuple's own constructor, which takes twice as long
_pack_packet, _pack_frame = PACKETS.packer.pack, FRAMES.packer.pack


class Recorder:
    """Takes down what one side of a run sees. Each table has one thread that writes it; any thread may call `trace`.

    `clock` names the monotonic clock that all times are read from: the same word means the same clock. `epoch_ns` is
    the moment that a student sees as 0 s. `spill` makes a place on a disk for each table, to which the oldest rows go
    when those of all records that share a `budget` take more memory than it allows, and those older than
    `spill_after_ns` where that is given; without it, rows stay in memory: 47 bytes a packet, 86 a frame. What does not
    fit on the disk is left out, and `notices` says so. Of settings and events, `MOST_OF_A_NAME` of each name are kept,
    of receiver reports `MOST_REPORTS`.
    `meta` is a dict of plain values for whoever reads the trace: `clip`, `target_fps`, `audio_rate` (Hz), `ssrcs` (a
    list: those this client was promised), `payload_types` (a dict by stream), `end_ns` (when this side stopped
    listening), sizes, versions.
    """

    def __init__(
        self,
        *,
        side: Side,
        epoch_ns: int,
        clock: str,
        spill: Spill | None = None,
        spill_after_ns: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        if side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(map(repr, SIDES))}, not {side!r}")
        self.meta: dict[str, Any] = {"side": side, "epoch_ns": epoch_ns, "clock": clock}
        self.notices = Notices()
        """What a person should know of the record itself, a sentence each."""
        self._cut = False
        budget = _BUDGET if budget is None else budget
        self._frames, self._packets, self._sync, self._reports, self._clocks = (
            Log(
                table,
                spill,
                budget=budget,
                spill_after_ns=spill_after_ns,
                lost=self._cannot_keep,
                unfold=UNFOLD,
                fold=FOLD,
            )
            for table in (FRAMES, PACKETS, SYNC, REPORTS, CLOCKS)
        )
        self.keep_run: Callable[[PacketRun], None] = self._packets.append_folded
        """As `packet_run`, of one whose words are codes already: for who writes down each packet of a stream."""
        self.keep_runs: Callable[[Sequence[PacketRun]], None] = self._packets.extend_folded
        self._settings: list[SettingRow] = []
        self._named: Counter[str] = Counter()
        self._reported = self._clocks_told = 0

    def packet(
        self,
        stream: str,
        ssrc: int | None,
        seq: int | None,
        timestamp: int | None,
        marker: bool | None,
        size: int | None,
        sent_ns: int | None,
        received_ns: int | None,
        fate: str | None,
    ) -> None:
        """One copy of one packet: `seq` unwrapped, `timestamp` in RTP ticks, `size` in bytes, None for unknown.

        Both sides record what they see: a sender `sent_ns` and no fate, a receiver each arrival and its fate. A copy
        that the network made was never sent, so its `sent_ns` is None.
        """
        self.packets([(stream, ssrc, seq, timestamp, marker, size, sent_ns, received_ns, fate)])

    def packets(self, rows: Iterable[PacketTuple]) -> None:
        """Several packets at once, as tuples in the order of `packet`'s parameters. ValueError for a word unknown."""
        try:
            packed = [
                _pack_packet(
                    STREAM_CODE[stream],
                    UNKNOWN if ssrc is None else ssrc,
                    UNKNOWN if seq is None else seq,
                    UNKNOWN if timestamp is None else timestamp,
                    FLAG[marker],
                    UNKNOWN32 if size is None else size,
                    UNKNOWN if sent_ns is None else sent_ns,
                    UNKNOWN if received_ns is None else received_ns,
                    PACKET_CODE[fate],
                )
                for stream, ssrc, seq, timestamp, marker, size, sent_ns, received_ns, fate in rows
            ]
        except KeyError as word:
            raise _unknown_packet(word.args[0]) from None
        self._packets.append(b"".join(packed))

    def packet_batch(
        self,
        count: int,
        *,
        stream: str,
        ssrc: int,
        seq: Column,
        timestamp: Column,
        marker: Column,
        size: Column,
        sent_ns: int | None = None,
        received_ns: int | None = None,
        fate: str | None = None,
    ) -> None:
        """`count` packets that left or came together: what differs is an array or a list, the rest one value for all.

        As `packets`, in a tenth of the time for the hundred packets of a large frame. ValueError for a word unknown.
        """
        if stream not in STREAM_CODE or fate not in PACKET_CODE:
            raise _unknown_packet(stream if stream not in STREAM_CODE else fate)
        rows: Rows = np.empty(count, PACKETS.dtype)
        rows["stream"], rows["ssrc"], rows["fate"] = STREAM_CODE[stream], ssrc, PACKET_CODE[fate]
        rows["seq"], rows["timestamp"], rows["marker"], rows["bytes"] = seq, timestamp, marker, size
        rows["sent"] = UNKNOWN if sent_ns is None else sent_ns
        rows["received"] = UNKNOWN if received_ns is None else received_ns
        self._packets.append(rows.tobytes())

    def packet_run(
        self,
        count: int,
        stream: str,
        ssrc: int,
        seq: int,
        timestamp: int,
        size: int,
        last: int,
        ticks: int = 0,
        first_marker: bool = False,
        last_marker: bool = False,
        sent_ns: int | None = None,
        received_ns: int | None = None,
        fate: str | None = None,
    ) -> None:
        """`count` packets, 1 or more, numbered from `seq` on, that left or came together: rows once somebody reads.

        Timestamps are `ticks` apart and wrap; each packet has `size` bytes but for the `last` one, and none between the
        first and the last has the marker. ValueError for a word unknown.
        """
        try:
            codes = STREAM_CODE[stream], PACKET_CODE[fate]
        except KeyError as word:
            raise _unknown_packet(word.args[0]) from None
        sent_ns = UNKNOWN if sent_ns is None else sent_ns
        received_ns = UNKNOWN if received_ns is None else received_ns
        known = count, codes[0], ssrc, seq, timestamp, ticks, first_marker, last_marker, size, last
        self.keep_run(_new(PacketRun, (*known, sent_ns, received_ns, codes[1])))

    def packet_rows(self, rows: Rows) -> None:
        """Packets as packed rows (`tables.PACKETS`), of a recorder that another program's record is copied into."""
        self._packets.append(rows.tobytes())

    def frame_rows(self, rows: Rows) -> None:
        """Frames as packed rows."""
        self._frames.append(rows.tobytes())

    def sync_rows(self, rows: Rows) -> None:
        """Readings of sync as packed rows."""
        self._sync.append(rows.tobytes())

    def frame(self, row: FrameRow) -> None:
        """One frame or chunk of sound, once its fate on this side is known. ValueError for a stream or fate unknown."""
        stream, index, pts, stamp, due, encoded, sent, first, whole, shown, size, packets, lost, fate = row
        try:
            codes = STREAM_CODE[stream], FRAME_CODE[fate]
        except KeyError as word:
            raise ValueError(
                f"a frame's stream is one of {', '.join(STREAMS)}, "
                f"its fate one of {', '.join(FRAME_FATES)} or None; not {word}"
            ) from None
        packed = _pack_frame(
            codes[0],
            UNKNOWN if index is None else index,
            UNKNOWN if pts is None else pts,
            UNKNOWN if stamp is None else stamp,
            UNKNOWN if due is None else due,
            UNKNOWN if encoded is None else encoded,
            UNKNOWN if sent is None else sent,
            UNKNOWN if first is None else first,
            UNKNOWN if whole is None else whole,
            UNKNOWN if shown is None else shown,
            UNKNOWN32 if size is None else size,
            UNKNOWN32 if packets is None else packets,
            UNKNOWN32 if lost is None else lost,
            codes[1],
        )
        self._frames.append(packed)

    def sound_sent(
        self,
        index: int,
        due_ns: int,
        sent_ns: int | None,
        parts: Sequence[tuple[int, int | None, int]],
        *,
        pts_ns: int = 0,
        timestamp: int = 0,
    ) -> None:
        """A chunk of sound left, or did not: a row of frames for each of its packets, once somebody reads.

        `parts` is what each packet carries: presentation time in ns, RTP timestamp (None on a wire without), bytes; the
        former two count from `pts_ns` and `timestamp`.
        """
        if parts:
            sent_ns = UNKNOWN if sent_ns is None else sent_ns
            known = len(parts), index, due_ns, sent_ns, pts_ns, timestamp, parts
            self._frames.append_folded(_new(SoundSent, known))

    def sound_played(
        self, runs: Sequence[tuple[int, int, int, int, int | None, str]], *, wide: int, timed: bool
    ) -> None:
        """The ends of packets of sound: a row of frames for each, once somebody reads. ValueError for a fate unknown.

        Of each its RTP timestamp, unwrapped, presentation time, sample frames (of `wide` bytes), arrival, when it was
        heard (None: never), fate; times in ns. On a wire that is not `timed` there are no timestamps.
        """
        for run in runs:
            if run[5] not in FRAME_CODE:
                raise ValueError(f"a frame's fate is one of {', '.join(FRAME_FATES)} or None; not {run[5]!r}")
        if runs:
            self._frames.append_folded(_new(SoundPlayed, (len(runs), wide, timed, runs)))

    def sound_heard(self, chunks: Sequence[HeardChunk], *, wide: int, timed: bool) -> None:
        """Packets of sound that came together were heard: a row of frames for each packet, once somebody reads.

        Of each chunk how many packets it has, the first one's timestamp, unwrapped, how far the others' are apart, all
        sample frames (of `wide` bytes), of which each but the last has so many, arrival, the position of the first one,
        in sample frames, of which so many are a second; the presentation time of each packet; and the blocks in which
        it was heard, in their order: from and to which position, and when the first of it was heard. Times in ns.
        """
        if chunks:
            count = chunks[0][0] if len(chunks) == 1 else sum(chunk[0] for chunk in chunks)
            self._frames.append_folded(_new(SoundHeard, (count, wide, timed, chunks)))

    def sync(
        self,
        time_ns: int,
        video_pts_ns: int | None,
        audio_pts_ns: int | None,
        buffer_ns: int | None = None,
        skew_ppm: float | None = None,
    ) -> None:
        """Which picture is seen, which sound is heard at `time_ns`; how much sound is buffered; the clocks' skew."""
        spans = [UNKNOWN if value is None else value for value in (video_pts_ns, audio_pts_ns, buffer_ns)]
        self._sync.append(SYNC.packer.pack(time_ns, *spans, np.nan if skew_ppm is None else skew_ppm))

    def report(
        self,
        time_ns: int,
        stream: str,
        ssrc: int | None,
        *,
        loss: float | None = None,
        lost: int | None = None,
        jitter_ns: int | None = None,
        round_trip_ns: int | None = None,
        kbps: float | None = None,
    ) -> None:
        """What a receiver said of a stream in an RTCP receiver report (RFC 3550, 6.4.1) that came at `time_ns`.

        `ssrc` is the stream's own, `loss` the fraction lost since the report before (0 to 1), `lost` the packets lost
        since the beginning less duplicates, `jitter_ns` the interarrival jitter, `round_trip_ns` what the sender makes
        of the report's times, `kbps` what it sent since the report before, in kbit/s. None for unknown. ValueError for
        a stream unknown.
        """
        if stream not in STREAMS:
            raise ValueError(f"a report's stream is one of {', '.join(STREAMS)}, not {stream!r}")
        self._reported += 1
        if self._reported > MOST_REPORTS:
            if self._reported == MOST_REPORTS + 1:
                words = f"more than {MOST_REPORTS:,} receiver reports came: further ones are not kept"
                self.event(time_ns, "record full", words)
            return
        longs = [UNKNOWN if value is None else value for value in (ssrc, lost, jitter_ns, round_trip_ns)]
        ratios = [np.nan if value is None else value for value in (loss, kbps)]
        packed = REPORTS.packer.pack(time_ns, STREAM_CODE[stream], longs[0], ratios[0], *longs[1:], ratios[1])
        self._reports.append(packed)

    def clock(
        self,
        time_ns: int,
        stream: str,
        ssrc: int,
        *,
        peer: int,
        told_ns: int | None = None,
        echo_ns: int | None = None,
        held_ns: int | None = None,
    ) -> None:
        """What the other side's RTCP, which came at `time_ns`, says of its clock; see `Trace.clocks`. None for unknown.

        ValueError for a stream unknown.
        """
        if stream not in STREAMS:
            raise ValueError(f"a clock's stream is one of {', '.join(STREAMS)}, not {stream!r}")
        self._clocks_told += 1
        if self._clocks_told > MOST_CLOCKS:
            if self._clocks_told == MOST_CLOCKS + 1:
                words = f"clocks were told of more than {MOST_CLOCKS:,} times: what came later is not kept"
                self.event(time_ns, "record full", words)
            return
        told, echo, held = (UNKNOWN if value is None else value for value in (told_ns, echo_ns, held_ns))
        self._clocks.append(CLOCKS.packer.pack(time_ns, STREAM_CODE[stream], ssrc, peer, told, echo, held))

    def setting(self, time_ns: int, name: str, value: Any) -> None:
        """A setting has this value from now on. What is no plain value is kept as its text."""
        self._note(SettingRow(time_ns, name, _plain(value), "setting"))

    def event(self, time_ns: int, name: str, value: Any = None) -> None:
        """Something happened. `socket_dropped` with a count: datagrams that the receiving socket had no room for."""
        self._note(SettingRow(time_ns, name, _plain(value), "event"))

    def _note(self, row: SettingRow) -> None:
        """Keep it, as long as there are not too many: what comes from a network may come without end."""
        if row.name not in self._named and len(self._named) >= MOST_NAMES:
            return
        self._named[row.name] += 1  # an estimate, where several threads write: a bound need not be exact
        count = self._named[row.name]
        if count <= MOST_OF_A_NAME:
            self._settings.append(row)
        elif count == MOST_OF_A_NAME + 1:
            words = f"more than {MOST_OF_A_NAME:,} of {row.name!r} came: further ones are not kept"
            self._settings.append(SettingRow(row.time_ns, "record full", words, "event"))

    def _cannot_keep(self, time_ns: int, rows: int, error: OSError) -> None:
        if not self._cut:
            self._cut = True
            reason = error.strerror or str(error) or type(error).__name__
            words = f"a part of the record is missing, as it could not be put on the disk ({reason}): make room there"
            self.event(time_ns, "record cut", words)
            self.notices.add(words)

    def trace(self) -> Trace:
        """What has been recorded so far. From any thread, while recording goes on."""
        return Trace(
            frames=self._frames.snapshot(),
            packets=self._packets.snapshot(),
            sync=self._sync.snapshot(),
            reports=self._reports.snapshot(),
            clocks=self._clocks.snapshot(),
            settings=tuple(self._settings),
            meta={
                key: printable(value, most=MOST_LETTERS) if isinstance(value, str) else value
                for key, value in self.meta.items()
            },
        )


_BUDGET = Budget()
"""What all records of this process share."""


def _unknown_packet(word: object) -> ValueError:
    return ValueError(
        f"a packet's stream is one of {', '.join(STREAMS)}, its fate one of {', '.join(PACKET_FATES)} or None, "
        f"its marker True, False or None; not {word!r}"
    )


def _plain(value: Any) -> str | int | float | bool | None:
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or isinstance(value, int | float) else printable(value, most=MOST_LETTERS)


class Trace:
    """What was seen during a run. A value: nothing changes it, and its tables are made when first asked for.

    `frames`, `packets`, `sync`, `reports`, `clocks` and `settings` are DataFrames with times in float seconds on the
    run's clock, NaN or NA where unknown; `meta` says what ran. Made by `Recorder.trace`, `join` and `load`, from
    batches of packed rows, of which the oldest may be on a disk. A table of more than five million rows is no
    DataFrame: ask for a part of the run by `between`. The numbers of avlab.metrics are of the whole run, however
    long.

    Args:
        frames: Rows of frames, packed.
        packets: Rows of packets, packed.
        sync: Rows of sound against picture, packed.
        reports: Rows of receiver reports, packed.
        clocks: Rows of what was said of the other side's clock, packed.
        settings: What was set when.
        meta: What ran: `side`, `epoch_ns`, `clock` and more.
    """

    def __init__(
        self,
        *,
        frames: Sequence[Rows | RowBatch] = (),
        packets: Sequence[Rows | RowBatch] = (),
        sync: Sequence[Rows | RowBatch] = (),
        reports: Sequence[Rows | RowBatch] = (),
        clocks: Sequence[Rows | RowBatch] = (),
        settings: Sequence[SettingRow] = (),
        meta: Mapping[str, Any],
    ) -> None:
        given = {"frames": frames, "packets": packets, "sync": sync, "reports": reports, "clocks": clocks}
        self._batches = {
            name: tuple(part if isinstance(part, RowBatch) else RowBatch.of(TABLES[name], part) for part in parts)
            for name, parts in given.items()
        }
        self._settings = tuple(settings)
        self._meta = dict(meta)
        self._made: dict[str, pd.DataFrame] = {}
        self.from_file = False
        """Whether it was read from a file: what is said in this process is not about it."""

    @classmethod
    def from_tables(
        cls,
        *,
        frames: pd.DataFrame,
        packets: pd.DataFrame,
        sync: pd.DataFrame,
        reports: pd.DataFrame | None = None,
        clocks: pd.DataFrame | None = None,
        settings: Sequence[SettingRow],
        meta: Mapping[str, Any],
    ) -> Trace:
        """A trace from its own DataFrames; `settings` with times in nanoseconds. KeyError for a missing column.

        Args:
            frames: As `Trace.frames`.
            packets: As `Trace.packets`.
            sync: As `Trace.sync`.
            reports: As `Trace.reports`; None for none.
            clocks: As `Trace.clocks`; None for none.
            settings: What was set when, with times in nanoseconds.
            meta: As `Trace.meta`.
        """
        epoch_ns = int(meta["epoch_ns"])
        return cls(
            frames=[FRAMES.to_rows(frames, epoch_ns)],
            packets=[PACKETS.to_rows(packets, epoch_ns)],
            sync=[SYNC.to_rows(sync, epoch_ns)],
            reports=[] if reports is None else [REPORTS.to_rows(reports, epoch_ns)],
            clocks=[] if clocks is None else [CLOCKS.to_rows(clocks, epoch_ns)],
            settings=settings,
            meta=meta,
        )

    @property
    def frames(self) -> pd.DataFrame:
        """A row a frame, or a chunk of sound.

        Columns: stream, index, pts, timestamp, due, encoded, sent, first_packet, complete, shown, bytes, packets,
        packets_lost, fate.
        """
        return self._table(FRAMES)

    @property
    def packets(self) -> pd.DataFrame:
        """A row a copy of a packet: stream, ssrc, seq, timestamp, marker, bytes, sent, received, fate."""
        return self._table(PACKETS)

    @property
    def sync(self) -> pd.DataFrame:
        """A row a reading: time, video_pts, audio_pts, offset, buffer (all in seconds), skew_ppm.

        `offset` says how much later a picture is presented than its own sound: positive when the sound is early, as
        in ITU-R BT.1359. At one moment, that is the pts heard less the pts seen.
        """
        return self._table(SYNC)

    @property
    def reports(self) -> pd.DataFrame:
        """A row an RTCP receiver report that a server heard: time, stream, ssrc, loss, lost, jitter, round_trip, kbps.

        `loss` is the fraction lost since the report before (0 to 1), `lost` the packets lost since the beginning less
        duplicates; `jitter` (RFC 3550, A.8) and `round_trip` are seconds; `kbps` is what was sent since the report
        before, in kbit/s. In a server's trace, and in one joined with it, which has those of its own client alone.
        """
        return self._table(REPORTS)

    @property
    def clocks(self) -> pd.DataFrame:
        """A row each time that the other side's RTCP told of its clock: time, stream, ssrc, peer, told_ns, echo, held.

        `time` is when it came, `peer` the source that says it, `told_ns` its wall clock as it sent that, in nanoseconds
        since 1970 (a sender report's NTP time, RFC 3550 6.4.1; a receiver reference time, RFC 3611 4.4). `echo` is when
        this side sent the report that it answers, `held` for how long the other had kept that (LSR and DLSR, or LRR and
        DLRR): `time - echo - held` is a round trip. In a joined trace the rows of both sides are there, all times on
        the client's clock; what a client has told has its own SSRC for `peer`.
        """
        return self._table(CLOCKS)

    @property
    def settings(self) -> pd.DataFrame:
        """A row a setting's new value, or an event: time, name, value, kind."""
        if "settings" not in self._made:
            import pandas as pd

            rows = self._settings
            self._made["settings"] = pd.DataFrame(
                {
                    "time": np.array([(row.time_ns - self.epoch_ns) / NS for row in rows], np.float64),
                    "name": pd.Series([row.name for row in rows], dtype=object),
                    "value": pd.Series([row.value for row in rows], dtype=object),
                    "kind": pd.Categorical([row.kind for row in rows], categories=["setting", "event"]),
                }
            )
        return self._made["settings"].copy(deep=False)

    @property
    def meta(self) -> dict[str, Any]:
        """What ran and on what: plain values, a fresh dict each time."""
        return dict(self._meta)

    @property
    def epoch_ns(self) -> int:
        """The moment shown as 0 s, in nanoseconds of the clock named in `meta`."""
        return int(self._meta["epoch_ns"])

    @property
    def setting_rows(self) -> tuple[SettingRow, ...]:
        """The settings as they were recorded, with times in nanoseconds."""
        return self._settings

    def count(self, name: str) -> int:
        """How many rows "frames", "packets", "sync", "reports" or "clocks" have.

        Args:
            name: "frames", "packets", "sync", "reports" or "clocks".
        """
        return sum(len(batch.rows) for batch in self._batches[name])

    def rows(self, name: str) -> Rows:
        """The packed rows of a table (see `count`) in one array, times in nanoseconds; do not write to it.

        Args:
            name: "frames", "packets", "sync", "reports" or "clocks".
        """
        batches = self._batches[name]
        if len(batches) != 1 or not isinstance(batches[0].rows, np.ndarray):
            batches = (RowBatch.joined(TABLES[name], batches),)
            self._batches[name] = batches
        return batches[0].read()

    def rows_from(self, name: str, first: int) -> Iterator[Rows]:
        """The packed rows from number `first` on, some at a time.

        Args:
            name: "frames", "packets", "sync", "reports" or "clocks".
            first: The number of the first row wanted, from 0.
        """
        before, parts = 0, []
        for batch in self._batches[name]:
            skipped = max(0, first - before)
            before += len(batch.rows)
            if skipped < len(batch.rows):
                parts.append(batch if not skipped else RowBatch.of(TABLES[name], batch.read()[skipped:]))
        return chunked(parts)

    def chunks(self, name: str) -> Iterator[Rows]:
        """The packed rows some at a time, in order; all at once as long as they are half a million or fewer.

        Args:
            name: "frames", "packets", "sync", "reports" or "clocks".
        """
        if self.count(name) <= CHUNK:
            return iter([self.rows(name)])
        return chunked(self._batches[name], CHUNK)

    def between(self, start: float, end: float) -> Trace:
        """The part of the run from `start` up to `end`, in seconds on its clock: rows of which any time is within.

        What each setting was when it began is in it too, at `start`. ValueError unless `start` is before `end`.

        Args:
            start: Seconds on the run's clock.
            end: Seconds on the run's clock, more than `start`.
        """
        moments: tuple[object, object] = (start, end)
        if not (all(isinstance(moment, Real) for moment in moments) and start < end):
            raise ValueError(f"between takes a start and an end after it, in seconds, not {start!r} and {end!r}")
        first, last = (self.epoch_ns + _nanoseconds(moment) for moment in (start, end))
        kept: dict[str, list[Rows]] = {}
        for name, batches in self._batches.items():
            table, kept[name] = TABLES[name], []
            for batch in batches:
                if batch.newest < first or batch.oldest >= last:
                    continue
                for rows in chunked([batch]):
                    within = np.zeros(len(rows), bool)
                    for column in table.times:
                        within |= (rows[column] >= first) & (rows[column] < last) & (rows[column] != UNKNOWN)
                    kept[name].append(chosen(rows, within))
        stood = {row.name: row for row in self._settings if row.kind == "setting" and row.time_ns < first}
        settings = [row._replace(time_ns=first) for row in stood.values()]
        settings += [row for row in self._settings if first <= row.time_ns < last]
        meta = dict(self._meta)
        if meta.get("end_ns") is not None:
            meta["end_ns"] = max(first, min(int(meta["end_ns"]), last))
        part = Trace(**kept, settings=settings, meta=meta)
        part.from_file = self.from_file
        return part

    def tail(self, since_ns: int) -> Trace:
        """The rows of which any time is `since_ns` or later, in nanoseconds; what it costs does not grow with the run.

        Rows that were written down long before others of their time may be missed: by more than a batch of rows.

        Args:
            since_ns: Nanoseconds on the recorder's clock.
        """
        kept: dict[str, list[Rows]] = {}
        for name, batches in self._batches.items():
            kept[name] = [part for part in _late_parts(TABLES[name], batches, since_ns) if len(part)]
            kept[name].reverse()
        settings = tuple(row for row in self._settings if row.time_ns >= since_ns)
        return Trace(**kept, settings=settings, meta=self._meta)

    def _table(self, table: Table) -> pd.DataFrame:
        made = self._made.get(table.name)
        if made is None:
            if self.count(table.name) > MOST_ROWS:
                raise ValueError(
                    f"this run has {self.count(table.name):,} {table.name}, more than the {MOST_ROWS:,} rows of one "
                    f"table: ask for a part of it in seconds, as in trace.between(0, 600).{table.name}"
                )
            made = table.to_frame(self.rows(table.name), self.epoch_ns)
            if table is SYNC:
                made.insert(3, "offset", made["audio_pts"] - made["video_pts"])
            self._made[table.name] = made
        # A shallow copy: a column that a student adds stays out of the trace.
        return made.copy(deep=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Save everything in one file, whatever its suffix: a ZIP with a Parquet file a table and settings.json.

        What `avlab.predict` was told in this process is saved with it, as settings by the name of prediction.

        Args:
            path: The file; one that is there is replaced.
        """
        _files().save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Trace:
        """Read a saved trace. FileNotFoundError when there is none, ValueError when the file is something else.

        Args:
            path: A file that `save` wrote.
        """
        loaded: Trace = _files().load(path)
        loaded.from_file = True
        return loaded

    @classmethod
    def from_pcap(cls, path: str | PathLike[str], streams: Iterable[int] | None = None) -> Trace:
        """The trace of a capture of RTP, pcap or pcapng, whoever made it; `docs/captures.md` says what is in it.

        Each packet of each stream is in `packets`, `received` when it was captured, and `meta["streams"]` has a dict a
        stream: addresses, payload type, packets, lost, jitter and delay. Frames, sync and the numbers of avlab.metrics
        are of one video and one sound, the largest that go the same way, or those of which `streams` names the numbers.
        FileNotFoundError when there is no such file; ValueError, with a sentence, when it is no capture, has no RTP in
        it, or no stream of that number.

        Args:
            path: The capture.
            streams: Numbers of streams, as `meta["streams"]` counts them; None for the largest.
        """
        from avlab.measure.captures.capturefile import from_pcap

        return from_pcap(path, streams)

    def to_pcap(self, path: str | PathLike[str]) -> None:
        """Write the packets as a capture that Wireshark reads: RTP headers, without payloads, between 192.0.2.1 and .2.

        Each is at the time when it was received, in a server's trace sent; what never came is not in it. ValueError
        when there are no RTP packets, OSError, with a sentence, when it cannot be written.

        Args:
            path: The file; one that is there is replaced.
        """
        from avlab.measure.captures.writing import to_pcap

        to_pcap(self, path)

    def _counts(self) -> list[tuple[str, str]]:
        lines = []
        for name, streams in (("frames", ("frames", "chunks of sound")), ("packets", ("video", "audio"))):
            words = TABLES[name].columns["fate"]
            known = np.zeros((len(streams), len(words)), np.int64)
            numbers = np.zeros(len(streams), np.int64)
            for rows in self.chunks(name):
                for code in range(len(streams)):
                    fates = rows["fate"][rows["stream"] == code]
                    numbers[code] += len(fates)
                    known[code] += [(fates == word).sum() for word in range(len(words))]
            for code, label in enumerate(streams):
                if numbers[code]:
                    counts = [f"{count:,} {word}" for word, count in zip(words, known[code], strict=True) if count]
                    text = f"{numbers[code]:,}" + (f": {', '.join(counts)}" if counts else "")
                    lines.append((label if name == "frames" else f"{label} packets", text))
        lines.append(("sync", f"{self.count('sync'):,} readings"))
        if self.count("reports"):
            lines.append(("reports", f"{self.count('reports'):,}"))
        lines.append(("settings", f"{len(self._settings):,}"))
        return lines

    def _title(self) -> str:
        clip = f" of {printable(self._meta['clip'])}" if self._meta.get("clip") else ""
        joined = ", joined with the server's" if self._meta.get("joined") else ""
        cut = ", cut short: it was never saved" if self._meta.get("unfinished") else ""
        return f"Trace{clip}, seen by the {printable(self._meta['side'])}{joined}{cut}"

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {label:<16}{text}" for label, text in self._counts())])

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<tr><th style='text-align:left'>{escape(label)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for label, text in self._counts()
        )
        return f"<b>{escape(self._title())}</b><table>{lines}</table>"


def _late_parts(table: Table, batches: Sequence[RowBatch], since_ns: int) -> Iterator[Rows]:
    """Of batches, the rows of which any time is `since_ns` or later, the last part first."""
    for batch in reversed(batches):
        if len(batch.rows) and batch.newest < since_ns:
            return
        for rows in batch.slices():
            if not len(rows):
                continue
            late = np.zeros(len(rows), bool)
            for column in table.times:
                late |= rows[column] >= since_ns
            if not late.any():
                return
            yield chosen(rows, late)


def _nanoseconds(seconds: float) -> int:
    """As a time that fits into 64 bits, from endless ones, too."""
    return round(min(max(float(seconds), -4e9), 4e9) * NS)


def _files() -> Any:
    # Named in the contract: a trace can save itself, and the file that does it has to know what a trace is.
    from avlab.measure.record import files

    return files
