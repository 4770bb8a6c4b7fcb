"""A GStreamer RTSP server with RTP/JPEG and L16, for avlab to play; run by Debian's own Python, which sees `gi`.

Arguments: a port (0 for any), then how many frames to send. Prints the port it listens at.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

RATE, FPS = 44_100, 15


def main(port: str, frames: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( videotestsrc num-buffers={frames} is-live=true ! video/x-raw,width=320,height=240,framerate={FPS}/1 "
        "! videoconvert ! video/x-raw,format=I420 ! jpegenc ! rtpjpegpay name=pay0 pt=26 "
        f"audiotestsrc num-buffers={int(frames) * 2} samplesperbuffer={RATE // FPS // 2} is-live=true "
        f"! audioconvert ! audio/x-raw,rate={RATE},channels=2 ! rtpL16pay name=pay1 pt=10 )"
    )
    server.get_mount_points().add_factory("/test", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main(*sys.argv[1:])
