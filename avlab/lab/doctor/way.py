"""Whether a server can be played from here, and if not, where it ends: the checks behind `avlab doctor rtsp://...`.

Each step asks what the one before it has made possible: the name, a route, a connection, RTSP, and then a few seconds
of the stream over TCP and over UDP, as a client that shows nothing. What is found goes to `way_judgement`, which
decides.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from avlab.lab.doctor import machine, way_judgement
from avlab.lab.doctor.diagnosis import Judgement
from avlab.lab.doctor.machine import Finding, Machine
from avlab.lab.doctor.way_judgement import Came
from avlab.stream.client import Client
from avlab.stream.joining import read_code
from avlab.stream.rtsp.dialogue import RefusedError
from avlab.wire.text import printable
from avlab.wire.urls import Place

PATIENCE = 5.0
"""Seconds for a connection, and for each answer."""

LISTEN = 4.0
"""Seconds of the stream over each transport, at the most; less where all of it came, and reports were answered."""

LEAST = 1.0
"""Seconds of it at the least."""


def look(url: str, *, code: str | None = None, on: Machine | None = None, listen: float = LISTEN) -> list[Finding]:
    """The way to a server, step by step, up to the first that fails.

    ValueError for an address that is none of rtsp://, and for a code that is none.

    Args:
        url: rtsp://host:port/path.
        code: The class's code, where the server asks for one.
        on: What this computer says of itself; a test puts a faked one in its place.
        listen: Seconds of the stream over each transport, at the most.
    """
    Place.parse(url)  # or a sentence, as for a code that is none
    if code is not None:
        read_code(code)
    return list(_steps(url, code, on or Machine(), listen))


def verdict(findings: list[Finding]) -> str:
    """A line that says what 'avlab play' would do."""
    state = {finding.name: finding.state for finding in findings}
    problems = sum(finding.state == "problem" for finding in findings)
    if problems:
        return f"This address cannot be played from here yet: mend what is marked x ({problems})."
    if state.get("UDP, to here") == "ok":
        return "avlab plays this address: pictures over UDP, sound over TCP."
    return "avlab plays this address, with everything over TCP."


def _finding(name: str, judgement: Judgement) -> Finding:
    found, mend = printable(judgement.found), judgement.mend
    return Finding(name=name, state=judgement.state, found=found, mend=mend and printable(mend))


def _steps(url: str, code: str | None, on: Machine, listen: float) -> Iterator[Finding]:
    place = Place.parse(url)
    addresses, failure = _addresses(place)
    name = way_judgement.judge_name(place.host, [str(address[0]) for _, address in addresses], failure)
    yield _finding("address", name)
    if not addresses:
        return
    mine, failure = _own_address(addresses[0])
    address = str(addresses[0][1][0])
    yield _finding("route", way_judgement.judge_route(address, mine, failure))
    if mine is None:
        return
    number, failure = _connect(place)
    local = address.startswith("127.") or address in ("::1", mine)
    yield _finding("connection", way_judgement.judge_connection(place.where, number, failure, local=local))
    if number is not None:
        return
    tried = {way: _Try(way) for way in ("TCP", "UDP")}
    came = {}
    for way, one in tried.items():
        one.run(url, code, listen)
        if one.came is None:  # nothing that another transport would mend
            coded = code is not None or "@" in url
            yield _finding("RTSP", way_judgement.judge_answer(one.failure, one.status, coded=coded))
            return
        came[way] = one.came
    yield _finding("RTSP", way_judgement.judge_answer(None, None, coded=code is not None))
    works = {way: one.works for way, one in tried.items()}
    for way, other in (("UDP", "TCP"), ("TCP", "UDP")):
        firewall = "" if works[way] or way == "TCP" else _firewall(on)
        down = way_judgement.judge_down(way, came[way], other=works[other], firewall=firewall)
        yield _finding(f"{way}, to here", down)
        yield _finding(f"{way}, from here", way_judgement.judge_up(way, came[way]))


def _addresses(place: Place) -> tuple[list[tuple[int, Any]], str | None]:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], getattr(error, "strerror", None) or str(error)
    return [(int(family), address) for family, _, _, _, address in found], None


def _own_address(to: tuple[int, Any]) -> tuple[str | None, str | None]:
    """The address that datagrams to there would leave from; nothing is sent."""
    family, address = to
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
        except OSError as error:
            return None, error.strerror or str(error)
        return str(sock.getsockname()[0]), None


def _connect(place: Place) -> tuple[int | None, str | None]:
    """None where a connection is made; else the system's error number, 0 for a time that has passed, and its words."""
    try:
        with socket.create_connection((place.host, place.port), timeout=PATIENCE):
            return None, None
    except TimeoutError as error:  # the system's own has a number, and says the same
        return 0, str(error)
    except OSError as error:
        return error.errno or -1, error.strerror or str(error)


