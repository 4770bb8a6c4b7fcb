"""Two sides of one run made into one record: what the server sent, and what became of it at one client.

Pure: two traces in, a third out. Packets are matched by SSRC and sequence number, frames by RTP timestamp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avlab.measure.record.clock_offset import Bounds, ClockOffset, Side, bounds_told, offset_between
from avlab.measure.record.tables import (
    CLOCKS,
    FRAME_FATES,
    FRAMES,
    NS,
    PACKET_FATES,
    PACKETS,
    REPORTS,
    STREAMS,
    UNKNOWN,
    UNKNOWN8,
    UNKNOWN32,
    WITHOUT_NUMBERS,
    Rows,
    Table,
    chosen,
    joined,
    whole,
)
from avlab.measure.record.trace import SettingRow, Trace
from avlab.measure.record.trace import Side as SideName

Ints = NDArray[np.int64]

_VIDEO = STREAMS.index("video")
_SKIPPED = FRAME_FATES.index("skipped")
_SEQ_MODULUS = 1 << 16
_TIMESTAMP_MODULUS = 1 << 32


def join(server: Trace, client: Trace, *, in_flight: float = 0.5) -> Trace:
    """The client's trace with all that only the server knows, and with what was sent but never seen.

    Frames gain index, pts, due, encoded and sent; packets gain sent; receiver reports are those on this client's
    streams. What the client never saw is `lost`, or `in_flight` if it was sent less than `in_flight` seconds before the
    client's end (its meta's `end_ns`, else the last thing it recorded). A frame of which packets arrived, and which the
    client has not judged yet, is in flight, too.
    Times are on the client's clock. When the server's is another clock, meta["shared_clock"] is False, and its times
    are moved by what RTCP told each side of the other's clock and by the packets themselves, as far as
    `avlab.metrics.clocks` says; where too little was told, so that the smallest one-way delay is 0. A client's trace
    that is joined already comes back as it is.
    While a run goes on, take the client's trace before the server's.

    ValueError: the traces are not a server's and a client's, or they are of different runs.

    Args:
        server: The server's record.
        client: The client's record.
        in_flight: Seconds before the end of the client's record in which what has not come counts as under way, 0 or
            more.
    """
    if not (isinstance(server, Trace) and isinstance(client, Trace)):
        raise ValueError(f"join takes two traces, not {type(server).__name__} and {type(client).__name__}")
    sides = server.meta["side"], client.meta["side"]
    if sides != ("server", "client"):
        raise ValueError(f"join takes a server's trace and then a client's, not a {sides[0]}'s and a {sides[1]}'s")
    if client.meta.get("joined"):
        return client
    if (wire := client.meta.get("wire")) in WITHOUT_NUMBERS:
        raise ValueError(
            f"traces of the {wire} wire cannot be joined: it carries no number by which a packet could be known again"
        )
    ours = client.rows("packets")
    ssrcs = np.union1d(ours["ssrc"], np.array(client.meta.get("ssrcs", []), np.int64))
    ssrcs = ssrcs[ssrcs != UNKNOWN]
    shared = server.meta["clock"] == client.meta["clock"]
    known = {key: value for key, value in client.meta.items() if value is not None}
    meta = {**server.meta, **known, "joined": True, "shared_clock": shared, "server": server.meta}
    # A server of many clients has much more in its record than one of them needs: some of it at a time.
    mine = joined([chosen(rows, np.isin(rows["ssrc"], ssrcs)) for rows in server.chunks("packets")])
    if not len(mine):
        # In its first moments a client may have what a busy server has yet to write down: no reason to complain.
        heard = ours["received"][ours["ssrc"] != UNKNOWN]
        latest = max(map(PACKETS.newest, server.chunks("packets")), default=UNKNOWN)
        fresh = shared and len(heard) and abs(int(heard.min()) - latest) < NS
        named = any((rows["ssrc"] != UNKNOWN).any() for rows in server.chunks("packets"))
        if len(heard) and named and not fresh:
            raise ValueError(
                "these traces are of different runs: the server sent nothing with an SSRC that the client received"
            )
        return Trace(frames=[client.rows("frames")], packets=[ours], sync=[client.rows("sync")],
                     reports=[client.rows("reports")], clocks=[client.rows("clocks")],
                     settings=client.setting_rows, meta=meta)  # fmt: skip

    if _joined_late(client):
        mine = _since_it_listened(mine, ours)
    at, to = _pair(_packet_keys(mine, _aligned_seq(mine, ours), ssrcs), _packet_keys(ours, ours["seq"], ssrcs))
    both = (at >= 0) & (to >= 0)
    told = _of_client(CLOCKS, server, client, ssrcs), client.rows("clocks")
    move: Move = _unmoved
    ahead_ns = 0
    if not shared:
        sent, received = mine["sent"][at[both]], ours["received"][to[both]]
        timed = (sent != UNKNOWN) & (received != UNKNOWN)
        offset = _offset(server, client, told, Bounds(sent[timed], (received - sent)[timed]))
        if offset is not None:
            meta["clock_offset"] = offset.plain()
            move, ahead_ns = offset.to_client, int(offset.ahead_ns[-1])
        elif timed.any():
            ahead_ns = shift = int((received - sent)[timed].min())
            move = lambda times_ns: times_ns + shift  # noqa: E731
    end_ns = client.meta.get("end_ns")
    if end_ns is None:
        end_ns = max(PACKETS.newest(ours), FRAMES.newest(client.rows("frames")))
    sent_frames = _moved(FRAMES, _frames_of(server.rows("frames"), mine, int(end_ns) - ahead_ns), move)
    mine = _moved(PACKETS, mine, move)
    still_ns = int(end_ns) - round(in_flight * NS)
    packets, unexplained = _merge_packets(mine, ours, at, to, still_ns)
    _mark_socket_drops(packets, unexplained, client.setting_rows)
    reports = [
        chosen(rows, np.isin(rows["ssrc"], ssrcs) | (rows["ssrc"] == UNKNOWN)) for rows in server.chunks("reports")
    ]
    times = move(np.array([row.time_ns for row in server.setting_rows], np.int64)).tolist()
    settings = [row._replace(time_ns=time_ns) for row, time_ns in zip(server.setting_rows, times, strict=True)]
    return Trace(
        frames=[_merge_frames(sent_frames, client.rows("frames"), ours, still_ns)],
        packets=[packets],
        sync=[client.rows("sync")],
        reports=[*(_moved(REPORTS, part, move) for part in reports), client.rows("reports")],
        clocks=[_moved(CLOCKS, told[0], move), told[1]],
        settings=sorted([*settings, *client.setting_rows], key=lambda row: row.time_ns),
        meta=meta,
    )


def merged(server: Trace, client: Trace, *, side: SideName, meta: dict[str, Any]) -> Trace:
    """Both sides of a run whose server had one client, on one clock, and whose client listened to the end; as `side`.

    As `join`, but nothing is in flight unless the server says so, and frames that were never sent are there, too.
    """
    mine, ours = server.rows("packets"), client.rows("packets")
    ssrcs = np.union1d(mine["ssrc"], ours["ssrc"])
    at, to = _pair(_packet_keys(mine, _aligned_seq(mine, ours), ssrcs), _packet_keys(ours, ours["seq"], ssrcs))
    end_ns = int(client.meta["end_ns"])
    packets, _ = _merge_packets(mine, ours, at, to, end_ns)
    frames = _merge_frames(server.rows("frames"), client.rows("frames"), ours, end_ns)
    return Trace(
        frames=[frames],
        packets=[packets],
        sync=[client.rows("sync")],
        reports=[server.rows("reports")],
        clocks=[server.rows("clocks"), client.rows("clocks")],
        settings=sorted([*server.setting_rows, *client.setting_rows], key=lambda row: row.time_ns),
        meta={**server.meta, **client.meta, **meta, "side": side},
    )


def _joined_late(client: Trace) -> bool:
    """Whether what the client received was sent whether it listened or not: to a group, or to an address."""
    over = (row.value for row in client.setting_rows if row.name in ("video_over", "audio_over"))
    return client.meta.get("wire") == "rtp" or "multicast" in over


def _since_it_listened(server: Rows, client: Rows) -> Rows:
    """The server's packets from the first one on that the client received of each source."""
    kept = np.ones(len(server), bool)
    keys = [side["seq"] % _SEQ_MODULUS + _SEQ_MODULUS * (side["timestamp"] % _TIMESTAMP_MODULUS)
            for side in (server, client)]  # fmt: skip
    for ssrc in np.unique(server["ssrc"]):
        theirs = np.flatnonzero(server["ssrc"] == ssrc)
        seen = np.flatnonzero(np.isin(keys[0][theirs], keys[1][client["ssrc"] == ssrc]))
        if len(seen):
            kept[theirs[: seen[0]]] = False
    return chosen(server, kept)


