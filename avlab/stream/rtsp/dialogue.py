"""Signalling, the client's side: describe, set up, play, keep alive, tear down. RFC 2326.

The dialogue before PLAY is held in turn, with a time limit on each answer; then the connection goes to the client's
thread, and `feed` reads what is interleaved on it. What is sent is strict, what is accepted is not: an answer counts
as far as it is understood.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from avlab.stream.clock import Clock, MonotonicClock
from avlab.stream.rtsp.playable import Playable, printable
from avlab.stream.sockets.links import host_of
from avlab.stream.sockets.multicast import is_group
from avlab.stream.sockets.protocols import Connection, Datagrams, System
from avlab.stream.sockets.system import Sockets
from avlab.wire import rtsp, sdp
from avlab.wire.answers import Answers, reply_to
from avlab.wire.digest import MOST_TRIES, Credentials
from avlab.wire.units import NS, WireError
from avlab.wire.urls import Place, ip_address, login_of, redacted, request_uri, same_host, track_of

MAX_MOVES = 3
"""How often a server may send on to another address."""

MOVED = (301, 302, 303, 307, 308)
"""Statuses that tell another address: RFC 2326 11.3, and what servers have from HTTP."""

OTHER_WAY = (400, 403, 406, 455, 459, 461, 462, 500, 501, 551)
"""Statuses by which servers refuse a transport in SETUP: another one may be granted."""

EARLY_PACKETS = 2048
EARLY_BYTES = 2 << 20
"""The most that is kept of what is interleaved before the dialogue is over; of more the newest, as they join what
follows PLAY's answer without a gap, and older ones would only be late."""

QUIET = 0.5
"""Seconds without a byte after which a body is whole whose length the answer does not tell."""

EARLIER_SHARE = 0.5
"""Of the time for an answer, how much has to pass until one with an earlier request's number is taken for it."""

LOOKUP_TIMEOUT = 2.0
"""Seconds at most to learn where a name leads that SETUP's answer has for an address."""

KEEP_ALIVE_NS = 30 * NS
"""The longest between two signs of life, whatever the server says of its patience."""

MAX_START_NS = 1 << 61
"""Where PLAY's answer may say that it starts: some 73 years, since live servers count from 1970."""

Bind = Callable[[str], tuple[Datagrams, Datagrams]]
"""Makes a pair of UDP links for RTP and RTCP on a local address."""

Join = Callable[[str, tuple[int, int], str], tuple[Datagrams, Datagrams]]
"""Makes a pair that gets what is sent to two ports of a group, at the interface of a local address."""


@dataclass(frozen=True, slots=True)
class Granted:
    """How a server sends one stream."""

    media: sdp.Media
    host: str
    """The address at the other end of the RTSP connection."""
    sources: tuple[str, ...] = ()
    """The addresses that the server says datagrams come from, if it says any."""
    links: tuple[Datagrams, Datagrams] | None = None
    server_port: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None
    ssrc: int | None = None
    repairs: frozenset[str] = frozenset()
    """Those that were wished for and are there, by name."""
    repair_ssrcs: Mapping[str, int] = field(default_factory=dict)
    """The sources of those that are streams of their own, as far as they are told."""


WANTS_LOGIN = "wants a user name and a password"

HOW_TO_LOG_IN = (
    "play rtsp://USER:PASSWORD@host:port/path, or give class_code= (avlab play --code) where a class has a code"
)


class RefusedError(OSError):
    """The server answered with another status than 200. `login` and `how` are what to say of a 401, and to do."""

    def __init__(self, where: str, method: str, response: rtsp.Response, *, login: str = "", how: str = "") -> None:
        self.method, self.status = method, response.status
        if response.status in (401, 407):
            words = f"the server at {where} {login or WANTS_LOGIN} ({response.status}): {how or HOW_TO_LOG_IN}"
        else:
            reason = printable(response.reason) or rtsp.STATUS.get(response.status, "no reason given")
            words = f"the server at {where} refused {method}: {response.status} {reason}"
            if response.status in MOVED and (location := redacted(response.headers.get("Location", "").strip())):
                words += f", and names {printable(location)}: play that address"
        if response.status == 461:
            words += ": another transport may be granted, as video_over and audio_over ask for"
        super().__init__(words)


