"""A GStreamer RTSP server of RTP/JPEG that describes RTP/AVPF and sends lost packets again; run by Debian's own Python.

The argument is how many frames to send, at 30 a second. Prints the port it listens at.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main(frames: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_profiles(GstRtsp.RTSPProfile.AVPF)
    factory.set_retransmission_time(Gst.SECOND)
    factory.set_launch(
        f"( videotestsrc num-buffers={frames} is-live=true ! video/x-raw,format=I420,width=640,height=480,"
        "framerate=30/1 ! jpegenc quality=70 ! rtpjpegpay name=pay0 pt=26 mtu=1200 )"
    )
    server.get_mount_points().add_factory("/test", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main(*sys.argv[1:])
