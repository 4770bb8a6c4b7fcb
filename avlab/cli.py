"""The command line: what each command does. What went wrong is said in a sentence; `arguments` has what to ask for."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

import avlab
from avlab.arguments import CLASSIC_PORT, DEFAULT_PORT, HTTP_PORT, NETWORK, parse
from avlab.stream.sockets.addresses import ways_in
from avlab.wire.text import printable, tidied

if TYPE_CHECKING:
    from avlab.measure.numbers.metrics import Summary
    from avlab.measure.record.trace import Trace
    from avlab.network.settings import Network
    from avlab.stream.client import Client
    from avlab.stream.invitation import Invitation
    from avlab.stream.relay import Relay
    from avlab.stream.server import Server

INTERRUPTED = 130
MOST_PRINTED = 100_000
"""Characters of one table: more than any has."""
_BEGAN = time.perf_counter()  # near enough the process's start, from which serve --seconds counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it failed, 2 it was asked wrongly, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # cp1252 has no Japanese: a name is said as far as it can be
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = parse(arguments)
    _end_by_signals()
    try:
        code = COMMANDS[options.command](options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        _say(f"avlab: {_sentence(error)}", file=sys.stderr)
        return 1
    return code


def _end_by_signals() -> None:
    """End by SIGTERM, and by the terminal's end, as by Ctrl-C: so that a record is saved then, too.

    One is enough: those that follow, as when a terminal is closed, do not cut the saving short. What is ignored from
    the start (nohup) stays so.
    """
    ended = False
    terminals = [name for name in ("stdout", "stderr") if (stream := getattr(sys, name)) and stream.isatty()]

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        if number != signal.SIGTERM:  # the terminal is gone, and what is said to it would be an error
            for name in terminals:
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
        if not ended:
            ended = True
            signal.default_int_handler(number, frame)

    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):  # the last is Windows', which has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


# ---- commands


def _probe(options: argparse.Namespace) -> int:
    info = avlab.probe(options.clip)
    if options.json:
        print(json.dumps(info.to_dict(), indent=2))
    else:
        _say(info)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from avlab.measure.numbers import metrics

    clip = options.clip or default_clip()
    out = Path(options.out)
    _make_folder(out)  # before anything is streamed that could not be kept
    server = avlab.Server(clip, width=options.width, quality=options.quality)
    with _progress(server) as tell_server, server:
        client = avlab.Client(server.url, audio=options.audio)
        with _progress(client) as tell_client, client:
            sound = f"sound to {client.speaker_name}" if client.speaker_name else "no sound"
            _say(f"streaming {clip} over {server.url}, {sound}")

            def tell() -> None:
                tell_server(status=False)
                tell_client()

            _until(client, options.seconds, tell)
    trace = client.trace
    _say(metrics.summary(trace))
    for name in ("fps", "interval_error", "sync", "loss"):
        getattr(avlab.plots, name)(trace).savefig(out / f"{name}.png")
    avlab.plots.page(trace).savefig(out / "page.png")
    trace.save(out / "demo.avtrace")
    _say(f"plots and trace are in {out}{os.sep}: look at page.png first")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from avlab.measure.numbers.served import served

    clip, device = options.clip, options.microphone_device
    if clip is None and not options.microphone and device is None:
        raise ValueError("name a clip or a camera's number, or ask for sound alone with --microphone")
    camera = clip is not None and clip.isdigit() and not Path(clip).exists()
    server = avlab.Server(
        int(clip) if camera else clip,
        wire=options.wire,
        microphone=options.microphone if device is None else int(device) if device.isdigit() else device,
        host=options.host,
        port=_port(options),
        width=options.width,
        quality=options.quality,
        pacer=options.pacer,
        network=_network(options),
        packet_size=options.packet_size,
        multicast=options.multicast,
        to=options.to,
        sdp=options.sdp,
        spread=options.spread,
        rate_control=options.rate_control,
        codec=options.codec,
        audio_codec=options.audio_codec,
        bit_rate=options.bit_rate,
        key_interval=options.key_interval,
        offload=options.offload,
        capture=options.capture,
        class_code=options.class_code,
        users=options.users,
        loop=options.loop,
        once=options.once,
    )
    with _saving(server, options.trace), _progress(server) as tell, server:
        _say(f"serving {clip or 'a microphone'} {f'to {options.to}' if options.to else f'at {server.url}'}")
        _say_how(server, options)
        left = None if options.seconds is None else options.seconds - (time.perf_counter() - _BEGAN)
        began = time.perf_counter()
        roll = _rollcall(server, asked=options.audience)
        try:
            _until(server, left, lambda: roll(tell))
        finally:
            if server.sent_bytes:
                _say(_total(server.sent_bytes, time.perf_counter() - began))
                _say(served(server.trace))
            else:
                _say("nobody has played it")
    return 0


def _say_how(server: Server, options: argparse.Namespace) -> None:
    """How to play what is served."""
    if options.to is not None:
        if options.sdp is None:
            _say(server.description.replace("\r\n", "\n").rstrip())
            return
        others = f"ffplay -protocol_whitelist file,udp,rtp {options.sdp}"
        _say(f"  play it: avlab play {options.sdp}    or: {others}    Ctrl-C ends it")
        return
    for line in ways_in(server.url, options.host or ("0.0.0.0" if options.class_code else "127.0.0.1")):
        _say(f"  {line}")
    if options.class_code:
        _invite(server.invitation())
        return
    url = server.url.replace("//", "//USER:PASSWORD@", 1) if options.users is not None else server.url
    if options.wire == "http":
        here = options.host in (None, "127.0.0.1", "localhost", "::1")
        which = "a browser of this machine (phones: --class)" if here else "any browser, on a phone too"
        _say(f"  open it in {which}    or: avlab play {url}    Ctrl-C ends it")
        return
    other = f"ffplay {url}" if options.wire == "rtsp" else "the tutorial's own client"
    _say(f"  play it: avlab play {url}    or: {other}    Ctrl-C ends it")


def _rollcall(server: Server, *, asked: bool) -> Callable[[Callable[[], None]], None]:
    """What prints the audience beside what `tell` says: on a terminal, and where it is asked for."""
    terminal = sys.stdout.isatty()
    if not (terminal or asked):
        return lambda tell: tell()
    from avlab.lab.rollcall import RollCall

    def say(text: str) -> None:
        print(text, end="", flush=True)

    def size() -> tuple[int, int]:
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    redraw = terminal and os.environ.get("TERM") != "dumb"
    roll = RollCall(lambda: server.members, say, redraw=redraw, size=size)
    known = len(server.notices)

    def look(tell: Callable[[], None]) -> None:
        nonlocal known
        roll.look(time.perf_counter(), time.time_ns())
        tell()
        if (count := len(server.notices)) != known:
            known = count
            tell()  # the last of them, too: a notice stands below the table now
            roll.forget()

    return look


def _total(sent: int, seconds: float) -> str:
    """What was sent, to all clients together."""
    return f"sent {sent / 1e6:,.1f} MB in {seconds:,.0f} s, {sent * 8e-6 / max(seconds, 1e-3):,.1f} Mbit/s on average"


def _invite(invitation: Invitation) -> None:
    """How to join, and the QR code where the output has characters for it."""
    for line in invitation.lines:
        _say(f"  {line}")
    _say("  Ctrl-C ends it")
    picture = invitation.qr(colours=sys.stdout.isatty())
    try:
        picture.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return
    print(picture, flush=True)


def _play(options: argparse.Namespace) -> int:
    from avlab.lab.window import Window, check_display
    from avlab.measure.numbers import metrics

    error: BaseException | None = None
    code = 0
    client: Client | None = None
    try:
        if options.window:
            check_display()
        client = avlab.Client(
            options.url,
            audio=options.audio,
            playout_delay=options.playout_delay,
            repair=options.repair,
            damaged=options.damaged,
            video_over=options.video_over,
            audio_over=options.audio_over,
            capture=options.capture,
            name=options.name,
            clock=None if options.other_clock is None else avlab.OtherClock(*options.other_clock),
            class_code=options.code,
            allow_basic=options.allow_basic,
            reconnect=options.reconnect,
        )
        window = Window(client) if _wants_window(options.window) else None
        try:
            with _saving(client, options.trace), _progress(client) as tell, client:
                if not options.json:
                    _say(f"playing {client.url}, sound to {client.speaker_name or 'nowhere: there is none'}")
                _until(client, options.seconds, tell, window.step if window else None)
        finally:
            if window is not None:
                window.close()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (OSError, ValueError, RuntimeError) as failure:
        error, code = failure, 1
    if error is not None:
        _say(f"avlab: {_sentence(error)}", file=sys.stderr)
    if client is not None and client.started and error is None and (words := client.nothing_shown()) is not None:
        _say(f"avlab: {words}", file=sys.stderr)
    if client is not None and client.started:
        summary = metrics.summary(client.trace)
        if options.json:
            print(_as_json(summary, error, client.trace))
        else:
            _say(summary)
            if (wire := client.trace.meta["wire"]) in ("classic", "http"):
                _say(f"lost and av: not available on the {wire} wire, which carries neither numbers nor timestamps")
    elif options.json:
        print(_as_json(None, error))
    return code


def _relay(options: argparse.Namespace) -> int:
    relay = avlab.Relay(
        options.to, host=options.host, port=options.listen, network=_network(options), one_way=options.one_way
    )
    with _saving(relay, options.trace), _progress(relay) as tell, relay:
        _say(f"relaying to {options.to} at {relay.url}: {relay.network}")
        for line in ways_in(relay.url, options.host):
            _say(f"  {line}")
        url = relay.url if options.to.count("/") > 2 else f"{relay.url}/PATH"
        _say(f"  play through it: avlab play {url}    or: ffplay {url}    Ctrl-C ends it")
        _until(relay, options.seconds, tell)
    return 0


def _network(options: argparse.Namespace) -> Network:
    """The preset, if one is named, with whatever else is given laid over it."""
    given = {name: value for name in NETWORK if (value := getattr(options, name)) is not None}
    if options.preset is not None and options.preset not in avlab.Network.presets:
        raise ValueError(f"preset must be one of {', '.join(avlab.Network.presets)}, not {options.preset!r}")
    return replace(avlab.Network.presets[options.preset] if options.preset else avlab.Network(), **given)


def _analyse(options: argparse.Namespace) -> int:
    from avlab.lab.streams import plots_of, streams_table
    from avlab.measure.numbers import metrics

    out = None if options.out is None else Path(options.out)
    if out is not None:
        _make_folder(out)
    trace = avlab.Trace.from_pcap(options.file, options.streams)
    if options.json:
        found = {"streams": trace.meta["streams"], "shown": trace.meta["shown"], "cut": trace.meta["cut"]}
        print(json.dumps(found | {"summary": metrics.summary(trace).as_dict()}))
    else:
        _say(streams_table(trace))
    if out is not None:
        for words in plots_of(trace, out):
            _say(f"note: {words}", file=sys.stderr)
        if not options.json:
            _say(f"plots and trace are in {out}{os.sep}: look at page.png first")
    return 0


def _report(options: argparse.Namespace) -> int:
    from avlab.lab.report import report

    path = Path(options.trace)
    out = path.with_suffix(".html") if options.out is None else Path(options.out)
    page = report(avlab.Trace.load(path))
    if out.exists() and out.samefile(path):
        raise ValueError(f"{out} is the trace itself: name another file with --out")
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"the page cannot be written to {out} ({reason}): name another file with --out") from error
    _say(f"the page is {out}: open it in a browser")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from avlab.lab.doctor import machine as doctor

    verdict: str | None = None
    if options.url is None:
        if options.code is not None:
            raise ValueError("--code is for an address: avlab doctor rtsp://host:port/path --code CODE")
        findings = doctor.doctor()
    else:
        from avlab.lab.doctor import way

        findings = way.look(options.url, code=options.code)
        verdict = way.verdict(findings)
    if options.json:
        print(doctor.as_json(findings))
    else:
        _say(doctor.as_text(findings, verdict=verdict))
    return 0 if doctor.works(findings) else 1


def _lab(options: argparse.Namespace) -> int:
    folder = _home() / "notebooks"
    if not folder.is_dir():
        raise FileNotFoundError(f"the notebooks are not at {folder}: run avlab from a clone of its repository")
    # The address that is printed leads to the notebook, too, for a machine without a browser to open by itself.
    url = "--LabApp.default_url=/lab/tree/00_welcome.ipynb"
    command = [sys.executable, "-m", "jupyterlab", str(folder / "00_welcome.ipynb"), url]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if options.no_browser:
        command.append("--no-browser")
    return subprocess.run([*command, *options.rest], check=False).returncode


COMMANDS = {
    "probe": _probe,
    "demo": _demo,
    "serve": _serve,
    "play": _play,
    "relay": _relay,
    "report": _report,
    "analyse": _analyse,
    "doctor": _doctor,
    "lab": _lab,
}


# ---- what commands share


def default_clip() -> Path:
    """The sample clip: of the clone, else of the current folder."""
    places = [_home() / "data" / "count.mp4", Path("data/count.mp4")]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        "the sample clip data/count.mp4 is not here: name a clip, as in avlab demo CLIP, or run avlab in its repository"
    )


def _home() -> Path:
    return Path(avlab.__file__).resolve().parent.parent


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = _sentence(error)
        raise OSError(f"plots cannot be put into {out} ({reason}): name another folder with --out") from error


def _port(options: argparse.Namespace) -> int:
    if options.to is not None:
        return int(options.port or 0)
    default = {"classic": CLASSIC_PORT, "http": HTTP_PORT}.get(options.wire, DEFAULT_PORT)
    return default if options.port is None else int(options.port)


def _wants_window(choice: bool | None) -> bool:
    from avlab.lab.window import NoWindowError, check_display

    if choice is not None:
        return choice
    try:
        check_display()
    except NoWindowError:
        return False
    return True


def _until(
    handle: Server | Client | Relay,
    seconds: float | None,
    tell: Callable[[], None],
    step: Callable[[], bool] | None = None,
) -> None:
    """Wait for the end of the stream, of the time, or of the person's patience; raise what failed."""
    deadline = None if seconds is None else time.perf_counter() + seconds
    while handle.running:
        left = 0.2 if deadline is None else min(0.2, deadline - time.perf_counter())
        if left <= 0:
            break
        if step is None:
            handle.wait(left)
        elif not step():
            break
        tell()
    handle.wait(0)


