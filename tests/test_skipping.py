"""A sender that does not keep up, in virtual time: fewer pictures, evenly, on time, and never none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawclient import until

from avlab.measure.numbers import metrics
from avlab.measure.record.trace import Recorder
from avlab.media.codec import Picture
from avlab.media.sources import ClipSource, open_source
from avlab.stream.clock import VirtualClock
from avlab.stream.handle import Worker
from avlab.stream.recording import SenderRecording
from avlab.stream.sending.clip import Sending
from avlab.timing.skipping import BEHIND_NS, HOPELESS_NS, MOST_RUN_NS, Skipper

MS, NS = 1_000_000, 1_000_000_000
FPS = 30
DATA = Path(__file__).parents[1] / "data"


class Listening:
    """An audience that takes what it is sent, and notes when."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.prepared = 0
        self.sent: list[tuple[int, int]] = []  # pts and moment

    @property
    def waiting(self) -> int:
        return self.prepared - len(self.sent)

    def prepare(self, frame: Any) -> Any:
        self.prepared += 1
        return frame

    def timestamp(self, stream: str, pts_ns: int) -> int:
        return pts_ns // 1000

    def send_frame(self, unit: Any, pts_ns: int) -> tuple[int, int]:
        self.sent.append((pts_ns, self.clock.now_ns()))
        return self.clock.now_ns(), 1

    def chunks(self) -> Iterator[Any]:
        return iter(())


@contextmanager
def sending_in_turns(
    turn_ms: int, seconds: float, *, from_ms: int = 0, until_ms: int = 10**9, busy: bool = False
) -> Iterator[Any]:
    """Send a clip by a thread whose turns take so long between two moments: no time passes but what turns take.

    `busy`: other things than pictures are due all the time, so that one turn comes upon the other.
    """
    clock = VirtualClock()
    audience, recorder = Listening(clock), Recorder(side="server", epoch_ns=0, clock="virtual")
    notices: list[str] = []
    count = round(seconds * FPS)
    all_read = threading.Event()

    def pictures() -> Iterator[Any]:
        for _ in range(count):
            yield np.zeros((16, 16, 3), np.uint8)
        all_read.set()

    sending = Sending(
        open_source(pictures(), fps=FPS),
        loop=False,
        audience=audience,  # type: ignore[arg-type]
        clock=clock,  # type: ignore[arg-type]
        record=SenderRecording(recorder).offered,
        ready=lambda: None,
        notice=lambda name, words: notices.append(words),
    )
    feed = sending.feeds["video"]
    worker = Worker("feed", feed.run, wake=feed.wake)
    worker.start()
    try:
        sending.play(clock.now_ns())

        def fed() -> bool:
            sending.take(clock.now_ns())
            return sending.wake_at() is not None

        over = False
        while not over:
            # One in the pacer, one in the queue, one that waits for its place: the feed has done what it can.
            until(lambda: (fed() and audience.waiting >= 3) or all_read.is_set())
            wake_ns = sending.wake_at()
            if wake_ns is None or busy:
                clock.sleep_until(clock.now_ns() + MS)
            else:
                clock.sleep_until(wake_ns)
            over = sending.send_due(clock.now_ns())
            if from_ms * MS <= clock.now_ns() < until_ms * MS:
                clock.sleep_until(clock.now_ns() + turn_ms * MS)
        yield SimpleNamespace(sent=audience.sent, trace=recorder.trace(), notices=notices, count=count)
    finally:
        worker.signal()
        assert worker.join(10)


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("turn_ms", [50, 90, 200, 340])
def test_long_turns_send_fewer_pictures_evenly_and_on_time(turn_ms: int, busy: bool) -> None:
    with sending_in_turns(turn_ms, 20, busy=busy) as done:
        late = {pts: (at - pts) / MS for pts, at in done.sent}
        settled = [pts for pts, at in done.sent if pts > 8 * NS]
        gaps = np.diff(settled) / MS
        assert len(settled) >= 0.75 * 12_000 / turn_ms, "nearly one a turn"
        assert gaps.max() <= 2 * turn_ms + 1000 / FPS
        assert np.std(gaps) <= turn_ms / 2
        lateness = [late[pts] for pts in settled]
        assert np.percentile(np.abs(lateness), 90) <= 0.75 * turn_ms
        ledger = metrics.frame_ledger(done.trace)
        assert ledger.offered == done.count
        assert ledger.skipped == done.count - len(done.sent)
        assert ["too slow" in words for words in done.notices] == [True] * len(done.notices)
        assert done.notices


@pytest.mark.parametrize("stall_ms", [300, 900])
def test_a_single_stall_costs_no_picture(stall_ms: int) -> None:
    with sending_in_turns(stall_ms, 5, from_ms=1000, until_ms=1001) as done:
        assert len(done.sent) == done.count
        assert not done.notices


def test_a_machine_that_recovers_sends_every_picture_again() -> None:
    with sending_in_turns(200, 20, until_ms=8000) as done:
        last = [pts for pts, _ in done.sent if pts > 12 * NS]
        assert len(last) == 8 * FPS - 1
        assert all(at - pts == 0 for pts, at in done.sent if pts > 12 * NS)


