"""What every test gets: tools that are there or named, nothing left running behind it, a screen, a sound card, a clip.

Plain pytest skips a test whose tool is missing and says what to install; under `--require-all`, which `make test`
uses, a skip of any kind is a failure. No test runs for ever: pytest-timeout fails one that takes longer than `SECONDS`
by a signal, which leaves the others to run and fixtures to clean up; where native code never returns to Python, and so
to the signal's handler, pytest's own faulthandler_timeout (pyproject.toml) ends the whole run and says where it was.

Under `-n 3`, which `make test` uses, three processes (pytest-xdist) share the files among them. What is marked `alone`
runs while the other one waits.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import psutil
import pytest
import tools
from together import Turns

from avlab.measure.record.said import sayings
from avlab.stream.http.site import Site
from avlab.stream.rtsp.audience import RtspAudience
from avlab.stream.rtsp.peer import Peer

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

DEVICES = {"chromium", "pulse", "xvfb"}
"""Fixtures that bring a browser, a sound card or a screen."""

TURNS = pytest.StashKey[Turns]()
FOLDER = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()

DATA = Path(__file__).parents[1] / "data"

SECONDS = 300
"""What a test may take, its fixtures included; twenty times what the longest takes on a machine of its own."""

# A make that runs these tests hands its flags and its level to every make below it, which then prints more than asked.
for inherited in [name for name in os.environ if name.startswith("MAKE") or name == "MFLAGS"]:
    del os.environ[inherited]

# Examples come from the code under test and not from the clock or from chance: a run can be repeated.
hypothesis.settings.register_profile("avlab", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("avlab")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-all", action="store_true", help="a skipped test, for want of a tool or not, fails")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--require-all") and not config.pluginmanager.hasplugin("timeout"):
        raise pytest.UsageError(
            "pytest-timeout is missing, and with it each test's time limit: 'make test' installs it"
        )
    if hasattr(config, "workerinput"):  # one process of several, with a folder that they share
        config.stash[TURNS] = Turns(Path(config.workerinput["turns"]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand each of several processes the folder of their locks."""
    stash = node.config.stash
    if FOLDER not in stash:
        stash[FOLDER] = tempfile.TemporaryDirectory(prefix="avlab-tests-")
    node.workerinput["turns"] = stash[FOLDER].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if TURNS in config.stash:
        config.stash[TURNS].close()
    if FOLDER in config.stash:
        config.stash[FOLDER].cleanup()


FIRST = ("test_notebooks.py",)
"""Files that take minutes, of which a process is not to begin one when the others are about to end."""

AS_MANY = 10
"""For how many others a slow test counts where files are put in order of their length."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; last those in which every test has to be alone, for which the others wait in any case.

    Whoever wants to be alone waits for what others have begun, and holds up what they would begin: beside a notebook of
    a minute, that is a minute of every process.
    """
    alone, length, count = Counter[Path](), Counter[Path](), Counter[Path]()
    for item in items:
        alone[item.path] += _alone(item)
        length[item.path] += AS_MANY if item.get_closest_marker("slow") else 1
        count[item.path] += 1
    items.sort(
        key=lambda item: (
            item.path.name not in FIRST,
            alone[item.path] == count[item.path],
            -length[item.path],
            item.path,
        )
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    if " at 0x" in item.nodeid:
        raise pytest.UsageError(f"{item.nodeid} has another name in each process: mend it by ids=without_addresses")
    if not DEVICES.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("alone")  # a device keeps time, and a browser draws on every core
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(SECONDS, method="signal" if hasattr(signal, "SIGALRM") else "thread"))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of every time limit: waiting is no test's fault
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    turns = item.config.stash.get(TURNS, None)
    following = nextitem is not None and _alone(nextitem)
    with turns.turn(alone=_alone(item), following=following) if turns is not None else nullcontext():
        return (yield)


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for tool in mark.args:
            need(tool)