def _firewall(on: Machine) -> str:
    with suppress(Exception):  # it is only a hint
        judgement = machine.CHECKS["firewall"](on)
        return "" if judgement.state == "ok" else judgement.found
    return ""


@dataclass
class _Try:
    """A few seconds of the stream over one transport."""

    way: str
    came: Came | None = None
    failure: str | None = None
    status: int | None = None

    @property
    def works(self) -> bool:
        """Whether something came of each stream."""
        return self.came is not None and not self.came.refused and all(self.came.packets.values())

    def run(self, url: str, code: str | None, listen: float) -> None:
        """Play it, show nothing, and count. A server that cannot be played at all leaves `came` None."""
        over: Literal["udp", "tcp"] = "udp" if self.way == "UDP" else "tcp"
        client = Client(
            url, video_over=over, audio_over=over, audio="null", class_code=code, name="avlab doctor",
            playout_delay=0, timeout=PATIENCE,
        )  # fmt: skip
        try:
            client.start()
        except RefusedError as error:
            if error.method == "SETUP":
                self.came = Came({}, answered=False, answers=False, refused=str(error))
            else:
                self.failure, self.status = str(error), error.status
            return
        except (OSError, ValueError, RuntimeError) as error:
            self.failure = str(error) or type(error).__name__
            return
        began = time.perf_counter()
        with suppress(OSError, ValueError, RuntimeError):  # one that ends, or breaks off: what came is what counts
            try:
                while client.running and time.perf_counter() - began < listen:
                    client.wait(0.1)
                    self.came = _counted(client, over, time.perf_counter() - began)
                    complete = self.works and (self.came.answered or not self.came.answers)
                    if self.came.refused or (complete and self.came.seconds >= LEAST):
                        break
            finally:
                client.stop()
        self.came = _counted(client, over, time.perf_counter() - began)


def _counted(client: Client, over: str, seconds: float) -> Came:
    """What a client has got so far, and what the server has answered of what it said."""
    trace, streams = client.trace, client.presentation.player.streams
    settings = trace.settings
    granted = settings[settings["name"].isin(["video_over", "audio_over"])]["value"]
    if not (granted == over).all():
        words = f"the server refuses {over.upper()}, and grants {' and '.join(sorted(set(granted))).upper()}"
        return Came({}, answered=False, answers=False, refused=words)
    arrived, clocks = trace.packets.dropna(subset=["received"]), trace.clocks
    packets = {name: int((arrived["stream"] == name).sum()) for name in ("video", "audio") if name in streams}
    answers = clocks[clocks["echo"].notna() & (clocks["peer"] == clocks["ssrc"])]
    trips = answers["time"] - answers["echo"] - answers["held"]
    return Came(
        packets,
        answered=len(answers) > 0,
        answers=any(incoming.described.tells_times for incoming in streams.values()),
        trip_ms=max(0.0, float(trips.min()) * 1e3) if len(trips) else None,
        seconds=seconds,
    )