def _frames_of(frames: Rows, packets: Rows, end_ns: int) -> Rows:
    """The server's frames that went to one client, once each, and those skipped while it was listening.

    All is on the server's clock, as is `end_ns`, when the client ended.
    """
    # A clip that is played again has the same timestamps again: only frames sent when these packets were can be theirs.
    times = packets["sent"][packets["sent"] != UNKNOWN]
    span = (int(times.min()) - NS // 2, int(times.max())) if len(times) else (UNKNOWN, UNKNOWN)
    ours = (frames["sent"] >= span[0]) & (frames["sent"] <= span[1]) & (frames["timestamp"] != UNKNOWN)
    # Where a unit's packets differ in timestamp, the first one's is the unit's own.
    ours &= np.isin(_media_time(frames), _media_time(packets))
    at = np.flatnonzero(ours)
    if not len(at):
        return frames[:0]
    kept = np.zeros(len(frames), bool)
    kept[at[np.unique(_media_time(frames)[at], return_index=True)[1]]] = True
    # What was skipped was never sent to anyone: its place in the record says when it was.
    skipped = frames["fate"] == _SKIPPED
    kept[at[0] : at[-1]] |= skipped[at[0] : at[-1]]
    # A server that is too slow to the very end sends nothing after the last ones: those due while it was there.
    later = np.flatnonzero(frames["sent"] != UNKNOWN)
    until = next((int(row) for row in later if row > at[-1]), len(frames))
    kept[at[-1] : until] |= skipped[at[-1] : until] & (frames["due"][at[-1] : until] <= end_ns)
    return chosen(frames, kept)


def _media_time(rows: Rows) -> Ints:
    """One number a row for its stream and 32 bits of timestamp."""
    return np.asarray(rows["timestamp"] % _TIMESTAMP_MODULUS * len(STREAMS) + rows["stream"], np.int64)


def _aligned_seq(server: Rows, client: Rows) -> Ints:
    """The server's sequence numbers, counted as the client counts them.

    Both unwrap 16 bits (RFC 3550, A.1) from wherever they began, so they differ by a multiple of 65,536. A packet is
    recognised by its 16 bits and timestamp, and most packets' difference is the one.
    """
    seq: Ints = server["seq"].copy()
    for ssrc in np.unique(server["ssrc"]):
        theirs, ours = server["ssrc"] == ssrc, client["ssrc"] == ssrc
        shift = _common_shift(
            server["seq"][theirs],
            client["seq"][ours],
            _SEQ_MODULUS,
            server["timestamp"][theirs],
            client["timestamp"][ours],
        )
        seq[theirs] += shift
    return seq


def _common_shift(server: Ints, client: Ints, modulus: int, *marks: Ints) -> int:
    """The multiple of `modulus` to add to the server's numbers; both sides' `marks` tell laps apart."""
    keys = [side % modulus for side in (server, client)]
    if marks:
        keys = [key + modulus * (mark % _TIMESTAMP_MODULUS) for key, mark in zip(keys, marks, strict=True)]
    _, at, to = np.intersect1d(keys[0], keys[1], return_indices=True)
    if not len(at):
        return 0
    shifts, votes = np.unique(client[to] - server[at], return_counts=True)
    return int(shifts[votes.argmax()])


def _packet_keys(rows: Rows, seq: Ints, ssrcs: Ints) -> Ints:
    """One number a row for its SSRC and sequence number; `UNKNOWN` for a row that lacks either."""
    known = np.isin(rows["ssrc"], ssrcs) & (rows["seq"] != UNKNOWN)
    return np.where(known, seq * len(ssrcs) + np.searchsorted(ssrcs, rows["ssrc"]), UNKNOWN)


def _pair(server: Ints, client: Ints) -> tuple[Ints, Ints]:
    """For each key on either side, the row of the server's and the row of the client's that carry it, -1 for none.

    Of equal keys the first is paired with the first, the second with the second; `UNKNOWN` matches nothing.
    """
    sides = (server, client)
    named = [np.flatnonzero(keys != UNKNOWN) for keys in sides]
    ids = _dense([keys[rows] for keys, rows in zip(sides, named, strict=True)])
    if any(np.bincount(side).max(initial=0) > 1 for side in ids):
        copies = [_copy_numbers(side) for side in ids]
        depth = 1 + max(int(side.max(initial=0)) for side in copies)
        ids = _dense([side * depth + copy for side, copy in zip(ids, copies, strict=True)])
    pairs = np.full((2, 1 + max(int(side.max(initial=-1)) for side in ids)), -1)
    for side in (0, 1):
        pairs[side, ids[side]] = named[side]
    alone = [np.flatnonzero(keys == UNKNOWN) for keys in sides]
    at = np.concatenate([pairs[0], alone[0], np.full(len(alone[1]), -1)])
    to = np.concatenate([pairs[1], np.full(len(alone[0]), -1), alone[1]])
    return at, to


def _dense(sides: list[Ints]) -> list[Ints]:
    """Both sides' keys as numbers from 0 without gaps, in the keys' order."""
    keys = np.concatenate(sides)
    order = np.argsort(keys, kind="stable")  # which takes less time where most are in order
    ids = np.empty(len(keys), np.int64)
    ids[order] = np.cumsum(np.diff(keys[order], prepend=keys[order[:1]]) != 0)
    return [ids[: len(sides[0])], ids[len(sides[0]) :]]


def _copy_numbers(ids: Ints) -> Ints:
    """For each row how many rows before it have the same number."""
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    numbers = np.empty(len(ids), np.int64)
    numbers[order] = np.arange(len(ids)) - np.repeat(starts, np.diff(starts, append=len(ids)))
    return numbers


def _of_client(table: Table, server: Trace, client: Trace, ssrcs: Ints) -> Rows:
    """What the server's record has of one client's clock: of a group's streams, several tell of theirs."""
    chunks = server.chunks(table.name)
    rows = joined([table.empty(), *(chosen(part, np.isin(part["ssrc"], ssrcs)) for part in chunks)])
    own = client.meta.get("reports_as")
    return rows if own is None else chosen(rows, rows["peer"] == own)


def _offset(server: Trace, client: Trace, told: tuple[Rows, Rows], packets: Bounds) -> ClockOffset | None:
    """How far the clocks of two machines are apart, as far as the two records tell."""
    sides = [Side(rows, trace.meta.get("unix_offset_ns")) for rows, trace in zip(told, (server, client), strict=True)]
    upper, lower = bounds_told(*sides)
    upper = Bounds.of(upper, packets)
    at_ns = np.concatenate([upper.at_ns, lower.at_ns])
    return offset_between(upper, lower, (int(at_ns.min()), int(at_ns.max()))) if len(at_ns) else None


Move = Callable[[Ints], Ints]
"""From the server's clock to the client's."""


def _unmoved(times_ns: Ints) -> Ints:
    return times_ns


def _moved(table: Table, rows: Rows, move: Move) -> Rows:
    """Rows of the server's with their times on the client's clock."""
    rows = rows.copy()
    for column in table.times:
        known = rows[column] != UNKNOWN
        rows[column][known] = move(rows[column][known])
    return rows


def _merge_packets(server: Rows, client: Rows, at: Ints, to: Ints, still_ns: int) -> tuple[Rows, NDArray[np.bool_]]:
    """All packets in order of sending, and which of them nobody saw or knows anything of."""
    unseen = to < 0
    merged = _united(server, client, at, to)
    sent = at >= 0
    merged["sent"][sent] = server["sent"][at[sent]]
    # The server may know better: what its own network lost, or its socket had no room for, has that fate already.
    fateless = unseen & (merged["fate"] == UNKNOWN8)
    in_flight = merged["sent"] > still_ns
    merged["fate"][fateless] = PACKET_FATES.index("lost")
    merged["fate"][fateless & in_flight] = PACKET_FATES.index("in_flight")
    order = np.argsort(_first_known(merged, "sent", "received"), kind="stable")
    return chosen(merged, order), fateless[order]


def _united(server: Rows, client: Rows, at: Ints, to: Ints) -> Rows:
    """The client's rows, and the server's where the client has none."""
    unseen = to < 0
    rows = np.empty(len(at), server.dtype)
    whole(rows)[~unseen] = whole(client)[to[~unseen]]
    whole(rows)[unseen] = whole(server)[at[unseen]]
    return rows


def _mark_socket_drops(packets: Rows, unexplained: NDArray[np.bool_], settings: tuple[SettingRow, ...]) -> None:
    """A socket tells how many datagrams it had no room for, not which: they are the last ones missing by then."""
    lost, dropped = PACKET_FATES.index("lost"), PACKET_FATES.index("socket_dropped")
    missing = np.flatnonzero(unexplained & (packets["fate"] == lost) & (packets["stream"] == _VIDEO))
    sent = packets["sent"][missing]  # in order, as the packets are
    told = [row for row in settings if row.kind == "event" and row.name == "socket_dropped"]
    by_then: list[int] = []
    seen = 0
    for row in sorted(told, key=lambda row: row.time_ns):
        until = int(np.searchsorted(sent, row.time_ns, side="right"))
        by_then += missing[seen:until].tolist()
        seen = max(seen, until)
        if isinstance(row.value, int) and row.value > 0:
            packets["fate"][by_then[-row.value :]] = dropped
            del by_then[-row.value :]


def _merge_frames(server: Rows, client: Rows, arrived: Rows, still_ns: int) -> Rows:
    # A frame without a timestamp matches nothing.
    at, to = _pair(*_frame_keys(server, client))
    unseen, sent = to < 0, at >= 0
    merged = _united(server, client, at, to)
    sent_at, theirs = np.flatnonzero(sent), chosen(server, at[sent])
    for column in ("index", "pts", "due", "encoded", "sent"):
        known = theirs[column] != UNKNOWN
        merged[column][sent_at[known]] = theirs[column][known]
    for column in ("bytes", "packets"):
        unknown = sent & (merged[column] == UNKNOWN32)
        if column == "bytes":  # of a frame that is not whole, the client knows what came of it
            partial = sent & (merged["complete"] == UNKNOWN)
            partial[sent] &= server["bytes"][at[sent]] != UNKNOWN32
            unknown |= partial
        merged[column][unknown] = server[column][at[unknown]]
    fateless = np.flatnonzero(unseen & (merged["fate"] == UNKNOWN8))
    if len(fateless):
        merged["fate"][fateless] = fates = _fates_of_unseen(chosen(merged, fateless), arrived, still_ns)
        lost = fateless[fates == FRAME_FATES.index("lost")]
        merged["packets_lost"][lost] = merged["packets"][lost]
    times = _first_known(merged, "due", "sent", "first_packet", "complete", "shown")
    return chosen(merged, np.argsort(times, kind="stable"))


def _fates_of_unseen(frames: Rows, arrived: Rows, still_ns: int) -> Ints:
    """What has become of frames of which the client says nothing.

    Of what has arrived it will say what became of it, however long that takes: a page has the last word. But for what
    came too late to be looked at.
    """
    there = (arrived["received"] != UNKNOWN) & (arrived["timestamp"] != UNKNOWN)
    too_late = arrived["fate"] == PACKET_FATES.index("late")
    wanted, came = _media_time(frames), _media_time(arrived)
    open_ones, late = (np.isin(wanted, came[there & which]) for which in (~too_late, too_late))
    codes = [FRAME_FATES.index(fate) for fate in ("in_flight", "late", "lost")]
    return np.where((frames["sent"] > still_ns) | open_ones, codes[0], np.where(late, codes[1], codes[2]))


def _frame_keys(server: Rows, client: Rows) -> tuple[Ints, Ints]:
    """One number a row for its stream and unwrapped timestamp, which both sides count alike; `UNKNOWN` without one."""
    keys = np.full(len(server), UNKNOWN), np.full(len(client), UNKNOWN)
    for code in range(len(STREAMS)):
        rows = [np.flatnonzero((side["stream"] == code) & (side["timestamp"] != UNKNOWN)) for side in (server, client)]
        theirs, ours = (_unwrapped(side["timestamp"][at]) for side, at in zip((server, client), rows, strict=True))
        keys[0][rows[0]] = (theirs + _common_shift(theirs, ours, _TIMESTAMP_MODULUS)) * len(STREAMS) + code
        keys[1][rows[1]] = ours * len(STREAMS) + code
    return keys


def _unwrapped(timestamps: Ints) -> Ints:
    """Timestamps of one stream that go on rising where 32 bits wrap, after 13 hours at 90 kHz."""
    steps = np.diff(timestamps % _TIMESTAMP_MODULUS, prepend=0).astype(np.int32)  # here 32 bits wrap on purpose
    return np.cumsum(steps, dtype=np.int64)


def _first_known(rows: Rows, *columns: str) -> Ints:
    """For each row the first of these times that is known, to sort by."""
    time: Any = np.full(len(rows), UNKNOWN)
    for column in reversed(columns):
        time = np.where(rows[column] == UNKNOWN, time, rows[column])
    return np.asarray(time, np.int64)
