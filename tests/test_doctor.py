"""The doctor: what each judgement says on each system, checks against faked machines, the table, and a real run."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tools

from avlab import cli
from avlab.lab import window
from avlab.lab.doctor import diagnosis
from avlab.lab.doctor import machine as doctor
from avlab.lab.doctor.diagnosis import Judgement
from avlab.lab.doctor.machine import CHECKS, Finding, Machine

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
MS = 1_000_000

NETSH = """\r
Public Profile Settings: \r
----------------------------------------------------------------------\r
State                                 ON\r
Firewall Policy                       BlockInbound,AllowOutbound\r
LocalFirewallRules                    N/A (GPO-store only)\r
\r
Ok.\r
"""
NETSH_GERMAN = NETSH.replace("Public Profile Settings", "Einstellungen für Privates Profil").replace("ON\r", "EIN\r")


def machine(
    system: str,
    *,
    says: str | None = None,
    files: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Machine:
    """A faked machine whose every program prints `says` and whose only files are `files`."""
    return Machine(system=system, environ=environ or {}, run=lambda _command: says, read=(files or {}).get)


def check(name: str, on: Machine) -> Finding:
    (finding,) = doctor.doctor(on, {name: CHECKS[name]})
    assert finding.name == name
    assert (finding.mend is None) == (finding.state == "ok")
    return finding


# --- judgements: the state, and words that found and mend have to hold -------------------------------------------


def buffers(receive: int, system: str) -> Judgement:
    return diagnosis.judge_buffers(receive=receive, send=4 * MIB, asked=4 * MIB, system=system, limits={})


JUDGEMENTS: list[tuple[Judgement, str, str, str]] = [
    (diagnosis.judge_python("3.11.7", ">=3.11"), "ok", "3.11.7", ""),
    (diagnosis.judge_python("3.14.0rc1", ">=3.11"), "ok", "3.14.0rc1", ""),
    (diagnosis.judge_python("3.10.2", ">=3.11"), "problem", "3.10.2, but >=3.11", "newer Python"),
    (diagnosis.judge_import("No module named 'av'", "linux"), "problem", "'av'", "conda activate avlab"),
    (diagnosis.judge_import("libGL.so.1: cannot open shared object file", "linux"), "problem", "libGL", "apt-get"),
    (diagnosis.judge_import("DLL load failed while importing cv2", "win32"), "problem", "cv2", "Visual C++"),
    (diagnosis.judge_import("DLL load failed", "darwin"), "problem", "DLL", "pip install -e ."),
    (diagnosis.judge_jupyter({"jupyterlab": "4.6.6", "ipykernel": "7.3.0"}), "ok", "ipykernel 7.3.0", ""),
    (diagnosis.judge_jupyter({"jupyterlab": "4.6.6", "ipykernel": "6.31.0"}), "note", "6.31.0", "--upgrade ipykernel"),
    (diagnosis.judge_jupyter({"jupyterlab": None, "ipykernel": "7"}), "note", "jupyterlab missing", "pip install"),
    (diagnosis.judge_widget("0.11.0", {"manager": "5", "anywidget": "0.11.0"}), "ok", "anywidget 0.11.0", ""),
    (diagnosis.judge_widget("0.11.0", {"manager": "5", "anywidget": None}), "note", "anywidget missing", "reinstall"),
    (diagnosis.judge_widget("0.11.0", {"manager": "5", "anywidget": "0.9.1"}), "note", "0.9.1, but", "reload"),
    (diagnosis.judge_widget(None, {"manager": "5", "anywidget": "0.9.1"}), "note", "missing in Python", "anywidget"),
    (diagnosis.judge_codecs({"PyAV": "18.1.0", "FFmpeg": "8.1"}, []), "ok", "PyAV 18.1.0, FFmpeg 8.1", ""),
    (diagnosis.judge_codecs({"PyAV": "18.1.0"}, ["h264"]), "note", "without h264", "--force-reinstall av"),
    (diagnosis.judge_clips(["count-15.mp4", "count.mp4"]), "ok", "2 in data/", ""),
    (diagnosis.judge_clips([]), "note", "data/count.mp4 is not there", "avlab.media.synth"),
    (diagnosis.judge_window("QT5", ["opencv-python"]), "ok", "QT5", ""),
    (diagnosis.judge_window("NONE", ["opencv-python-headless"]), "note", "cannot open", "opencv-python-headless"),
    (diagnosis.judge_window("", ["opencv-python"]), "note", "cannot open", "pip install opencv-python"),
    (diagnosis.judge_window("QT5", ["opencv-python", "opencv-python-headless"]), "note", "2 OpenCVs", "uninstall"),
    (diagnosis.judge_display("linux", {"DISPLAY": ":0"}, True), "ok", "DISPLAY is :0", ""),
    (diagnosis.judge_display("linux", {"DISPLAY": ":0"}, False), "note", ":0, where nothing answers", "--no-window"),
    (diagnosis.judge_display("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True), "note", "wayland-0", "XWayland"),
    (diagnosis.judge_display("linux", {}, True), "note", "DISPLAY is not set", "--no-window"),
    (diagnosis.judge_display("darwin", {}, True), "ok", "desktop", ""),
    (diagnosis.judge_display("win32", {}, True), "ok", "desktop", ""),
    (diagnosis.judge_sound("Boxen", ["pyaudio 0.2.14"], "PortAudio V19.7", "win32"), "ok", "Boxen; pyaudio 0.2.14", ""),
    (diagnosis.judge_sound(None, ["pyaudio 0.2.14"], "PortAudio V19.7", "win32"), "note", "silence", "sound settings"),
    (diagnosis.judge_sound(None, ["sounddevice 0.5"], "PortAudio V19.7", "linux"), "note", "silence", "PipeWire"),
    (diagnosis.judge_sound(None, ["sounddevice 0.5"], None, "linux"), "note", "PortAudio missing", "libportaudio2"),
    (diagnosis.judge_sound(None, [], None, "darwin"), "note", "PortAudio missing", "--force-reinstall sounddevice"),
    (diagnosis.judge_timer(late_ns=0.2 * MS, worst_ns=3 * MS, step_ns=100), "ok", "0.20 ms late (at worst 3.0)", ""),
    (diagnosis.judge_timer(late_ns=9.5 * MS, worst_ns=20 * MS, step_ns=100), "note", "9.50 ms late", "busy programs"),
    (diagnosis.judge_timer(late_ns=0, worst_ns=0, step_ns=15_600_000), "note", "15,600,000 ns", "power saving"),
    (diagnosis.judge_datagram(large=65_507, plain=65_507, system="linux"), "ok", "65,507 bytes, the most", ""),
    (diagnosis.judge_datagram(large=65_507, plain=9_216, system="darwin"), "note", "plain socket", "maxdgram=65535"),
    (diagnosis.judge_datagram(large=9_216, plain=9_216, system="darwin"), "note", "9,216 bytes", "lower quality"),
    (diagnosis.judge_datagram(large=9_216, plain=9_216, system="win32"), "note", "9,216 bytes", "classic wire"),
    (diagnosis.judge_datagram(large=0, plain=0, system="win32"), "problem", "0 bytes", "let Python through"),
    (buffers(4 * MIB, "darwin"), "ok", "4,096 KiB to receive", ""),
    (buffers(MIB // 5, "linux"), "note", "204 KiB", "rmem_max=4194304"),
    (buffers(MIB // 5, "darwin"), "note", "204 KiB", "maxsockbuf=8388608"),
    (buffers(MIB // 16, "win32"), "note", "64 KiB", "close what keeps"),
    (diagnosis.judge_offload(True, "linux"), "ok", "many packets", ""),
    (diagnosis.judge_offload(False, "linux"), "note", "none", "Linux 4.18"),
    (diagnosis.judge_offload(False, "win32"), "ok", "none on this system", ""),
    (diagnosis.judge_loopback({"UDP": None, "TCP": None}), "ok", "UDP and TCP come back", ""),
    (diagnosis.judge_loopback({"UDP": None, "TCP": "timed out"}), "problem", "TCP: timed out", "127.0.0.1"),
    (diagnosis.judge_ports({8554: None, 9688: None}, "linux"), "ok", "8554, 9688 are free", ""),
    (diagnosis.judge_ports({8554: errno.EADDRINUSE, 9688: None}, "linux"), "note", "8554 is in use", "--port"),
    (diagnosis.judge_ports({8554: errno.EACCES}, "win32"), "note", "8554 is refused", "excludedportrange"),
    (diagnosis.judge_lan("192.168.1.7"), "ok", "192.168.1.7: avlab serve CLIP --host 192.168.1.7", ""),
    (diagnosis.judge_lan("169.254.3.4"), "note", "gave itself", "join it again"),
    (diagnosis.judge_lan("127.0.0.1"), "note", "no network", "classroom's network"),
    (diagnosis.judge_lan(None), "note", "no network", "classroom's network"),
]


@pytest.mark.parametrize(("judgement", "state", "found", "mend"), JUDGEMENTS)
def test_judgement(judgement: Judgement, state: str, found: str, mend: str) -> None:
    assert judgement.state == state
    assert found in judgement.found
    assert mend in (judgement.mend or "")
    assert (judgement.mend is None) == (state == "ok")


REQUIREMENTS = [
    "av>=14",
    "numpy>=2.0",
    "sounddevice>=0.5",
    "pyaudio>=0.2.14; sys_platform == 'win32'",
    "pytest>=8; extra == 'test'",
]


@pytest.mark.parametrize(
    ("system", "changes", "state", "found"),
    [
        ("linux", {}, "ok", "all 3 are there"),
        ("win32", {"pyaudio": "0.2.14"}, "ok", "all 4 are there"),
        ("win32", {}, "note", "pyaudio is missing"),
        ("darwin", {"sounddevice": None}, "note", "sounddevice is missing"),
        ("linux", {"av": None}, "problem", "av is missing"),
        ("linux", {"numpy": "1.26.4"}, "problem", "numpy is 1.26.4, >=2.0 is needed"),
        ("linux", {"numpy": "2.5.0rc1"}, "ok", "all 3"),
        ("darwin", {"av": None, "sounddevice": None}, "problem", "av is missing; sounddevice is missing"),
    ],
)
def test_packages(system: str, changes: dict[str, str | None], state: str, found: str) -> None:
    versions = {"av": "18.1.0", "numpy": "2.4.6", "sounddevice": "0.5.6", "pyaudio": None, "pytest": None} | changes
    judgement = diagnosis.judge_packages(REQUIREMENTS, versions, system)
    assert judgement.state == state
    assert found in judgement.found
    assert (judgement.mend or "pip install --upgrade ").startswith("pip install --upgrade ")


# --- checks on faked machines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "state", "found", "mend"),
    [
        (NETSH, "note", "Public Profile Settings: ON", "set this network to private"),
        (NETSH.replace("Public", "Private"), "note", "Private Profile Settings: ON", "allow Python"),
        (NETSH.replace("ON\r", "OFF\r"), "ok", "off", ""),
        (NETSH_GERMAN, "note", "Privates Profil: EIN", "allow Python"),
        ("The service has not been started.", "note", "cannot be seen", "Windows Security"),
        (None, "note", "cannot be seen", "Windows Security"),
    ],
)
def test_firewall_of_windows(says: str | None, state: str, found: str, mend: str) -> None:
    finding = check("firewall", machine("win32", says=says))
    assert (finding.state, found in finding.found, mend in (finding.mend or "")) == (state, True, True)


@pytest.mark.parametrize(
    ("says", "state", "found"),
    [
        ("Firewall is enabled. (State = 1)\n", "note", "on"),
        ("Firewall is blocking all non-essential incoming connections. (State = 2)\n", "note", "on, blocks all"),
        ("Firewall is disabled. (State = 0)\n", "ok", "off"),
        (None, "note", "cannot be seen from here"),
    ],
)
def test_firewall_of_macos(says: str | None, state: str, found: str) -> None:
    finding = check("firewall", machine("darwin", says=says))
    assert (finding.state, finding.found) == (state, found)


@pytest.mark.parametrize(
    ("files", "state", "found", "mend"),
    [
        ({}, "ok", "none seen", ""),
        ({"ufw": "ENABLED=no\n"}, "ok", "none seen", ""),
        ({"ufw": "ENABLED=yes\n"}, "note", "ufw on", "ufw allow"),
        ({"firewalld": "[Unit]"}, "note", "firewalld on", "firewall-cmd"),
        ({"nftables": "[Unit]", "ufw": "ENABLED=yes\n"}, "note", "ufw and nftables on", "ufw allow"),
        ({"nftables": "[Unit]"}, "note", "nftables on", "nftables.conf"),
    ],
)
def test_firewall_of_linux(files: dict[str, str], state: str, found: str, mend: str) -> None:
    signs = doctor.FIREWALL_SIGNS["linux"]
    on = machine("linux", files={str(signs[name]): text for name, text in files.items()})
    finding = check("firewall", on)
    assert (finding.state, found in finding.found, mend in (finding.mend or "")) == (state, True, True)


def test_firewall_of_another_system() -> None:
    assert check("firewall", machine("freebsd14")).found == "cannot be seen from here"


def test_each_system_is_asked_in_its_own_way() -> None:
    asked: list[Sequence[str]] = []
    for system in ("win32", "darwin"):
        doctor.doctor(
            Machine(system=system, run=lambda command: asked.append(command)), {"firewall": CHECKS["firewall"]}
        )
    assert [list(command) for command in asked] == [
        ["netsh", "advfirewall", "show", "currentprofile"],
        ["/usr/libexec/ApplicationFirewall/socketfilterfw", "--getglobalstate"],
    ]


def test_display_of_a_faked_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    named = machine("linux", environ={"DISPLAY": ":4711"})
    assert check("display", named).found == "DISPLAY is :4711, where nothing answers"
    monkeypatch.setattr(window, "answers", lambda display: display == ":4711")
    assert check("display", named).found == "DISPLAY is :4711"
    assert check("display", machine("linux")).state == "note"
    assert check("display", machine("win32")).state == "ok"


def test_buffers_name_the_limit_on_linux_alone() -> None:
    files = {"/proc/sys/net/core/rmem_max": "212992\n"}
    assert "(rmem_max is 212,992)" in check("socket buffers", machine("linux", files=files)).found
    assert "rmem_max" not in check("socket buffers", machine("darwin", files=files)).found


def test_offload_is_looked_for_on_linux_alone() -> None:
    assert check("UDP offload", machine("darwin")).found.startswith("none on this system")


def test_live_view_is_looked_for_where_jupyter_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_core import paths

    monkeypatch.setattr(paths, "jupyter_path", lambda name: [f"/mine/{name}", f"/all/{name}"])
    monkeypatch.setattr(doctor, "installed_version", lambda _name: "0.11.0")
    manager = {"/mine/labextensions/@jupyter-widgets/jupyterlab-manager/package.json": '{"version": "5.0.16"}'}
    anywidget = {"/all/labextensions/anywidget/package.json": '{"version": "0.11.0"}'}
    assert check("live view", machine("linux", files=manager | anywidget)).state == "ok"
    assert "anywidget missing" in check("live view", machine("linux", files=manager)).found


# --- checks on real sockets --------------------------------------------------------------------------------------


class Limited:
    """A socket of a system that refuses datagrams over `limit` bytes."""

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self.sock, self.limit = sock, limit

    def sendto(self, data: bytes, to: tuple[str, int]) -> int:
        if len(data) > self.limit:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        return self.sock.sendto(data, to)


@pytest.mark.parametrize("limit", [0, 1, 9_216, 65_506, 65_507])
def test_largest_datagram_is_found_to_the_byte(limit: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sender: Any = Limited(sock, limit)
        assert doctor.largest_datagram(sender) == limit


def test_ports_in_use_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        taken = [("tcp", tcp.getsockname()[1]), ("udp", udp.getsockname()[1])]
        monkeypatch.setattr(doctor, "PORTS", taken)
        finding = check("ports", machine("linux"))
    assert finding.found == ", ".join(f"{port} is in use" for _, port in taken)
    assert check("ports", machine("linux")).state == "ok"


def test_nothing_leaves_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[tuple[str, int, str]] = set()
    sendto, connect = socket.socket.sendto, socket.socket.connect

    def sending(sock: socket.socket, *args: Any) -> int:
        reached.add(("send", sock.type, args[-1][0]))
        return sendto(sock, *args)

    def connecting(sock: socket.socket, address: Any) -> None:
        reached.add(("connect", sock.type, address[0]))
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "sendto", sending)
    monkeypatch.setattr(socket.socket, "connect", connecting)
    names = ("loopback", "ports", "datagrams", "socket buffers", "UDP offload", "LAN address")
    doctor.doctor(checks={name: CHECKS[name] for name in names})
    assert reached == {
        ("send", socket.SOCK_DGRAM, "127.0.0.1"),
        ("connect", socket.SOCK_STREAM, "127.0.0.1"),
        ("connect", socket.SOCK_DGRAM, "192.0.2.1"),  # chooses a route; sends nothing
    }


def test_without_a_network_there_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_sock: socket.socket, _address: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    assert check("LAN address", machine("linux")).found == "no network"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("timed out"), "timed out"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refused"),
        (AttributeError("no such option"), "AttributeError: no such option"),
    ],
)
def test_a_broken_loopback_is_a_problem(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def broken(_data: bytes) -> bytes:
        raise error

    monkeypatch.setattr(doctor, "echo_udp", broken)
    finding = check("loopback", machine("win32"))
    assert finding.state == "problem"
    assert finding.found == f"UDP: {said}"


# --- what surrounds the checks -----------------------------------------------------------------------------------


def test_programs_are_asked_with_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (doctor.run([sys.executable, "-c", "print('state')"]) or "").strip() == "state"
    assert doctor.run([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert doctor.run(["/nowhere/netsh"]) is None

    def hangs(command: Sequence[str], *, timeout: float, **_options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert doctor.run(["netsh"]) is None


def test_files_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"ENABLED=yes \xff")
    assert (doctor.read(str(tmp_path / "odd")) or "").startswith("ENABLED=yes ")
    assert doctor.read(str(tmp_path / "missing")) is None
    assert doctor.read(str(tmp_path)) is None


def test_a_check_that_fails_is_a_finding() -> None:
    def fails(_machine: Machine) -> Judgement:
        raise KeyError("surprise")

    def lacks(_machine: Machine) -> Judgement:
        raise ModuleNotFoundError("No module named 'av'")

    failed, lacking, after = doctor.doctor(
        machine("linux"), {"first": fails, "second": lacks, "third": CHECKS["display"]}
    )
    assert (failed.state, failed.found) == ("note", "could not be checked (KeyError: 'surprise')")
    assert (lacking.state, lacking.found) == ("problem", "No module named 'av'")
    assert after.name == "third"


OK = Finding(name="Python", state="ok", found="3.12.1", mend=None)
NOTE = Finding(name="sound", state="note", found="no output device " * 4, mend="connect a speaker or headphones " * 2)
PROBLEM = Finding(name="LAN address", state="problem", found="none", mend="join")


def test_table_is_aligned_and_fits() -> None:
    text = doctor.as_text([OK, NOTE, PROBLEM], width=70)
    assert text.isascii()
    assert text.splitlines() == [
        "ok         Python       3.12.1",
        "! note     sound        no output device no output device no output",
        "                        device no output device",
        "                        -> connect a speaker or headphones connect a",
        "                           speaker or headphones",
        "x problem  LAN address  none",
        "                        -> join",
        "",
        "avlab does not work here yet: mend what is marked x (1).",
    ]


@pytest.mark.parametrize(
    ("findings", "verdict", "code"),
    [
        ([OK], "avlab works here.", 0),
        ([OK, NOTE, NOTE], "avlab works here. What is marked ! (2)", 0),
        ([OK, NOTE, PROBLEM], "avlab does not work here yet: mend what is marked x (1).", 1),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_command(
    findings: list[Finding],
    verdict: str,
    code: int,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sigterm_is_kept: None,
) -> None:
    monkeypatch.setattr(doctor, "doctor", lambda: findings)
    assert cli.main(["doctor", "--json"] if as_json else ["doctor"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    if as_json:
        said = json.loads(out)
        assert said["works"] is (code == 0)
        assert [Finding(**finding) for finding in said["findings"]] == findings
    else:
        assert out.splitlines()[-1].startswith(verdict)


@pytest.fixture
def sigterm_is_kept() -> Iterator[None]:
    """The command line takes over SIGTERM for its process; here the process is pytest's."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


