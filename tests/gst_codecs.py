"""A GStreamer RTSP server of a flash and a tone at each second, in the codecs that are asked for; see `gst_server`.

Arguments: what pictures are sent as, what sound is sent as ("none" for none), and how many seconds of it. Prints the
port it listens at.
"""

import math
import struct
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

FPS, RATE, WIDTH, HEIGHT = 30, 48_000, 160, 120
LIT = 3  # frames of a flash

PICTURES = {
    "h264": "openh264enc gop-size=15 ! h264parse ! rtph264pay config-interval=-1 pt=96",
    "h264-described": "openh264enc gop-size=15 ! h264parse ! rtph264pay config-interval=0 pt=96",
    "h264-together": "openh264enc gop-size=15 ! h264parse ! rtph264pay aggregate-mode=zero-latency pt=96",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! h265parse ! rtph265pay pt=96",
    "jpeg": "jpegenc ! rtpjpegpay pt=26",
}
SOUND = {
    "aac": "voaacenc ! aacparse ! rtpmp4gpay pt=97",
    "opus": "opusenc ! rtpopuspay pt=97",
    "pcmu": "audioresample ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay pt=0",
    "pcma": "audioresample ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay pt=8",
    "l8": "audioconvert ! audio/x-raw,format=U8 ! rtpL8pay pt=97",
    "l16": "audioresample ! audio/x-raw,rate=22050 ! audioconvert ! rtpL16pay pt=97",
    "l24": "audioconvert ! audio/x-raw,format=S24BE ! rtpL24pay pt=97",
}

EARLY = {"aac": 1_600}
"""Samples that an encoder puts before the sound, and tells nobody: so much earlier the tones are given to it."""

FRAMES = [bytes((light,)) * (WIDTH * HEIGHT) + b"\x80" * (WIDTH * HEIGHT // 2) for light in (30, 220)]
BLOCK = RATE // 50


def tone(start: int) -> bytes:
    values = (
        round(12_000 * math.sin(n * math.tau * 1_000 / RATE)) * (n % RATE < RATE * LIT // FPS)
        for n in range(start, start + BLOCK)
    )
    return b"".join(struct.pack("<hh", value, value) for value in values)


def feed(source: Gst.Element, seconds: float, length: float, make) -> None:
    """Give a source what it asks for: what `make` has of its number, each `length` seconds long."""
    state = {"next": 0}

    def need(source: Gst.Element, size: int) -> None:
        number = state["next"]
        if number * length >= seconds:
            source.emit("end-of-stream")
            return
        state["next"] += 1
        buffer = Gst.Buffer.new_wrapped(make(number))
        buffer.pts, buffer.duration = round(number * length * Gst.SECOND), round(length * Gst.SECOND)
        source.emit("push-buffer", buffer)

    source.connect("need-data", need)


def main(pictures: str, sound: str, seconds: str) -> None:
    Gst.init(None)
    video = f"video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
    audio = f"audio/x-raw,format=S16LE,layout=interleaved,rate={RATE},channels=2"
    launch = f'appsrc name=video format=time caps="{video}" ! videoconvert ! {PICTURES[pictures]} name=pay0'
    if sound != "none":
        launch += f' appsrc name=audio format=time caps="{audio}" ! audioconvert ! {SOUND[sound]} name=pay1'
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {launch} )")

    def configure(_: object, media: GstRtspServer.RTSPMedia) -> None:
        element = media.get_element()
        feed(element.get_by_name("video"), float(seconds), 1 / FPS, lambda n: FRAMES[n % FPS < LIT])
        if sound != "none":
            feed(
                element.get_by_name("audio"),
                float(seconds),
                BLOCK / RATE,
                lambda n: tone(n * BLOCK + EARLY.get(sound, 0)),
            )

    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/test", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main(*sys.argv[1:])
