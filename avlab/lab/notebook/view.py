"""The live view in a notebook: a client's picture, and its sound where the browser is to play it.

One thread takes pictures from a tap and sends each JPEG as it came; `send` is all it may touch of the widget. The page
decodes, paints, plays, and says every 250 ms how far it has come and what it has shown when: that is the record's word.
`view.js` is the page's half.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import anywidget
from IPython.core.getipython import get_ipython
from IPython.display import display

from avlab.lab.notebook.controls import sentence
from avlab.lab.notebook.flow import MOST_UNDER_WAY, Flow, PageClock
from avlab.lab.notebook.hearing import cells, hear_while_cells_run, sliders_wait
from avlab.lab.notebook.page_sound import LEAD_NS, PageSpeaker
from avlab.measure.numbers.recent import LOOK_S, loss_now
from avlab.media.speaker import NullSpeaker, Speaker
from avlab.stream.client import Client
from avlab.stream.clock import MonotonicClock, VirtualClock
from avlab.stream.handle import Worker
from avlab.stream.playing.sound import Pull, Sink, Sounding
from avlab.stream.playing.tap import Tap, jpeg_of
from avlab.stream.registry import Registry
from avlab.timing.jitterbuffer import Frame
from avlab.timing.playout import ClockReading
from avlab.wire.units import NS, Samples

__all__ = ["MOST_UNDER_WAY", "Flow", "View", "hear_while_cells_run", "sliders_wait", "view"]

Sound = Literal["auto", "browser", "speaker", "none"]

STATE_NS = NS // 2
"""How often the page is told how things stand."""

UNHEARD_NS = NS
"""When a running cell keeps the page's words waiting for so long, playout's own word is taken for what is shown."""

AHEAD_NS = 400_000_000
"""How long before it is due a picture goes to the page: time for the way, for decoding, and for a busy moment."""

REMEMBERED = 2048  # pictures sent whose verdict may still come

UNHEARD = (
    "This kernel hears the page when the running cell has ended. "
    "Until then: ten pictures a second, no sound in the page."
)
ENDED = "The stream has ended. To play again, run the cells again."
ENDED_BESIDE_PANEL = "The stream has ended. To play again, press Start in the panel, or run the cells again."

with_panel: weakref.WeakSet[Client] = weakref.WeakSet()
"""Clients that a panel can start again."""


class View(anywidget.AnyWidget):  # type: ignore[misc]
    """A client's pictures and sound, live in the page. Made by `client.view()`; ends with the client, or by `close()`.

    The saved notebook holds no picture. `clock` is for tests.
    """

    _esm = Path(__file__).with_name("view.js")
    _css = Path(__file__).with_name("view.css")
    _worker: Worker | None = None

    def __init__(
        self, client: Client, *, sound: Sound = "auto", clock: MonotonicClock | VirtualClock | None = None
    ) -> None:
        if sound not in get_args(Sound):
            raise ValueError(f"sound must be 'auto', 'browser', 'speaker' or 'none', not {sound!r}")
        hear_while_cells_run()
        cells.watch()
        super().__init__()
        self._clock = clock or client.clock
        self._flow = Flow(self._clock.now_ns())
        self._page_clock = PageClock()
        self._page: str | None = None  # the page that is recorded, and has the sound
        self._left: set[str] = set()  # pages that have said goodbye: a word overtaken by it counts no more
        self._cell: int | None = None
        self._sound: Sound = sound
        self._attach(client)
        self.on_msg(self._hear)
        _views.add(self)

    def _attach(self, client: Client) -> None:
        """Show this client from now on."""
        self._client = client
        self._under_way: dict[int, Frame] = {}  # by number, less their pictures
        self._moments: deque[int] = deque(maxlen=240)  # when pictures were sent
        self._state_ns = 0
        self._speaker: PageSpeaker | None = None
        self._page_sound = ""  # what the page said last: ready, held or none
        self._note, self._ended = "", False
        self._sounding = client.presentation.sounding
        self._plays = self._choose(self._sounding, self._sound)
        self._tap: Tap = client.tap()
        if client.running:
            # The client owns the thread: its stop() joins it, and shows what it failed of.
            self._worker = client.spawn("view", self._forward, self._tap.close)
        else:
            self._end()

    def follow(self, client: Client) -> None:
        """Show another client, in the same place: the one that was started after this view's had ended."""
        self._leave()
        self._attach(client)
        if self._page is not None and client.running:
            self._greet(self._clock.now_ns())

    def close(self) -> None:
        """Take the view off the page; ends its thread."""
        _views.discard(self)
        self._leave()
        super().close()

    def _leave(self) -> None:
        if self._worker is not None:
            self._worker.signal()
            self._worker.join(1.0)
            self._worker = None

    # ---- to the page

    def _forward(self, worker: Worker) -> None:
        early: deque[tuple[Frame, int | None]] = deque()  # what is due too long from now to go yet
        try:
            while not worker.stopping.is_set():
                taken = self._tap.take_due(0.1 if not early else 0.02)
                now_ns = self._clock.now_ns()
                self._look_after(now_ns)
                if taken is not None:
                    early.append(taken)
                elif not early and (self._tap.closed or not self._client.running):
                    break
                # When the delay has come down, the newest is the first that is due, and those before it go along.
                near = (at for at, (_, due_ns) in enumerate(early, 1) if due_ns is None or due_ns - now_ns < AHEAD_NS)
                for _ in range(max(near, default=0)):
                    self._show(*early.popleft(), now_ns)
        finally:
            for frame, _ in early:
                self._tap.skipped(frame)
            self._end()

    def _show(self, frame: Frame, due_ns: int | None, now_ns: int) -> None:
        number = self._flow.admit(now_ns, size=frame.bytes, busy=cells.running) if frame.data is not None else None
        if number is None or frame.data is None:
            self._tap.skipped(frame)
            return
        jpeg = jpeg_of(frame.data, frame.image)
        self._under_way[number] = replace(frame, data=None, image=None)
        while len(self._under_way) > REMEMBERED:
            with contextlib.suppress(KeyError, RuntimeError):  # the thread that hears takes some away meanwhile
                del self._under_way[next(iter(self._under_way))]
        self._moments.append(now_ns)
        wait_ms = None if due_ns is None else (due_ns - now_ns) / 1e6
        content = {"kind": "frame", "number": number, "pts": frame.pts_ns / NS, "wait": wait_ms, "sent": now_ns / 1e6}
        self.send(content, [jpeg])

    def _play(self, sounding: Sounding, position: int, reading: ClockReading | None, samples: Samples) -> None:
        """A block of sound; on the speaker's thread."""
        now_ns = self._clock.now_ns()
        # The page hears it later than its device reports: what it takes for heard is so much further than the sound.
        pts = None if reading is None else (reading.media_ns - sounding.av_offset_ns) / NS
        content = {
            "kind": "sound",
            "to": self._page,
            "position": position,
            "pts": pts,
            "channels": samples.shape[1],
            "sent": now_ns / 1e6,
        }
        self.send(content, [samples.tobytes()])
        self._flow.expect(now_ns)

    def _look_after(self, now_ns: int) -> None:
        """What time brings: a page that has gone, a cell that keeps its words waiting, the state twice a second."""
        if self._page is not None:
            if self._flow.gone(now_ns, busy=cells.running):
                self._lose_page()
            elif cells.running and self._tap.decides and self._flow.silent_ns(now_ns) > UNHEARD_NS:
                cells.unheard()
                self._tap.resign(shown=True)
        if now_ns - self._state_ns >= STATE_NS:
            self._state_ns = now_ns
            blindly = not self._flow.heard and bool(self._moments) and self._moments[-1] > now_ns - NS
            unheard = self._page is None and cells.running and blindly
            self._note = UNHEARD if unheard else ""
            if unheard:
                cells.unheard()
            if self._page is not None or unheard:
                self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        """How things stand, for the overlay and the line below the picture."""
        sounding, presentation = self._sounding, self._client.presentation
        plays = sounding is not None and self._plays and not sounding.kept
        offset_ns = presentation.offset_ns if self._client.running else None
        content = {
            "kind": "state",
            "to": self._page,
            "audio": {"rate": sounding.rate, "channels": sounding.channels} if plays and sounding is not None else None,
            "playing": self._speaker is not None,
            "where": self._where(sounding),
            "sent": 0 if self._ended else sum(moment > now_ns - NS for moment in list(self._moments)),
            "target": presentation.target_fps,
            "timed": presentation.timed,
            "offset": None if offset_ns is None else offset_ns / 1e6,
            "loss": self._loss_percent(now_ns),
            "note": self._note,
            "ended": self._ended,
        }
        self.send(content)

    def _loss_percent(self, now_ns: int) -> float | None:
        # Of what came here alone: a server that is another process is not waited for between two pictures.
        with contextlib.suppress(OSError):  # of the disk that old rows are on
            return loss_now(self._client.recent(LOOK_S, joined=False), now_ns)
        return None

    def _where(self, sounding: Sounding | None) -> str:
        if sounding is None:
            return "no sound in this stream"
        if sounding.claimed and self._speaker is None:
            return "sound plays in another view"
        if self._ended or sounding.speaker is None:
            return ""
        return "no sound" if isinstance(sounding.speaker, NullSpeaker) else f"sound: {sounding.speaker.name}"

    def _end(self) -> None:
        """No more pictures: the client has ended, or this view."""
        self._lose_page(keep=True)
        self._client.untap(self._tap)
        error = self._client.error
        self._ended = True
        ended = ENDED_BESIDE_PANEL if self._client in with_panel else ENDED
        self._note = ended if error is None else sentence(error)
        if self._page is not None and self.comm is not None:
            with contextlib.suppress(Exception):  # what could not be sent was raised before, if it mattered
                self._tell(self._clock.now_ns())

    # ---- from the page, on the kernel's main thread or on a subshell's

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        now_ns = self._clock.now_ns()
        cells.word()
        if not isinstance(content, dict) or not isinstance(content.get("page"), str):
            return
        page = content["page"]
        if "bye" in content:
            self._left.add(page)
            if page == self._page:
                self._lose_page()
                self._flow.bye()
            return
        greets = "hello" in content
        if greets:
            self._left.discard(page)
            self._flow.hello(now_ns)
        elif page in self._left:
            return
        if self._page is None:
            self._page, greets = page, True  # its hello may come later, kept waiting by a cell
            self._page_clock = PageClock()  # a page that was loaded again counts from zero again
        if page != self._page:
            return
        if "seen" in content:
            self._flow.acknowledge(content["seen"], now_ns, visible=content.get("visible", True))
            self._take_report(content, now_ns)
        if not self._client.running:
            self._tell(now_ns)
            return
        self._tap.decides = True
        if greets:
            self._greet(now_ns)
        if "sound" in content:
            self._turn_sound(content["sound"])

    def _greet(self, now_ns: int) -> None:
        """A page is there, and this is its turn; until it can play the sound, nothing does.

        It gets pictures before they are due: what the way and decoding take would otherwise be late on the screen.
        """
        self._tap.decides = self._tap.ahead = True
        if self._sounding is not None and self._plays and not self._sounding.kept:
            self._sounding.rest(silent=True)
        self._tell(now_ns)

    def _take_report(self, content: dict[str, Any], now_ns: int) -> None:
        if (echo := content.get("echo")) is not None:
            sent_ms, came_ms = echo
            self._page_clock.trip(round(sent_ms * 1e6), came_ms, content["now"], now_ns)
        for number, seen_ms, heard_s in content.get("verdicts", ()):
            frame = self._under_way.pop(number, None)
            if frame is None:
                continue
            if seen_ms is None:
                self._tap.skipped(frame)
                continue
            seen_ns = self._page_clock.to_ns(seen_ms) if self._page_clock.known else now_ns
            seen_ns = max(min(seen_ns, now_ns), frame.complete_ns or 0)
            self._tap.presented(frame, seen_ns, None if heard_s is None else round(heard_s * NS))
        speaker, audio = self._speaker, content.get("audio")
        if speaker is not None and audio is not None and self._page_clock.known:
            speaker.reported(
                audio["position"],
                self._page_clock.to_ns(audio["at"]),
                round(audio["latency"] * 1e6),
                playing=audio["playing"],
            )
            if self._sounding is not None:
                self._sounding.wants(self, speaker.lead_ns)

    # ---- sound

    def _choose(self, sounding: Sounding | None, sound: Sound) -> bool:
        """Whether this view's page is to play the sound."""
        if sounding is None:
            return False
        if sound == "speaker":
            sounding.rest(silent=False, alone=True)
        elif sound == "none":
            sounding.rest(silent=True)
        plays = sound == "browser" or (sound == "auto" and sounding.audio == "auto")
        if plays:
            sounding.offer()  # what was asked for last counts
        return plays

    def _turn_sound(self, state: str) -> None:
        """The page can play (`ready`), may not yet (`held`), or cannot (`none`)."""
        if self._sounding is None or not self._plays or state == self._page_sound:
            return
        self._page_sound = state
        if state == "ready":
            self._sounding.claim(self, Sink(partial(self._open_speaker, self._sounding), LEAD_NS))
        else:
            self._sounding.release(self)

    def _open_speaker(self, sounding: Sounding, pull: Pull) -> Speaker:
        play = partial(self._play, sounding)
        self._speaker = PageSpeaker(pull, play, rate=sounding.rate, turned=self._turned)
        return self._speaker

    def _turned(self, playing: bool) -> None:
        """This page has the sound now, or has it no more."""
        if not playing:
            self._speaker = None

    def _lose_page(self, *, keep: bool = False) -> None:
        """The page has left: playout decides by itself, in silence, until one is there again."""
        if not keep:
            self._page = None
        self._page_sound = ""
        self._tap.ahead = False
        self._tap.resign(shown=False)
        if self._sounding is not None:
            self._sounding.release(self)

    # ---- in the notebook

    def _ipython_display_(self) -> None:
        # view() has shown it; as the last line of the same cell it is not shown again, in a later cell it is.
        shell = get_ipython()
        cell = shell.execution_count if shell is not None else None
        if cell is None or cell != self._cell:
            self._cell = cell
            data, metadata = self._repr_mimebundle_()
            display(data, metadata=metadata, raw=True)


_views: Registry[View] = Registry()
"""Those that are on a page, or may be."""


def follow(old: Client, new: Client) -> None:
    """Have every view of a client that has ended show its successor."""
    for each in _views.all():
        if each._client is old:
            each.follow(new)


def view(client: Client, *, sound: Sound = "auto") -> View:
    """Show a client's pictures in the notebook, with sound in the browser; returns the widget. See `Client.view`."""
    if not client.started:
        raise RuntimeError(
            "there is nothing to view before start(): call start(), or use the client in a with statement"
        )
    made = View(client, sound=sound)
    if get_ipython() is not None:
        display(made)
    return made
