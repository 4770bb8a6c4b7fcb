"""What a network did in a recorded run, packet by packet, to be done again: `Network.replay`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avlab.parts import Packet

SLACK_S = 0.02
"""Packets sent as they were then, but for so much of time, fare one by one as those did."""

ONE_CLOCK = ("simulation", "relay")
"""The sides whose records are of one clock, unless they say otherwise."""


@dataclass(frozen=True, slots=True)
class _ReplayLane:
    """A recorded stream, in the order of sending."""

    times: NDArray[np.float64]  # since the first packet of all, in seconds
    lost: NDArray[np.bool_]
    delays: NDArray[np.float64]


class Replay:
    """The losses and delays of a record, by the time since the first packet, over and over.

    A stream that was not recorded fares as the pictures did. ValueError for a trace that does not tell when packets
    were sent.
    """

    def __init__(self, trace: Any) -> None:
        table = trace.packets
        table = table[
            table["sent"].notna() & table["stream"].isin(["video", "audio"])
        ]  # copies have no time of sending
        if len(table):  # one client's, and not what repairs it: the source of the most packets
            most = table.groupby("stream", observed=True)["ssrc"].agg(lambda ssrcs: ssrcs.value_counts().index[0])
            table = table[table["ssrc"] == table["stream"].map(most).astype(table["ssrc"].dtype)]
            table = table.sort_values(["sent", "seq"], kind="stable")
        if not len(table):
            raise ValueError(
                "this trace does not tell when packets were sent: replay the trace of a simulated run, of a relay, or "
                "one that avlab.join has put together from both sides"
            )
        sent = table["sent"].to_numpy(np.float64)
        received = table["received"].to_numpy(np.float64, na_value=np.nan)
        repaired = (table["fate"] == "recovered").to_numpy(bool)
        lost = np.isnan(received) | repaired
        delays = np.where(lost, np.nan, received - sent)
        if lost.all():
            delays = np.zeros_like(delays)
        elif not trace.meta.get("shared_clock", trace.meta.get("side") in ONE_CLOCK):
            delays = delays - np.nanmin(delays)
        times = sent - sent[0]
        steps = np.diff(np.unique(times))
        self._period = float(times[-1] + (steps.mean() if len(steps) else 1.0))
        self._lanes: dict[str, _ReplayLane] = {}
        for stream in ("video", "audio"):
            rows = (table["stream"] == stream).to_numpy(bool)
            if rows.any():
                known = ~np.isnan(delays[rows])
                own = (
                    np.interp(times[rows], times[rows][known], delays[rows][known]) if known.any() else 0 * times[rows]
                )
                self._lanes[stream] = _ReplayLane(times[rows], lost[rows], np.maximum(0.0, own))

    def replayed_loss(self, packet: Packet, state: dict[Any, Any]) -> bool:
        """Whether the packet that was sent at this time was lost."""
        lane, at = self._recorded(packet, state)
        return bool(lane.lost[at])

    def replayed_delay(self, packet: Packet, state: dict[Any, Any]) -> float:
        """How long the packet that was sent at this time took."""
        lane, at = self._recorded(packet, state)
        return float(lane.delays[at])

    def _recorded(self, packet: Packet, state: dict[Any, Any]) -> tuple[_ReplayLane, int]:
        """The packet of the record that a packet stands for: the next one, while the times agree."""
        lane = self._lanes.get(packet.stream.split()[0]) or next(iter(self._lanes.values()))
        if state.get("packet") is packet:
            return lane, state["at"]
        turn, time = divmod(packet.time, self._period)
        after = state["at"] + 1 if state.get("turn") == turn else 0
        at = max(0, int(np.searchsorted(lane.times, time, side="right")) - 1)
        if after < len(lane.times) and abs(lane.times[after] - time) <= SLACK_S:
            at = after
        state["packet"], state["turn"], state["at"] = packet, turn, at
        return lane, at
