"""A client's thread: its turns one after the other, and the way back to a server that is gone.

It owns the selector and the receiver that is in use. What it waits for between tries is what has come and is to be
presented; a try itself is a dialogue with the server, which `cancel` ends.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable

from avlab.stream.clock import Clock
from avlab.stream.ends import Offer, Receiver
from avlab.stream.handle import Worker
from avlab.stream.returning import Returning
from avlab.stream.sockets.links import Waker
from avlab.stream.turns import ClientTurns, Ready
from avlab.wire.units import NS

GOODBYE_NS = NS // 4
"""After a goodbye, how long a server that goes away may take to end the connection; at the end of a clip it stays."""


class ClientLoop:
    """The loop of a client that plays by `receiver` until the stream is over.

    `before` and `after` are called with each turn.
    """

    def __init__(
        self,
        turns: ClientTurns,
        receiver: Receiver,
        *,
        selector: selectors.BaseSelector,
        waker: Waker,
        clock: Clock,
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        self._turns, self._receiver = turns, receiver
        self._selector, self._waker, self._clock = selector, waker, clock
        self._before, self._after = before, after
        self._returning: Returning | None = None
        self._trying = self._shut = False
        self._over_ns: int | None = None  # since when all has come that will

    def come_back(
        self, returning: Returning, *, new_receiver: Callable[[], Receiver], go_on: Callable[[Offer], None]
    ) -> None:
        """When the stream breaks off, ask for it again, by a `new_receiver` each time, as `returning` has it.

        `go_on` is told what the server sends now, before any of it comes.
        """
        self._returning, self._new_receiver, self._go_on = returning, new_receiver, go_on

    @property
    def broken(self) -> bool:
        """Whether the stream has broken off, and is not back. From any thread."""
        return self._returning is not None and self._returning.broken

    # ---- the client's thread

    def run(self, worker: Worker, ended: Callable[[], bool]) -> None:
        """Turn until the worker is to stop, somebody else has `ended` it, or the stream is over. Raises what failed."""
        returning = self._returning
        while not worker.stopping.is_set() and not ended():
            wake_ns = self._turns.wake_at()
            if returning is not None and returning.at_ns is not None:
                wake_ns = min(wake_ns, returning.at_ns)
            ready = self._clock.wait(self._selector, wake_ns, attentive=True)
            self._before()
            if returning is None:
                over = self._turns.turn(ready)
            else:
                over = self._turned(ready, returning)
                if returning.at_ns is not None and self._clock.now_ns() >= returning.at_ns:
                    self._try_again(worker, returning)
            self._after()
            if over:
                return

    def look_up(self) -> None:
        """Have the thread see that its worker is to stop, also in the middle of a try; from any thread."""
        self._waker.wake()
        if self._trying:
            self._receiver.cancel()

    def close(self) -> None:
        """Close the selector and what leads to the server; the thread has ended."""
        self._selector.close()
        if not self._shut:
            self._shut = True
            self._receiver.close()

    def _turned(self, ready: Ready, returning: Returning) -> bool:
        """One turn; whether the stream is over for good."""
        try:
            over = self._turns.turn(ready)
            now_ns = self._clock.now_ns()
            if not over:
                self._over_ns = None
                return False
            self._over_ns = self._over_ns or now_ns
            if not self._receiver.deserted(now_ns):
                return now_ns - self._over_ns >= GOODBYE_NS
            why = "the server said goodbye and ended the connection"
        except (ConnectionError, TimeoutError) as error:
            why = str(error)
        now_ns = self._turns.interrupt()
        self._over_ns = None
        self._let_go()
        returning.broke(why, now_ns)
        return False

    def _let_go(self) -> None:
        """Close what leads to the server, and go on waiting for the rest."""
        self.close()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker, selectors.EVENT_READ)

    def _try_again(self, worker: Worker, returning: Returning) -> None:
        """Ask the server once more, as at the beginning."""
        self._trying, self._receiver, self._shut = True, self._new_receiver(), False
        try:
            if worker.stopping.is_set():  # from here on, look_up() ends it
                return
            self._go_on(self._receiver.open())
            self._receiver.play(self._selector)
        except (OSError, ValueError) as error:
            self._turns.interrupt()
            self._let_go()
            if not worker.stopping.is_set():
                returning.failed(error, self._clock.now_ns())
        else:
            self._turns.go_on(self._receiver)
            returning.back(self._clock.now_ns())
        finally:
            self._trying = False
