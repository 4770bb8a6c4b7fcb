"""Threads with a handle: start and stop in every order, errors that surface once, siblings that stop."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rawclient import until

from avlab.stream.handle import Handle, Worker, running_handles, stop_all


class Probe(Handle):
    """A handle whose workers are given; counts what is begun and released."""

    def __init__(self, *bodies: Callable[[Worker], None], begin: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.bodies, self.begin = bodies, begin
        self.begun = self.released = 0
        self.at_release: Callable[[], None] = lambda: None

    def _begin(self) -> None:
        self.begun += 1
        for number, body in enumerate(self.bodies):
            self.spawn(f"probe-{number}", body)
        if self.begin is not None:
            self.begin()

    def _release(self) -> None:
        self.released += 1
        self.at_release()
        assert not any(worker.alive for worker in self.workers if not worker.current)

    def finish(self) -> None:
        self._ended.set()


def idle(worker: Worker) -> None:
    worker.stopping.wait()


def fail(worker: Worker) -> None:
    raise LookupError("a body failed")


def raise_once_failed(handle: Handle, error: Exception) -> None:
    until(lambda: handle.error)
    raise error


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]


def test_nothing_happens_before_start() -> None:
    handle = Probe(idle)
    assert (handle.begun, handle.running, handle.started, handle.error) == (0, False, False, None)
    assert names() == []
    handle.stop()
    assert handle.released == 0
    assert handle not in running_handles()


def test_start_returns_the_handle_and_stop_ends_it() -> None:
    handle = Probe(idle, idle)
    assert handle.start() is handle
    assert handle.running
    assert names() == ["avlab-probe-0", "avlab-probe-1"]
    assert handle in running_handles()
    handle.stop()
    handle.stop()
    assert (handle.running, handle.released) == (False, 1)
    assert names() == []
    assert handle not in running_handles()


def test_starting_twice_is_refused() -> None:
    with Probe(idle) as handle, pytest.raises(RuntimeError, match="this probe was started before: make a new one"):
        handle.start()
    with pytest.raises(RuntimeError, match="started before"):
        handle.start()
    assert handle.begun == 1


def test_a_start_that_fails_leaves_nothing_and_is_not_tried_again() -> None:
    def begin() -> None:
        raise OSError("no room")

    handle = Probe(idle, begin=begin)
    with pytest.raises(OSError, match="no room"):
        handle.start()
    assert (handle.started, handle.running, handle.released) == (False, False, 1)
    assert names() == []
    handle.stop()
    with pytest.raises(RuntimeError, match="started before"):
        handle.start()


def test_a_stopped_handle_is_entered_no_more_than_once() -> None:
    with Probe(idle).start() as handle:
        assert handle.running
    assert not handle.running


@pytest.mark.parametrize("order", [(fail, idle), (idle, fail), (idle, fail, idle), (fail, fail)])
def test_an_error_stops_the_siblings_and_is_raised_once(order: tuple[Callable[[Worker], None], ...]) -> None:
    handle = Probe(*order).start()
    with pytest.raises(LookupError, match="a body failed"):
        handle.wait(60)
    until(lambda: names() == [])  # also those that were not there yet when it failed
    assert isinstance(handle.error, LookupError)
    assert not handle.running
    assert handle.wait(0)
    handle.stop()
    assert handle.released == 1


def test_stop_raises_what_nobody_has_heard_of() -> None:
    handle = Probe(fail).start()
    until(lambda: handle.error)
    with pytest.raises(LookupError):
        handle.stop()
    handle.stop()


def test_an_error_under_way_matters_more_than_the_handles_own() -> None:
    handle = Probe(fail)
    with pytest.raises(KeyError, match="mine"), handle:
        raise_once_failed(handle, KeyError("mine"))
    assert isinstance(handle.error, LookupError)


def test_wait_returns_at_its_time_or_at_the_end() -> None:
    with Probe(idle) as handle:
        assert handle.wait(0.01) is False
        assert handle.wait(0) is False
        handle.finish()
        assert handle.wait() is True


def test_stop_from_another_thread_ends_the_wait() -> None:
    handle = Probe(idle).start()
    stopper = threading.Thread(target=handle.stop)
    stopper.start()
    assert handle.wait(60)
    handle.stop()  # comes second, and returns when all is released
    assert handle.released == 1
    assert names() == []
    stopper.join(10)


def test_a_worker_may_stop_its_own_handle() -> None:
    done = threading.Event()

    def body(worker: Worker) -> None:
        handle.stop()
        done.set()

    handle = Probe(idle, body)
    handle.start()
    assert done.wait(60)
    handle.stop()
    assert handle.error is None
    until(lambda: names() == [])


def test_a_thread_that_will_not_end_is_named() -> None:
    release = threading.Event()

    def body(worker: Worker) -> None:
        release.wait(60)

    class Stubborn(Handle):
        def _begin(self) -> None:
            self.spawn("stubborn", body)

    handle = Stubborn().start()
    with pytest.raises(RuntimeError, match=r"avlab-stubborn did not end within 0\.05 s"):
        handle.stop(timeout=0.05)
    release.set()
    until(lambda: names() == [])


@pytest.mark.parametrize(
    "meets", [RuntimeError("Selector is closed"), OSError(9, "Bad file descriptor"), SystemExit(1)]
)
def test_what_a_thread_meets_that_goes_on_after_all_is_no_failure(meets: BaseException) -> None:
    release = threading.Event()

    def body(worker: Worker) -> None:
        release.wait(60)
        raise meets

    class Stubborn(Handle):
        def _begin(self) -> None:
            self.spawn("stubborn", body)

    handle = Stubborn().start()
    with pytest.raises(RuntimeError, match="avlab-stubborn did not end"):
        handle.stop(timeout=0.05)
    release.set()
    until(lambda: names() == [])
    assert handle.error is None
    handle.stop()


def test_stop_all_stops_everything_and_raises_no_ones_errors() -> None:
    good, bad = Probe(idle).start(), Probe(fail).start()
    until(lambda: bad.error)
    stop_all()
    assert running_handles() == []
    assert names() == []
    assert not good.running
    bad.stop()
    stop_all()


def test_many_threads_may_stop_at_once() -> None:
    handle = Probe(idle).start()
    together = threading.Barrier(4)

    def stop() -> None:
        together.wait(60)
        handle.stop()

    threads = [threading.Thread(target=stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert handle.released == 1


# ---- again, and the same cell again


class Made(Probe):
    """Made with arguments, of which one is an iterable."""

    def __init__(self, source: object, *, port: int = 0, **more: Callable[[Worker], None]) -> None:
        super().__init__(idle, **more)
        self.source, self.port = source, port


def test_another_one_is_made_with_the_same_arguments_but_for_changes() -> None:
    first = Made("clip", port=5)
    with first:
        pass
    again = first.again()
    assert (type(again), again.source, again.port, again.fresh) == (Made, "clip", 5, True)
    moved = again.again(source="other")
    assert (moved.source, moved.port) == ("other", 5)
    with pytest.raises(TypeError, match="colour"):
        first.again(colour=1)


def test_the_constructors_signature_stays_as_it_is() -> None:
    assert list(inspect.signature(Made).parameters) == ["source", "port", "more"]


def test_what_can_be_read_only_once_cannot_be_made_again() -> None:
    with pytest.raises(ValueError, match="the source of this made is a generator, which can be read only once"):
        Made(picture for picture in ()).again()


def test_a_handle_is_fresh_until_it_is_started() -> None:
    handle = Probe(idle)
    assert handle.fresh
    with handle:
        assert not handle.fresh
    assert not handle.fresh


class Notebook:
    """A shell as ipykernel's: it knows the request which runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.request: dict[str, object] = {}
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: self))  # type: ignore[arg-type]

    def get_parent(self) -> dict[str, object]:
        return self.request

    def runs(self, cell: str, number: str) -> None:
        self.request = {"metadata": {"cellId": cell}, "header": {"msg_id": number}}


