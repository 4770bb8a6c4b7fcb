"""A camera of GStreamer: its RTSP server, with openh264enc as gst-plugins-bad has it.

Runs in the system's Python, which sees Debian's `gi` and has no NumPy: the pictures are I420.
"""

from __future__ import annotations

import threading
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstApp, GstRtspServer  # noqa: E402, F401 - GstApp gives appsrc its methods

from benchmarks.peers.job import Desk  # noqa: E402

BIT_RATE = 4_000
"""Kilobits a second, of avlab's camera as well."""


def serve(desk: Desk) -> None:
    """Serve numbered pictures at /live, each handed over when it is due, from the first client on."""
    Gst.init(None)
    job = desk.job
    form = f"video/x-raw,format=I420,width={job.width},height={job.height},framerate={round(job.fps)}/1"
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(
        f'( appsrc name=source is-live=true do-timestamp=true format=time caps="{form}" '
        f"! openh264enc usage-type=camera complexity=low gop-size={2 * round(job.fps)} bitrate={BIT_RATE * 1000} "
        "! h264parse ! rtph264pay config-interval=-1 pt=96 name=pay0 )"
    )
    begun = False

    def feed(source: Any) -> None:
        for picture in desk.pictures():
            if source.emit("push-buffer", Gst.Buffer.new_wrapped(bytes(picture))) != Gst.FlowReturn.OK:
                return

    def configure(_: object, media: Any) -> None:
        nonlocal begun
        if not begun:
            begun = True
            threading.Thread(target=feed, args=(media.get_element().get_by_name("source"),), daemon=True).start()

    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(job.port))
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        raise OSError(f"port {job.port} is in use")
    desk.board.ready()
    GLib.MainLoop().run()
