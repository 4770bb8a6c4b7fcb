"""A server in a process of its own: the same handle and errors, a trace that joins, no process left behind."""

from __future__ import annotations

import copyreg
import errno
import inspect
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client as ConnectedClient
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tools
from hypothesis import given
from hypothesis import strategies as st
from rawclient import RawClient, until

import avlab
from avlab.media.packets import MediaError
from avlab.network.ratecontrol import Aimd, Choice, Report
from avlab.network.settings import Network
from avlab.stream.clock import CLOCK_VARIABLE, clock_identity
from avlab.stream.isolated import child as isolated
from avlab.stream.isolated.door import Door
from avlab.stream.isolated.isolatedserver import IsolatedServer
from avlab.stream.isolated.pipe import packed, packed_error, unpacked, unpacked_error
from avlab.timing.pacing import FeedbackPacer, NoPacing, PiRule, TutorialPacer
from avlab.wire.units import NS, WireError

pytestmark = pytest.mark.slow

HOME = str(Path(avlab.__file__).parents[1])


def settings_of(trace: avlab.Trace) -> list[tuple[str, object]]:
    rows = trace.settings[trace.settings["kind"] == "setting"]
    return list(zip(rows["name"], rows["value"], strict=True))


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has collected yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def server(clip: Path) -> Iterator[avlab.Server]:
    with avlab.Server(clip, isolated=True, quality=60) as server:
        yield server


def test_it_is_a_server_like_any_other(server: avlab.Server) -> None:
    assert isinstance(server, avlab.Server)
    assert isinstance(server, IsolatedServer)
    assert server.running
    assert server.url.startswith("rtsp://127.0.0.1:")
    assert repr(server).startswith("<Server of ")
    assert (server.clients, server.status(), server.ssrcs) == (0, "0 clients, waiting for a client", set())
    assert server.notices == ()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0), "Ctrl-C in a terminal is not for it"
    with pytest.raises(RuntimeError, match="this server was started before"):
        server.start()


def test_what_a_plain_server_says_and_takes_this_one_does_too(clip: Path) -> None:
    """What is not said anew here would speak of the server in this process, which never runs."""
    public = {name for name in vars(avlab.Server) if not name.startswith("_")}
    assert public <= set(vars(IsolatedServer)), "each public part is the other process's, or forwarded to it"
    assert inspect.signature(avlab.Server).parameters.keys() == inspect.signature(IsolatedServer).parameters.keys()
    assert "quality" in inspect.signature(avlab.Server).parameters
    assert type(avlab.Server(clip)) is avlab.Server
    assert type(avlab.Server(clip, isolated=False)) is avlab.Server
    with pytest.raises(TypeError, match="qualty"):
        avlab.Server(clip, isolated=True, qualty=3)  # type: ignore[call-arg]


def test_the_trace_joins_and_settings_act(server: avlab.Server, clip: Path) -> None:
    with avlab.Client(server.url, audio="null") as client:

        def seen() -> int:
            frames = client.trace.frames
            return int(((frames["stream"] == "video") & (frames["fate"] == "shown")).sum())

        until(lambda: seen() > 20)
        assert (server.clients, len(server.ssrcs)) == (1, 2)
        assert server.status().startswith("1 client, media time ")
        server.quality = 20
        server.width = 160
        server.pacer = FeedbackPacer(avlab.pi_rule(kp=0.3, ki=0.4), name="pi")
        assert (server.quality, server.width, server.pacer.name) == (20, 160, "pi")
        assert next(p.image.shape[1] for p in client.frames() if p.image.shape[1] < 640) == 160
        before = seen()
        until(lambda: seen() > before + 20)
        until(lambda: len(server.trace.reports) > 3)
        part = client.trace
    for trace in (part, client.trace):
        assert trace.meta["joined"]
        assert set(trace.reports["ssrc"]) <= set(trace.meta["ssrcs"])
        assert trace.meta["shared_clock"], "both count from the same moment of the same clock"
        video = trace.frames[trace.frames["stream"] == "video"]
        shown = video[video["fate"] == "shown"]
        assert len(shown) > 40
        assert shown[["due", "sent", "encoded", "pts"]].notna().all(axis=None)
        # Across two processes' readings of one clock, nothing is received before it was sent.
        assert (shown["first_packet"] >= shown["sent"]).all()
        sizes = video["bytes"].dropna().to_numpy(int)
        assert sizes[-5:].mean() < sizes[:5].mean() / 4
    server.stop()
    trace = server.trace
    assert trace.meta["side"] == "server"
    assert set(trace.reports["stream"]) == {"video", "audio"}
    assert trace.reports["kbps"].iloc[2:].gt(0).all()
    begun = settings_of(avlab.Server(clip, quality=60).trace)
    chosen = [(name, value) for name, value in settings_of(trace) if name != "offload in use"]
    assert chosen == [*begun, ("quality", 20), ("width", 160), ("pacer", "pi")]
    indices = trace.frames.loc[trace.frames["stream"] == "video", "index"].to_numpy(int)
    assert (indices == np.arange(len(indices))).all(), "fetched in parts, and each row is here once"