def test_a_cell_that_is_run_again_replaces_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    stopped: list[str] = []
    notebook.runs("one", "1")
    server, client = Probe(idle).start(), Probe(idle).start()
    server.at_release, client.at_release = lambda: stopped.append("server"), lambda: stopped.append("client")
    notebook.runs("two", "2")
    other = Probe(idle).start()
    notebook.runs("one", "3")
    second = Probe(idle).start()
    assert stopped == ["client", "server"]  # and its own server is not stopped by the client that follows
    third = Probe(idle).start()
    assert [handle.running for handle in (server, client, other, second, third)] == [False, False, True, True, True]
    stop_all()


def test_what_an_earlier_run_failed_of_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.runs("one", "1")
    bad = Probe(fail).start()
    until(lambda: bad.error)
    notebook.runs("one", "2")
    with Probe(idle) as handle:
        assert handle.running
    bad.stop()  # nothing is raised any more: it has been replaced


def test_one_made_by_a_button_counts_as_the_cells_that_started_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.runs("one", "1")
    with Made("clip") as first:
        pass
    notebook.request = {"metadata": {}, "header": {"msg_id": "button"}}
    again = first.again().start()
    notebook.runs("one", "2")
    with Probe(idle):
        assert not again.running


@pytest.mark.parametrize("request_", [{}, {"metadata": {}, "header": {"msg_id": "1"}}, None])
def test_where_cells_have_no_names_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch, request_: object) -> None:
    notebook = Notebook(monkeypatch)
    notebook.request = request_  # type: ignore[assignment]
    with Probe(idle) as first, Probe(idle):
        assert first.running


