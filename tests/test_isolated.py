"""A server in a process of its own: the same handle and errors, a trace that joins, no process left behind."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tools
from rawclient import RawClient, until

import avlab
from avlab.media.packets import MediaError
from avlab.network.ratecontrol import Aimd, Choice, Report
from avlab.network.settings import Network
from avlab.stream.clock import CLOCK_VARIABLE, clock_identity
from avlab.stream.isolated import server as isolated
from avlab.stream.isolated.parcel import packed, packed_error, unpacked, unpacked_error
from avlab.stream.isolated.server import IsolatedServer
from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, NoPacing, PiRule, TutorialPacer, tutorial_rule
from avlab.wire.units import NS, WireError

pytestmark = pytest.mark.slow


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
        part = client.trace
    for trace in (part, client.trace):
        assert trace.meta["joined"]
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
    "no number": "out(b'{}\\n'); wait()",
    "deep": "out(b'[' * 100_000 + b'\\n'); wait()",
    "rows that never come": 'out(b\'{"rows": {"packets": 9999999}, "from": {}, "meta": {}, "settings": []}\\n\')',
    "unknown rows": 'out(b\'{"rows": {"odd": 1}, "from": {}, "meta": {}, "settings": []}\\n\'); wait()',
    "a strange error": "out(b'{\"failed\": 5}\\n'); wait()",
    "nothing": "pass",
    "closed": "os.close(1); wait()",
    "killed": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_process_that_talks_nonsense_is_ended_with_a_sentence(
    what: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that writes where it must not, a disk that is full: at the start, when the most is waited for."""
    (tmp_path / "odd_process.py").write_text(
        "import os, sys\n"
        "out = lambda data: os.write(1, data)\n"
        "wait = lambda: sys.stdin.buffer.read()\n"  # until the other side has let go
        f"sys.stdin.buffer.readline()\n{GARBAGE[what]}\n"
    )
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
    until(lambda: not any(worker.alive for worker in server._workers))


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
        return tools.started(sys.executable, self.path, env={"PYTHONPATH": str(Path(avlab.__file__).parents[1])})


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


def test_its_clock_is_this_ones(server: avlab.Server) -> None:
    """Where the system does not tell its boots apart, a process names its clock as the one that started it does."""
    command = [sys.executable, "-c", "from avlab.stream import clock; print(clock._process_identity)"]
    env = {"PYTHONPATH": str(Path(avlab.__file__).parents[1]), CLOCK_VARIABLE: "process:of-mine"}
    said = tools.run(*command, env=env)
    assert said == "process:of-mine\n"
    before = time.perf_counter_ns()
    until(lambda: server.trace.meta)
    meta = server.trace.meta
    assert meta["clock"] == clock_identity()
    assert before - 60 * NS < meta["epoch_ns"] < time.perf_counter_ns(), "perf_counter is one clock for both"


