"""What the thread of a server and that of a client do once: take what has come, do what is due, say when to look again.

The threads' loops only wait. A turn reads its driver's clock and waits for nothing, so that whoever has the clock and
the links in hand can take the turns one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from selectors import SelectorKey
from typing import TypeAlias

from avlab.stream.clock import Clock
from avlab.stream.ends import Audience, Receiver
from avlab.stream.playing.presentation import Presentation
from avlab.stream.playing.sound import Sounding
from avlab.stream.sending.clip import Sending
from avlab.stream.sockets.links import Waker

Ready: TypeAlias = Iterable[tuple[SelectorKey, int]]
"""Links at which something has come, as a selector tells of them; a `Waker` is one."""


class ServerTurns:
    """The turns of a server: what is due leaves first, then whoever asks has their part.

    `over` is told the moment at which the clip has come to its end, before it is rewound.
    """

    def __init__(
        self, audience: Audience, sending: Sending, *, clock: Clock, over: Callable[[int], None] = lambda now_ns: None
    ) -> None:
        self._audience, self._sending, self._clock, self._over = audience, sending, clock, over

    def wake_at(self) -> int | None:
        """When the next turn has something to do, unless something comes before; reads no clock, changes nothing."""
        moments = (self._audience.wake_at(), self._sending.wake_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def turn(self, ready: Ready) -> bool:
        """One turn; whether the clip has come to its end. Raises what its source did, once all before it was sent."""
        audience, sending, clock = self._audience, self._sending, self._clock
        for key, _ in ready:
            if isinstance(key.fileobj, Waker):
                key.fileobj.clear()
            else:
                audience.attend(key.data, key.fileobj, clock.now_ns())
        now_ns = clock.now_ns()
        over = sending.send_due(now_ns)
        if over:
            self._end(now_ns)
        audience.look_after(clock.now_ns())
        if sending.start_ns is not None and not audience.occupied:
            self._rewind()
        sending.take(clock.now_ns())  # as late as can be: it is when a pacer gets its frame
        return over

    def leave(self) -> None:
        """The last turn: whoever plays is told, and the last bytes leave."""
        self._audience.say_goodbye(self._clock.now_ns())
        self._audience.drain()

    def _end(self, now_ns: int) -> None:
        self._audience.say_goodbye(now_ns)
        self._over(now_ns)
        fault = self._sending.fault()
        self._rewind()
        if fault is not None:
            raise fault

    def _rewind(self) -> None:
        self._sending.rewind()
        self._audience.rewind()


class ClientTurns:
    """The turns of a client, from PLAY on: what has come is taken, what is due is presented, and reports leave.

    `delay_ns` is the playout delay that is wanted, None for one that finds itself; to be set from any thread.
    """

    def __init__(
        self,
        presentation: Presentation,
        receiver: Receiver,
        *,
        sounding: Sounding | None,
        delay_ns: int | None,
        clock: Clock,
    ) -> None:
        self.delay_ns = delay_ns
        self._presented_delay_ns = delay_ns
        self._presentation, self._sounding, self._clock = presentation, sounding, clock
        self._receiver: Receiver | None = receiver  # None while there is no way to the server

    def wake_at(self) -> int:
        """When the next turn has something to do, unless something comes before; reads no clock, changes nothing."""
        presentation_ns = self._presentation.wake_at()
        return presentation_ns if self._receiver is None else min(presentation_ns, self._receiver.wake_at())

    def interrupt(self) -> int:
        """The way to the server has broken off: until `go_on`, turns present what has come. The moment."""
        now_ns = self._clock.now_ns()
        if self._receiver is not None:
            self._receiver.leave(now_ns)  # if it is there after all, it has less to do
        self._receiver = None
        self._presentation.interrupt(now_ns)
        return now_ns

    def go_on(self, receiver: Receiver) -> None:
        """The server sends again, by this way."""
        self._receiver = receiver

    def turn(self, ready: Ready) -> bool:
        """One turn; whether the stream is over, and all of it seen and heard."""
        asked = self._sounding is not None  # somebody besides the sockets may have something
        for key, _ in ready:
            if isinstance(key.fileobj, Waker):
                key.fileobj.clear()
                asked = True
            elif self._receiver is not None:
                self._receiver.attend(key.data, key.fileobj)
        now_ns = self._clock.now_ns()
        wanted_ns = self.delay_ns
        if not asked and self._presented_delay_ns == wanted_ns and now_ns < self.wake_at():
            return False  # part of a picture has come, and nothing is due: a large one comes in many turns
        if self._presented_delay_ns != wanted_ns:
            self._presented_delay_ns = wanted_ns
            self._presentation.set_delay(wanted_ns)
        if self._sounding is not None and self._sounding.back() and wanted_ns is not None:
            self._presentation.set_delay(wanted_ns)  # what the browser needed for the sound holds no more
        self._presentation.move_along(now_ns)
        if self._receiver is None:
            return False
        self._receiver.move_along(now_ns)
        return self._receiver.over(now_ns) and self._presentation.finished(now_ns)

    def leave(self) -> int:
        """The last turn, and when it was: every frame gets its fate, and the server its farewell."""
        now_ns = self._clock.now_ns()
        self._presentation.close_books(now_ns)
        if self._receiver is not None:
            self._receiver.leave(now_ns)
        return now_ns
