"""Who a server's clients are, and how they fare, by what their sessions and senders know. Nothing is sent for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avlab.core.events import Reported
from avlab.core.sender import Hearing, Sender
from avlab.measure.numbers.attendance import Member
from avlab.stream.rtsp.peer import Peer
from avlab.stream.rtsp.rooms import Room
from avlab.wire.units import NS


def take_pulses(peers: Iterable[Peer], rooms: Iterable[Room], now_ns: int) -> None:
    """Look at what was sent so far, where it is time to; on the server's thread."""
    every: list[Peer | Room] = [*peers, *rooms]
    for one in every:
        if one.pulse.due(now_ns):
            outlets = list(one.sender.outlets.values())
            pictures = one.sender.outlets.get("video")
            frames = 0 if pictures is None else pictures.frames
            one.pulse.mark(now_ns, frames, sum(outlet.sent_bytes for outlet in outlets))


def members_of(peers: Sequence[Peer], rooms: Sequence[Room], now_ns: int, unix_offset_ns: int) -> tuple[Member, ...]:
    """A member for each peer that has a session; from any thread."""
    found = []
    reporters = _reporters(peers, rooms)
    for peer in peers:
        if peer.session is None or peer.gone:
            continue
        room, reporter = reporters.get(peer.number, (None, 0))
        sender, pulse = (peer.sender, peer.pulse) if room is None else (room.sender, room.pulse)
        fps, kbps = pulse.rates(now_ns)
        shows = any("video" in one.outlets for one in (sender, peer.sender))
        told = _told(sender, reporter) + (_told(peer.sender, 0) if room is not None else [])
        member = Member(
            peer.number,
            name=sender.names.get(reporter, "") or peer.sender.names.get(0, ""),
            address=peer.address[0],
            since_ns=peer.joined_ns + unix_offset_ns,
            fps=fps if shows else None,
            kbps=kbps,
            group=room.address[0] if room is not None else "",
        )
        found.append(_as_told(member, told, now_ns))
    return tuple(sorted(found))


@dataclass(slots=True)
class Receiving:
    """Who reports on what goes to an address or a group without RTSP."""

    number: int
    """From 1, in the order in which they were heard of."""
    host: str
    since_ns: int
    heard_ns: int


def receivers_of(
    room: Room, receivers: Iterable[tuple[int, Receiving]], group: str, now_ns: int, unix_offset_ns: int
) -> tuple[Member, ...]:
    """A member for each that reports (SSRC), all of them sent the same; from any thread."""
    fps, kbps = room.pulse.rates(now_ns)
    found = []
    for reporter, each in receivers:
        member = Member(
            each.number,
            name=room.sender.names.get(reporter, ""),
            address=each.host,
            since_ns=each.since_ns + unix_offset_ns,
            fps=fps if "video" in room.sender.outlets else None,
            kbps=kbps,
            group=group,
        )
        found.append(_as_told(member, _told(room.sender, reporter), now_ns))
    return tuple(sorted(found))


def _as_told(member: Member, told: Sequence[Reported], now_ns: int) -> Member:
    """A member with what its reports say of how it fares."""
    believed = [each for each in told if each.doubt is None]
    jitters = {each.stream: each.jitter_ns for each in believed}
    trips = [each.round_trip_ns for each in sorted(believed, reverse=True) if each.round_trip_ns is not None]
    jitter_ns = jitters.get("video", jitters.get("audio"))
    return member._replace(
        loss=max((each.loss for each in believed), default=None),
        jitter=None if jitter_ns is None else jitter_ns / NS,
        round_trip=trips[0] / NS if trips else None,
        last_report=min(((now_ns - each.time_ns) / NS for each in told), default=None),
    )


def _told(sender: Sender, reporter: int) -> list[Reported]:
    """What one receiver last said of each stream, the newest first."""
    hearings: list[Hearing | None] = [outlet.hearings.get(reporter) for outlet in list(sender.outlets.values())]
    return [hearing.told for hearing in hearings if hearing is not None and hearing.told is not None]


def _reporters(peers: Sequence[Peer], rooms: Sequence[Room]) -> dict[int, tuple[Room, int]]:
    """Which room a member is in, and which of those who report there it is, by its number.

    A session does not say by which source its client reports: it is known by the address that reports come from, and of
    several at one address, by the order in which they came.
    """
    found: dict[int, tuple[Room, int]] = {}
    for room in rooms:
        heard: dict[str, list[int]] = {}
        for reporter, host in list(room.reporters.items()):
            heard.setdefault(host, []).append(reporter)
        for peer in peers:
            if peer in room.members:
                own = heard.get(peer.address[0], [])
                found[peer.number] = room, own.pop(0) if own else -1
    return found
