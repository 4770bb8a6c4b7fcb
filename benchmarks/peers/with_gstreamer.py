"""GStreamer: appsrc, jpegenc, RTP/JPEG over UDP, jpegdec, appsink; I420 in and out, as its elements like it best.

Runs in the system's Python, which sees Debian's `gi` and has no NumPy.
"""

from __future__ import annotations

from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401 - GstApp gives appsrc and appsink their methods

from benchmarks.peers.job import Desk  # noqa: E402


def send(desk: Desk) -> None:
    """Push pictures into a pipeline; with `paces`, its sink keeps their timestamps' time."""
    job = desk.job
    clients = ",".join(f"127.0.0.1:{job.port + 2 * receiver}" for receiver in range(job.receivers))
    pipeline, source = _start(
        f"appsrc name=end format=time block=true max-buffers=2 max-bytes=0 ! jpegenc quality={job.quality} "
        f"! rtpjpegpay mtu=1400 ! multiudpsink clients={clients} sync={'true' if job.paces else 'false'} "
        f"buffer-size=4194304"
    )
    rate = f"{round(job.fps) or 30}/1"
    form = f"video/x-raw,format=I420,width={job.width},height={job.height},framerate={rate}"
    source.set_property("caps", Gst.Caps.from_string(form))
    desk.board.wait_receivers()
    pipeline.set_state(Gst.State.PLAYING)
    length = Gst.SECOND // (round(job.fps) or 30)
    for number, picture in enumerate(desk.pictures()):
        buffer = Gst.Buffer.new_wrapped(bytes(picture))
        buffer.pts, buffer.duration = number * length, length
        if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            raise RuntimeError(_complaint(pipeline))


def receive(desk: Desk) -> None:
    """Decode what comes."""
    caps = "application/x-rtp,media=video,encoding-name=JPEG,payload=26,clock-rate=90000"
    pipeline, sink = _start(
        f'udpsrc address=127.0.0.1 port={desk.job.port + 2 * desk.receiver} buffer-size=4194304 caps="{caps}" '
        "! rtpjpegdepay ! jpegdec ! video/x-raw,format=I420 ! appsink name=end sync=false max-buffers=2"
    )
    pipeline.set_state(Gst.State.PLAYING)
    desk.board.ready(desk.receiver)
    while sample := sink.emit("pull-sample"):
        desk.decoded(sample.get_buffer().extract_dup(0, desk.job.picture_bytes), depth=1, own=True)
    raise RuntimeError(_complaint(pipeline))


def _start(description: str) -> tuple[Any, Any]:
    Gst.init(None)
    pipeline = Gst.parse_launch(description)
    return pipeline, pipeline.get_by_name("end")


def _complaint(pipeline: Any) -> str:
    message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
    return message.parse_error()[0].message if message else "the pipeline has ended"
