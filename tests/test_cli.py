"""The command line in processes of its own: what it prints, what it saves, its exit codes, and how it is ended."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import commands
import numpy as np
import pytest
import tools
from commands import running
from rawclient import RawClient, until

import avlab
from avlab import cli
from avlab.arguments import PACERS, parse, parser
from avlab.measure.numbers import metrics
from avlab.media import synth
from avlab.timing import pacing

pytestmark = pytest.mark.slow

KEYS = {"shown", "late", "incomplete", "skipped", "lost", "damaged", "fps", "audio_seconds", "av_p95_ms", "error"}
KEYS |= {"loss_percent", "jitter_ms", "round_trip_ms", "delay_ms"}
QUIET = ("--no-window", "--audio", "null")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture and sound at 15 fps."""
    return synth.write(synth.constant("two.mp4", 15, 2), tmp_path_factory.mktemp("clips"))


# ---- what it says of itself; in this process, since nothing runs

COMMANDS = next(list(a.choices) for a in parser()._actions if isinstance(a, argparse._SubParsersAction))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "examples:" in said
    assert f"avlab {name}" in said.split("examples:")[1]
    assert max(map(len, said.splitlines())) < 130


def test_the_commands_are_all_there() -> None:
    assert {"probe", "demo", "serve", "play", "lab"} <= set(COMMANDS)


