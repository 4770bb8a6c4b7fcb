"""A stream that a file describes: nobody is asked for it, it comes to the ports that are told, or it does not.

What arrives goes to the player, and what that says goes back to where RTCP comes from. The stream is over by BYE, or by
silence. All of it belongs to the client's thread, but for `open` and `play`, which come before it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from avlab.core.arriving import NOUNS
from avlab.core.events import Path
from avlab.stream.clock import Clock
from avlab.stream.described.found import FoundSender, parted
from avlab.stream.described.interfaces import Opened, open_destination
from avlab.stream.ends import Offer
from avlab.stream.playing.presentation import Presentation
from avlab.stream.recording import PlayerRecording
from avlab.stream.rtsp.reading import Overload, OwnParts, Reading
from avlab.stream.sockets.protocols import Datagrams, System
from avlab.stream.sockets.system import Sockets
from avlab.wire import sdp
from avlab.wire.batch import Batch
from avlab.wire.destinations import Destination, destination_of, why_not
from avlab.wire.text import printable
from avlab.wire.units import NS, WireError

SILENCE_NS = 10 * NS
"""With nothing at all for so long, reports included, the stream is over: they come every 5 s and more often."""

LATE_START_NS = 5 * NS
"""What has not come by then is named in a notice."""

START_NS = 30 * NS
"""When nothing has come by then, nobody sends."""

LOOK_NS = NS // 10
"""How often the end is looked for."""


def is_description(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a file which describes a stream: by its ending, or by what it begins with."""
    path = os.fspath(name)
    if "://" in path:
        return False
    if path.lower().endswith(".sdp"):
        return True
    try:
        with open(path, "rb") as file:
            return re.match(rb"\s*(\xef\xbb\xbf)?(SDP:\s*)?v=0\s*[\r\n]", file.read(64)) is not None
    except (OSError, ValueError):
        return False


@dataclass(slots=True)
class _DescribedWay:
    """How one stream comes."""

    stream: str
    to: Destination
    opened: Opened
    sender: FoundSender


