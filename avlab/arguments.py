"""What can be asked for on the command line: the commands with their options, examples and help. `cli` does it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import avlab

DEFAULT_PORT = 8554
CLASSIC_PORT = 9688  # wire.classic.PORT, without importing it
HTTP_PORT = 8080
PACERS = ("deadline", "tutorial", "pi", "none")

NETWORK: dict[str, tuple[type, str, str]] = {
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
"""The options that make a network: the kind of value, its unit, and what it does."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for, `command` among it; what cannot be asked for ends the process with a sentence and code 2.

    `lab` passes on to JupyterLab what is not its own; any other command refuses it.
    """
    made = parser()
    options, unknown = made.parse_known_args(arguments)
    if options.command == "lab":
        options.rest = [option for option in unknown if option != "--"]
    elif unknown:
        made.exit(2, f"avlab: {options.command} knows no {' '.join(unknown)}; see avlab {options.command} --help\n")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"avlab: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    whole = _Parser(prog="avlab", description="A laboratory for real-time audio and video over sockets.")
    whole.add_argument("--version", action="version", version=f"avlab {avlab.__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, text: str, *examples: str) -> Any:
        shown = "examples:\n" + "\n".join(f"  avlab {example}" for example in examples)
        kind = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(name, help=text, description=text, epilog=shown, formatter_class=kind)
        made.set_defaults(command=name)
        return made

    probe = command(
        "probe",
        "What a clip says its fps is, and what its timestamps say.",
        "probe data/count.mp4",
        "probe data/count-vfr.mp4 --json",
    )
    probe.add_argument("clip", metavar="CLIP", help="any file that FFmpeg reads")
    probe.add_argument("--json", action="store_true", help="print one JSON object")

    demo = command(
        "demo",
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
        "Stream a clip to whoever asks, over RTSP, as a page for any browser, or as the tutorial's server does.",
        "serve data/count.mp4",
        "serve clip.mp4 --width 400 --quality 60 --loop --port 8554",
        "serve clip.mp4 --once --trace server.avtrace",
        "serve data/count.mp4 --wire classic --width 400",
        "serve data/count.mp4 --wire http --class",
        "serve 0 --microphone",
        "serve data/count.mp4 --class",
        "serve data/count.mp4 --to 239.255.1.1:5004 --sdp session.sdp",
    )
    serve.add_argument("clip", metavar="CLIP", nargs="?", help="a clip, or the number of a camera: 0")
    serve.add_argument("--microphone", action="store_true", help="a camera's sound, or with no CLIP, sound alone")
    serve.add_argument("--microphone-device", metavar="DEVICE", help="which: its number, or a part of its name")
    text = "address to serve on (127.0.0.1: this machine; with --class 0.0.0.0: all of its addresses)"
    serve.add_argument("--host", metavar="H", help=text)
    text = "open to the network for those who know a code: prints it, with addresses and a QR code"
    serve.add_argument("--class", action="store_true", dest="class_code", help=text)
    text = "only for the users of FILE, lines of htdigest, which nobody else may be able to read"
    serve.add_argument("--users", metavar="FILE", help=text)
    text = (
        f"0 for any ({DEFAULT_PORT}; http: {HTTP_PORT}; classic: pictures on {CLASSIC_PORT}, sound on the port below)"
    )
    serve.add_argument("--port", type=int, metavar="P", help=text)
    text = "rtsp; http, a page that any browser shows; or classic, the tutorial's, which its own client plays (rtsp)"
    serve.add_argument("--wire", choices=["rtsp", "http", "classic"], default="rtsp", help=text)
    _picture_options(serve)
    serve.add_argument("--pacer", choices=PACERS, default="deadline", help="none is flat out (deadline)")
    _network_options(serve)
    text = "bytes of a packet at the most, 576 to 65000; what a path has no room for is cut up by IP (1200)"
    serve.add_argument("--packet-size", type=int, default=1200, metavar="BYTES", help=text)
    text = "send to an address or a group without RTSP, from now on: pictures to the port, sound two above it"
    serve.add_argument("--to", metavar="HOST:PORT", help=text)
    serve.add_argument("--sdp", metavar="FILE", help="write what goes --to there, for players to open")
    text = "let clients share one stream, sent once to a group, at the interface of --host alone"
    serve.add_argument("--multicast", action="store_true", help=text)
    text = "over how much of a frame's time its packets leave, 0 to 0.95 (0: in one burst)"
    serve.add_argument("--spread", type=float, default=0.0, metavar="SHARE", help=text)
    serve.add_argument("--codec", choices=["h264"], help="send pictures as H.264 instead of JPEG")
    serve.add_argument("--audio-codec", choices=["opus"], help="send sound as Opus instead of L16")
    text = "kilobits a second of H.264, 50 to 50000 (2000)"
    serve.add_argument("--bit-rate", type=int, default=2000, metavar="KBPS", help=text)
    text = "from one key frame of H.264 to the next, 0.1 to 60 (2)"
    serve.add_argument("--key-interval", type=float, default=2.0, metavar="S", help=text)
    text = "lower quality and width before the way to the clients overflows, by what they report"
    serve.add_argument("--rate-control", choices=["aimd"], help=text)
    text = "have the system cut frames into packets, which a capture then does not see (auto: when there are very many)"
    serve.add_argument("--offload", choices=["auto", "on", "off"], default="auto", help=text)
    text = "print who plays, and how, every few seconds: as lines where the output is no terminal"
    serve.add_argument("--audience", action="store_true", help=text)
    _capture_option(serve)
    serve.add_argument("--loop", action="store_true", help="play on without a seam")
    serve.add_argument("--once", action="store_true", help="end with the clip")
    serve.add_argument("--seconds", type=_seconds, metavar="S", help="end after so long")
    serve.add_argument("--trace", metavar="FILE", help="save the record")

    play = command(
        "play",
        "Play a stream: picture in a window, sound on the speaker. q closes the window.",
        "play rtsp://127.0.0.1:8554/count",
        "play rtsp://127.0.0.1:8554/count --no-window --seconds 10 --json --trace run.avtrace",
        "play rtsp://192.168.1.20:8554/count --code BCDFGH",
        "play classic://127.0.0.1:9688",
        "play session.sdp",
        "play http://192.168.1.30/stream",
    )
    text = "pictures of H.264 and H.265 that a loss has spoilt: show them, or freeze the last good one (show)"
    play.add_argument("--damaged", choices=["show", "freeze"], default="show", help=text)
    play.add_argument(
        "url", metavar="URL", help="rtsp://host:port/path, http://host/stream, classic://host:port, or a session.sdp"
    )
    shown = play.add_mutually_exclusive_group()
    shown.add_argument("--window", action="store_true", default=None, help="a window (where there is a display)")
    shown.add_argument("--no-window", action="store_false", dest="window", help="no window")
    _sound_option(play)
    text = "seconds from arrival to presentation, or adaptive (0.1; http and classic have none)"
    play.add_argument("--playout-delay", type=_delay, metavar="S", help=text)
    text = "have lost packets of pictures sent again (rtx), or parity sent with them (fec)"
    play.add_argument("--repair", choices=["rtx", "fec"], help=text)
    for stream, usual in (("video", "udp, and tcp where no datagram comes through"), ("audio", "tcp")):
        text = f"what carries it: udp, and then nothing else, multicast, where it is offered, or tcp ({usual})"
        play.add_argument(f"--{stream}-over", choices=["udp", "tcp", "multicast"], help=text)
    text = "what the server's audience shows you as, at most 40 characters"
    play.add_argument("--name", default="", metavar="NAME", help=text)
    play.add_argument("--code", metavar="CODE", help="the class's code, where the server asks for one")
    text = "send the address's password as it is where a server asks for it so, readable by everybody on the way"
    play.add_argument("--allow-basic", action="store_true", help=text)
    text = "when the stream breaks off, ask for it again until it is back"
    play.add_argument("--reconnect", action="store_true", help=text)
    text = "play by a clock as another computer's would be: so many seconds ahead, and so many millionths fast"
    play.add_argument("--other-clock", type=_clock, metavar="S,PPM", help=text)
    _capture_option(play)
    play.add_argument("--seconds", type=_seconds, metavar="S", help="end after so long")
    play.add_argument("--trace", metavar="FILE", help="save the record")
    play.add_argument(
        "--json", action="store_true", help="print one JSON line at the end; its delay_ms is half of the round trip"
    )

    relay = command(
        "relay",
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

    report = command(
        "report",
        "A saved trace as one page of HTML that needs nothing else: numbers, figures and settings.",
        "report run.avtrace",
        "report run.avtrace --out run-3.html",
    )
    report.add_argument("trace", metavar="RUN.avtrace", help="as --trace and trace.save() write it")
    report.add_argument("--out", metavar="FILE", help="where the page goes (beside the trace, .html)")

    analyse = command(
        "analyse",
        "What was lost and late of each stream of RTP in a capture, pcap or pcapng, whoever made it.",
        "analyse run.pcapng",
        "analyse call.pcap --streams 1,2 --out plots",
        "analyse run.pcapng --json",
    )
    analyse.add_argument("file", metavar="FILE", help="of Wireshark, tcpdump, avlab --capture, ...")
    text = "the numbers of the video and the sound that plots are of (the largest ones that go the same way)"
    analyse.add_argument("--streams", type=_numbers, metavar="N,N", help=text)
    analyse.add_argument("--out", metavar="DIR", help="write plots and the trace there")
    analyse.add_argument("--json", action="store_true", help="print one JSON object")

    text = "What this machine can do, or the way from it to a server, and how to mend what it cannot.\n"
    text += "Exit code 1 when avlab does not work here, or the address cannot be played from here."
    doctor = command("doctor", text, "doctor", "doctor rtsp://192.168.1.20:8554/count --code BCDFGH", "doctor --json")
    text = "rtsp://host:port/path: look at the way there, over TCP and UDP, in both directions; about five seconds"
    doctor.add_argument("url", metavar="URL", nargs="?", help=text)
    doctor.add_argument("--code", metavar="CODE", help="the class's code, where the server asks for one")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")

    text = "JupyterLab on the notebooks. Options that are not avlab's go to JupyterLab."
    lab = command("lab", text, "lab", "lab --no-browser --port 8890")
    lab.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return whole


def _picture_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=int, default=None, metavar="PX", help="pixels across (the clip's own)")
    parser.add_argument("--quality", type=int, default=80, metavar="Q", help="JPEG quality, 1 to 100 (80)")


def _network_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the network")
    for name, (kind, unit, text) in NETWORK.items():
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


def _capture_option(parser: argparse.ArgumentParser) -> None:
    text = "write all that is sent and received as pcapng, for Wireshark and avlab analyse"
    parser.add_argument("--capture", metavar="FILE", help=text)


def _sound_option(parser: argparse.ArgumentParser) -> None:
    choices = ["auto", "speaker", "null"]
    parser.add_argument("--audio", choices=choices, default="auto", help="null keeps time without sound (auto)")


def _clock(text: str) -> tuple[float, float]:
    try:
        ahead, ppm = (float(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers such as 0.3,50") from None
    return ahead, ppm


def _numbers(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,2") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
