"""The programs that the tests drive, and a private screen and sound card to drive them on.

Knows which Debian package holds which program; starts Xvfb and PulseAudio for one test's use and ends them again.
Nothing here is set for the whole process: what a program needs to find them is in `env`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = 180.0
"""How long a program that a test runs may take: far more than it needs, on a machine that has other things to do."""

SYSTEM_PYTHON = "/usr/bin/python3"
"""The interpreter that sees Debian's `gi`, which no wheel provides; GStreamer's RTSP server is run with it."""

PACKAGES: dict[str, str] = {
    "chromium": "chromium",
    "ffmpeg": "ffmpeg",
    "ffplay": "ffmpeg",
    "ffprobe": "ffmpeg",
    "gst-app": "gir1.2-gst-plugins-base-1.0 python3-gi",
    "gst-inspect-1.0": "gstreamer1.0-tools",
    "gst-launch-1.0": "gstreamer1.0-tools",
    "gst-rtsp-server": "gir1.2-gst-rtsp-server-1.0 python3-gi",
    "ip": "iproute2",
    "make": "make",
    "mpv": "mpv",
    "openssl": "openssl",
    "pulse": "pulseaudio pulseaudio-utils libasound2-plugins",
    "tshark": "tshark",
    "xdotool": "xdotool",
    "xvfb": "xvfb",
}
"""What `needs(...)` may name, and the Debian packages that bring it. `gst:ELEMENT` names a GStreamer element."""

GST_PACKAGES = "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"


def without_addresses(value: object) -> str:
    """A parameter's name, for pytest's `ids`: the same in each process that collects the tests."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))


def packages(tool: str) -> list[str]:
    """The Debian packages that bring `tool`; KeyError for a name that is not known here."""
    return (GST_PACKAGES if tool.startswith("gst:") else PACKAGES[tool]).split()


@cache
def missing(tool: str) -> str | None:
    """None when `tool` is there, else a sentence which says what to install."""
    if _found(tool):
        return None
    return f"{tool} is missing: 'sudo apt-get install {' '.join(packages(tool))}' brings it, and 'make test' does that."