class DescribedReceiver:
    """An `ends.Receiver`: RTP as a session description (RFC 4566) has it, from whoever sends it.

    `notice(name, words)` tells a person a sentence, once, and puts it into the record each time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float,
        presentation: Presentation,
        clock: Clock,
        recording: PlayerRecording,
        notice: Callable[[str, str], None],
        own: OwnParts | None = None,
        system: System | None = None,
    ) -> None:
        self._path = FilePath(path)
        self._presentation, self._clock, self._recording, self._notice = presentation, clock, recording, notice
        self._own = OwnParts() if own is None else own
        self._reading = Reading(self._own, notice)
        self._overload = Overload(recording, notice)
        self._system = Sockets() if system is None else system
        self._incoming = presentation.player.streams
        self._links: list[Datagrams] = []
        self.ways: dict[str, _DescribedWay] = {}
        self._play_ns = self._looked_ns = 0
        self._named: set[str] = set()
        self._silent = False

    @property
    def ssrcs(self) -> set[int]:
        """The sources of the streams, as far as they are known."""
        return {incoming.ssrc for incoming in list(self._incoming.values()) if incoming.ssrc is not None}

    @property
    def said_goodbye(self) -> bool:
        """Whether a BYE has come for each stream."""
        return bool(self._incoming) and all(incoming.ended for incoming in list(self._incoming.values()))

    # ---- before and after the client's thread

    def open(self) -> Offer:
        """Read the description, and receive what it says."""
        description = self._description()
        usable = [media for media in description.media if not why_not(media)]
        playable = self._own.playable
        wanted = playable.chosen(usable)
        kept_out = {media.kind: why for media in description.media if (why := why_not(media))}
        if not wanted:
            if kept_out and not usable:
                raise ValueError(f"what {self._path} describes cannot be played: {next(iter(kept_out.values()))}")
            raise ValueError(playable.refusal(usable, str(self._path)))
        for words in playable.left_out(usable, wanted):
            self._notice("left out", words)
        for kind, why in kept_out.items():
            if kind in NOUNS and kind not in wanted:
                self._notice("left out", f"the {NOUNS[kind]} of {self._path} is left out: {why}")
        destinations = {stream: destination_of(description, media) for stream, media in wanted.items()}
        self._check_ports(destinations)
        player = self._presentation.player
        player.clear()
        self._reading.begin(wanted)
        for stream, media in wanted.items():
            to = destinations[stream]
            opened = open_destination(to, self._system)
            self._links += opened.links
            if opened.words:
                self._notice("address", opened.words)
            kinds = {media.payload_type, *(number for number, _ in media.others)}
            sender = FoundSender(kinds=kinds, sources=to.sources, ssrc=to.ssrc)
            self.ways[stream] = _DescribedWay(stream, to, opened, sender)
            player.add(stream, self._reading.described(stream, media)._replace(ssrc=to.ssrc))
            way = "multicast" if opened.multicast else "udp"
            self._recording.setting(self._clock.now_ns(), f"{stream}_over", way)
        self._presentation.pump()
        if "video" in wanted:
            self._reading.name_idle_parts(wanted["video"], "who sends")
        return self._reading.offer(wanted, description.name)

    def _description(self) -> sdp.SessionDescription:
        try:
            with self._path.open("rb") as file:
                text = file.read(4 * sdp.MAX_TEXT).decode("utf-8", "replace")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"there is no {self._path}: name the description that 'ffmpeg -sdp_file' or 'avlab serve --sdp' has "
                "written"
            ) from None
        except OSError as error:
            raise OSError(f"{self._path} cannot be read: {error.strerror or error}") from error
        try:
            description = sdp.parse(text)
        except WireError as error:
            raise ValueError(f"{self._path} is no session description: {str(error).rstrip('.')}") from error
        if not description.media:
            raise ValueError(f"{self._path} describes no medium: it has no line that begins with m=")
        return description

    def _check_ports(self, destinations: dict[str, Destination]) -> None:
        """Two media cannot have a port in common: nothing here tells which of them a packet is of."""
        taken: dict[tuple[str, int], str] = {}
        for stream, to in destinations.items():
            for port in {to.port, to.control_port}:
                other = taken.setdefault((to.host, port), stream)
                if other != stream:
                    raise ValueError(
                        f"port {port} of {self._path} is that of the {NOUNS[other]} and of the {NOUNS[stream]}, RTCP "
                        "included: give each an even port of its own, as in 5004 and 5006"
                    )

    def play(self, selector: selectors.BaseSelector) -> None:
        """Take what comes from now on."""
        self._play_ns = self._looked_ns = now_ns = self._clock.now_ns()
        self._recording.note(now_ns, "play")
        self._presentation.player.begin(0, {}, now_ns)
        for way in self.ways.values():
            for link in way.opened.links:
                selector.register(link, selectors.EVENT_READ, way)

    def leave(self, now_ns: int) -> None:
        """BYE, to whoever was sent reports (RFC 3550 6.3.7)."""
        player = self._presentation.player
        player.say_goodbye(now_ns)
        for path, batch in player.outgoing():
            if self.ways[path.stream].sender.reported:
                self._send_rtcp(self.ways[path.stream], batch)

    def cancel(self) -> None:
        """See `ends.Receiver`: nothing here waits for long."""

    def close(self) -> None:
        """Close every socket."""
        for link in self._links:
            link.close()

    # ---- what arrives

    def attend(self, what: _DescribedWay, link: Any) -> None:
        """A socket is ready: packets, reports, or both."""
        datagrams = link.receive_batches()
        now_ns = self._clock.now_ns()
        self._overload.note(link.dropped(), now_ns)
        reports = what.opened.links[-1] is link
        media, control = ([], datagrams) if reports else (datagrams, [])
        if what.to.muxed:
            media, control = parted(datagrams)
        sender, before = what.sender, what.sender.host
        packets = sender.media(media, now_ns)
        for batch in (*sender.early(), *sender.control(control, now_ns)):
            self._presentation.receive(Path(what.stream, control=True), batch, now_ns)
        for batch in packets:
            self._presentation.receive(Path(what.stream, control=False), batch, now_ns)
        if sender.host != before:
            self._recording.note(now_ns, f"{what.stream} comes from", sender.host)

    # ---- what the moment asks for

    def wake_at(self) -> int:
        """The end is looked for ten times a second."""
        return self._looked_ns + LOOK_NS

    def move_along(self, now_ns: int) -> None:
        """What the player says, and what a person should know."""
        self._looked_ns = now_ns
        for path, batch in self._presentation.player.outgoing():
            self._send_rtcp(self.ways[path.stream], batch)
        for stream, incoming in self._incoming.items():
            if incoming.came_ns is None and stream not in self._named and now_ns - self._play_ns > LATE_START_NS:
                self._named.add(stream)
                self._notice(
                    f"no {NOUNS[stream]}",
                    f"no {NOUNS[stream]} for {LATE_START_NS // NS} s at {self._where(stream)}: see whether the sender "
                    f"runs, and sends there what {printable(self._path.name)} describes",
                )

    def over(self, now_ns: int) -> bool:
        """Whether all has come that will: BYE of the streams that live, or silence. TimeoutError when nothing came."""
        player = self._presentation.player
        if player.said_goodbye:
            return player.over
        heard = [incoming.heard_ns for incoming in self._incoming.values() if incoming.heard_ns is not None]
        if not heard:
            if now_ns - self._play_ns > START_NS:
                places = " and ".join(self._where(stream) for stream in self.ways)
                raise TimeoutError(
                    f"nothing has come to {places} for {START_NS // NS} s: see whether the sender runs, whether it "
                    "sends there, and whether a firewall holds back UDP"
                )
            return False
        if now_ns - max(heard) <= SILENCE_NS:
            return False
        if not self._silent:
            self._silent = True
            self._notice("silence", f"nothing has come for {SILENCE_NS // NS} s, so the stream is over")
        return True

    def deserted(self, now_ns: int) -> bool:
        """See `ends.Receiver`: nobody can be asked to come back."""
        return False

    def _where(self, stream: str) -> str:
        return self.ways[stream].opened.where

    def _send_rtcp(self, way: _DescribedWay, batch: Batch) -> None:
        to = way.sender.reports_to
        if to is not None and way.sender.affords(len(batch.data)):
            with contextlib.suppress(OSError):
                way.opened.links[-1].send_batch(batch, to)
