"""A server and a client as they run on sockets, in memory and on one virtual clock: no thread, no socket, no device.

The turns of both are taken one after the other at the moments that they ask for. RTSP, RTP and RTCP go through links of
memory that take no time; what a network does is the server's own, as `Server(network=)` has it.
"""

from __future__ import annotations

import errno
import math
import random
import selectors
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from avlab.measure.record.trace import Recorder, Trace
from avlab.media.sources import CHUNK_NS, Picture
from avlab.network.settings import Network
from avlab.stream.clock import VirtualClock
from avlab.stream.places import Places
from avlab.stream.playing.presentation import Presentation
from avlab.stream.playing.sound import Sounding
from avlab.stream.recording import PlayerRecording, SenderRecording
from avlab.stream.rtsp.audience import RtspAudience
from avlab.stream.rtsp.receiver import RtspReceiver
from avlab.stream.sending.adapting import Adapting, Delivery
from avlab.stream.sending.clip import Sending
from avlab.stream.turns import ClientTurns, ServerTurns
from avlab.wire.batch import Batch, batches
from avlab.wire.units import NS, Chunk

HOST, PORT = "127.0.0.1", 8554

_coming = count(1)
"""Numbers what comes to links."""
VIDEO, RTX, AUDIO, PLAYER = 1, 2, 3, 4
"""The sources: the pictures, those of their packets that are sent again, the sound, the client."""

MOST_TURNS = 10_000
"""At one moment; more, and the drivers go round in circles."""


# ---- links


class MemoryConnection:
    """One end of a connection: `socket.socket`'s methods that the drivers use. A call that waits has `wait` do so."""

    def __init__(self, address: tuple[str, int], peer: tuple[str, int], number: int, wait: Callable[..., bool]) -> None:
        self.address, self.peer_address, self.number = address, peer, number
        self.other: MemoryConnection | None = None
        self._come = bytearray()
        self.came = 0  # the number of the first of what waits
        self._ended = False
        self._seconds: float | None = None
        self._wait = wait

    @property
    def readable(self) -> bool:
        return bool(self._come) or self._ended

    def fileno(self) -> int:
        return self.number

    def getpeername(self) -> tuple[str, int]:
        return self.peer_address

    def getsockname(self) -> tuple[str, int]:
        return self.address

    def setblocking(self, flag: bool) -> None:
        self._seconds = None if flag else 0.0

    def settimeout(self, seconds: float | None) -> None:
        self._seconds = seconds

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """All options are as they are."""

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def send(self, data: bytes | bytearray) -> int:
        if self.other is None:
            raise BrokenPipeError(errno.EPIPE, "the other end is closed")
        if not self.other._come:
            self.other.came = next(_coming)
        self.other._come += data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.send(data)

    def recv(self, most: int) -> bytes:
        if not self.readable:
            if self._seconds == 0:
                raise BlockingIOError
            if not self._wait(lambda: self.readable, self._seconds):
                raise TimeoutError
        data = bytes(self._come[:most])
        del self._come[:most]
        return data

    def shutdown(self, how: int) -> None:
        self.close()

    def close(self) -> None:
        if self.other is not None:
            self.other._ended, self.other.other = True, None
            self.other = None


