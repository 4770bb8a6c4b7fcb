"""What to make of what the doctor found, and how to mend it: plain values in, a Judgement out.

Pure: asks the system nothing, so Windows, macOS and Linux can be judged anywhere.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

State = Literal["ok", "note", "problem"]

LARGEST_DATAGRAM = 65_507  # 65,535 less the headers of IPv4 and UDP
PACKET_BYTES = 1_200  # no packet of avlab's own wire is larger
ENOUGH_TO_RECEIVE = 1 << 20  # a second of 640x360 at 30 fps
ENOUGH_TO_SEND = 1 << 18
SOUND_LIBRARIES = ("pyaudio", "sounddevice")

_MS = 1_000_000
_INSTALL = "activate avlab's environment (conda activate avlab), or in a clone type: pip install -e ."
_BETWEEN = "only streams between machines need this: "
_LET_IN = {
    "ufw": "sudo ufw allow from 192.168.1.0/24, with your own network's address",
    "firewalld": "sudo firewall-cmd --zone=trusted --add-source=192.168.1.0/24, with your own network's address",
    "nftables": "accept TCP 8554 and UDP from your own network in /etc/nftables.conf",
}


class Judgement(NamedTuple):
    """A `problem` stops avlab from working, a `note` only narrows what it can do; `mend` is None when all is well."""

    state: State
    found: str
    mend: str | None = None


# ---- Python and packages


def judge_import(message: str, system: str) -> Judgement:
    """A library that does not load, by the message of its ImportError."""
    if system.startswith("linux") and "shared object" in message:
        mend = "install what it wants; on Debian and Ubuntu: sudo apt-get install libgl1 libglib2.0-0 libsm6 libxext6"
    elif system == "win32" and "DLL load failed" in message:
        mend = "install Microsoft's Visual C++ Redistributable; on an N edition of Windows also its Media Feature Pack"
    else:
        mend = _INSTALL
    return Judgement("problem", message, mend)


def judge_python(version: str, wanted: str) -> Judgement:
    """Python's version against pyproject's `requires-python`."""
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Judgement("ok", f"{version}, {wanted} is needed")
    return Judgement("problem", f"{version}, but {wanted} is needed", f"install a newer Python, then {_INSTALL}")


def judge_packages(requirements: Iterable[str], versions: Mapping[str, str | None], system: str) -> Judgement:
    """Installed versions (None: not there) against pyproject's dependencies as seen on `system`."""
    from packaging.requirements import Requirement

    wanted = [
        need
        for need in map(Requirement, requirements)
        if need.marker is None or need.marker.evaluate({"sys_platform": system, "extra": ""})
    ]
    wrong = {}
    for need in wanted:
        version = versions.get(need.name)
        if version is None:
            wrong[need] = f"{need.name} is missing"
        elif not need.specifier.contains(version, prereleases=True):
            wrong[need] = f"{need.name} is {version}, {need.specifier} is needed"
    if not wrong:
        return Judgement("ok", f"all {len(wanted)} are there and new enough")
    silent = all(need.name.lower() in SOUND_LIBRARIES for need in wrong)  # without them it plays on, in silence
    names = " ".join(f'"{need.name}{need.specifier}"' for need in wrong)
    return Judgement("note" if silent else "problem", "; ".join(wrong.values()), f"pip install --upgrade {names}")


def judge_jupyter(versions: Mapping[str, str | None]) -> Judgement:
    """JupyterLab and the kernel beneath it."""
    missing = [name for name, version in versions.items() if version is None]
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    if missing:
        return Judgement("note", found, f"the notebooks need it: pip install {' '.join(missing)}")
    kernel = versions.get("ipykernel") or ""
    if kernel.split(".")[0].isdigit() and int(kernel.split(".")[0]) < 7:
        return Judgement("note", found, "sliders wait while a cell runs: pip install --upgrade ipykernel")
    return Judgement("ok", found)


def judge_widget(package: str | None, pages: Mapping[str, str | None]) -> Judgement:
    """The live view's page: anywidget's version in Python, and what JupyterLab would load, by extension."""
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in pages.items())
    again = "the live view stays empty: install both where JupyterLab runs, then start JupyterLab and reload the page: "
    if None in pages.values():
        return Judgement("note", found, f"{again}pip install --force-reinstall anywidget jupyterlab_widgets")
    if package != pages["anywidget"]:
        found = f"{found}, but anywidget {package or 'missing'} in Python"
        return Judgement("note", found, f"{again}pip install --force-reinstall anywidget")
    return Judgement("ok", found)


# ---- pictures and sound


def judge_codecs(versions: Mapping[str, str], missing: Sequence[str]) -> Judgement:
    """The libraries that read clips and JPEGs, and which of the usual decoders FFmpeg was built without."""
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not missing:
        return Judgement("ok", found)
    mend = "such clips do not open: pip install --force-reinstall av brings an FFmpeg that has them"
    return Judgement("note", f"{found}, without {', '.join(missing)}", mend)