def need(tool: str) -> None:
    """Skip the test that runs, with a sentence, when `tool` is missing."""
    if sentence := tools.missing(tool):
        pytest.skip(sentence)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return report if hasattr(report, "wasxfail") else _skip_counts(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _skip_counts(report, collector.config)


def _skip_counts(report: Report, config: pytest.Config) -> Report:
    if report.skipped and config.getoption("--require-all"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason.removeprefix('Skipped: ')}\nUnder --require-all no test may be skipped."
    return report


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for a user from one session to the next is not what a test begins with, nor what it leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVLAB_CACHE", str(tmp_path_factory.mktemp("caches")))
        yield


class Holdings:
    """What this process holds that a test has to give back: threads, sockets, children."""

    def __init__(self) -> None:
        me = psutil.Process()
        self.threads = {thread for thread in threading.enumerate() if thread.name.startswith("avlab-")}
        self.sockets = {(s.fd, s.laddr) for s in me.net_connections("inet")}
        self.children = set(me.children(recursive=True)) if _has_children() else set()

    def beyond(self, before: Holdings) -> list[str]:
        """What is held here and was not held `before`, in words."""
        threads = [f"thread {thread.name}" for thread in self.threads - before.threads]
        sockets = [f"socket on {':'.join(map(str, address))}" for _, address in self.sockets - before.sockets]
        children = [f"process {child.pid}" for child in self.children - before.children]
        return sorted(threads + sockets + children)


def _has_children() -> bool:
    """Whether looking for children, which reads the whole process table (10 ms), can find any; most tests have none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except AttributeError:  # not on this system
        return True
    return True


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test which leaves one of avlab's threads, an open socket or a child process behind."""
    before = Holdings()
    yield
    left = Holdings().beyond(before)
    # Threads must be gone at once, since stop() joins them. Libraries close their sockets and children a little later.
    deadline = time.monotonic() + 10
    while left and not any(thing.startswith("thread") for thing in left) and time.monotonic() < deadline:
        time.sleep(0.01)
        left = Holdings().beyond(before)
    assert not left, f"the test left behind: {', '.join(left)}"


@pytest.fixture(autouse=True)
def nothing_is_predicted() -> Iterator[None]:
    """What a test predicts is in none of another's traces."""
    yield
    sayings.clear()


@pytest.fixture(autouse=True)
def hidden_faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fail a test in which a server parted from a peer over an error that nobody has foreseen: one of its own, then.

    A test that brings one about looks for it here, and clears the list.
    """
    faults: list[str] = []
    blame = RtspAudience.blame

    def tell(self: RtspAudience, peer: Peer, now_ns: int, error: Exception) -> None:
        faults.append(f"{type(error).__name__}: {error}")
        blame(self, peer, now_ns, error)

    blame_http = Site.blame

    def tell_http(self: Site, host: str, error: BaseException) -> None:
        faults.append(f"{type(error).__name__}: {error}")
        blame_http(self, host, error)

    monkeypatch.setattr(RtspAudience, "blame", tell)
    monkeypatch.setattr(Site, "blame", tell_http)
    yield faults
    assert not faults, f"a peer had the server fail: {'; '.join(faults)}"


@pytest.fixture(scope="module")
def xvfb() -> Iterator[tools.Screen]:
    """A private screen: `env` to draw on it, `pixels()` to see what was drawn."""
    need("xvfb")
    with tools.xvfb() as screen:
        yield screen


@pytest.fixture(scope="module")
def pulse() -> Iterator[tools.Sound]:
    """A private sound card: `env` to play on it, `recording()` to hear what was played."""
    need("pulse")
    with tools.pulse() as sound:
        yield sound


@pytest.fixture
def pulse_here(pulse: tools.Sound, monkeypatch: pytest.MonkeyPatch) -> tools.Sound:
    """The private sound card for PortAudio in this very process, which reads its environment at Pa_Initialize."""
    for name, value in pulse.env.items():
        monkeypatch.setenv(name, value)
    return pulse


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of sample clips."""
    return DATA


@pytest.fixture(scope="session")
def clip() -> Path:
    """The sample clip: 640x360, 30 fps, 20 s, a flash and its own tone at the start of each second."""
    return DATA / "count.mp4"