def test_many_fetches_make_one_trace(server: avlab.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avlab.stream.isolated.server.MANY_PARTS", 3)
    monkeypatch.setattr("avlab.stream.isolated.server.MUCH_BYTES", 4_000)
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


@pytest.mark.parametrize("source", [[np.zeros((48, 64, 3), np.uint8)], frames()])
def test_what_lives_in_this_process_is_refused(source: Any) -> None:
    kind = type(source).__name__
    with pytest.raises(
        ValueError, match=f"isolated=True takes the path of a clip .*, not {kind}: .* leave isolated out"
    ):
        avlab.Server(source, isolated=True)


def my_rule(delay: float, measured_fps: float, target_fps: float) -> float:
    return delay


def test_a_pacer_of_ones_own_is_refused(clip: Path) -> None:
    sentence = (
        "pacer is a FeedbackPacer of one's own, and isolated=True has the server run in another process: choose one of "
        "deadline, none, pi, tutorial, or leave isolated out"
    )
    with pytest.raises(ValueError, match=sentence):
        avlab.Server(clip, isolated=True, pacer=FeedbackPacer(my_rule))
    server = avlab.Server(clip, isolated=True, pacer="pi")
    with pytest.raises(ValueError, match=sentence):
        server.pacer = FeedbackPacer(my_rule)
    assert server.pacer.name == "pi", "what was set stays"
    for name, value in (("quality", 101), ("width", 1), ("pacer", "swift"), ("quality", "high")):
        with pytest.raises((ValueError, TypeError)) as plain:
            setattr(avlab.Server(clip), name, value)
        with pytest.raises(type(plain.value)) as caught:
            setattr(server, name, value)
        assert str(caught.value) == str(plain.value)
    for source in (clip.with_name("none.mp4"), 3.5):
        with pytest.raises((FileNotFoundError, TypeError)) as plain:
            avlab.Server(source)
        with pytest.raises(type(plain.value)) as caught:
            avlab.Server(source, isolated=True)
        assert str(caught.value) == str(plain.value)


class Half:
    """A student's rate controller."""

    def update(self, report: Report, /) -> Choice | None:
        return Choice(40, 320)


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


def test_what_cannot_be_is_refused_there_as_here(clip: Path) -> None:
    plain, isolated = avlab.Server(clip), avlab.Server(clip, isolated=True)
    wrong = {"network": 0.5, "spread": 2, "parity": -1, "rate_control": "pid"}
    for name, value in wrong.items():
        with pytest.raises((ValueError, TypeError), match=name) as here:
            setattr(plain, name, value)
        for act in (
            partial(setattr, isolated, name, value),
            partial(avlab.Server, clip, isolated=True, **{name: value}),
        ):
            with pytest.raises(type(here.value)) as there:
                act()
            assert str(there.value) == str(here.value)
    sentence = (
        "rate_control is a Half of one's own, and isolated=True has the server run in another process: choose aimd, or "
        "leave isolated out"
    )
    with pytest.raises(ValueError, match=sentence):
        avlab.Server(clip, isolated=True, rate_control=Half())
    for kept in (None, Aimd()):
        isolated.rate_control = kept
        with pytest.raises(ValueError, match=sentence):
            isolated.rate_control = Half()
        assert isolated.rate_control is kept, "what was set stays"


@pytest.mark.parametrize("controller", [Aimd(), Aimd(best=Choice(70, 480), queue=0.05, least_width=200)])
def test_avlabs_own_rate_controller_goes_with_its_settings(controller: Aimd) -> None:
    made = unpacked(json.loads(json.dumps(packed("rate_control", controller))))
    assert type(made) is Aimd
    assert made.settings() == controller.settings()


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "pi", [1, [2]], {"video": 1, "audio": {"made": 2}}])
def test_plain_values_go_as_they_are(value: Any) -> None:
    assert unpacked(packed("it", value)) == value


def test_paths_and_numpys_numbers_go_as_plain_ones(tmp_path: Path) -> None:
    assert packed("source", tmp_path) == str(tmp_path)
    assert [(type(v), v) for v in (packed("quality", np.int64(7)), packed("it", np.float64(0.5)))] == [
        (int, 7),
        (float, 0.5),
    ]


@pytest.mark.parametrize(
    "pacer",
    [
        DeadlinePacer(),
        NoPacing(),
        TutorialPacer(),
        TutorialPacer(edition="macos", fps=25, stall="real"),
        FeedbackPacer(tutorial_rule, start=0.02, whole_ms=False),
        FeedbackPacer(PiRule(kp=0.2, ki=0.3), fps=12.5, name="mine"),
    ],
)
def test_avlabs_own_pacers_go_with_their_settings(pacer: Any) -> None:
    made = unpacked(packed("pacer", pacer))
    assert type(made) is type(pacer)
    assert made is not pacer

    def plain(pacer: Any) -> dict[str, Any]:
        return {k: v for k, v in vars(pacer).items() if isinstance(v, str | int | float | None)} | (
            {"gains": (pacer.rule.kp, pacer.rule.ki)} if isinstance(getattr(pacer, "rule", None), PiRule) else {}
        )

    assert plain(made) == plain(pacer)


class OddError(Exception):
    pass


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
        (OddError("of nobody knows where"), RuntimeError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "not text"), RuntimeError),
        (KeyboardInterrupt(), RuntimeError),
    ],
)
def test_errors_come_back_with_their_type_and_sentence(error: BaseException, kind: type[Exception]) -> None:
    made = unpacked_error(packed_error(error))
    assert type(made) is kind
    assert (str(error) or type(error).__name__) in str(made)
    if isinstance(error, OSError):
        assert isinstance(made, OSError)
        assert (made.errno, made.strerror, made.filename) == (error.errno, error.strerror, error.filename)


def test_no_other_code_is_ever_called() -> None:
    for module, name in (("os", "system"), ("subprocess", "CalledProcessError"), ("builtins", "print")):
        made = unpacked_error({"type": [module, name], "system": None, "text": "echo"})
        assert (type(made), str(made)) == (RuntimeError, f"{name}: echo")
