"""The command line: probe, demo, serve, play, relay, doctor, lab. What went wrong is said in a sentence."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import avlab

if TYPE_CHECKING:
    from avlab.measure.metrics import Summary
    from avlab.network.settings import Network
    from avlab.stream.client import Client
    from avlab.stream.relay import Relay
    from avlab.stream.server import Server

DEFAULT_PORT = 8554
CLASSIC_PORT = 9688  # wire.classic.PORT, without importing it
PACERS = ("deadline", "tutorial", "pi", "none")
INTERRUPTED = 130
_BEGAN = time.perf_counter()  # near enough the process's start, from which serve --seconds counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it failed, 2 it was asked wrongly, 130 interrupted."""
    options = _arguments(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a record is saved then, too
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"avlab: {_sentence(error)}", file=sys.stderr)
        return 1
    return code


# ---- commands


def _probe(options: argparse.Namespace) -> int:
    info = avlab.probe(options.clip)
    print(json.dumps(info.to_dict(), indent=2) if options.json else info)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from avlab.measure import metrics

    clip = options.clip or default_clip()
    out = Path(options.out)
    try:  # before anything is streamed that could not be kept
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = _sentence(error)
        raise OSError(f"plots cannot be put into {out} ({reason}): name another folder with --out") from error
    server = avlab.Server(clip, width=options.width, quality=options.quality)
    with server, avlab.Client(server.url, audio=options.audio) as client:
        sound = f"sound to {client.speaker_name}" if client.speaker_name else "no sound"
        print(f"streaming {clip} over {server.url}, {sound}", flush=True)
        with _progress(client) as tell:
            _until(client, options.seconds, tell)
    trace = client.trace
    print(metrics.summary(trace))
    for name in ("fps", "interval_error", "sync", "loss"):
        getattr(avlab.plots, name)(trace).savefig(out / f"{name}.png")
    avlab.plots.page(trace).savefig(out / "page.png")
    trace.save(out / "demo.avtrace")
    print(f"plots and trace are in {out}{os.sep}: look at page.png first")
    return 0


def _serve(options: argparse.Namespace) -> int:
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
        spread=options.spread,
        rate_control=options.rate_control,
        loop=options.loop,
        once=options.once,
    )
    with _saving(server, options.trace), server:
        print(f"serving {clip or 'a microphone'} at {server.url}", flush=True)
        other = f"ffplay {server.url}" if options.wire == "rtsp" else "the tutorial's own client"
        print(f"  play it: avlab play {server.url}    or: {other}    Ctrl-C ends it", flush=True)
        with _progress(server) as tell:
            left = None if options.seconds is None else options.seconds - (time.perf_counter() - _BEGAN)
            _until(server, left, tell)
    return 0


def _play(options: argparse.Namespace) -> int:
    from avlab.lab.window import Window, check_display
    from avlab.measure import metrics

    error: BaseException | None = None
    code = 0
    client: Client | None = None
    try:
        if options.window:
            check_display()
        client = avlab.Client(
            options.url, audio=options.audio, playout_delay=options.playout_delay, repair=options.repair
        )
        window = Window(client) if _wants_window(options.window) else None
        try:
            with _saving(client, options.trace), client:
                if not options.json:
                    print(
                        f"playing {options.url}, sound to {client.speaker_name or 'nowhere: there is none'}", flush=True
                    )
                with _progress(client) as tell:
                    _until(client, options.seconds, tell, window.step if window else None)
        finally:
            if window is not None:
                window.close()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (OSError, ValueError, RuntimeError) as failure:
        error, code = failure, 1
    if error is not None:
        print(f"avlab: {_sentence(error)}", file=sys.stderr)
    if client is not None and client.started:
        summary = metrics.summary(client.trace)
        if options.json:
            print(_as_json(summary, error))
        else:
            print(summary)
            if client.trace.meta["wire"] == "classic":
                print("lost and av: not available on the classic wire, which carries neither numbers nor timestamps")
    elif options.json:
        print(_as_json(None, error))
    return code