# --- the real thing ----------------------------------------------------------------------------------------------


def run_doctor(*flags: str, options: Sequence[str] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-m", "avlab", "doctor", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environ, check=False)


def test_this_machine_has_no_problem() -> None:
    done = run_doctor(options=["--json"])
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert [finding["name"] for finding in said["findings"]] == list(CHECKS)
    assert [finding for finding in said["findings"] if finding["state"] == "problem"] == []
    assert [finding for finding in said["findings"] if "could not be checked" in finding["found"]] == []


def test_a_sound_device_and_a_screen_are_found(pulse: tools.Sound, xvfb: tools.Screen) -> None:
    done = run_doctor(options=["--json"], **pulse.env, **xvfb.env)
    assert (done.returncode, done.stderr) == (0, "")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["sound"]["state"] == found["display"]["state"] == "ok"
    assert "PortAudio" in found["sound"]["found"]
    assert found["display"]["found"] == f"DISPLAY is {xvfb.env['DISPLAY']}"


def test_without_any_package_it_still_tells_what_to_do() -> None:
    done = run_doctor("-S", PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (1, "")
    assert "x problem  codecs" in done.stdout
    assert "No module named 'cv2'" in done.stdout
    assert "conda activate avlab" in " ".join(done.stdout.split())
    assert "ok         loopback" in done.stdout


def test_documentation_shows_every_check() -> None:
    lines = (ROOT / "docs/doctor.md").read_text().splitlines()
    for name in CHECKS:
        assert any(line.startswith(tuple(doctor.MARKS.values())) and f"  {name}  " in line for line in lines), name