@contextmanager
def _saving(handle: Server | Client | Relay, path: str | None) -> Iterator[None]:
    """Save the record at the end, however it ends. A place where it cannot be saved is refused before it begins.

    While the run goes on, the record is kept beside that place, so that a kill costs its last seconds and no more.
    """
    if path is None:
        yield
        return
    from avlab.measure.record import files, unfinished

    try:
        files.refuse_place(Path(path))
    except OSError as error:
        ask = "name a file in a folder that is there"
        raise type(error)(f"the trace cannot be saved in {path}: {ask}") from None
    try:
        files.refuse_file(Path(path))
        keeping = unfinished.Keeping(path, lambda: handle.trace, lambda words: _say(f"note: {words}", file=sys.stderr))
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"the trace cannot be saved in {path} ({reason}): name a place that can be written") from None
    saved = True
    try:
        yield
    finally:
        try:
            if handle.started:
                saved = False
                handle.trace.save(path)
                saved = True
                _say(f"trace saved in {path}", file=sys.stderr)
        finally:
            keeping.end(saved=saved)
            if not saved:
                _say(f"avlab: what was recorded is kept in {keeping.path}", file=sys.stderr)


@contextmanager
def _progress(handle: Server | Client | Relay) -> Iterator[Callable[..., None]]:
    """A line that is written anew twice a second, on a terminal alone; and notices as they come, the last at the end.

    What it gives is to be called often; not with `status`, it tells of notices alone.
    """
    terminal = sys.stderr.isatty()
    began = told = time.perf_counter()
    noticed = 0

    def tell(*, status: bool = True) -> None:
        nonlocal told, noticed
        now = time.perf_counter()
        for words in handle.notices[noticed:]:
            if terminal:
                print("\r\x1b[K", end="", file=sys.stderr)
            _say(f"note: {words}", file=sys.stderr)
            noticed += 1
        if terminal and status and now - told >= 0.5:
            told = now
            line = printable(handle.status())
            print(f"\r{now - began:6.1f} s  {line}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        tell(status=False)
        yield tell
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        tell(status=False)


def _say(text: object, *, file: TextIO | None = None) -> None:
    """Print for a person: nothing that a peer or a file says gets through as a command to the terminal."""
    print(printable(text, most=MOST_PRINTED, lines=True), file=file, flush=True)


def _as_json(summary: Summary | None, error: BaseException | None, trace: Trace | None = None) -> str:
    names = ("shown", "late", "incomplete", "skipped", "lost", "damaged", "fps", "audio_seconds", "av_p95_ms")
    values = {name: getattr(summary, name) if summary is not None else None for name in names}
    values["loss_percent"] = summary.packet_loss_percent if summary is not None else None
    values["delay_ms"] = summary.delay_ms if summary is not None else None
    values["jitter_ms"] = values["round_trip_ms"] = None
    if trace is not None:
        from avlab.measure.numbers import metrics

        values["jitter_ms"] = metrics.spread(metrics.media_jitter(trace)["jitter_ms"]).median_ms
        trip_ms = metrics.spread(metrics.round_trips(trace)["round_trip_ms"]).median_ms
        values["round_trip_ms"] = trip_ms
        if values["delay_ms"] is None and trip_ms is not None:  # of a client alone: the middle of what it can be
            values["delay_ms"] = trip_ms / 2
    return json.dumps(values | {"error": None if error is None else _sentence(error)})


def _sentence(error: BaseException) -> str:
    tidied(error)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
