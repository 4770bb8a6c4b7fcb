"""Plots of a trace, and of what needs none: a figure for each name here."""

from avlab.lab.plots.drawing import Plot
from avlab.lab.plots.heatmaps import heatmap, pareto
from avlab.lab.plots.runs import (
    ACCEPTABLE,
    DETECTABLE,
    adaptation,
    bitrate,
    delay,
    delays,
    fps,
    frame_bytes,
    frame_loss,
    frame_sizes,
    gaps,
    interval_error,
    levels,
    live,
    loss,
    pacers,
    packets,
    page,
    pieces,
    players,
    playout,
    raster,
    real_against_simulated,
    reports,
    sync,
)
from avlab.lab.plots.scoring import score

__all__ = [
    "ACCEPTABLE", "DETECTABLE", "Plot", "adaptation", "bitrate", "delay", "delays", "fps", "frame_bytes", "frame_loss",
    "frame_sizes", "gaps", "heatmap", "interval_error", "levels", "live", "loss", "pacers", "packets", "page",
    "pareto", "pieces", "players", "playout", "raster", "real_against_simulated", "reports", "score",
    "sync",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