def test_turns_that_are_short_enough_cost_nothing() -> None:
    with sending_in_turns(30, 5) as done:
        assert len(done.sent) == done.count


class SlowClip(ClipSource):
    """A clip that takes long to read, picture by picture; `while_reading` is called every 20 ms of it."""

    read_ms = 0
    while_reading: Callable[[], None]

    def pictures(self, leap: Callable[[], int | None] | None = None) -> Iterator[Picture]:
        for picture in super().pictures(leap):
            for _ in range(self.read_ms // 20):
                self.while_reading()
            yield picture


@pytest.mark.parametrize("read_ms", [40, 100, 300])
def test_a_clip_that_cannot_be_decoded_in_time_is_left_unread_up_to_pictures_that_can(read_ms: int) -> None:
    clock = VirtualClock()
    audience, recorder = Listening(clock), Recorder(side="server", epoch_ns=0, clock="virtual")
    clip = SlowClip(DATA / "count-60.mp4", loop=True)  # a picture each 17 ms; each 2 s one that needs no other
    sending = Sending(
        clip,
        loop=True,
        audience=audience,  # type: ignore[arg-type]
        clock=clock,  # type: ignore[arg-type]
        record=SenderRecording(recorder).offered,
        ready=lambda: None,
        notice=lambda name, words: None,
    )
    turns = threading.Lock()

    def turn() -> None:
        with turns:
            clock.sleep_until(clock.now_ns() + 20 * MS)
            sending.send_due(clock.now_ns())

    def fed() -> bool:
        """Whether all places are taken, so that nothing goes on by reading; else whoever reads takes the turns."""
        with turns:
            sending.take(clock.now_ns())  # as when a server is told that something has come
        return audience.waiting >= 3

    clip.while_reading, clip.read_ms = turn, read_ms
    feed = sending.feeds["video"]
    worker = Worker("feed", feed.run, wake=feed.wake)
    worker.start()
    try:
        sending.play(clock.now_ns())
        while clock.now_ns() < 40 * NS:
            until(lambda: clock.now_ns() >= 40 * NS or fed() or feed.error is not None)
            assert feed.error is None
            turn()
    finally:
        worker.signal()
        assert worker.join(10)
    settled = [(pts, at) for pts, at in audience.sent if 10 * NS < at < 40 * NS]
    assert [pts for pts, at in settled if at - pts > 60 * MS] == [], "what is sent can be shown"
    assert np.diff([at for _, at in settled]).max() <= 4.1 * NS
    frames = recorder.trace().frames
    assert frames["index"].is_unique
    assert sorted(frames["index"])[: len(frames)] == list(range(len(frames))), "what was left unread is skipped, too"
    assert set(frames["fate"].dropna()) == {"skipped"}


# ---- the rule by itself


@given(
    st.floats(1.2, 40),
    st.integers(1, 300),
    st.sampled_from([24, 30, 60]),
    st.integers(0, 6),
)
def test_where_reading_does_not_keep_up_pictures_to_come_are_leapt_to(
    slowness: float, spacing: int, fps: int, delay: int
) -> None:
    """A picture takes `slowness` times as long to read as to show; every `spacing`th needs no other.

    It comes out of the decoder when `delay` more have gone in.
    """
    skipper, now_ns, number, given_at = Skipper(leaps=True), 0, 0, []
    read_ns = round(slowness * NS / fps)
    while now_ns < 120 * NS:
        target_ns = skipper.leap(now_ns)
        if target_ns is not None:
            assert target_ns > now_ns
            number = -(-target_ns * fps // NS // spacing) * spacing
            now_ns += delay * read_ns
        now_ns += read_ns
        due_ns = number * NS // fps
        if not skipper.skips(due_ns, now_ns):
            given_at.append((now_ns, due_ns))
            now_ns = max(now_ns, due_ns - NS // fps)  # the queue is full until then
        number += 1
    settled = [(at, due) for at, due in given_at if at > 30 * NS]
    assert all(due >= at for at, due in settled), "each of them in time"
    longest = max(spacing * NS / fps, (delay + 2) * read_ns)
    assert np.diff([due for _, due in settled]).max(initial=0) <= 3 * longest
    assert len(settled) >= 90 * NS // (3 * longest) - 1


def test_reading_that_keeps_up_or_soon_will_leaps_nowhere() -> None:
    skipper, now_ns, asked = Skipper(leaps=True), 0, 0
    for n in range(3000):
        now_ns = max(now_ns + 8 * MS, n * NS // FPS) + (4 * NS if n == 200 else 0)  # a long stall
        asked += skipper.leap(now_ns) is not None
        skipper.skips(n * NS // FPS, now_ns)
    assert not asked
    assert not skipper.slow


def test_a_source_without_the_way_is_read_on_and_shows_a_late_picture_now_and_then() -> None:
    skipper, now_ns, given_at, asked = Skipper(leaps=True), 0, [], 0
    for n in range(1000):
        asked += skipper.leap(now_ns) is not None
        now_ns += 100 * MS
        if not skipper.skips(n * NS // FPS, now_ns):
            given_at.append(now_ns)
    assert asked == 1
    assert len(given_at) > 100
    assert max(np.diff(given_at)) <= MOST_RUN_NS + 300 * MS


def test_a_machine_that_recovers_from_leaps_shows_every_picture_again() -> None:
    skipper, now_ns, number = Skipper(leaps=True), 0, 0
    while now_ns < 40 * NS:
        target_ns = skipper.leap(now_ns)
        if target_ns is not None:
            number = -(-target_ns * FPS // NS // 60) * 60
        now_ns = max(now_ns + (200 if now_ns < 30 * NS else 10) * MS, (number - 2) * NS // FPS)
        skipped = skipper.skips(number * NS // FPS, now_ns)
        assert not (skipped and now_ns > 35 * NS)
        number += 1
    assert not skipper.slow


def test_a_machine_that_does_not_even_decode_in_time_sends_a_picture_now_and_then() -> None:
    skipper, now_ns, given_at = Skipper(), 0, []
    for n in range(1000):
        now_ns += 100 * MS  # three times what a picture may take
        if not skipper.skips(n * NS // FPS, now_ns):
            given_at.append(now_ns)
    assert len(given_at) > 100
    assert max(np.diff(given_at)) <= MOST_RUN_NS + 200 * MS


def test_of_a_live_source_nothing_is_awaited_from_the_future() -> None:
    skipper = Skipper(live=True)
    for n in range(100):
        due_ns = n * 100 * MS
        assert not skipper.skips(due_ns, due_ns + 30 * MS)
        skipper.sent(due_ns + 30 * MS, due_ns + 200 * MS, due_ns, due_ns + 250 * MS)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=200), st.booleans())
def test_nothing_is_left_out_before_it_was_late_for_long(steps: list[tuple[int, int]], live: bool) -> None:
    skipper, now_ns, behind_since_ns = Skipper(live=live), 0, None
    for n, (work_ns, sent_after_ns) in enumerate(steps):
        now_ns += work_ns
        due_ns = n * NS // FPS
        if now_ns <= due_ns + BEHIND_NS:
            behind_since_ns = None
        elif behind_since_ns is None:
            behind_since_ns = now_ns
        was_slow = skipper.slow
        skipped = skipper.skips(due_ns, now_ns)
        if not was_slow and skipped:
            assert behind_since_ns is not None
            assert now_ns > behind_since_ns + HOPELESS_NS
        if not skipped:
            skipper.sent(now_ns, now_ns + sent_after_ns // 2, due_ns, now_ns + sent_after_ns)


class Pipeline:
    """What a server does with a clip's pictures, in virtual time: one waits in the pacer, one in the queue before it.

    Whoever sends looks every `turn_ms`, and reading a picture takes `read_ms`; each `spacing`th needs no other.
    """

    def __init__(self, spacing: int) -> None:
        self.spacing = spacing
        self.turn_ms = self.read_ms = 1.0
        self.skipper = Skipper(leaps=True)
        self.now_ns = self._number = 0
        self.skipped_ns: list[int] = []
        self._pacer: tuple[int, int, int] | None = None  # chosen, ready, due
        self._queue: tuple[int, int] | None = None

    def _look(self) -> None:
        self.now_ns += round(self.turn_ms * MS)
        if self._pacer is not None and self.now_ns + self.skipper.early_ns >= self._pacer[2]:
            self.skipper.sent(*self._pacer, self.now_ns)
            self._pacer = None
        if self._pacer is None and self._queue is not None:
            chosen_ns, due_ns = self._queue
            self._pacer, self._queue = (chosen_ns, self.now_ns, due_ns), None

    def run(self, until_ns: int) -> None:
        """Read, and give what is not left out, until this moment."""
        while self.now_ns < until_ns:
            target_ns = self.skipper.leap(self.now_ns)
            if target_ns is not None:
                self._number = max(self._number, -(-target_ns * FPS // NS // self.spacing) * self.spacing)
            read_ns = self.now_ns + round(self.read_ms * MS)
            while self.now_ns < read_ns:
                self._look()
            chosen_ns, due_ns = self.now_ns, self._number * NS // FPS
            self._number += 1
            if self.skipper.skips(due_ns, chosen_ns):
                self.skipped_ns.append(chosen_ns)
                continue
            while self._queue is not None:
                self._look()
            self._queue = chosen_ns, due_ns


@settings(max_examples=25)
@given(st.integers(1, 120), st.floats(5, 400), st.floats(5, 400), st.integers(3, 15))
def test_a_clip_is_read_picture_by_picture_again_once_the_machine_keeps_up(
    spacing: int, turn_ms: float, read_ms: float, slow_s: int
) -> None:
    pipeline = Pipeline(spacing)
    pipeline.turn_ms, pipeline.read_ms = turn_ms, read_ms
    pipeline.run(slow_s * NS)
    pipeline.turn_ms, pipeline.read_ms = 1.0, 5.0
    pipeline.run((slow_s + 30) * NS)
    assert [at for at in pipeline.skipped_ns if at > (slow_s + 25) * NS] == []
    assert not pipeline.skipper.slow
