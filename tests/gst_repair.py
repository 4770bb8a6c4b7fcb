"""GStreamer's own repair elements, to be held against avlab's; run by Debian's own Python, which sees `gi`.

The argument says which: rtxsend, rtxreceive, fecenc, fecdec. Standard input is a list of steps, each a letter and 16
bits of length before it: P a packet, R a request for the packet numbered so, L the loss of that packet. What the
element gives goes to standard output in the same form.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

MEDIA, RTX, FEC, SSRC = 26, 96, 97, 0x1234
FRAME_NS = 33_333_333

ELEMENTS = {
    "rtxsend": 'rtprtxsend name=e payload-type-map="application/x-rtp-pt-map,26=(uint)96"',
    "rtxreceive": 'rtprtxreceive name=e payload-type-map="application/x-rtp-pt-map,26=(uint)96"',
    "fecenc": f"rtpulpfecenc name=e pt={FEC} percentage=40 percentage-important=40",
    "fecdec": f"rtpstorage name=st size-time=60000000000 ! rtpulpfecdec name=e pt={FEC}",
}


def main(kind: str) -> None:
    Gst.init(None)
    caps = f"application/x-rtp,media=video,payload={MEDIA},clock-rate=90000,encoding-name=JPEG,ssrc=(uint){SSRC}"
    pipeline = Gst.parse_launch(
        f'appsrc name=in format=time caps="{caps}" ! {ELEMENTS[kind]} ! appsink name=out sync=false'
    )
    source, element, sink = map(pipeline.get_by_name, ("in", "e", "out"))
    if kind == "fecdec":
        element.set_property("storage", pipeline.get_by_name("st").get_property("internal-storage"))
    pipeline.set_state(Gst.State.PLAYING)
    out = []
    steps = sys.stdin.buffer
    while head := steps.read(3):
        data = steps.read(int.from_bytes(head[1:], "big"))
        if head[:1] == b"P":
            buffer = Gst.Buffer.new_wrapped(data)
            buffer.pts = int.from_bytes(data[4:8], "big") * Gst.SECOND // 90_000
            source.emit("push-buffer", buffer)
            out += pull(sink, 200)  # before the next step: an event goes past what waits
            continue
        number = int.from_bytes(data, "big")
        if head[:1] == b"R":
            name, fields = "GstRTPRetransmissionRequest", f"ssrc=(uint){SSRC},payload-type=(uint){MEDIA}"
            pad, to = element.get_static_pad("src"), Gst.EventType.CUSTOM_UPSTREAM
        else:
            name, fields = "GstRTPPacketLost", f"timestamp=(guint64)0,duration=(guint64){FRAME_NS}"
            pad, to = element.get_static_pad("sink"), Gst.EventType.CUSTOM_DOWNSTREAM
        structure = Gst.Structure.new_from_string(f"{name},seqnum=(uint){number},{fields};")
        pad.send_event(Gst.Event.new_custom(to, structure))
        out += pull(sink, 200)
    source.emit("end-of-stream")
    out += pull(sink, 5000)
    for packet in out:
        sys.stdout.buffer.write(b"P" + len(packet).to_bytes(2, "big") + packet)
    pipeline.set_state(Gst.State.NULL)


def pull(sink, patience_ms: int) -> list[bytes]:
    """All that has come; waits for more only while nothing has, or for the end of the stream."""
    out = []
    while sample := sink.emit("try-pull-sample", (patience_ms if not out or patience_ms > 1000 else 5) * Gst.MSECOND):
        buffer = sample.get_buffer()
        out.append(buffer.extract_dup(0, buffer.get_size()))
    return out


main(*sys.argv[1:])