class MemoryDatagrams:
    """A `protocols.Datagrams`: what is sent to an address that nobody has is lost."""

    def __init__(self, system: MemorySystem, address: tuple[str, int], number: int) -> None:
        self.offload = True
        self.address, self.number = address, number
        self._system = system
        self._come: deque[tuple[int, Batch, tuple[str, int]]] = deque()

    @property
    def readable(self) -> bool:
        return bool(self._come)

    @property
    def came(self) -> int:
        return self._come[0][0]

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def can_segment(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def send(self, packets: list[bytes], to: Any) -> int:
        for batch in batches(packets):
            self.send_batch(batch, to)
        return len(packets)

    def send_batch(self, batch: Batch, to: Any) -> int:
        if (link := self._system.datagrams.get(to[:2])) is not None:
            link._come.append((next(_coming), batch.kept(), self.address))
        return batch.total

    def receive(self, most: int = 64) -> list[tuple[bytes, tuple[str, int]]]:
        return [(data, address) for batch, address in self.receive_batches(most) for data in batch.datagrams()]

    def ask_for_ages(self) -> bool:
        return False

    def receive_aged(self, most: int = 64) -> list[tuple[bytes, tuple[str, int], int]]:
        return [(data, address, 0) for data, address in self.receive(most)]

    def receive_batches(self, most: int = 64) -> list[tuple[Batch, tuple[str, int]]]:
        out: list[tuple[Batch, tuple[str, int]]] = []
        while self._come and len(out) < most:
            out.append(self._come.popleft()[1:])
        return out

    def dropped(self) -> int:
        return 0

    def close(self) -> None:
        self._system.datagrams.pop(self.address, None)


class MemoryListener:
    """A `protocols.Listening`."""

    def __init__(self, address: tuple[str, int], number: int) -> None:
        self.address, self.number = address, number
        self.arriving: deque[MemoryConnection] = deque()
        self.came = 0

    @property
    def readable(self) -> bool:
        return bool(self.arriving)

    def fileno(self) -> int:
        return self.number

    def getsockname(self) -> tuple[str, int]:
        return self.address

    def accept(self) -> tuple[MemoryConnection, tuple[str, int]]:
        if not self.arriving:
            raise BlockingIOError
        connection = self.arriving.popleft()
        return connection, connection.peer_address

    def close(self) -> None:
        """Nobody comes any more."""


class MemorySelector(selectors.BaseSelector):
    """Tells of links at which something has come, in the order in which it has, as epoll does."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, link: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[link] = key = selectors.SelectorKey(link, link.fileno(), events, data)
        return key

    def unregister(self, link: Any) -> selectors.SelectorKey:
        return self._keys.pop(link)

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, link: Any) -> selectors.SelectorKey:
        return self._keys[link]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = [(_end(link).came, key) for link, key in self._keys.items() if _end(link).readable]
        return [(key, selectors.EVENT_READ) for _, key in sorted(ready, key=lambda each: each[0])]


def _end(link: Any) -> Any:
    return getattr(link, "socket", link)


class MemorySystem:
    """A `protocols.System`, of one machine; `wait(until, seconds)` lets time pass until then, and says whether."""

    def __init__(self, wait: Callable[..., bool]) -> None:
        self.datagrams: dict[Any, MemoryDatagrams] = {}
        self._wait = wait
        self._listeners: dict[int, MemoryListener] = {}
        self._numbers = 0

    def _number(self) -> int:
        self._numbers += 1
        return 1_000 + self._numbers

    def selector(self) -> selectors.BaseSelector:
        return MemorySelector()

    def listen(self, host: str, port: int) -> MemoryListener:
        listener = self._listeners[port] = MemoryListener((host, port), self._number())
        return listener

    def udp_pair(self, host: str) -> tuple[MemoryDatagrams, MemoryDatagrams]:
        port = 20_000 + 2 * self._number()
        first, second = (MemoryDatagrams(self, (host, port + at), self._number()) for at in (0, 1))
        self.datagrams |= {first.address: first, second.address: second}
        return first, second

    def largest_datagram(self, host: str, most: int) -> int:
        return most

    def dialler(self) -> MemorySystem:
        return self

    def connect(self, host: str, port: int, timeout: float) -> MemoryConnection:
        here, there = (HOST, 40_000 + self._number()), (host, port)
        near = MemoryConnection(here, there, self._number(), self._wait)
        far = MemoryConnection(there, here, self._number(), self._wait)
        near.other, far.other = far, near
        near.settimeout(timeout)
        self._listeners[port].arriving.append(far)
        return near

    def lookup(self, host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
        return [(2, (host, port))]

    def cancel(self) -> None:
        """Nothing waits."""


class Drawn(random.Random):
    """What is drawn by chance: these, in order; then zeros, and zeros for all that has 16 bits."""

    def __new__(cls, numbers: list[int]) -> Drawn:
        return super().__new__(cls, 0)

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(0)
        self._left = deque(numbers)

    def getrandbits(self, bits: int) -> int:
        return self._left.popleft() if bits > 16 and self._left else 0


# ---- what is sent


class Work(NamedTuple):
    """What a frame costs: encoding the next one, waking late for it, sending it. Nanoseconds."""

    encode_ns: int = 0
    late_ns: int = 0
    send_ns: int = 0


class Clip:
    """A source of pictures that are no more than their numbers, and of silence."""

    live = False

    def __init__(self, times_ns: list[int], *, fps: float, rate: int | None, channels: int | None, end_ns: int) -> None:
        self.has_video, self.has_audio = True, rate is not None
        self.width, self.height, self.fps = 640, 360, Fraction(fps)
        self.rate, self.channels, self.duration_ns = rate, channels, end_ns
        self._times_ns, self._end_ns = times_ns, end_ns

    def pictures(self) -> Iterator[Picture]:
        for index, pts_ns in enumerate(self._times_ns):
            yield Picture(index, pts_ns, np.full((1, 1, 3), index % 256, np.uint8))

    def chunks(self) -> Iterator[Chunk]:
        assert self.rate is not None
        samples = np.zeros((self.rate * CHUNK_NS // NS, self.channels or 1), np.int16)
        for index in range(-(-self._end_ns // CHUNK_NS)):
            yield Chunk(index, index * CHUNK_NS, samples, self.rate)

    def close(self) -> None:
        """Nothing is open."""


class ServerClock(VirtualClock):
    """The world's clock, as a server has it; while a picture is encoded ahead, the moment is that of the encoder."""

    def __init__(self, world: VirtualClock) -> None:
        super().__init__()
        self._world = world
        self._encoder_ns: int | None = None

    def now_ns(self) -> int:
        return self._world.now_ns() if self._encoder_ns is None else self._encoder_ns

    def sleep_until(self, moment_ns: int) -> None:
        self._world.sleep_until(moment_ns)

    @contextmanager
    def encoding(self) -> Iterator[None]:
        self._encoder_ns = self._world.now_ns()
        yield
        self._encoder_ns = None

    def works(self, for_ns: int) -> None:
        assert self._encoder_ns is not None
        self._encoder_ns += for_ns


class Machine:
    """What a frame costs: the next one is encoded while this one waits, and none is looked at before this one is sent.

    `work()` is asked for each frame, when its pacer gets it. The first one is there from the beginning.
    """

    def __init__(self, clock: ServerClock, work: Callable[[], Work]) -> None:
        self.clock, self._work = clock, work
        self.now = Work()
        self._next = Work()
        self.free_ns = 0  # from when on the loop looks at the next frame

    def taken(self) -> None:
        """A frame goes to its pacer."""
        self.now = self._work()

    def encode(self, jpeg: tuple[bytes, int, int], first: bool) -> tuple[bytes, int, int]:
        self.clock.works(0 if first else self.now.encode_ns)
        return jpeg


class SteppedFeed:
    """A `sending.feed.Supply` that reads one unit ahead, when the one before is taken, and has no thread."""

    def __init__(self, passes: Callable[[], Iterator[Any]], *, machine: Machine | None, **_: Any) -> None:
        self._passes, self._machine = passes, machine
        self.ended, self.error = False, None
        self._units: Iterator[Any] | None = None
        self._unit: Any = None
        self._hungry = False

    def begin(self) -> None:
        if self._units is None:
            self._units = self._passes()
            self._read()

    def rewind(self) -> None:
        self._units, self._unit, self.ended, self._hungry = None, None, False, False

    def take(self) -> Any:
        self._hungry = True
        if self._units is None or self.ended:
            return None
        if self._unit is None:
            self.ended = True
            return None
        if self._machine is not None and self._machine.clock.now_ns() < self.ready_ns:
            return None
        self._hungry, unit = False, self._unit
        if self._machine is not None:
            self._machine.taken()
        self._read()
        return unit

    @property
    def ready_ns(self) -> int:
        """When the next unit can be taken."""
        machine = self._machine
        assert machine is not None
        return max(machine.free_ns, self._unit.encoded_ns if self._unit is not None else 0)

    def wake_at(self) -> int | None:
        """When somebody who has found nothing is to look again."""
        return self.ready_ns if self._hungry and not self.ended and self._units is not None else None

    def _read(self) -> None:
        assert self._units is not None
        if self._machine is None:
            self._unit = next(self._units, None)
            return
        with self._machine.clock.encoding():
            self._unit = next(self._units, None)


class LatePacer:
    """A pacer on a machine that wakes late: what it lets go of leaves so much after its moment."""

    def __init__(self, pacer: Any, machine: Machine) -> None:
        self._pacer, self._machine = pacer, machine
        self._pushed_ns = 0
        self.name = pacer.name
        self.keeps_deadlines = pacer.keeps_deadlines

    def restart(self, start_ns: int) -> None:
        self._pacer.restart(start_ns)

    def push(self, item: Any, now_ns: int) -> None:
        self._pushed_ns = now_ns
        self._pacer.push(item, now_ns)

    def wake_at(self) -> int | None:
        moment_ns = self._pacer.wake_at()
        return None if moment_ns is None else max(moment_ns, self._pushed_ns) + self._machine.now.late_ns

    def pull(self, now_ns: int) -> list[Any]:
        moment_ns = self.wake_at()
        if moment_ns is None or now_ns < moment_ns:
            return []
        self._pushed_ns = now_ns
        out = self._pacer.pull(now_ns)
        if out:
            self._machine.free_ns = now_ns + self._machine.now.send_ns
        return list(out)

    def notices(self) -> list[str]:
        return list(getattr(self._pacer, "notices", list)())


# ---- the two drivers


class MemoryDevice(NamedTuple):
    """A sound device: seconds of sound that it asks for at a time, and from its asking to that being heard."""

    block: float = 0.01
    latency: float = 0.01


class Played(NamedTuple):
    """What both sides have written down, and what they would tell a person."""

    server: Trace
    client: Trace
    notices: tuple[str, ...]


class InMemory:
    """One server, one client, one clock. `run` plays the clip from PLAY to the client's end.

    `jpegs(index, width, quality)` is a frame's bytes. Sequence numbers and timestamps begin with 0.
    """

    def __init__(
        self,
        clip: Clip,
        jpegs: Callable[[int, int, int], bytes],
        *,
        pacer: Any,
        work: Callable[[], Work] = Work,
        network: Network | None = None,
        repair: Any = None,
        parity: float = 0.25,
        spread: float = 0.0,
        rate_control: Any = None,
        width: int = 640,
        quality: int = 80,
        playout_delay: float | None = 0.1,
        device: MemoryDevice | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.notices: list[str] = []
        self.system = MemorySystem(self._wait)
        zeros = [0] * (2 + clip.has_audio)  # where each stream's timestamps begin, and a number for the description
        # DESCRIBE tells the sources of pictures and of those sent again, so that SETUP's draws for them are not used.
        drawn = Drawn([*zeros, VIDEO, RTX, 0, 0, 0, AUDIO])
        self._serve(clip, jpegs, pacer, work, drawn, rate_control)
        self._sending.width, self._sending.quality = width, quality
        self._delivery.spread, self._delivery.parity = spread, parity
        self._audience.network = Network() if network is None else network
        self._receive(repair, playout_delay, device or MemoryDevice())

    def _serve(
        self, clip: Clip, jpegs: Callable[..., bytes], pacer: Any, work: Callable[[], Work], chance: Any, control: Any
    ) -> None:
        self._ours = Recorder(side="server", epoch_ns=0, clock="virtual")
        self._delivery = Delivery()
        clock = ServerClock(self.clock)
        machine = Machine(clock, work)
        self._audience = RtspAudience(
            clip,  # type: ignore[arg-type]
            name="clip",
            host=HOST,
            port=PORT,
            loop=False,
            session_timeout=60.0,
            clock=clock,
            recorder=self._ours,
            delivery=self._delivery,
            play=lambda now_ns: self._sending.play(now_ns),
            notice=self._notice,
            places=Places(),
            system=self.system,
            chance=chance,
            unix_offset_ns=0,
        )

        def encode(image: Any, *, width: int, quality: int, matrix: Any) -> tuple[bytes, int, int]:
            number, encoded[0] = encoded[0], encoded[0] + 1
            return machine.encode((jpegs(number, width, quality), width, 0), number == 0)

        encoded = [0]

        def feed(passes: Any, *, ahead: int, **settings: Any) -> SteppedFeed:
            return SteppedFeed(passes, machine=machine if ahead == 1 else None, **settings)

        self._sending = Sending(
            clip,  # type: ignore[arg-type]
            loop=False,
            audience=self._audience,
            clock=clock,
            record=SenderRecording(self._ours).offered,
            ready=lambda: None,
            notice=self._notice,
            feed=feed,
            encode=encode,
        )
        self._sending.pacer = LatePacer(pacer, machine)

        def choose(choice: Any) -> None:
            self._sending.quality, self._sending.width = choice
            for name in ("quality", "width"):
                self._ours.setting(self.clock.now_ns(), name, getattr(choice, name))

        adapting = Adapting(self._sending, choose)
        adapting.controller = control
        self._delivery.heard = adapting.heard
        self._server_selector = self.system.selector()
        self._audience.open(self._server_selector)
        self._server = ServerTurns(self._audience, self._sending, clock=clock)

    def _receive(self, repair: Any, delay: float | None, device: MemoryDevice) -> None:
        self._theirs = Recorder(side="client", epoch_ns=0, clock="virtual")
        recording = PlayerRecording(self._theirs)
        self._presentation = Presentation(recording, self.notices.append, ssrc=PLAYER)
        self._receiver = RtspReceiver(
            self._audience.url,
            over={"video": "udp", "audio": "tcp"},
            fixed={"video"},
            repair=repair,
            timeout=5.0,
            presentation=self._presentation,
            clock=self.clock,
            recording=recording,
            notice=self._notice,
            system=self.system,
        )
        self._delay_ns = None if delay is None else round(delay * NS)
        self._device, self._asked, self._given = device, 0, 0
        self._sounding: Sounding | None = None
        self._client: ClientTurns | None = None
        self._client_selector = self.system.selector()

    def _notice(self, name: str, words: str) -> None:
        self.notices.append(words)

    # ---- time

    def run(self, most: float = 3600.0) -> Played:
        """Play the clip, in so many seconds at the most."""
        self._open()
        over = False
        until_ns = round(most * NS)
        while not over:
            over = self._moment()
            if not over:
                moment_ns = self._next_ns()
                assert moment_ns <= until_ns, "the client goes on and on"
                self.clock.sleep_until(moment_ns)
        assert self._client is not None
        self._take_server()  # the last reports
        self._theirs.meta["end_ns"] = self._client.leave()
        self._receiver.close()
        self._take_server()
        self._server.leave()
        return Played(self._ours.trace(), self._theirs.trace(), tuple(self.notices))

    def _open(self) -> None:
        offer = self._receiver.open()
        if offer.sound is not None:
            self._sounding = Sounding(
                rate=offer.sound.rate,
                channels=offer.sound.channels,
                audio="null",
                av_offset_ns=0,
                clock=self.clock,
                note=lambda name, words: None,
            )
            self._sounding.read(
                0, self.clock.now_ns() + round(self._device.latency * NS)
            )  # it says how far ahead it is
        self._presentation.begin(
            streams=set(offer.streams), delay_ns=self._delay_ns, sounding=self._sounding, size=offer.size, fps=offer.fps
        )
        self._receiver.play(self._client_selector)
        self._client = ClientTurns(
            self._presentation,
            self._receiver,
            sounding=self._sounding,
            delay_ns=self._delay_ns,
            clock=self.clock,
        )

    def _moment(self) -> bool:
        """All turns of this moment; whether the client is at its end."""
        for _ in range(MOST_TURNS):
            turned = self._take_server()
            if self._sounding is not None and self._due_ns() <= self.clock.now_ns():
                self._ask(self._sounding)
            if self._client is not None and (
                self._client_selector.select(0) or self._client.wake_at() <= self.clock.now_ns()
            ):
                turned = True
                if self._client.turn(self._client_selector.select(0)):
                    return True
            if not turned:
                return False
        raise AssertionError("so many turns at one moment")

    def _take_server(self) -> bool:
        ready = self._server_selector.select(0)
        wake_ns = self._server_wakes_at()
        if ready or (wake_ns is not None and wake_ns <= self.clock.now_ns()):
            self._server.turn(ready)
            return True
        return False

    def _server_wakes_at(self) -> int | None:
        feed = self._sending.feeds["video"].wake_at()
        moments = (self._server.wake_at(), feed)
        return min((moment for moment in moments if moment is not None), default=None)

    def _next_ns(self) -> int:
        assert self._client is not None
        moments = [self._server_wakes_at(), self._client.wake_at()]
        moments.append(self._due_ns() if self._sounding is not None else None)
        return min(moment for moment in moments if moment is not None)

    def _wait(self, until: Callable[[], bool], seconds: float | None) -> bool:
        """What the client does in its dialogue before PLAY: the server has its turns, until an answer is there."""
        deadline_ns = self.clock.now_ns() + round((seconds or 0.0) * NS)
        while not until():
            if self._take_server():
                continue
            wake_ns = self._server_wakes_at()
            if wake_ns is None or wake_ns > deadline_ns:
                self.clock.sleep_until(deadline_ns)
                return until()
            self.clock.sleep_until(wake_ns)
        return True

    # ---- the device

    def _due_ns(self) -> int:
        return round((self._asked + 1) * NS / (1 / self._device.block))

    def _ask(self, sounding: Sounding) -> None:
        due_ns = self._due_ns()
        self._asked += 1
        until = math.floor(self._asked * sounding.rate / (1 / self._device.block) + 0.5)
        count, self._given = until - self._given, until
        sounding.read(count, due_ns + round(self._device.latency * NS))