def _relay(options: argparse.Namespace) -> int:
    relay = avlab.Relay(
        options.to, host=options.host, port=options.listen, network=_network(options), one_way=options.one_way
    )
    with _saving(relay, options.trace), relay:
        print(f"relaying to {options.to} at {relay.url}: {relay.network}", flush=True)
        url = relay.url if options.to.count("/") > 2 else f"{relay.url}/PATH"
        print(f"  play through it: avlab play {url}    or: ffplay {url}    Ctrl-C ends it", flush=True)
        with _progress(relay) as tell:
            _until(relay, options.seconds, tell)
    return 0


def _network(options: argparse.Namespace) -> Network:
    """The preset, if one is named, with whatever else is given laid over it."""
    given = {name: value for name in _NETWORK if (value := getattr(options, name)) is not None}
    if options.preset is not None and options.preset not in avlab.Network.presets:
        raise ValueError(f"preset must be one of {', '.join(avlab.Network.presets)}, not {options.preset!r}")
    return replace(avlab.Network.presets[options.preset] if options.preset else avlab.Network(), **given)


def _doctor(options: argparse.Namespace) -> int:
    from avlab.lab import doctor

    findings = doctor.doctor()
    print(doctor.as_json(findings) if options.json else doctor.as_text(findings))
    return 0 if doctor.works(findings) else 1


def _lab(options: argparse.Namespace) -> int:
    folder = _home() / "notebooks"
    if not folder.is_dir():
        raise FileNotFoundError(f"the notebooks are not at {folder}: run avlab from a clone of its repository")
    command = [sys.executable, "-m", "jupyterlab", str(folder / "00_welcome.ipynb")]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if options.no_browser:
        command.append("--no-browser")
    return subprocess.run([*command, *options.rest], check=False).returncode


# ---- what commands share


def default_clip() -> Path:
    """The sample clip: of the clone, else of the current folder."""
    places = [_home() / "data" / "count.mp4", Path("data/count.mp4")]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError("the sample clip data/count.mp4 is not here: name a clip, or run avlab from its repository")


def _home() -> Path:
    return Path(avlab.__file__).resolve().parent.parent


def _port(options: argparse.Namespace) -> int:
    default = CLASSIC_PORT if options.wire == "classic" else DEFAULT_PORT
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
    """Save the record at the end, however it ends. A place where it cannot be saved is refused before it begins."""
    if path is not None and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
        raise FileNotFoundError(f"the trace cannot be saved in {path}: name a file in a folder that is there")
    try:
        yield
    finally:
        if path is not None and handle.started:
            handle.trace.save(path)
            print(f"trace saved in {path}", file=sys.stderr)


@contextmanager
def _progress(handle: Server | Client | Relay) -> Iterator[Callable[[], None]]:
    """A line that is written anew twice a second, on a terminal alone; and notices, as they come."""
    terminal = sys.stderr.isatty()
    began = told = time.perf_counter()
    noticed = 0

    def tell() -> None:
        nonlocal told, noticed
        now = time.perf_counter()
        for words in handle.notices[noticed:]:
            print("\r\x1b[K" * terminal + f"note: {words}", file=sys.stderr, flush=True)
            noticed += 1
        if terminal and now - told >= 0.5:
            told = now
            print(f"\r{now - began:6.1f} s  {handle.status()}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        tell()
        yield tell
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _as_json(summary: Summary | None, error: BaseException | None) -> str:
    names = ("shown", "late", "incomplete", "skipped", "lost", "fps", "audio_seconds", "av_p95_ms")
    values = {name: getattr(summary, name) if summary is not None else None for name in names}
    return json.dumps(values | {"error": None if error is None else _sentence(error)})


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}"
    return str(error) or type(error).__name__


