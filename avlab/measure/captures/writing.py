"""A trace's packets as a capture: RTP headers as they were, payloads cut off, addresses made up (RFC 5737).

So it can be handed around: nothing of pictures, sound or anybody's network is in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from avlab.measure.record.files import refuse_place
from avlab.measure.record.tables import PACKET_FATES, STREAMS, UNKNOWN, UNKNOWN32, Rows
from avlab.measure.record.trace import Trace

SOURCE, TARGET = (192, 0, 2, 1), (192, 0, 2, 2)
PORTS = {"video": 5004, "audio": 5006}
TYPES = {"video": 26, "audio": 97, "repair": 98}
OTHER_VIDEO = 96
"""Of pictures that are not sent as RFC 2435 has them."""

L16_STEREO = 10

_RECORD = np.dtype(
    [
        ("seconds", "<u4"), ("nanoseconds", "<u4"), ("captured", "<u4"), ("length", "<u4"),
        ("version", "u1"), ("service", "u1"), ("total", ">u2"), ("identification", ">u2"), ("fragment", ">u2"),
        ("hops", "u1"), ("protocol", "u1"), ("checksum", ">u2"), ("source", "u1", 4), ("target", "u1", 4),
        ("from", ">u2"), ("to", ">u2"), ("size", ">u2"), ("none", ">u2"),
        ("flags", "u1"), ("type", "u1"), ("seq", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4"),
    ]
)  # fmt: skip
_HEADERS = _RECORD.itemsize - 16
_NEVER = 1 << 62
_RECOVERED = PACKET_FATES.index("recovered")
_MAGIC_NS, _LINKTYPE_IPV4 = 0xA1B23C4D, 228


def to_pcap(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace's packets; see `Trace.to_pcap`."""
    target = Path(path)
    refuse_place(target)
    when = "sent" if trace.meta["side"] == "server" else "received"
    firsts = [int(_known(rows, when)[when].min(initial=_NEVER)) for rows in trace.chunks("packets")]
    first = min(firsts, default=_NEVER)
    if first == _NEVER:
        raise ValueError("this trace has no packets with numbers of RTP, so there is nothing to write")
    shift = 0 if trace.meta["side"] == "capture" else -min(first, trace.epoch_ns)
    other = any(row.name in ("payload", "codec") for row in trace.setting_rows)
    try:
        with target.open("wb") as file:
            file.write(np.array([_MAGIC_NS, 4 << 16 | 2, 0, 0, 1 << 18, _LINKTYPE_IPV4], "<u4").tobytes())
            for rows in trace.chunks("packets"):
                kept = _known(rows, when)
                kept = kept[np.argsort(kept[when], kind="stable")]
                file.write(_records(kept, kept[when] + shift, trace.meta, other=other).tobytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{target} cannot be written ({reason}): name a place for the capture that can be") from None


def _known(rows: Rows, when: str) -> Rows:
    """The packets that were there; what a repair has brought back came as another one, which is written."""
    there = (rows[when] != UNKNOWN) & (rows["ssrc"] != UNKNOWN) & (rows["seq"] != UNKNOWN)
    known: Rows = rows[there & ((rows["fate"] != _RECOVERED) | (when == "sent"))]
    return known


def _records(rows: Rows, times: Any, meta: dict[str, Any], *, other: bool) -> Any:
    made = np.zeros(len(rows), _RECORD)
    times = np.clip(times, 0, (1 << 32) * 1_000_000_000 - 1)
    made["seconds"], made["nanoseconds"] = times // 1_000_000_000, times % 1_000_000_000
    size = np.clip(np.where(rows["bytes"] == UNKNOWN32, 12, rows["bytes"]), 12, 65_507)
    made["captured"], made["length"] = _HEADERS, size + 28
    made["version"], made["total"], made["fragment"], made["hops"], made["protocol"] = 0x45, size + 28, 0x4000, 64, 17
    made["source"], made["target"] = SOURCE, TARGET
    made["checksum"] = _checksum(made["total"].astype(np.int64))
    made["size"] = size + 8
    types = _types(meta)
    described = meta.get("payload_types")
    for code, stream in enumerate(STREAMS):
        mine = rows["stream"] == code
        made["from"][mine] = made["to"][mine] = PORTS[stream]
        made["type"][mine] = OTHER_VIDEO if other and stream == "video" else TYPES[stream]
    if meta.get("audio_rate") == 44_100:
        made["type"][rows["stream"] == STREAMS.index("audio")] = L16_STEREO
    for stream, number in described.items() if isinstance(described, dict) else ():
        if stream in STREAMS and isinstance(number, int):
            made["type"][rows["stream"] == STREAMS.index(stream)] = number & 0x7F
    for ssrc, kind in types.items():
        made["type"][rows["ssrc"] == ssrc] = kind
    made["flags"] = 0x80
    made["type"] |= np.where(rows["marker"] == 1, 0x80, 0).astype(np.uint8)
    stamps = np.where(rows["timestamp"] == UNKNOWN, 0, rows["timestamp"])
    made["seq"], made["timestamp"] = rows["seq"] & 0xFFFF, stamps & 0xFFFFFFFF
    made["ssrc"] = rows["ssrc"] & 0xFFFFFFFF
    return made


def _types(meta: dict[str, Any]) -> dict[int, int]:
    """Payload types of sources: those of a capture are known, and what repairs send is another's."""
    repairs = meta.get("repair_ssrcs")
    found = {ssrc: TYPES["repair"] for ssrc in repairs if isinstance(ssrc, int)} if isinstance(repairs, list) else {}
    streams = meta.get("streams")
    for each in streams if isinstance(streams, list) else ():
        if isinstance(each, dict) and isinstance(each.get("code"), int) and isinstance(each.get("payload_type"), int):
            found[each["code"]] = each["payload_type"] & 0x7F
    return found


def _checksum(total: Any) -> Any:
    """RFC 1071, of a header in which nothing but the length differs."""
    hosts = (SOURCE[:2], SOURCE[2:], TARGET[:2], TARGET[2:])
    added = total + 0x4500 + 0x4000 + (64 << 8 | 17) + sum(high << 8 | low for high, low in hosts)
    added = (added & 0xFFFF) + (added >> 16)
    return 0xFFFF - ((added & 0xFFFF) + (added >> 16))