def _found(tool: str) -> bool:
    if tool.startswith("gst:"):
        return _succeeds("gst-inspect-1.0", "--exists", tool.removeprefix("gst:"))
    if tool == "gst-app":
        return _succeeds(SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstApp', '1.0')")
    if tool == "gst-rtsp-server":
        return _succeeds(SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')")
    if tool == "pulse":
        plugins = Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")
        return all(map(shutil.which, ("pulseaudio", "pactl", "parec"))) and any(plugins)
    return shutil.which({"xvfb": "Xvfb"}.get(tool, tool)) is not None


def environment(env: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with `env` laid over it, for `subprocess`; without what is None there."""
    return {name: value for name, value in {**os.environ, **env}.items() if value is not None}


def finished(
    *command: object, env: Mapping[str, str | None] | None = None, cwd: Path | None = None, seconds: float = SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is; TimeoutExpired, and the program is killed, after `seconds`."""
    return subprocess.run(
        [*map(str, command)], env=environment(env or {}), cwd=cwd, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


def run(
    *command: object, env: Mapping[str, str | None] | None = None, cwd: Path | None = None, seconds: float = SECONDS
) -> str:
    """Run a program that must succeed, as `finished` does; what it said, and RuntimeError with it when it fails."""
    done = finished(*command, env=env, cwd=cwd, seconds=seconds)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def started(
    *command: object,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    seconds: float = SECONDS,
) -> Iterator[subprocess.Popen[str]]:
    """A program in the background, with pipes; killed at the block's end, and after `seconds` so that no read waits."""
    with interruptible():
        child = subprocess.Popen(
            [*map(str, command)], env=environment(env or {}), cwd=cwd, stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    guard = threading.Timer(seconds, child.kill)
    guard.start()
    try:
        yield child
    finally:
        guard.cancel()
        guard.join(SECONDS)
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=SECONDS)


@contextmanager
def disposition(handler: Any, *numbers: int) -> Iterator[None]:
    """Have programs that are started within the block begin with the signals ignored (SIG_IGN) or not (SIG_DFL).

    A shell starts what it runs in the background with SIGINT ignored, that is handed on from program to program, and a
    Python that begins so has no KeyboardInterrupt: whoever sends SIGINT starts the program within
    `disposition(signal.SIG_DFL, signal.SIGINT)`. Main thread alone.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interruptible() -> AbstractContextManager[None]:
    """Have programs that are started within the block heed Ctrl-C, and a terminal that is closed.

    Wherever these tests were started from: `nohup` has its program ignore the latter, which is handed on as well.
    """
    hangup = [signal.SIGHUP] if sys.platform != "win32" else []
    return disposition(signal.SIG_DFL, signal.SIGINT, *hangup)


def _succeeds(*command: str, env: dict[str, str] | None = None) -> bool:
    try:
        return finished(*command, env=env).returncode == 0
    except FileNotFoundError:
        return False


def gst_launch(pipeline: str, seconds: float = 60.0) -> None:
    """Run a GStreamer pipeline until its stream has ended; RuntimeError with its own words when it ends before.

    What it says as it parts does not count. GStreamer 1.22 stops its source by cancelling what is under way; where the
    machine is busy that is still the PAUSE or the TEARDOWN, and it calls that an error: "Could not send message".
    """
    ended = subprocess.run(
        ["gst-launch-1.0", *pipeline.split()],
        env=environment({"LC_ALL": "C"}), capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    if "Got EOS from element" not in ended.stdout:
        raise RuntimeError(
            f"gst-launch-1.0 ended before its stream, with exit code {ended.returncode}:\n{ended.stderr}"
        )


@contextmanager
def process(
    *command: str, folder: Path, env: dict[str, str], ready: Callable[[], bool], seconds: float = 30.0
) -> Iterator[None]:
    """Run a program for as long as the block lasts; what it says goes to the files `stdout` and `stderr` in `folder`.

    The block begins once `ready()` holds. Raises TimeoutError when that takes longer than `seconds`, and RuntimeError
    with the program's own words when it ends before the block does.
    """
    # setpriv ends the program even when Python itself is killed and cannot.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        child = subprocess.Popen(
            [*guard, *command], env=environment(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    try:
        deadline = time.monotonic() + seconds
        while child.poll() is None and not ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command[0]} was not ready within {seconds:g} s")
            time.sleep(0.01)
        if child.poll() is None:
            yield
        if child.poll() is not None:
            said = (folder / "stderr").read_text(errors="replace")
            raise RuntimeError(f"{command[0]} ended by itself with exit code {child.returncode}:\n{said}")
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(SECONDS)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A private folder with a short name: a Unix socket's path may not exceed 107 bytes, pytest's `tmp_path` may."""
    with tempfile.TemporaryDirectory(prefix="avlab-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@dataclass(frozen=True)
class Screen:
    """A running Xvfb: `display` like ":3", `env` for programs that draw on it, `framebuffer` its picture as a file.

    The file is an X window dump, which the X server keeps mapped: what is drawn is in it at once.
    """

    display: str
    framebuffer: Path
    env: dict[str, str] = field(repr=False)

    def pixels(self) -> NDArray[np.uint8]:
        """The screen as it is now and goes on being: a read-only view, BGR uint8, shape (height, width, 3)."""
        with self.framebuffer.open("rb") as file:
            header = struct.unpack(">25I", file.read(100))  # XWDFile.h
        size, width, height, byte_order, bits, stride, colours = (header[i] for i in (0, 4, 5, 7, 11, 12, 19))
        if (bits, byte_order) != (32, 0):
            raise RuntimeError(f"{self.framebuffer} has {bits} bits a pixel in byte order {byte_order}, not 32 and 0")
        offset = size + 12 * colours  # twelve bytes describe a colour of the palette, which true colour does not use
        dump = np.memmap(self.framebuffer, np.uint8, "r", offset=offset, shape=(height, stride // 4, 4))
        return dump[:, :width, :3]


@contextmanager
def xvfb(width: int = 1280, height: int = 800) -> Iterator[Screen]:
    """A private X server without a screen, on a display that no other test run takes.

    Left to choose, two servers that start at once may both take the first that is free.
    """
    size = f"{width}x{height}x24"
    own = 100 + os.getpid() % 50_000
    with short_folder() as folder:
        number = folder / "stdout"  # written once the server takes connections
        with process(
            "Xvfb", f":{own}", "-displayfd", "1", "-screen", "0", size, "-fbdir", str(folder),
            "-nolisten", "tcp", "-noreset", folder=folder, env={}, ready=lambda: number.read_text().endswith("\n"),
        ):  # fmt: skip
            display = f":{number.read_text().strip()}"
            # Qt is told its platform, since a desktop may have told it another.
            env = {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "XDG_RUNTIME_DIR": str(folder)}
            yield Screen(display, folder / "Xvfb_screen0", env)


@dataclass(frozen=True)
class Sound:
    """A running PulseAudio whose one device is a null sink: `env` makes it ALSA's default, so PortAudio's too.

    What is played to it is lost, but for its monitor, which `recording` writes down.
    """

    folder: Path = field(repr=False)
    env: dict[str, str] = field(repr=False)
    rate: int = 44_100
    channels: int = 2

    @contextmanager
    def recording(self) -> Iterator[Callable[[], NDArray[np.int16]]]:
        """Record what is heard, as `parec` gives it, from before the block's first line to its end.

        Yields a function which returns all that was recorded so far: int16, shape (sample frames, channels).
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            heard = Path(name) / "stdout"
            command = ["parec", "--raw", "--device=avlab.monitor", "--format=s16le", "--latency-msec=10"]
            form = [f"--rate={self.rate}", f"--channels={self.channels}"]
            # A monitor gives silence when nothing plays, so there is something to hear at once.
            with process(
                *command, *form, folder=Path(name), env=self.env, ready=lambda: heard.stat().st_size > 0
            ):  # fmt: skip

                def samples() -> NDArray[np.int16]:
                    data = np.fromfile(heard, "<i2")
                    return data[: len(data) // self.channels * self.channels].reshape(-1, self.channels)

                yield samples


@contextmanager
def pulse() -> Iterator[Sound]:
    """A private PulseAudio daemon with a null sink, which knows nothing of the machine's own sound."""
    with short_folder() as folder:
        socket, alsa = folder / "native", folder / "alsa.conf"
        # In place of ALSA's own configuration: it names no card, so PortAudio finds this device and no other.
        alsa.write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        env = {
            "ALSA_CONFIG_PATH": str(alsa),
            "PULSE_SERVER": f"unix:{socket}",
            "PULSE_RUNTIME_PATH": str(folder),
            "PULSE_STATE_PATH": str(folder),
            "PULSE_COOKIE": str(folder / "cookie"),
        }
        sound = Sound(folder, env)
        sink = f"module-null-sink sink_name=avlab rate={sound.rate} channels={sound.channels} format=s16le norewinds=1"
        with process(
            "pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1",
            "--disable-shm=yes", "--enable-memfd=no",
            "-L", sink, "-L", f"module-native-protocol-unix auth-anonymous=1 socket={socket}",
            folder=folder, env=env, ready=lambda: _succeeds("pactl", "info", env=env),
        ):  # fmt: skip
            yield sound