# ---- arguments


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for. `lab` passes on to JupyterLab what is not its own; any other command refuses it."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if options.run is _lab:
        options.rest = [option for option in unknown if option != "--"]
    elif unknown:
        parser.exit(2, f"avlab: {options.command} knows no {' '.join(unknown)}; see avlab {options.command} --help\n")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"avlab: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="avlab", description="A laboratory for real-time audio and video over sockets.")
    parser.add_argument("--version", action="version", version=f"avlab {avlab.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, *examples: str) -> Any:
        shown = "examples:\n" + "\n".join(f"  avlab {example}" for example in examples)
        kind = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(name, help=text, description=text, epilog=shown, formatter_class=kind)
        made.set_defaults(run=run, command=name)
        return made

    probe = command(
        "probe",
        _probe,
        "What a clip says its fps is, and what its timestamps say.",
        "probe data/count.mp4",
        "probe data/count-vfr.mp4 --json",
    )
    probe.add_argument("clip", metavar="CLIP", help="any file that FFmpeg reads")
    probe.add_argument("--json", action="store_true", help="print one JSON object")

    demo = command(
        "demo",
        _demo,
        "Server and client on loopback: streams a clip, prints what was measured, writes plots.",
        "demo",
        "demo my-clip.mp4 --seconds 20 --out out",
    )
    demo.add_argument("clip", metavar="CLIP", nargs="?", help="the sample clip when left out")
    demo.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="how long (10)")
    demo.add_argument("--out", default="avlab-demo", metavar="DIR", help="where plots go (avlab-demo)")
    _picture_options(demo)
    _sound_option(demo)

    serve = command(
        "serve",
        _serve,
        "Stream a clip to whoever asks, over RTSP or as the tutorial's server does.",
        "serve data/count.mp4",
        "serve clip.mp4 --width 400 --quality 60 --loop --port 8554",
        "serve clip.mp4 --once --trace server.avtrace",
        "serve data/count.mp4 --wire classic --width 400",
        "serve 0 --microphone",
    )
    serve.add_argument("clip", metavar="CLIP", nargs="?", help="a clip, or the number of a camera: 0")
    serve.add_argument("--microphone", action="store_true", help="a camera's sound, or with no CLIP, sound alone")
    serve.add_argument("--microphone-device", metavar="DEVICE", help="which: its number, or a part of its name")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="address to serve on (127.0.0.1: this machine)")
    text = f"0 for any ({DEFAULT_PORT}; classic: pictures on {CLASSIC_PORT}, sound on the port below)"
    serve.add_argument("--port", type=int, metavar="P", help=text)
    text = "rtsp, or classic, the tutorial's, which its own client plays: a picture a datagram, no timestamps (rtsp)"
    serve.add_argument("--wire", choices=["rtsp", "classic"], default="rtsp", help=text)
    _picture_options(serve)
    serve.add_argument("--pacer", choices=PACERS, default="deadline", help="none is flat out (deadline)")
    _network_options(serve)
    text = "over how much of a frame's time its packets leave, 0 to 0.95 (0: in one burst)"
    serve.add_argument("--spread", type=float, default=0.0, metavar="SHARE", help=text)
    text = "lower quality and width before the way to the clients overflows, by what they report"
    serve.add_argument("--rate-control", choices=["aimd"], help=text)
    serve.add_argument("--loop", action="store_true", help="play on without a seam")
    serve.add_argument("--once", action="store_true", help="end with the clip")
    serve.add_argument("--seconds", type=_seconds, metavar="S", help="end after so long")
    serve.add_argument("--trace", metavar="FILE", help="save the record")

    play = command(
        "play",
        _play,
        "Play a stream: picture in a window, sound on the speaker. q closes the window.",
        "play rtsp://127.0.0.1:8554/count",
        "play rtsp://127.0.0.1:8554/count --no-window --seconds 10 --json --trace run.avtrace",
        "play classic://127.0.0.1:9688",
    )
    play.add_argument("url", metavar="URL", help="rtsp://host:port/path or classic://host:port")
    shown = play.add_mutually_exclusive_group()
    shown.add_argument("--window", action="store_true", default=None, help="a window (where there is a display)")
    shown.add_argument("--no-window", action="store_false", dest="window", help="no window")
    _sound_option(play)
    text = "seconds from arrival to presentation, or adaptive (0.1; classic has none)"
    play.add_argument("--playout-delay", type=_delay, metavar="S", help=text)
    text = "have lost packets of pictures sent again (rtx), or parity sent with them (fec)"
    play.add_argument("--repair", choices=["rtx", "fec"], help=text)
    play.add_argument("--seconds", type=_seconds, metavar="S", help="end after so long")
    play.add_argument("--trace", metavar="FILE", help="save the record")
    play.add_argument("--json", action="store_true", help="print one JSON line at the end")

    relay = command(
        "relay",
        _relay,
        "A network between any two peers, RTSP sessions and datagrams: it loses, delays, reorders, copies.",
        "relay --listen 8555 --to 127.0.0.1:8554 --loss 0.02 --delay 0.02",
        "relay --listen 8555 --to rtsp://127.0.0.1:8554/count --preset classroom --trace relay.avtrace",
        "relay --listen 5004 --to 192.168.1.20:5004 --rate 2000 --queue 0.2",
    )
    relay.add_argument("--listen", type=int, required=True, metavar="P", help="the port for clients; 0 is any free one")
    relay.add_argument("--to", required=True, metavar="HOST:PORT", help="the peer, or its rtsp:// address")
    relay.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (127.0.0.1)")
    _network_options(relay)
    relay.add_argument(
        "--one-way", action="store_true", help="from the peer to clients; the way back has the delay alone"
    )
    relay.add_argument("--seconds", type=_seconds, metavar="S", help="end after so long")
    relay.add_argument("--trace", metavar="FILE", help="save the record")

    text = "What this machine can do, and how to mend what it cannot. Exit code 1 when avlab does not work here."
    doctor = command("doctor", _doctor, text, "doctor", "doctor --json")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")

    text = "JupyterLab on the notebooks. Options that are not avlab's go to JupyterLab."
    lab = command("lab", _lab, text, "lab", "lab --no-browser --port 8890")
    lab.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser


