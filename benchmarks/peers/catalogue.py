"""The systems that are measured: which module drives each, what it needs, and what it can do."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers.with_avlab import missing_packet_size
from tests import tools


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table."""

    name: str
    """As `--systems` has it."""
    label: str
    module: str
    option: str = ""
    kind: str = "peer"
    python: str = sys.executable
    depth: int = 3
    """3 when it takes and gives BGR arrays, 1 when I420 suits it better."""
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    paces: bool = False
    """Whether it keeps a clip's time by itself."""
    fans_out: bool = False
    only_paced: bool = False
    """Whether there is no handing it pictures when they are due: its own loop is all there is."""
    needs: Callable[[], str | None] | None = None
    """What else is missing, as a sentence."""

    def missing(self) -> str | None:
        """None when all is there that it needs, else a sentence."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed: 'make bench' or 'pip install {package}' brings it"
        if self.needs and (sentence := self.needs()):
            return sentence
        return next((words for program in self.programs if (words := tools.missing(program))), None)


SYSTEMS = (
    System(name="codecs", label="codecs alone", module="with_codecs", kind="bound"),
    System(name="avlab", label="avlab", module="with_avlab", kind="avlab", paces=True, fans_out=True),
    System(name="avlab-8000", label="avlab, packets of 8,000 bytes", module="with_avlab", option="8000", kind="avlab",
           needs=missing_packet_size, paces=True, fans_out=True),
    System(name="tutorial", label="tutorial's sockets", module="with_sockets", paces=True, only_paced=True),
    System(name="imagezmq-pub", label="imageZMQ PUB/SUB", module="with_imagezmq", option="pub", packages=("imagezmq",),
           fans_out=True),
    System(name="imagezmq-req", label="imageZMQ REQ/REP", module="with_imagezmq", option="req", packages=("imagezmq",)),
    System(name="netgear", label="VidGear NetGear", module="with_vidgear", packages=("vidgear", "zmq"), fans_out=True),
    System(name="aiortc", label="aiortc (VP8)", module="with_aiortc", packages=("aiortc",), paces=True, fans_out=True),
    System(name="gstreamer", label="GStreamer RTP/JPEG", module="with_gstreamer", python=tools.SYSTEM_PYTHON, depth=1,
           programs=("gst-app", "gst:jpegenc", "gst:rtpjpegpay", "gst:multiudpsink"), paces=True, fans_out=True),
    System(name="ffmpeg", label="ffmpeg RTP/MJPEG", module="with_ffmpeg", depth=1, programs=("ffmpeg",), paces=True,
           fans_out=True),
)  # fmt: skip