def test_the_examples_are_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        for line in capsys.readouterr().out.split("examples:")[1].split("\n"):
            words = line.split()
            if words[:1] == ["avlab"]:
                assert parse(words[1:]).command in cli.COMMANDS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["probe"], "CLIP"),
        (["serve", "clip.mp4", "--port", "http"], "'http'"),
        (["serve", "clip.mp4", "--pacer", "fast"], "'fast'"),
        (["serve", "clip.mp4", "--seconds", "x"], "'x' is not a number of seconds above 0"),
        (["play", "rtsp://x", "--seconds", "0"], "'0' is not a number of seconds above 0"),
        (["play", "rtsp://x", "--seconds", "nan"], "'nan' is not a number of seconds above 0"),
        (["play", "rtsp://x", "--seconds", "-3"], "--seconds"),
        (["play", "rtsp://x", "--audio", "loud"], "'loud'"),
        (["play", "rtsp://x", "--window", "--no-window"], "not allowed"),
        (["play", "rtsp://x", "--widnow"], "--widnow"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_asked_wrongly(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("avlab: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert "--help" in said.err


def test_what_lab_does_not_know_is_passed_on_to_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.extend(command) or SimpleNamespace(returncode=3))
    assert cli.main(["lab", "--no-browser", "--port", "8890", "--ServerApp.ip=0.0.0.0"]) == 3
    assert asked[1:3] == ["-m", "jupyterlab"]
    assert asked[-4:] == ["--no-browser", "--port", "8890", "--ServerApp.ip=0.0.0.0"]
    asked.clear()
    assert cli.main(["lab", "--", "--port", "8890"]) == 3
    assert asked[-2:] == ["--port", "8890"]
    assert "--" not in asked


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"avlab {avlab.__version__}\n"


# ---- probe, demo


def test_probe_prints_a_table_or_json(short: Path) -> None:
    as_json = commands.run("probe", short, "--json")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    info = json.loads(as_json.stdout)
    assert isinstance(info, dict)
    assert info == json.loads(json.dumps(avlab.probe(short).to_dict()))
    as_text = commands.run("probe", short)
    assert as_text.returncode == 0
    assert "15" in as_text.stdout
    assert not as_text.stdout.startswith("{")


def test_demo_prints_a_table_and_writes_plots(short: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = commands.run("demo", short, "--seconds", 20, "--out", out, "--audio", "null")
    assert done.returncode == 0, done.stderr
    assert "shown" in done.stdout
    assert "av p95" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "fps.png", "interval_error.png", "sync.png", "loss.png", "page.png", "demo.avtrace",
    }  # fmt: skip
    trace = avlab.Trace.load(out / "demo.avtrace")
    assert metrics.frame_ledger(trace).offered == 30
    assert metrics.packet_ledger(trace).closes


# ---- serve and play, two processes


def test_a_clip_from_one_process_to_another(short: Path, tmp_path: Path) -> None:
    """`--once` ends the server with the clip, BYE the player; their traces join, and the ledgers close."""
    saved = tmp_path / "server.avtrace", tmp_path / "client.avtrace"
    with running("serve", short, "--port", 0, "--once", "--trace", saved[0], "--width", 320) as server:
        assert server.first == f"serving {short} at {server.url}\n"
        play = commands.run("play", server.url, *QUIET, "--json", "--trace", saved[1])
        code, _, complaints = server.wait()
    assert play.returncode == 0, play.stderr
    assert play.stdout.count("\n") == 1
    summary = json.loads(play.stdout)
    assert set(summary) == KEYS
    assert summary["error"] is None
    assert summary["shown"] + summary["late"] + summary["skipped"] + summary["incomplete"] + summary["lost"] == 30
    assert 1.5 < summary["audio_seconds"] < 2.2
    assert (code, complaints) == (0, f"trace saved in {saved[0]}\n")
    trace = avlab.join(avlab.Trace.load(saved[0]), avlab.Trace.load(saved[1]))
    assert trace.meta["shared_clock"]
    for ledger in (metrics.packet_ledger(trace), metrics.frame_ledger(trace), metrics.frame_ledger(trace, "audio")):
        assert ledger.closes
    assert metrics.frame_ledger(trace).offered == 30


def test_seconds_end_both(data: Path) -> None:
    with running("serve", data / "count.mp4", "--port", 0, "--loop", "--seconds", 20) as server:
        play = commands.run("play", server.url, *QUIET, "--seconds", 1)
        assert play.returncode == 0
        assert play.stdout.startswith(f"playing {server.url}, sound to no sound (null speaker)\n")
        assert "shown" in play.stdout
        code, *_ = server.end()
        assert code == 130
    done = commands.run("serve", data / "count.mp4", "--port", 0, "--seconds", 0.2)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_and_loses_no_record(short: Path, tmp_path: Path, number: int) -> None:
    saved = tmp_path / "server.avtrace", tmp_path / "client.avtrace"
    with (
        running("serve", short, "--port", 0, "--loop", "--trace", saved[0]) as server,
        running("play", server.url, *QUIET, "--trace", saved[1]) as player,
        RawClient(server.url) as beside,
    ):
        assert player.first.startswith("playing")
        beside.set_up("video", "RTP/AVP/TCP;unicast;interleaved=0-1")
        beside.ask("PLAY")
        until(lambda: beside.read() and len(beside.packets) > 50)  # what it was sent, the player was sent
        code, said, complaints = player.end(number)
        assert (code, complaints) == (130, f"trace saved in {saved[1]}\n")
        assert "shown" in said
        code, _, complaints = server.end(number)
        assert (code, complaints) == (130, f"trace saved in {saved[0]}\n")
    trace = avlab.join(*map(avlab.Trace.load, saved))
    assert metrics.packet_ledger(trace).received > 50
    assert metrics.packet_ledger(trace).closes
    assert metrics.frame_ledger(trace).closes


def test_what_was_started_deaf_to_ctrl_c_and_hanging_up_ends_at_sigterm(short: Path, tmp_path: Path) -> None:
    """`nohup avlab serve clip &` in a script: the shell ignores SIGINT for it, nohup SIGHUP, and both mean it."""
    saved = tmp_path / "server.avtrace"
    command = commands.command("serve", short, "--port", 0, "--loop", "--trace", saved)
    with tools.started("sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", *command) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        for number in (signal.SIGHUP, signal.SIGINT):
            server.send_signal(number)
        with RawClient(url) as client:  # it lives, and answers
            client.set_up("video", "RTP/AVP/TCP;unicast;interleaved=0-1")
            client.ask("PLAY")
            until(lambda: client.read() and len(client.packets) > 5)
        server.send_signal(signal.SIGTERM)
        _, complaints = server.communicate(timeout=tools.SECONDS)
    assert (server.returncode, complaints) == (130, f"trace saved in {saved}\n")
    assert len(avlab.Trace.load(saved).packets) > 5


def test_a_signal_while_it_plays_still_gives_the_json_line() -> None:
    pictures = [np.full((64, 64, 3), n, np.uint8) for n in range(9)]
    with avlab.Server(pictures, loop=True) as server, running("play", server.url, "--no-window", "--json") as player:
        # A process may take its time to start.
        until(lambda: len(server.trace.packets) > 10 or player.process.poll() is not None, commands.SECONDS)
        code, said, complaints = player.end()
    assert (code, complaints) == (130, "")
    assert said.count("\n") == 1
    assert set(json.loads(said)) == KEYS


def test_flat_out_is_a_pacer(short: Path) -> None:
    with running("serve", short, "--port", 0, "--pacer", "none", "--once") as server:
        done = commands.run("play", server.url, *QUIET, "--json")
        assert json.loads(done.stdout)["error"] is None
        assert server.wait()[0] == 0


def test_the_pacers_offered_are_those_that_there_are() -> None:
    assert sorted(PACERS) == sorted(pacing.PACERS)