class _HungUpError(ConnectionError):
    """The connection ended before a byte of the answer to `method`."""

    def __init__(self, words: str, method: str) -> None:
        super().__init__(words)
        self.method = method


class Session:
    """A dialogue with one RTSP server.

    ValueError for an address that is none; OSError, with a sentence, when the server cannot be reached, does not
    answer within `timeout` seconds, or refuses. No sentence, request or `url` shows a password of the address.
    `credentials` answer the server's challenges, those of the address when left out; another server, to which this one
    may send on, gets none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        repairs: Sequence[str] = (),
        playable: Playable | None = None,
        system: System | None = None,
        clock: Clock | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"a client plays an address such as rtsp://host:port/path, not {url!r:.60}")
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self._place = Place.parse(url)
        self.url = redacted(url)
        if credentials is None and (login := login_of(url)) is not None:
            credentials = Credentials(*login)
        self._credentials = None if credentials is None else credentials.again()
        self._left_behind = False  # credentials that were for another server
        self.ssrc = secrets.randbits(32)
        self.description = sdp.SessionDescription()
        self.left_out: tuple[str, ...] = ()
        """A sentence for each kind of medium that is described and cannot be played, while another one can."""
        self.moves: list[str] = []
        """Where the server has sent on to, a sentence each."""
        self.plan: dict[str, str] = {}
        """How each stream is carried: udp or tcp."""
        self._repairs, self._timeout = repairs, timeout
        self._playable = Playable() if playable is None else playable
        self._clock = MonotonicClock() if clock is None else clock
        self._dialler = (Sockets() if system is None else system).dialler()
        self._socket: Connection | None = None
        self.answers = Answers()
        self._answered = False  # on this connection
        self._early: deque[rtsp.Interleaved] = deque()
        self._early_bytes = 0
        self._cseq = 0
        self.numbered = True
        """Whether the server's answers have the numbers of what they answer."""
        self._id: str | None = None
        self._base = self._place.uri
        self._session_timeout = rtsp.DEFAULT_TIMEOUT
        self._methods: set[str] = set()
        self._streams: dict[str, str] = {}  # stream -> its address

    @property
    def where(self) -> str:
        """host:port, for messages."""
        return self._place.where

    @property
    def keep_alive_ns(self) -> int:
        """How often to say that one is still there."""
        return min(KEEP_ALIVE_NS, max(NS // 2, self._session_timeout * NS // 2))

    @property
    def skipped(self) -> int:
        """Bytes of the connection that belonged to no answer and no packet."""
        return self.answers.skipped

    @property
    def unclaimed(self) -> Counter[int]:
        """How many packets have come on each channel that was not agreed on, as far as they were counted."""
        return self.answers.unclaimed

    def open(
        self, over: Mapping[str, str], bind: Bind, join: Join | None = None, *, fixed: Collection[str] = ()
    ) -> dict[str, Granted]:
        """Connect, describe and set up every stream that can be played; how each will come.

        `over` maps video and audio to udp, tcp or multicast. A server that refuses a mixture is asked again, with UDP
        for all and then with TCP for all; but a stream that is in `fixed` and wanted over UDP, or by multicast, comes
        so or not at all. `join` is for multicast alone.
        """
        plans = [dict(over)] + [dict.fromkeys(over, way) for way in ("udp", "tcp")]
        kept = [stream for stream in fixed if over.get(stream) in ("udp", "multicast")]
        plans = [plan for plan in plans if all(plan[stream] == over[stream] for stream in kept)]
        unique = [plan for at, plan in enumerate(plans) if plan not in plans[:at]]
        for plan in unique:
            self._connect()
            try:
                granted = self._set_up(plan, bind, join)
            except (RefusedError, _HungUpError) as error:  # some refuse a transport by hanging up
                refused = error.method == "SETUP" and (isinstance(error, _HungUpError) or error.status in OTHER_WAY)
                if plan is unique[-1] or not refused:
                    raise
                self.close()
            else:
                self.plan = {stream: plan[stream] for stream in granted}
                return granted
        raise AssertionError("the last plan returns or raises")

    def play(self) -> rtsp.Response:
        """Ask for the stream from now on."""
        return self._ask("PLAY", self._base, {"Range": "npt=0-"})

    def positions(self, playing: rtsp.Response) -> tuple[int, dict[str, int]]:
        """From PLAY's answer: where it starts, in ns of the clip, and each stream's timestamp there."""
        start_ns, infos = 0, {}
        with contextlib.suppress(WireError):  # a range or an RTP-Info that is not understood is as good as none
            start_ns = sdp.NptRange.parse(playing.headers.get("Range", "npt=0-")).start_ns or 0
        for entry in rtsp.split_rtp_info(playing.headers.get("RTP-Info", "")):
            with contextlib.suppress(WireError):
                [info] = rtsp.parse_rtp_info(entry)
                stream = self._stream_of(sdp.resolve_control(self._base, info.url))
                if stream is not None and info.rtptime is not None:
                    infos[stream] = info.rtptime
        return (start_ns if start_ns <= MAX_START_NS else 0), infos

    def _stream_of(self, url: str) -> str | None:
        """The stream that an address names: by path and query, else by the last part of them if that is one's alone."""
        tracks = {stream: track_of(address) for stream, address in self._streams.items()}
        named = track_of(url)
        for part in (named, named.rpartition("/")[2]):
            found = [stream for stream, track in tracks.items() if part in (track, track.rpartition("/")[2])]
            if len(found) == 1:
                return found[0]
        return None

    def fileno(self) -> int:
        """For selectors, until the connection has another owner."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def _connection(self) -> Connection:
        """The connection, while it is here; ConnectionError, with a sentence, when it is not."""
        if self._socket is None:
            raise ConnectionError(f"the connection to {self.where} is closed: play again")
        return self._socket

    def pump(self) -> bool:
        """Take what waits on the connection into what came early; False when the connection has ended."""
        if self._socket is None:
            return False
        try:
            data = self._socket.recv(65_536)
            events = self.answers.feed(data)
            self._reply(self._socket, events)
            self._keep(events)
        except (BlockingIOError, InterruptedError, TimeoutError):
            return True
        except (OSError, WireError):
            return False
        return bool(data)

    def detach(self) -> Connection:
        """The connection, for another owner."""
        connection, self._socket = self._connection, None
        return connection

    def feed(self, data: bytes) -> list[rtsp.Event]:
        """What bytes from the connection hold, after what came during the dialogue.

        ConnectionError, with a sentence, when it is nothing that can be read.
        """
        early = list(self._early)
        self._early.clear()
        self._early_bytes = 0
        try:
            return [*early, *(self.answers.feed(data) if data else [])]
        except WireError as error:
            raise ConnectionError(f"the connection to {self.where} cannot be read any more: {error}") from error

    def keep_alive(self) -> bytes:
        """A request that does nothing but say that one is there (RFC 2326 10.8)."""
        method = "GET_PARAMETER" if "GET_PARAMETER" in self._methods else "OPTIONS"
        return self._request(method, self._base).serialize()

    @property
    def asked(self) -> int:
        """The number of the newest request (CSeq)."""
        return self._cseq

    def teardown(self) -> bytes:
        """The request that ends the session."""
        return self._request("TEARDOWN", self._base).serialize()

    def leave(self, patience: float = 0.0) -> None:
        """Tear the session down and let go of the connection, while it is still here.

        No answer is waited for. `patience` is how many seconds the server is given to notice, before this returns.
        """
        until_ns = self._clock.now_ns()
        if self._socket is not None:
            until_ns += round(patience * NS)
            with contextlib.suppress(OSError):
                self._socket.settimeout(1.0)
                self._socket.sendall(self.teardown())
                self._socket.shutdown(socket.SHUT_WR)
                while (left_ns := until_ns - self._clock.now_ns()) > 0 and _receive(self._socket, left_ns / NS) != b"":
                    pass  # it may have been sending
        self.close()
        self._clock.sleep_until(until_ns)

    def cancel(self) -> None:
        """Have a dialogue on another thread fail at once, and every one after it."""
        self._dialler.cancel()

    def close(self) -> None:
        """Let go of the connection, if it is still here."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._id = None

    def _connect(self) -> None:
        self.answers, self._answered = Answers(), False
        self._early.clear()
        self._early_bytes = 0
        host, port = self._place.host, self._place.port
        try:
            self._socket = self._dialler.connect(host, port, self._timeout)
        except TimeoutError as error:
            raise TimeoutError(
                f"{self.where} does not answer within {self._timeout:g} s: "
                f"check the address, and that no firewall is between{self._place.tried}"
            ) from error
        except (socket.gaierror, UnicodeError) as error:
            raise OSError(f"the host {host!r} is not known: check its spelling, or write its address") from error
        except ConnectionRefusedError as error:
            raise ConnectionRefusedError(
                f"nothing listens at {self.where}: start the server first, or check the port{self._place.tried}"
            ) from error
        except OSError as error:
            raise OSError(f"{self.where} cannot be reached: {error.strerror or error}") from error
        with contextlib.suppress(OSError):  # macOS: EINVAL once the peer has reset it
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _set_up(self, over: Mapping[str, str], bind: Bind, join: Join | None) -> dict[str, Granted]:
        described = self._describe()
        bases = (described.headers.get(name, "").strip(" \t\"'") for name in ("Content-Base", "Content-Location"))
        uri = self._place.uri
        self._base = next((request_uri(base) for base in bases if re.match("rtsp[su]?://", base, re.IGNORECASE)), uri)
        try:
            self.description = sdp.parse(described.body.decode("utf-8", "replace"))
        except WireError as error:
            raise ValueError(
                f"what the server at {self.where} says of its stream is not understood: {error}"
            ) from error
        wanted = self._playable.chosen(self.description.media)
        if not wanted:
            raise ValueError(self._playable.refusal(self.description.media, self.url))
        self.left_out = self._playable.left_out(self.description.media, wanted)
        granted = {}
        self._streams = {}
        for at, (stream, media) in enumerate(wanted.items()):
            self._streams[stream] = sdp.resolve_control(self._base, media.control)
            granted[stream] = self._set_up_stream(stream, media, over[stream], 2 * at, bind, join)
        self.answers.channels = {channel for grant in granted.values() for channel in grant.channels or ()}
        self._base = sdp.resolve_control(self._base, self.description.control)
        return granted

    def _describe(self) -> rtsp.Response:
        """OPTIONS and DESCRIBE, at the address that the server sends on to, if it does."""
        for _ in range(MAX_MOVES + 1):
            options = self._exchange("OPTIONS", self._place.uri)
            if options.status in MOVED:
                self._move(options)
                continue
            if options.status in (502, 503, 504):  # nothing else will be answered either
                raise RefusedError(self.where, "OPTIONS", options)
            if options.status == 401 and self._credentials is not None:
                raise self._refused("OPTIONS", options)  # to ask once more would be a second wrong guess
            # Who does not know OPTIONS, or wants a password for it, may describe all the same.
            self._methods = {method.strip().upper() for method in options.headers.get("Public", "").split(",")}
            described = self._exchange("DESCRIBE", self._place.uri, {"Accept": "application/sdp"})
            if described.status in MOVED:
                self._move(described)
                continue
            if not 200 <= described.status <= 299:
                raise self._refused("DESCRIBE", described)
            return described
        raise OSError(
            f"{self.url} is sent on more than {MAX_MOVES} times, last to {self._place.uri}: play the address where "
            "it ends"
        )

    def _move(self, answer: rtsp.Response) -> None:
        """Go where the server sends on to."""
        given = answer.headers.get("Location", "").strip(" \t\"'")
        location = redacted(given)
        if location.startswith("/"):
            location = re.match("[a-z]+://[^/?]*", self._place.uri, re.IGNORECASE)[0] + location  # type: ignore[index]
        try:
            place = Place.parse(location)
        except ValueError:
            raise OSError(
                f"the server at {self.where} sends on ({answer.status}) to {printable(location) or 'nowhere'}, which "
                "is no address to play: it has to begin with rtsp://"
            ) from None
        words = f"the server at {self.where} sends on to {printable(place.uri)}"
        if self._credentials is not None and (
            place.port != self._place.port or not same_host(place.host, self._place.host)
        ):
            self._credentials, self._left_behind = None, True
            words += ", which is not told the user name and the password"
        self.moves.append(words)
        self._place = place
        self.close()
        try:
            self._connect()
        except OSError as error:
            raise type(error)(f"{error} ({words})") from error

    def _set_up_stream(
        self, stream: str, media: sdp.Media, over: str, channel: int, bind: Bind, join: Join | None
    ) -> Granted:
        here = host_of(self._connection.getsockname())
        host = host_of(self._connection.getpeername())
        links = None
        # Over TCP nothing is sent again, and what takes captures apart knows RTP/AVP alone there.
        wish = rtsp.Transport(profile=sdp.FEEDBACK if media.feedback and over != "tcp" else sdp.PLAIN)
        if over == "udp":
            links = bind(here)
            wish = replace(wish, lower="UDP", client_port=(links[0].port, links[1].port))
        elif over == "multicast":
            wish = replace(wish, unicast=False)
        else:
            wish = replace(wish, lower="TCP", interleaved=(channel, channel + 1))
        repairs = [name for name in self._repairs if over == "udp" and name in media.repairs]
        wishes = {}
        if repairs or (media.feedback and over == "udp"):  # else feedback alone would say that lost packets are wanted
            wishes[rtsp.REPAIR_HEADER] = ", ".join(repairs) or rtsp.NO_REPAIR
        answer = self._ask_transport(self._streams[stream], wish, wishes, either=media.feedback)
        self._take_session(answer.headers.get("Session", ""))
        given = _transport(answer.headers.get("Transport", ""), wish)
        if given is None:
            raise RefusedError(self.where, "SETUP", rtsp.Response(461))
        if over == "multicast":
            if join is None or given.unicast or given.port is None or not is_group(given.destination):
                raise RefusedError(self.where, "SETUP", rtsp.Response(461, "no group of multicast was told"))
            links = join(given.destination, given.port, here)
        channels = (given.interleaved or wish.interleaved) if over == "tcp" else None
        server_port = given.server_port if given.server_port and all(given.server_port) else None
        again = media.again_from(given.ssrc) if "rtx" in repairs else None
        return Granted(
            media,
            host,
            sources=self._resolved(given.source, host) if links is not None else (),
            links=links,
            server_port=server_port,
            channels=channels,
            ssrc=given.ssrc,
            repairs=frozenset(repairs),
            repair_ssrcs=({} if again is None else {"rtx": again})
            | rtsp.repair_ssrcs(answer.headers.get(rtsp.REPAIR_HEADER, "")),
        )

    def _ask_transport(
        self, url: str, wish: rtsp.Transport, headers: Mapping[str, str], *, either: bool
    ) -> rtsp.Response:
        """SETUP. With `either`, a server that refuses the one profile is asked for the other, RTP/AVP or RTP/AVPF."""
        try:
            return self._ask("SETUP", url, {"Transport": wish.serialize(), **headers})
        except RefusedError as error:
            if not either or error.status not in OTHER_WAY:
                raise
        other = replace(wish, profile=sdp.PLAIN if wish.profile == sdp.FEEDBACK else sdp.FEEDBACK)
        return self._ask("SETUP", url, {"Transport": other.serialize(), **headers})

    def _resolved(self, source: str, host: str) -> tuple[str, ...]:
        """The addresses that `source=` stands for, of the host's family: itself, or what its name leads to."""
        address = ip_address(source)
        if address is not None:
            return () if address.is_multicast or address.is_unspecified else (source,)
        found: list[str] = []
        if source:
            with contextlib.suppress(OSError, UnicodeError, ValueError):  # a name that nobody knows is as good as none
                known = self._dialler.lookup(source, self._place.port, min(self._timeout, LOOKUP_TIMEOUT))
                found += [str(address[0]) for _, address in known if (":" in address[0]) == (":" in host)]
        return tuple(dict.fromkeys(found))[:4]

    def _take_session(self, value: str) -> None:
        """The session's name and patience; a server that names none wants none named."""
        try:
            session = rtsp.SessionHeader.parse(value)
        except WireError:
            return
        self._id, self._session_timeout = session.id, session.timeout

    def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> rtsp.Response:
        """One request and its answer. RefusedError for another status than one of success."""
        response = self._exchange(method, url, headers)
        if not 200 <= response.status <= 299:
            raise self._refused(method, response)
        return response

    def _refused(self, method: str, response: rtsp.Response) -> RefusedError:
        """What to raise; of a 401, with what to do about it."""
        login = how = ""
        if self._left_behind:
            how = "those of the address are for the server that has sent on here: play this one's address"
        elif self._credentials is not None:
            refusal = printable(self._credentials.refusal)
            login, how = "does not accept the user name and the password, or the code", "check how they are written"
            if refusal == "basic":
                login = "wants the password as it is (Basic), which everybody on the way can read"
                how = "allow_basic=True (avlab play --allow-basic) sends it all the same"
            elif refusal:
                login, how = (
                    f"wants a proof that avlab does not know: {refusal}",
                    "have it ask for Digest, MD5 or SHA-256",
                )
        return RefusedError(self.where, method, response, login=login, how=how)

    def challenged(self, response: rtsp.Response) -> bool:
        """Take the challenge of an answer that refuses a sign of life; whether to send it again.

        The password has been right before, so that it is the nonce, whether it is called stale or not.
        """
        if response.status != 401 or self._credentials is None:
            return False
        return self._credentials.take(response.headers.get("WWW-Authenticate", ""), answered=False)

    def _exchange(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> rtsp.Response:
        """One request and its answer, with credentials where the server asks for them."""
        for tried in range(MOST_TRIES):
            response = self._exchange_once(method, url, headers)
            if response.status != 401 or self._credentials is None:
                break
            value = response.headers.get("WWW-Authenticate", "")
            if not self._credentials.take(value, answered=tried > 0):
                break
        return response

    def _exchange_once(self, method: str, url: str, headers: Mapping[str, str] | None) -> rtsp.Response:
        """One request and its answer, on another connection where the server ends each with its answer."""
        try:
            return self._exchange_here(method, url, headers)
        except _HungUpError:
            if not self._answered or self._id is not None:
                raise
        self.close()
        self._connect()
        return self._exchange_here(method, url, headers)

    def _exchange_here(self, method: str, url: str, headers: Mapping[str, str] | None) -> rtsp.Response:
        connection = self._connection
        request = self._request(method, url, headers)
        # The time is the answer's: whatever else comes meanwhile does not prolong it.
        deadline_ns = self._clock.now_ns() + round(self._timeout * NS)
        earlier_ns = deadline_ns - round(self._timeout * (1 - EARLIER_SHARE) * NS)
        heard = False
        earlier: rtsp.Response | None = None  # an answer to what is asked, perhaps, with an older request's number
        try:
            connection.settimeout(self._timeout)
            connection.sendall(request.serialize())
            while True:
                left = (deadline_ns - self._clock.now_ns()) / NS
                open_ended = self.answers.open_ended
                patience = min(left, QUIET) if open_ended or earlier is not None else left
                data = None if left <= 0 else _receive(connection, patience)
                heard = heard or bool(data)
                waiting = data is None and not open_ended and self._clock.now_ns() < deadline_ns
                events = self.answers.feed(data) if data else [] if waiting else self.answers.end()
                response, older = self._find(events, request)
                earlier = older or earlier
                connection.settimeout(max(0.001, left))
                self._reply(connection, events)
                if response is None and earlier is not None and self._clock.now_ns() >= earlier_ns:
                    response, self.numbered = earlier, False  # some servers give each answer the same number
                if response is not None:
                    self._answered = True
                    return response
                if data == b"":
                    words = f"the server at {self.where} hung up instead of answering {method}{self._said()}"
                    raise ConnectionError(words) if heard else _HungUpError(words, method)
                if data is None and deadline_ns <= self._clock.now_ns():
                    raise TimeoutError
        except TimeoutError as error:
            raise TimeoutError(
                f"the server at {self.where} does not answer {method} within {self._timeout:g} s: "
                f"is it an RTSP server?{self._said()}"
            ) from error
        except WireError as error:
            raise ConnectionError(f"{self.where} is no RTSP server: {error}") from error
        except (ConnectionResetError, BrokenPipeError) as error:
            words = f"the server at {self.where} broke off instead of answering {method}"
            raise _HungUpError(words, method) from error
        except ConnectionError:
            raise
        except OSError as error:
            raise OSError(f"{self.where} cannot be reached any more: {error.strerror or error}") from error

    def _said(self) -> str:
        """What came instead, for a sentence."""
        return f" What it sends begins with {self.answers.stray!r}" if self.answers.stray else ""

    @staticmethod
    def _reply(connection: Connection, events: Iterable[rtsp.Event]) -> None:
        """Answer what the server asks by itself."""
        with contextlib.suppress(ConnectionError):  # a lost connection is noticed where it is read
            for event in events:
                if isinstance(event, rtsp.Request):
                    connection.sendall(reply_to(event).serialize())

    def _find(
        self, events: list[rtsp.Event], request: rtsp.Request
    ) -> tuple[rtsp.Response | None, rtsp.Response | None]:
        """The answer to the request among what came, and one with an older number. One without a number answers what
        was asked.

        WireError where the request itself comes back.
        """
        found = earlier = None
        cseq = request.cseq
        for event in events:
            if isinstance(event, rtsp.Request) and event.serialize() == request.serialize():
                raise WireError("It sends back what it is sent.")
            if isinstance(event, rtsp.Response) and event.status >= 200:
                number = re.match(r"[0-9]{1,10}", event.headers.get("CSeq", ""), re.ASCII)
                if number is None or not self.numbered or not 0 < int(number[0]) < cseq:
                    found = event
                    self.numbered = self.numbered and (number is None or int(number[0]) == cseq)
                else:  # an earlier one's, told twice; or the number is not to be believed
                    earlier = event
        self._keep(events)
        return found, earlier

    def _keep(self, events: Iterable[rtsp.Event]) -> None:
        """Keep the packets among events for `feed`, within bounds."""
        for event in events:
            if isinstance(event, rtsp.Interleaved):
                self._early.append(event)
                self._early_bytes += len(event.data)
        while self._early_bytes > EARLY_BYTES or len(self._early) > EARLY_PACKETS:
            self._early_bytes -= len(self._early.popleft().data)

    def _request(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> rtsp.Request:
        self._cseq += 1
        known = {"CSeq": str(self._cseq), "User-Agent": rtsp.PRODUCT}
        if self._id is not None:
            known["Session"] = self._id
        uri = request_uri(url)
        if self._credentials is not None:
            proof = self._credentials.header(method, uri, cnonce=secrets.token_hex(16))
            known |= {} if proof is None else {"Authorization": proof}
        return rtsp.Request(method, uri, rtsp.Headers(known | dict(headers or {})))


def _receive(connection: Connection, seconds: float) -> bytes | None:
    """What comes within so many seconds; empty at the connection's end, None when nothing comes."""
    connection.settimeout(max(0.001, seconds))
    try:
        return connection.recv(65_536)
    except TimeoutError:
        return None


def _transport(value: str, wish: rtsp.Transport) -> rtsp.Transport | None:
    """What SETUP's answer grants; an answer that does not say so grants what was asked. None when it is another way."""
    given: rtsp.Transport | None
    try:
        given = next(iter(rtsp.parse_transport(value)), wish)
    except WireError:  # a port that cannot be, say
        given = wish if ("/TCP" in value.upper()) == (wish.lower == "TCP") else None
    if given is None or given.lower == wish.lower or (wish.lower == "TCP" and given.interleaved is not None):
        return given
    return None