# ---- a stop while it starts


class Reaching(Probe):
    """Waits for something elsewhere while it starts, until that is there or it is called off."""

    def __init__(self, *bodies: Callable[[Worker], None], stubborn: bool = False) -> None:
        super().__init__(*bodies)
        self.waits, self.there = threading.Event(), threading.Event()
        self.stubborn = stubborn

    def _begin(self) -> None:
        super()._begin()
        self.waits.set()
        assert self.there.wait(30)
        if self._ended.is_set():
            raise ConnectionError("it was broken off")

    def _cancel(self) -> None:
        if not self.stubborn:
            self.there.set()


def starting(handle: Handle) -> tuple[threading.Thread, list[BaseException]]:
    """A start on a thread of its own, and what it raised."""
    raised: list[BaseException] = []

    def start() -> None:
        try:
            handle.start()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("bodies", [(), (idle,), (idle, idle)])
def test_a_stop_calls_a_start_off(bodies: tuple[Callable[[Worker], None], ...]) -> None:
    handle = Reaching(*bodies)
    thread, raised = starting(handle)
    assert handle.waits.wait(10)
    handle.stop()
    thread.join(10)
    assert [str(error) for error in raised] == ["this reaching was stopped while it was starting"]
    assert isinstance(raised[0], RuntimeError)
    assert (handle.started, handle.running, handle.released) == (False, False, 1)
    assert handle not in running_handles()
    assert names() == []
    handle.stop()
    with pytest.raises(RuntimeError, match="started before"):
        handle.start()


def test_stop_all_calls_starts_off_too() -> None:
    handles = [Reaching(idle) for _ in range(3)]
    threads = [starting(handle) for handle in handles]
    assert all(handle.waits.wait(10) for handle in handles)
    stop_all()
    for thread, raised in threads:
        thread.join(10)
        assert len(raised) == 1
    assert names() == []


def test_many_stops_call_one_start_off() -> None:
    handle = Reaching(idle)
    thread, raised = starting(handle)
    assert handle.waits.wait(10)
    stoppers = [threading.Thread(target=handle.stop) for _ in range(5)]
    for stopper in stoppers:
        stopper.start()
    for stopper in (*stoppers, thread):
        stopper.join(10)
    assert (len(raised), handle.released) == (1, 1)


def test_a_start_that_cannot_be_called_off_holds_a_stop_up_no_longer_than_its_time_out() -> None:
    handle = Reaching(idle, stubborn=True)
    thread, raised = starting(handle)
    assert handle.waits.wait(10)
    with pytest.raises(RuntimeError, match=r"the start of this reaching did not end within 0\.05 s"):
        handle.stop(0.05)
    handle.there.set()  # and when it goes on at last, it finds that it was stopped
    thread.join(10)
    assert [str(error) for error in raised] == ["this reaching was stopped while it was starting"]
    assert names() == []


def test_a_worker_may_stop_a_handle_that_still_starts() -> None:
    done = threading.Event()

    def body(worker: Worker) -> None:
        handle.stop()
        done.set()

    handle = Reaching(body)
    thread, raised = starting(handle)
    assert handle.waits.wait(10)
    handle.there.set()
    assert done.wait(10)
    thread.join(10)
    assert raised == []
    assert not handle.running


def test_a_start_that_fails_while_its_worker_stops_it_raises_what_failed() -> None:
    entered = threading.Event()

    def body(worker: Worker) -> None:
        entered.set()
        handle.stop()

    def begin() -> None:
        assert entered.wait(10)
        raise OSError("no room")

    handle = Probe(body, begin=begin)
    with pytest.raises(OSError, match="no room"):
        handle.start()
    assert names() == []
