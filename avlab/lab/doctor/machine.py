"""What this machine can do, and how to mend what it cannot: the checks behind `avlab doctor`.

Each check probes and hands plain values to `lab.diagnosis`, which decides. Opens files, sockets and libraries, imports
nothing heavy before a check needs it, and sends nothing beyond loopback.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

import avlab
from avlab.lab.doctor import diagnosis
from avlab.lab.doctor.diagnosis import Judgement, State
from avlab.stream.sockets.links import BUFFER_BYTES, UDP_SEGMENT, UdpLink, listen

MARKS: Mapping[State, str] = {"ok": "ok", "note": "! note", "problem": "x problem"}

PORTS = (("tcp", 8554), ("udp", 9688), ("tcp", 9687), ("udp", 9699), ("tcp", 9698))
"""Where `avlab serve` listens, then the classic wire's ports for pictures and for sound, of either edition."""

OPENCVS = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")
WIDGET_PAGES = ("@jupyter-widgets/jupyterlab-manager", "anywidget")

FIREWALL_SIGNS: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {
    "linux": {
        "ufw": "/etc/ufw/ufw.conf",
        "firewalld": "/etc/systemd/system/multi-user.target.wants/firewalld.service",
        "nftables": "/etc/systemd/system/sysinit.target.wants/nftables.service",
    },
    "win32": {"netsh": ("netsh", "advfirewall", "show", "currentprofile")},
    "darwin": {"socketfilterfw": ("/usr/libexec/ApplicationFirewall/socketfilterfw", "--getglobalstate")},
}
"""Where each system tells about its firewall without asking for rights: a file to read, or a command to run."""

_HERE = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A line of the doctor's table. A `problem` stops avlab from working, a `note` only narrows what it can do."""

    name: str
    state: State
    found: str
    mend: str | None


def run(command: Sequence[str]) -> str | None:
    """What a program prints, within 2 s; None when it is not there, fails or takes longer."""
    window = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows opens one for each program otherwise
    try:
        done = subprocess.run(command, capture_output=True, timeout=2, check=True, creationflags=window)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def read(path: str) -> str | None:
    """The text of a file; None when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What differs from system to system: a test puts a faked one in its place. `system` is as in `sys.platform`."""

    system: str = sys.platform
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[[Sequence[str]], str | None] = run
    read: Callable[[str], str | None] = read


Check = Callable[[Machine], Judgement]


def doctor(machine: Machine | None = None, checks: Mapping[str, Check] | None = None) -> list[Finding]:
    """Run every check, in the order of the table; takes about a second. Never raises for what a check met."""
    machine = machine or Machine()
    return [_find(name, check, machine) for name, check in (CHECKS if checks is None else checks).items()]


def _find(name: str, check: Check, machine: Machine) -> Finding:
    try:
        judgement = check(machine)
    except ImportError as error:
        judgement = diagnosis.judge_import(str(error), machine.system)
    except Exception as error:
        found = f"could not be checked ({type(error).__name__}: {error})"
        judgement = Judgement("note", found, "go on, and look here first if something does not work")
    return Finding(name=name, state=judgement.state, found=judgement.found, mend=judgement.mend)


def works(findings: Iterable[Finding]) -> bool:
    """Whether nothing found stops avlab from working."""
    return all(finding.state != "problem" for finding in findings)


def as_text(findings: Sequence[Finding], width: int | None = None, *, verdict: str | None = None) -> str:
    """A table to read, `width` characters wide (None: the terminal's, 70 to 110), with a verdict as its last line.

    Without a `verdict`, it is on this machine.
    """
    width = width or max(70, min(110, shutil.get_terminal_size().columns))
    names = max((len(finding.name) for finding in findings), default=0)
    marks = max(map(len, MARKS.values()))
    indent = " " * (marks + names + 4)
    lines = []
    for finding in findings:
        head = f"{MARKS[finding.state]:<{marks}}  {finding.name:<{names}}  "
        lines += _wrapped(finding.found, head, indent, width)
        if finding.mend:
            lines += _wrapped(finding.mend, f"{indent}-> ", f"{indent}   ", width)
    notes = sum(finding.state == "note" for finding in findings)
    problems = sum(finding.state == "problem" for finding in findings)
    if verdict is not None:
        pass
    elif problems:
        verdict = f"avlab does not work here yet: mend what is marked x ({problems})."
    elif notes:
        verdict = f"avlab works here. What is marked ! ({notes}) says what would be missed, and how to get it."
    else:
        verdict = "avlab works here."
    return "\n".join([*lines, "", verdict])