def judge_window(backend: str, opencvs: Sequence[str]) -> Judgement:
    """OpenCV's way to open windows, as its build information names it, and the OpenCV packages that are installed."""
    if len(opencvs) > 1:
        mend = f"keep one: pip uninstall -y {' '.join(opencvs)}, then pip install opencv-python"
        return Judgement("note", f"{len(opencvs)} OpenCVs overwrite each other: {', '.join(opencvs)}", mend)
    if backend in ("", "NONE"):
        mend = "for avlab play --window: pip uninstall -y opencv-python-headless, then pip install opencv-python"
        return Judgement("note", "this OpenCV cannot open windows", mend)
    return Judgement("ok", f"OpenCV opens them with {backend}")


def judge_display(system: str, environ: Mapping[str, str], answers: bool) -> Judgement:
    """Whether there is a screen for a window: Linux names it in its environment, Windows and macOS have one.

    `answers` is whether an X server takes connections at the display that is named.
    """
    if not system.startswith("linux"):
        return Judgement("ok", "the desktop's own")
    display, wayland = environ.get("DISPLAY"), environ.get("WAYLAND_DISPLAY")
    if display and answers:
        return Judgement("ok", f"DISPLAY is {display}")
    if wayland and not display:
        mend = "OpenCV's windows need X: install XWayland, or use notebooks and avlab play --no-window"
        return Judgement("note", f"Wayland alone, {wayland}", mend)
    found = f"DISPLAY is {display}, where nothing answers" if display else "none: DISPLAY is not set"
    mend = "notebooks and avlab play --no-window go without; for a window use a desktop's terminal, or ssh -X"
    return Judgement("note", found, mend)


def judge_sound(device: str | None, libraries: Sequence[str], portaudio: str | None, system: str) -> Judgement:
    """The default output, the Python libraries, and PortAudio beneath them: each with its version, None: not there."""
    versions = ", ".join([*libraries, portaudio or "PortAudio missing"])
    if device is not None:
        return Judgement("ok", f"{device}; {versions}")
    if portaudio is None and system.startswith("linux"):
        mend = "sudo apt-get install libportaudio2, then pip install sounddevice"
    elif portaudio is None:
        mend = "pip install --force-reinstall sounddevice"
    elif system.startswith("linux"):
        mend = "connect headphones or a speaker and start PulseAudio or PipeWire as yourself, not as root"
    else:
        mend = "connect headphones or a speaker and choose it as the output in the system's sound settings"
    return Judgement("note", f"no output device: clips keep time in silence; {versions}", mend)


def judge_clips(names: Sequence[str]) -> Judgement:
    """The sample clips that are there."""
    if "count.mp4" in names:
        return Judgement("ok", f"{len(names)} in data/")
    mend = "in a clone of avlab's repository type: python -m avlab.media.synth data/"
    return Judgement("note", "data/count.mp4 is not there: demo and the notebooks need a clip of yours", mend)


# ---- time and network


def judge_timer(*, late_ns: float, worst_ns: int, step_ns: int) -> Judgement:
    """How late sleeps of 1 to 5 ms end, at the median and at worst, and the smallest step of the clock."""
    found = f"sleeps end {late_ns / _MS:.2f} ms late (at worst {worst_ns / _MS:.1f}), the clock steps by {step_ns:,} ns"
    if late_ns <= _MS and step_ns <= _MS // 10:
        return Judgement("ok", found)
    mend = "frames leave that late: close busy programs, plug the laptop in, leave power saving and virtual machines"
    return Judgement("note", found, mend)


def judge_datagram(*, large: int, plain: int, system: str) -> Judgement:
    """The largest datagram in bytes that crossed loopback: from avlab's socket, its buffer large, and a plain one."""
    found = f"{large:,} bytes" + (f", {plain:,} from a plain socket" if plain != large else "")
    if large < PACKET_BYTES:
        mend = f"avlab sends {PACKET_BYTES:,} bytes at a time: let Python through the firewall or security program"
        return Judgement("problem", found, mend)
    if min(large, plain) >= LARGEST_DATAGRAM:
        return Judgement("ok", f"{found}, the most there can be")
    mend = "enough for the default wire; on the classic wire, whose frames are single datagrams, lower quality or width"
    if system == "darwin":
        mend += ", or type: sudo sysctl -w net.inet.udp.maxdgram=65535"
    return Judgement("note", found, mend)