def test_it_ends_with_its_handle_and_says_goodbye(server: avlab.Server) -> None:
    assert isinstance(server, IsolatedServer)
    pid = server.pid
    assert pid is not None
    with avlab.Client(server.url, audio="null") as client:
        until(lambda: client.audio_seconds > 0)
        server.stop()
        assert client.wait(60), "BYE"
    assert gone(pid)
    assert not server.running
    assert server.clients in (0, 1), "what it said last, without asking: there is nobody to ask"
    assert len(server.trace.frames) > 0
    server.quality = 30  # as on any server that has stopped
    server.stop()


def test_the_classic_wire_and_its_notices(data: Path) -> None:
    with (
        avlab.Server(data / "count.mp4", wire="classic", quality=100, width=2040, isolated=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        until(lambda: server.notices)
        assert all(isinstance(words, str) for words in server.notices)
        server.width, server.quality = 320, 60
        assert next(client.frames()).image.shape[1] == 320


def test_once_it_ends_with_its_clip(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4", isolated=True, once=True, pacer="none") as server:
        with avlab.Client(server.url, audio="null"):
            assert server.wait(60)
        assert not server.running
    assert "end of clip" in set(server.trace.settings["name"])


@pytest.mark.parametrize("isolated", [False, True])
def test_a_port_that_is_taken_is_told_alike(clip: Path, isolated: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = avlab.Server(clip, port=port, isolated=isolated)
        with pytest.raises(OSError, match=f"{port}") as plain:
            avlab.Server(clip, port=port).start()
        with pytest.raises(OSError, match=f"{port}") as caught:
            server.start()
    assert (type(caught.value), str(caught.value)) == (type(plain.value), str(plain.value))
    assert caught.value.errno == plain.value.errno
    assert not server.running
    server.stop()


def test_a_source_that_fails_fails_the_handle(tmp_path: Path, data: Path) -> None:
    whole = (data / "count-15.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 2 // 5])
    with avlab.Server(cut, isolated=True, pacer="none") as server:
        assert isinstance(server, IsolatedServer)
        with avlab.Client(server.url, audio="null") as client:
            with pytest.raises(MediaError, match=r"cut\.mp4.*stops after .* the rest of the file is missing") as caught:
                server.wait(60)
            assert client.wait(60)
    assert server.error is caught.value
    assert server.pid is not None
    assert gone(server.pid)


def test_a_process_that_is_killed_is_told_of(server: avlab.Server) -> None:
    assert isinstance(server, IsolatedServer)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the server's process ended by itself with exit code -9; begin anew"):
        server.wait(60)
    assert not server.running
    assert isinstance(server.error, RuntimeError)
    server.quality = 33
    assert (server.clients, len(server.trace.frames)) == (0, 0)


GARBAGE = {
    "no line": "out(b'garbage, and no end of it')",
    "no JSON": "out(b'garbage\\n'); wait()",
    "not text": "out(bytes(range(128, 256)) + b'\\n'); wait()",
    "a number": "out(b'17\\n'); wait()",
    "a list": "out(b'[1, 2]\\n'); wait()",
    "deep": "out(b'[' * 10_000 + b'\\n'); wait()",
    "no end of a line": "out(b'[' * 70_000); wait()",
    "another machine": "out(b'[\"192.0.2.1\", 80]\\n'); wait()",
    "nobody there": "out(b'\"/none\"\\n'); wait()",
    "nothing": "pass",
    "closed": "os.close(1); wait()",
    "killed": "os.kill(os.getpid(), 9)",
    "another key": "answered(bytes(32)); wait()",
    "no pickle": "answered().send_bytes(b'garbage'); wait()",
    "half a pickle": "answered().send_bytes(pickle.dumps([1, 2, 3])[:-4]); wait()",
    "an empty message": "answered().send_bytes(b''); wait()",
    "no message": "answered().send_bytes(pickle.dumps([1, 2])); wait()",
    "no number": "answered().send_bytes(pickle.dumps({})); wait()",
    "a huge message": "os.write(answered().fileno(), bytes([127, 255, 255, 255])); wait()",
    "rows that never come": "announced(packets=9999999)",
    "other rows": "announced(packets=1).send_bytes(bytes(100_000)); wait()",
    "unknown rows": "announced(odd=1); wait()",
    "a strange error": "answered().send_bytes(pickle.dumps({'failed': 5})); wait()",
    "killed in the middle": "answered(); os.kill(os.getpid(), 9)",
}

ODD_PROCESS = r"""
import json, os, pickle, sys
from multiprocessing.connection import Listener
def out(data):
    while data:
        data = data[os.write(1, data):]
wait = lambda: sys.stdin.buffer.read()  # until the other side has let go
key = bytes.fromhex(sys.stdin.buffer.readline().decode())
def answered(key=key):
    global connection  # open until the end
    listener = Listener(("127.0.0.1", 0), authkey=key)
    out(json.dumps(listener.address).encode() + b"\n")
    connection = listener.accept()
    connection.recv_bytes()
    return connection
def announced(**rows):
    answered().send_bytes(pickle.dumps({"rows": rows, "from": dict.fromkeys(rows, 0), "meta": {}, "settings": []}))
    return connection
"""


@pytest.mark.parametrize("what", GARBAGE)
def test_a_process_that_talks_nonsense_is_ended_with_a_sentence(
    what: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that writes where it must not, a disk that is full: at the start, when the most is waited for."""
    (tmp_path / "odd_process.py").write_text(f"{ODD_PROCESS}{GARBAGE[what]}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(isolated, "PROGRAM", "odd_process")
    server = avlab.Server(clip, isolated=True)
    assert isinstance(server, IsolatedServer)
    with pytest.raises(RuntimeError, match=r"the server's process (said what makes no sense|ended by itself)"):
        server.start()
    assert server.pid is not None
    assert gone(server.pid)
    assert not server.running
    server.stop()


@pytest.mark.parametrize("reason", [errno.EAGAIN, errno.EMFILE, errno.ENOMEM, errno.ENOENT])
def test_where_no_process_can_be_started_a_sentence_says_so(
    reason: int, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(isolated.subprocess, "Popen", fail)
    server = avlab.Server(clip, isolated=True)
    with pytest.raises(OSError, match=rf"no process can be started for the server \({os.strerror(reason)}\)") as caught:
        server.start()
    assert caught.value.errno == reason
    server.stop()


def test_one_that_starts_is_ended_by_a_stop(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_process.py").write_text("import sys\nsys.stdin.buffer.read()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(isolated, "PROGRAM", "slow_process")
    server = avlab.Server(clip, isolated=True)
    assert isinstance(server, IsolatedServer)
    raised: list[str] = []

    def start() -> None:
        try:
            server.start()
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    until(lambda: server.pid is not None)
    server.stop()
    thread.join(20)
    assert raised == ["this server was stopped while it was starting"]
    assert server.pid is not None
    assert gone(server.pid)


def test_one_that_does_not_answer_is_ended_all_the_same(server: avlab.Server) -> None:
    assert isinstance(server, IsolatedServer)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeError, match=r"avlab-isolated did not end within 0\.2 s"):
        server.stop(0.2)
    assert gone(server.pid)
    until(lambda: not any(worker.alive for worker in server.workers))


@dataclass
class Script:
    """A program that starts a server and does not guard its main part, as students write them."""

    path: Path

    def run(self, clip: Path, end: str) -> AbstractContextManager[subprocess.Popen[str]]:
        self.path.write_text(
            "import avlab, sys, time\n"
            f"server = avlab.Server({str(clip)!r}, isolated=True).start()\n"
            "print(server.pid, server.url, flush=True)\n" + end
        )
        return tools.started(sys.executable, self.path, env={"PYTHONPATH": HOME})


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "student.py")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("server.stop()\n", 0),
        ("", 0),  # forgotten
        ("raise SystemExit(3)\n", 3),
        ("import os; os.kill(os.getpid(), 9)\n", -9),
    ],
)
def test_no_process_outlives_its_parent(script: Script, clip: Path, end: str, code: int) -> None:
    with script.run(clip, end) as program:
        said, complaints = program.communicate(timeout=tools.SECONDS)
    pid, url = said.split()
    assert (program.returncode, complaints) == (code, "")
    assert url.startswith("rtsp://")
    until(lambda: gone(int(pid)))


def test_ctrl_c_ends_the_script_and_then_the_server(script: Script, clip: Path) -> None:
    """The terminal's SIGINT goes to the foreground's group of processes; the script's `with` ends the server."""
    end = (
        "with server:\n    try:\n        print('waiting', flush=True)\n        server.wait()\n"
        "    except KeyboardInterrupt:\n        print(server.running)\n"
    )
    with script.run(clip, end) as program:
        assert program.stdout is not None
        pid, url = program.stdout.readline().split()
        assert program.stdout.readline() == "waiting\n"
        with RawClient(url):
            program.send_signal(signal.SIGINT)
            said, complaints = program.communicate(timeout=tools.SECONDS)
    assert (said, complaints, program.returncode) == ("True\n", "", 0)
    until(lambda: gone(int(pid)))


def test_one_whose_pipe_a_fork_holds_open_ends_too(script: Script, clip: Path) -> None:
    end = (
        "import os\nif os.fork() == 0:\n    time.sleep(600)\nprint(os.getpid(), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    end = end.replace("if os.fork() == 0:", "child = os.fork()\nif child == 0:")
    end = end.replace("print(os.getpid()", "print(child")
    with script.run(clip, end) as program:
        assert program.stdout is not None
        pid, _ = program.stdout.readline().split()
        child = int(program.stdout.readline())
        program.wait(60)
        try:
            until(lambda: gone(int(pid)))
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("line", ["", "key", "half a key"])
def test_one_whose_parent_is_killed_while_it_starts_ends_and_leaves_nothing(line: str) -> None:
    """Before the key is told, in the middle of it, and when the process listens but nobody has connected."""
    written = {"": b"", "key": b"00ff\n", "half a key": b"00f"}[line]
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-P', '-m', 'avlab.stream.isolated'], stdin=-1, stdout=-1)\n"
        f"child.stdin.write({written!r}); child.stdin.flush()\n"
        f"{'child.stdout.readline()' if line == 'key' else ''}\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    with tools.short_folder() as home:
        done = tools.finished(sys.executable, "-c", program, env={"TMPDIR": str(home), "PYTHONPATH": HOME})
        until(lambda: gone(int(done.stdout)))
        assert not list(home.iterdir())


def test_its_clock_is_this_ones(server: avlab.Server) -> None:
    """Where the system does not tell its boots apart, a process names its clock as the one that started it does."""
    command = [sys.executable, "-c", "from avlab.stream import clock; print(clock._process_identity)"]
    env = {"PYTHONPATH": HOME, CLOCK_VARIABLE: "process:of-mine"}
    said = tools.run(*command, env=env)
    assert said == "process:of-mine\n"
    before = time.perf_counter_ns()
    until(lambda: server.trace.meta)
    meta = server.trace.meta
    assert meta["clock"] == clock_identity()
    assert before - 60 * NS < meta["epoch_ns"] < time.perf_counter_ns(), "perf_counter is one clock for both"


def test_many_fetches_make_one_trace(server: avlab.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avlab.stream.isolated.mirror.MANY_PARTS", 3)
    monkeypatch.setattr("avlab.stream.isolated.mirror.MUCH_BYTES", 4_000)
    with avlab.Client(server.url, audio="null"):
        counts = [0]
        while counts[-1] < 200:
            counts.append(len(server.trace.packets))
    assert counts == sorted(counts)
    server.stop()
    packets = server.trace.packets
    for _, sent in packets.groupby("ssrc"):
        assert (sent["seq"].astype(int).diff().dropna() == 1).all()
    assert len(packets) >= counts[-1]


# ---- what goes there, and what comes back


def frames() -> Iterator[np.ndarray]:
    yield np.zeros((48, 64, 3), np.uint8)


class Unsendable:
    """A rate controller that says itself that it cannot be copied."""

    def __reduce__(self) -> Any:
        raise OSError("the camera is open")

    def update(self, report: Report, /) -> Choice | None:
        """Nothing is changed."""


def holding(thing: Any) -> FeedbackPacer:
    """A pacer whose rule holds on to something."""
    return FeedbackPacer(lambda delay, measured_fps, target_fps: delay if thing else 0.0)


def test_what_can_be_read_once_is_refused() -> None:
    for source in (frames(), iter([np.zeros((48, 64, 3), np.uint8)]), map(abs, [1])):
        kind = type(source).__name__
        with pytest.raises(ValueError, match=f"^source is a {kind}, which can be read only once .* leave isolated out"):
            avlab.Server(source, isolated=True)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("pacer", holding(frames()), "generator"),
        ("pacer", holding(threading.Lock()), "lock"),
        ("rate_control", Unsendable(), "OSError: the camera is open"),
    ],
)
def test_what_lives_in_this_process_is_refused_by_name(clip: Path, name: str, value: Any, reason: str) -> None:
    """A lock, a generator, an open camera: however deep within a part."""
    sentence = f"^{name} cannot be sent to another process .*{reason}.*leave isolated out$"
    with pytest.raises(ValueError, match=sentence):
        avlab.Server(clip, isolated=True, **{name: value})
    server = avlab.Server(clip, isolated=True)
    before = getattr(server, name)
    with pytest.raises(ValueError, match=sentence):
        setattr(server, name, value)
    assert getattr(server, name) is before, "what was set stays"


def test_what_cannot_be_is_refused_there_as_here(clip: Path) -> None:
    plain, isolated = avlab.Server(clip), avlab.Server(clip, isolated=True)
    wrong: dict[str, Any] = {"network": 0.5, "spread": 2, "parity": -1, "rate_control": "pid", "offload": "often"}
    wrong |= {"quality": 101, "width": 1, "pacer": "swift"}
    for name, value in wrong.items():
        with pytest.raises((ValueError, TypeError), match=f"{name}|{value}") as here:
            setattr(plain, name, value)
        for act in (
            partial(setattr, isolated, name, value),
            partial(avlab.Server, clip, isolated=True, **{name: value}),
        ):
            with pytest.raises(type(here.value)) as there:
                act()
            assert str(there.value) == str(here.value)
    for source in (clip.with_name("none.mp4"), 3.5):
        with pytest.raises((FileNotFoundError, TypeError)) as plainly:
            avlab.Server(source)
        with pytest.raises(type(plainly.value)) as caught:
            avlab.Server(source, isolated=True)
        assert str(caught.value) == str(plainly.value)


def test_every_setting_goes_there(clip: Path) -> None:
    values: dict[str, Any] = {"width": 160, "quality": 33, "pacer": NoPacing(), "network": Network(loss=0.01)}
    values |= {"loop": True, "spread": 0.4, "parity": 0.6, "rate_control": "aimd", "clients": 3, "offload": "off"}
    with avlab.Server(clip, isolated=True, **values) as server:
        until(lambda: server.trace.meta)
        assert settings_of(server.trace) == settings_of(avlab.Server(clip, **values).trace)
        assert (server.quality, server.width, server.offload) == (33, 160, "off")


def test_what_networks_and_the_answers_to_them_are_acts_there(server: avlab.Server) -> None:
    own = Aimd(best=Choice(70, 480), queue=0.05, increase_kbps=200, decrease=0.7, least_width=200)
    server.network = Network(delay=0.01, rate=2_000, queue=0.1, seed=3)
    server.spread, server.parity = 0.5, 0.4
    server.rate_control = own
    assert server.rate_control is own
    with avlab.Client(server.url, audio="null"):
        until(lambda: (server.quality, server.width) not in [(60, None), (70, 480)])  # chosen there, seen here
        assert server.width is not None
        assert server.quality <= 70
    server.stop()
    said = settings_of(server.trace)
    assert ("network", str(server.network)) in said
    assert {("spread", 0.5), ("parity", 0.4), ("rate_control", "Aimd")} <= set(said)
    last = {name: value for name, value in said if name in ("quality", "width")}
    assert (server.quality, server.width) == (last["quality"], last["width"])
    server.quality = 12
    assert server.quality == 12


def test_pictures_made_here_are_streamed_from_there() -> None:
    pictures = [np.full((48, 64, 3), 40 * number, np.uint8) for number in range(1, 6)]
    with (
        avlab.Server(pictures, fps=5, loop=True, isolated=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        seen: set[int] = set()
        for frame in client.frames():
            seen.add(round(float(frame.image.mean()) / 40))
            if len(seen) > 2:
                break
    assert seen <= {1, 2, 3, 4, 5}


# ---- parts of one's own, as students write them: in a script without any guard, as in a notebook's cells


PARTS = """
import avlab, time
from dataclasses import dataclass
import mine

STEP = 0.25
heard = []

@dataclass
class Half:
    width: int
    def update(self, report):
        heard.append(report.client)
        if len(heard) > 0:
            return avlab.Choice(40, self.width)

class Steady(avlab.DeadlinePacer):
    name = "steady"

def slow(step):
    return lambda delay, measured_fps, target_fps: step

def seen(wanted):
    end = time.monotonic() + 60
    while not wanted() and time.monotonic() < end:
        time.sleep(0.05)
    return wanted()
"""


def run_script(folder: Path, clip: Path, text: str) -> str:
    """What a student's script prints, with a module of the student's own beside it."""
    (folder / "mine.py").write_text("def rule(delay, measured_fps, target_fps):\n    return 0.25\n")
    (folder / "student.py").write_text(f"{PARTS}\nCLIP = {str(clip)!r}\n{text}")
    return tools.run(sys.executable, folder / "student.py", env={"PYTHONPATH": HOME})


@pytest.fixture
def short_clip(data: Path) -> Path:
    return data / "count-15.mp4"


def test_ten_lines_at_the_top_of_a_script_run(tmp_path: Path, short_clip: Path) -> None:
    said = run_script(
        tmp_path,
        short_clip,
        """
print("once")
with avlab.Server(CLIP, width=160, isolated=True) as server, avlab.Client(server.url, audio="null") as client:
    client.wait(0.5)
    server.quality = 30
    server.network = avlab.Network(loss=0.02, delay=0.02)
    client.wait(0.5)
print(len(client.trace.frames) > 0, client.trace.meta["joined"])
""",
    )
    assert said == "once\nTrue True\n", "the script is run once, and not again by the process"


def test_own_parts_of_a_script_act_in_the_process(tmp_path: Path, short_clip: Path) -> None:
    said = run_script(
        tmp_path,
        short_clip,
        """
with (
    avlab.Server(CLIP, loop=True, isolated=True, rate_control=Half(width=160), pacer=Steady()) as server,
    avlab.Client(server.url, audio="null") as client,
):
    print(seen(lambda: (server.quality, server.width) == (40, 160)), server.pacer.name)
    def slowly():
        frames = server.trace.frames
        return frames[frames["stream"] == "video"]["sent"].diff().tail(3).min() > STEP * 0.8
    for rule in (slow(STEP), mine.rule):
        server.pacer = "deadline"
        print(seen(lambda: not slowly()))
        server.pacer = avlab.FeedbackPacer(rule)
        print(seen(slowly))
print(server.error, heard)
""",
    )
    assert said == "True steady\nTrue\nTrue\nTrue\nTrue\nNone []\n"


def test_what_two_parts_share_they_share_there(tmp_path: Path, short_clip: Path) -> None:
    said = run_script(
        tmp_path,
        short_clip,
        """
class Notes:
    width = 160
class Wide:
    def __init__(self, notes):
        self.notes = notes
    def update(self, report):
        return avlab.Choice(40, self.notes.width)
class Noting(avlab.DeadlinePacer):
    def __init__(self, notes):
        super().__init__()
        self.notes = notes
    def pull(self, now_ns):
        self.notes.width = 320
        return super().pull(now_ns)
notes = Notes()
with (
    avlab.Server(CLIP, loop=True, isolated=True, rate_control=Wide(notes), pacer=Noting(notes)) as server,
    avlab.Client(server.url, audio="null"),
):
    print(seen(lambda: server.width == 320))
""",
    )
    assert said == "True\n"


def test_a_part_that_fails_there_is_told_as_it_is_here(tmp_path: Path, short_clip: Path) -> None:
    said = run_script(
        tmp_path,
        short_clip,
        """
import re
class OwnError(Exception):
    def __init__(self, number, why):
        super().__init__(f"{why}: {number}")
class Broken:
    def update(self, report):
        raise OwnError(17, "no such choice")
def raising(delay, measured_fps, target_fps):
    raise OwnError(17, "no such delay")
for settings in ({"rate_control": Broken()}, {"pacer": avlab.FeedbackPacer(raising)}):
    told = []
    for isolated in (False, True):
        server = avlab.Server(CLIP, loop=True, isolated=isolated, **settings).start()
        client = avlab.Client(server.url, audio="null").start()
        seen(lambda: server.error and server.notices)
        told.append(re.sub(r"measured_fps=[0-9.]+", "measured", repr((server.error, server.notices))))
        for handle in (client, server):
            try:
                handle.stop()
            except Exception:
                pass
    print(told[0] == told[1] or told)
    print(told[1])
""",
    )
    first, first_words, second, second_words = said.splitlines()
    assert (first, second) == ("True", "True"), said
    assert "Broken" in first_words
    assert "no such choice: 17" in first_words
    assert "raising" in second_words
    assert "no such delay: 17" in second_words


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(1000)"])
def test_a_part_that_never_returns_holds_up_no_stop(body: str, tmp_path: Path, short_clip: Path) -> None:
    said = run_script(
        tmp_path,
        short_clip,
        f"""
def stuck(delay, measured_fps, target_fps):
    {body}
server = avlab.Server(CLIP, loop=True, isolated=True, pacer=avlab.FeedbackPacer(stuck)).start()
client = avlab.Client(server.url, audio="null").start()
seen(lambda: len(server.trace.frames) > 0)
print(server.running, server.quality, server.pid)
server.stop(30)
print(server.running, len(server.trace.frames) > 0)
try:
    client.stop()
except ConnectionError:  # no goodbye came
    pass
""",
    )
    *words, pid, running, fetched = said.split()
    assert (words, running, fetched) == (["True", "80"], "False", "True")
    assert gone(int(pid))


def test_what_a_part_prints_and_asks_goes_nowhere(tmp_path: Path, short_clip: Path) -> None:
    """Its output is not for the handle to read, and nobody is there to answer."""
    said = run_script(
        tmp_path,
        short_clip,
        """
import sys
def chatty(delay, measured_fps, target_fps):
    print("x" * 10_000)
    sys.stdout.flush()
    try:
        input("which delay?")
    except EOFError:
        return 0.01
with (
    avlab.Server(CLIP, loop=True, isolated=True, pacer=avlab.FeedbackPacer(chatty)) as server,
    avlab.Client(server.url, audio="null") as client,
):
    print(seen(lambda: (client.trace.frames["fate"] == "shown").sum() > 20))
""",
    )
    assert said == "True\n"


def test_a_module_that_is_not_found_there_is_told_with_the_argument(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = types.ModuleType("made_up_here")
    exec("def rule(delay, measured_fps, target_fps):\n    return delay\n", vars(module))
    monkeypatch.setitem(sys.modules, "made_up_here", module)
    server = avlab.Server(clip, isolated=True, pacer=FeedbackPacer(module.rule))
    with pytest.raises(ValueError, match=r"^pacer cannot be made .*made_up_here.*leave isolated out$"):
        server.start()
    assert isinstance(server, IsolatedServer)
    assert server.pid is not None
    assert gone(server.pid)


# ---- that it is private


def test_the_key_is_told_on_standard_input_alone(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    monkeypatch.setattr(isolated, "new_key", lambda: key)
    with avlab.Server(clip, isolated=True) as server:
        assert isinstance(server, IsolatedServer)
        process = psutil.Process(server.pid)
        environment = process.environ()
        assert environment
        assert not any(key.hex() in words for words in [*process.cmdline(), *environment, *environment.values()])


def test_while_it_runs_there_is_nothing_to_connect_to(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tools.short_folder() as home:
        monkeypatch.setenv("TMPDIR", str(home))
        with avlab.Server(clip, isolated=True) as server:
            assert isinstance(server, IsolatedServer)
            until(lambda: not list(home.iterdir()))
            connections = psutil.Process(server.pid).net_connections("inet")
            listening = [c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN]
            assert [f":{port}/" in server.url for port in listening] == [True]


@pytest.mark.parametrize("depth", [0, 120])
def test_the_door_opens_to_the_key_and_leaves_nothing(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder whose name is too long for a socket's address, it is a port of the loopback interface."""
    with tools.short_folder() as folder:
        home = folder / ("x" * depth)
        home.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(home))
        door = Door(b"the key")
        if depth:
            assert door.address[0] == "127.0.0.1"
        else:
            assert stat.S_IMODE(Path(door.address).parent.stat().st_mode) == 0o700
        inside: list[Any] = []
        thread = threading.Thread(target=lambda: inside.append(door.accept()))
        thread.start()
        with pytest.raises(AuthenticationError):
            ConnectedClient(door.address, authkey=b"another key")
        ConnectedClient(door.address).close()
        with ConnectedClient(door.address, authkey=b"the key") as client:
            thread.join(20)
            door.close()
            client.send_bytes(b"hello")
            assert inside[0].recv_bytes() == b"hello"
            inside[0].close()
        assert not list(home.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with tools.short_folder() as home:
        monkeypatch.setattr(tempfile, "tempdir", str(home))
        text = "import os\nfrom avlab.stream.isolated.door import Door\nDoor(b'key')\nos.kill(os.getpid(), 9)\n"
        tools.finished(sys.executable, "-c", text, env={"TMPDIR": str(home), "PYTHONPATH": HOME})
        (left,) = home.iterdir()
        file, other = home / "avlab-pipe-file", home / "another"
        file.touch()
        other.mkdir()
        first, second = Door(b"1"), Door(b"2")
        assert not left.exists()
        assert len(set(home.iterdir()) - {file, other}) == 2, "what the first holds is left to it"
        first.close()
        second.close()
        assert set(home.iterdir()) == {file, other}


# ---- packing


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
            max_leaves=8,
        ),
    )
)
def test_values_go_as_they_are(values: dict[str, Any]) -> None:
    assert unpacked(packed(values)) == values


STEP = 0.125


def test_pacers_and_controllers_go_with_their_settings() -> None:
    parts: dict[str, Any] = {
        "tutorial": TutorialPacer(edition="macos", fps=25, stall="real"),
        "pi": FeedbackPacer(PiRule(kp=0.2, ki=0.3), fps=12.5, name="mine"),
        "rate_control": Aimd(best=Choice(70, 480), queue=0.05, least_width=200),
        "closure": FeedbackPacer(lambda delay, measured_fps, target_fps: delay + STEP),
    }
    made = unpacked(packed(parts))
    assert [(name, type(part)) for name, part in made.items()] == [(name, type(part)) for name, part in parts.items()]
    assert (made["pi"].rule.kp, made["pi"].fps, made["pi"].name) == (0.2, 12.5, "mine")
    assert made["tutorial"].fps == 25
    assert made["rate_control"].settings() == parts["rate_control"].settings()
    assert made["closure"].rule(1.0, 25.0, 25.0) == 1.0 + STEP


class OddError(Exception):
    """Made with other arguments than it keeps."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} {number}")


class HeldError(Exception):
    """Holds something that cannot go anywhere."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MediaError("'x' is no clip; convert it."), MediaError),
        (WireError("a frame is too large"), WireError),
        (ValueError("quality must be 1 to 100, not 0"), ValueError),
        (FileNotFoundError(2, "No such file or directory", "clip.mp4"), FileNotFoundError),
        (OSError("port 8554 is taken: choose another"), OSError),
        (OSError(98, "port 8554 is taken"), OSError),
        (MemoryError(), MemoryError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "not text"), UnicodeDecodeError),
        (OddError(3, "of nobody knows where"), RuntimeError),
        (HeldError("on to a lock"), RuntimeError),
        (KeyboardInterrupt(), RuntimeError),
        (SystemExit(3), RuntimeError),
    ],
)
def test_errors_come_back_with_their_type_and_sentence(
    error: BaseException, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in list(copyreg.dispatch_table):  # other libraries teach pickle errors of all kinds when imported
        if isinstance(known, type) and issubclass(known, BaseException):
            monkeypatch.delitem(copyreg.dispatch_table, known)
    made = unpacked_error(packed_error(error))
    assert type(made) is kind
    assert (str(error) or type(error).__name__) in str(made)
    if isinstance(error, OSError):
        assert isinstance(made, OSError)
        assert (made.errno, made.strerror, made.filename) == (error.errno, error.strerror, error.filename)