def _wrapped(text: str, first: str, rest: str, width: int) -> list[str]:
    kept_whole = textwrap.TextWrapper(width, first, rest, break_long_words=False, break_on_hyphens=False)
    return kept_whole.wrap(text)


def as_json(findings: Sequence[Finding]) -> str:
    """The same for a program: `works`, and `findings` with name, state, found and mend."""
    return json.dumps({"works": works(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


# ---- Python and packages


def installed_version(name: str) -> str | None:
    """A distribution's version, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python(_machine: Machine) -> Judgement:
    return diagnosis.judge_python(platform.python_version(), metadata.metadata("avlab")["Requires-Python"])


def _packages(machine: Machine) -> Judgement:
    from packaging.requirements import Requirement

    requirements = metadata.requires("avlab") or []
    return diagnosis.judge_packages(
        requirements, {n: installed_version(n) for n in (Requirement(r).name for r in requirements)}, machine.system
    )


def _jupyter(_machine: Machine) -> Judgement:
    return diagnosis.judge_jupyter(
        {name: installed_version(name) for name in ("jupyterlab", "ipykernel", "ipywidgets")}
    )


def _widget(machine: Machine) -> Judgement:
    from jupyter_core.paths import jupyter_path

    pages: dict[str, str | None] = dict.fromkeys(WIDGET_PAGES)
    for name in pages:
        texts = (machine.read(f"{folder}/{name}/package.json") for folder in jupyter_path("labextensions"))
        pages[name] = next((str(json.loads(text)["version"]) for text in texts if text), None)
    return diagnosis.judge_widget(installed_version("anywidget"), pages)


# ---- pictures and sound


def _codecs(_machine: Machine) -> Judgement:
    import av
    import simplejpeg

    ffmpeg = getattr(av, "ffmpeg_version_info", None) or "libavcodec " + ".".join(
        map(str, av.library_versions["libavcodec"])
    )
    missing = [name for name in ("h264", "hevc", "aac", "mjpeg") if name not in av.codecs_available]
    return diagnosis.judge_codecs(
        {"PyAV": av.__version__, "FFmpeg": ffmpeg, "simplejpeg": simplejpeg.__version__}, missing
    )


def _window(_machine: Machine) -> Judgement:
    import cv2

    named = re.search(r"^\s*GUI:[ \t]*(\S*)", cv2.getBuildInformation(), re.MULTILINE)
    return diagnosis.judge_window(named[1] if named else "", [name for name in OPENCVS if installed_version(name)])


def _display(machine: Machine) -> Judgement:
    display, answering = machine.environ.get("DISPLAY"), True
    if display and machine.system.startswith("linux"):
        with suppress(ImportError):  # of a package that the checks above have missed
            from avlab.lab.window import answers

            answering = answers(display)
    return diagnosis.judge_display(machine.system, machine.environ, answering)


def _sound(machine: Machine) -> Judgement:
    from avlab.media.speaker import PyAudioSpeaker, SoundDeviceSpeaker, SpeakerError

    devices = []
    for speaker in (PyAudioSpeaker, SoundDeviceSpeaker):
        with suppress(SpeakerError):
            devices.append(speaker(rate=48_000, channels=2).name)  # found, not opened
    libraries = [f"{name} {version}" for name in diagnosis.SOUND_LIBRARIES if (version := installed_version(name))]
    portaudio = None  # each library brings its own; the speakers prefer PyAudio's
    if (loaded := sys.modules.get("pyaudio")) is not None:
        portaudio = loaded.get_portaudio_version_text()
    elif (loaded := sys.modules.get("sounddevice")) is not None:
        portaudio = loaded.get_portaudio_version()[1]
    portaudio = portaudio and portaudio.split(",")[0]
    return diagnosis.judge_sound(next(iter(devices), None), libraries, portaudio, machine.system)


def _clips(_machine: Machine) -> Judgement:
    folder = Path(avlab.__file__).resolve().parent.parent / "data"
    return diagnosis.judge_clips(sorted(path.name for path in folder.glob("count*.mp4")))


# ---- time


def _timer(_machine: Machine) -> Judgement:
    late_ns = []
    for milliseconds in (1, 2, 3, 4, 5) * 8:
        due_ns = time.perf_counter_ns() + milliseconds * 1_000_000
        time.sleep(milliseconds / 1000)
        late_ns.append(max(0, time.perf_counter_ns() - due_ns))
    step_ns = round(time.get_clock_info("perf_counter").resolution * 1e9)
    return diagnosis.judge_timer(late_ns=median(late_ns), worst_ns=max(late_ns), step_ns=step_ns)


# ---- network


def _datagram(machine: Machine) -> Judgement:
    with closing(UdpLink(_HERE)) as link, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        sizes = {"large": largest_datagram(link.socket), "plain": largest_datagram(plain)}
    return diagnosis.judge_datagram(**sizes, system=machine.system)


def largest_datagram(sender: socket.socket) -> int:
    """The most bytes in one datagram that `sender` gets across loopback, by halving; 0 when none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        with suppress(OSError):
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind((_HERE, 0))
        receiver.settimeout(0.1)
        low, high, size = 0, diagnosis.LARGEST_DATAGRAM, diagnosis.LARGEST_DATAGRAM
        while low < high:
            try:
                sender.sendto(bytes(size), receiver.getsockname())
                crossed = len(receiver.recv(65_536)) == size
            except OSError:  # too large to send, or sent and never seen
                crossed = False
            low, high = (size, high) if crossed else (low, size - 1)
            size = (low + high + 1) // 2
    return low


def _buffers(machine: Machine) -> Judgement:
    linux = machine.system.startswith("linux")
    with closing(UdpLink(_HERE)) as link:
        granted = [link.socket.getsockopt(socket.SOL_SOCKET, kind) for kind in (socket.SO_RCVBUF, socket.SO_SNDBUF)]
    receive, send = (value // 2 if linux else value for value in granted)  # Linux counts its own overhead in: socket(7)
    names = ("rmem_max", "wmem_max") if linux else ()
    limits = {name: machine.read(f"/proc/sys/net/core/{name}") for name in names}
    return diagnosis.judge_buffers(receive=receive, send=send, asked=BUFFER_BYTES, system=machine.system, limits=limits)


def _offload(machine: Machine) -> Judgement:
    available = False
    if machine.system.startswith("linux"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
            available = True
    return diagnosis.judge_offload(available, machine.system)


def _loopback(_machine: Machine) -> Judgement:
    errors: dict[str, str | None] = {}
    for name, echo in (("UDP", echo_udp), ("TCP", echo_tcp)):
        try:
            errors[name] = None if echo(b"avlab") == b"avlab" else "something else came back"
        except OSError as error:
            errors[name] = error.strerror or str(error) or type(error).__name__
        except Exception as error:  # of avlab's own sockets, on a system that lacks what they ask for: nothing streams
            errors[name] = f"{type(error).__name__}: {error}"
    return diagnosis.judge_loopback(errors)


def echo_udp(data: bytes) -> bytes:
    """What comes back of `data` over UDP on the loopback. OSError where it fails."""
    with closing(UdpLink(_HERE)) as first, closing(UdpLink(_HERE)) as second:  # set up as for a stream
        here, there = first.socket, second.socket
        for sock in (here, there):
            sock.settimeout(0.5)
        here.sendto(data, there.getsockname())
        there.sendto(*there.recvfrom(2048))
        return here.recv(2048)


def echo_tcp(data: bytes) -> bytes:
    """What comes back of `data` over TCP on the loopback. OSError where it fails."""
    with listen(_HERE, 0) as listener:
        listener.settimeout(0.5)
        with socket.create_connection(listener.getsockname(), timeout=0.5) as here, listener.accept()[0] as there:
            there.settimeout(0.5)
            here.sendall(data)
            there.sendall(there.recv(2048))
            return here.recv(2048)


def _ports(machine: Machine) -> Judgement:
    refused: dict[int, int | None] = {port: None for _, port in PORTS}
    for kind, port in PORTS:
        try:
            with closing(listen(_HERE, port) if kind == "tcp" else UdpLink(_HERE, port)):
                pass
        except OSError as error:
            refused[port] = error.errno or 0
    return diagnosis.judge_ports(refused, machine.system)


def _lan(_machine: Machine) -> Judgement:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # chooses a route and sends nothing; an address for documents, RFC 5737
        except OSError:
            return diagnosis.judge_lan(None)
        return diagnosis.judge_lan(str(sock.getsockname()[0]))


def _firewall(machine: Machine) -> Judgement:
    signs = FIREWALL_SIGNS.get("linux" if machine.system.startswith("linux") else machine.system, {})
    said = {name: machine.read(sign) if isinstance(sign, str) else machine.run(sign) for name, sign in signs.items()}
    return diagnosis.judge_firewall(machine.system, said)


CHECKS: Mapping[str, Check] = {
    "Python": _python,
    "packages": _packages,
    "Jupyter": _jupyter,
    "live view": _widget,
    "codecs": _codecs,
    "sample clips": _clips,
    "sound": _sound,
    "window": _window,
    "display": _display,
    "timer": _timer,
    "loopback": _loopback,
    "ports": _ports,
    "datagrams": _datagram,
    "socket buffers": _buffers,
    "UDP offload": _offload,
    "LAN address": _lan,
    "firewall": _firewall,
}