def _picture_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=int, default=None, metavar="PX", help="pixels across (the clip's own)")
    parser.add_argument("--quality", type=int, default=80, metavar="Q", help="JPEG quality, 1 to 100 (80)")


_NETWORK: dict[str, tuple[type, str, str]] = {
    "loss": (float, "P", "share of packets lost, 0 to 1"),
    "burst": (float, "N", "packets lost in a row, on average; 1 is chance alone (1)"),
    "delay": (float, "S", "seconds that every packet takes, one way"),
    "jitter": (float, "S", "seconds beyond that, on average, exponentially distributed"),
    "reorder": (bool, "", "packets may overtake each other by their jitter"),
    "duplicate": (float, "P", "share of packets that come twice, 0 to 1"),
    "rate": (float, "KBPS", "kilobits a second through a bottleneck"),
    "queue": (float, "S", "seconds of packets that wait before it; more are lost (0.1)"),
    "seed": (int, "N", "another seed, other losses (1)"),
}


def _network_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the network")
    for name, (kind, unit, text) in _NETWORK.items():
        if kind is bool:
            group.add_argument(f"--{name}", action="store_true", default=None, help=text)
        else:
            group.add_argument(f"--{name}", type=kind, metavar=unit, help=text)
    group.add_argument("--preset", metavar="NAME", help="home-wifi, 4g, long-haul or classroom, to begin with")


def _delay(text: str) -> float | str:
    """A playout delay: seconds, or the word that stands for none in particular."""
    if text == "adaptive":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of seconds nor the word adaptive") from None


def _sound_option(parser: argparse.ArgumentParser) -> None:
    choices = ["auto", "speaker", "null"]
    parser.add_argument("--audio", choices=choices, default="auto", help="null keeps time without sound (auto)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