def judge_buffers(*, receive: int, send: int, asked: int, system: str, limits: Mapping[str, str | None]) -> Judgement:
    """Bytes granted to SO_RCVBUF and SO_SNDBUF where `asked` were asked for, and the limits that the system names."""
    found = f"{receive >> 10:,} KiB to receive, {send >> 10:,} to send, of {asked >> 10:,} asked for"
    named = [f"{name} is {int(value):,}" for name, value in limits.items() if value and value.strip().isdigit()]
    if named:
        found += f" ({', '.join(named)})"
    if receive >= ENOUGH_TO_RECEIVE and send >= ENOUGH_TO_SEND:
        return Judgement("ok", found)
    mend = "a player that is held up loses packets sooner"
    if system.startswith("linux"):
        mend += f": sudo sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked}"
    elif system == "darwin":
        mend += f": sudo sysctl -w kern.ipc.maxsockbuf={2 * asked}"
    else:
        mend += ": close what keeps this machine busy"
    return Judgement("note", found, mend)


def judge_offload(available: bool, system: str) -> Judgement:
    """Whether the system cuts one large write into packets itself (UDP_SEGMENT, Linux 4.18)."""
    if available:
        return Judgement("ok", "one call sends many packets")
    if system.startswith("linux"):
        return Judgement(
            "note", "none: each packet is a call", "works as well, with more work; Linux 4.18 and later has it"
        )
    return Judgement("ok", "none on this system: each packet is a call")


def judge_loopback(errors: Mapping[str, str | None]) -> Judgement:
    """Echoes on 127.0.0.1 by protocol: None where it came back, else what went wrong."""
    wrong = [f"{name}: {error}" for name, error in errors.items() if error is not None]
    if not wrong:
        return Judgement("ok", f"{' and '.join(errors)} come back")
    mend = "let Python through the firewall or security program, and see that nothing filters 127.0.0.1"
    return Judgement("problem", "; ".join(wrong), mend)


def judge_ports(refused: Mapping[int, int | None], system: str) -> Judgement:
    """The ports that avlab likes to listen on: the error number with which each was refused, None where it was free."""
    wrong = {port: code for port, code in refused.items() if code is not None}
    if not wrong:
        return Judgement("ok", f"{', '.join(map(str, refused))} are free")
    found = ", ".join(
        f"{port} is {'in use' if code == errno.EADDRINUSE else 'refused'}" for port, code in wrong.items()
    )
    mend = "stop what listens there (another avlab?), or choose another with --port"
    if system == "win32":
        mend += "; those that Windows keeps for itself: netsh interface ipv4 show excludedportrange protocol=tcp"
    return Judgement("note", found, mend)


def judge_lan(address: str | None) -> Judgement:
    """This machine's address as others see it; None without a network."""
    if address is None or address.startswith(("127.", "0.")):
        return Judgement(
            "note", "no network", f"{_BETWEEN}join the classroom's network; on one machine nothing is missing"
        )
    if address.startswith("169.254."):  # RFC 3927
        return Judgement(
            "note", f"{address}, which it gave itself", f"{_BETWEEN}the network gave no address: join it again"
        )
    return Judgement("ok", f"{address}: avlab serve CLIP --host {address} for other machines")


def judge_firewall(system: str, said: Mapping[str, str | None]) -> Judgement:
    """The firewall, by what each sign of it on this system said; None where it said nothing."""
    if system == "win32":
        return _judge_netsh(next(iter(said.values()), None))
    if system == "darwin":
        state = re.search(r"State\s*=\s*(\d)", next(iter(said.values()), None) or "")
        if state is None:
            return _unseen("look in System Settings, Network, Firewall")
        if state[1] == "0":
            return Judgement("ok", "off")
        mend = "allow Python in System Settings, Network, Firewall, Options, and do not block all incoming connections"
        return Judgement("note", "on, blocks all" if state[1] == "2" else "on", _BETWEEN + mend)
    if not system.startswith("linux"):
        return _unseen("look in the system's settings")
    on = [name for name, text in said.items() if text is not None and (name != "ufw" or "ENABLED=yes" in text)]
    if not on:
        return Judgement("ok", "none seen (of ufw, firewalld, nftables)")
    return Judgement("note", f"{' and '.join(on)} on", _BETWEEN + _LET_IN[on[0]])


def _judge_netsh(text: str | None) -> Judgement:
    """The table's first row after the rule is the state, whatever the language; only English says ON and OFF."""
    rows = re.search(r"(?P<profile>[^\n]*)\n-{5,}\s*\n\S[^\n]*?\s{2,}(?P<state>\S+)", (text or "").replace("\r", ""))
    if rows is None:
        return _unseen("look in Windows Security, Firewall and network protection")
    if rows["state"] == "OFF":
        return Judgement("ok", "off")
    public = rows["profile"].startswith("Public")
    mend = "set this network to private in Settings, Network; then " if public else ""
    mend += "allow Python when Windows asks, or in Windows Security, Firewall, Allow an app"
    return Judgement("note", f"{rows['profile'].strip().rstrip(':')}: {rows['state']}", _BETWEEN + mend)


def _unseen(where: str) -> Judgement:
    return Judgement("note", "cannot be seen from here", f"{_BETWEEN}{where}, and let Python through")
