"""Plots of delays between two clocks: by how much they can be wrong is drawn, and said."""

from __future__ import annotations

import matplotlib.collections as shapes
import pytest
from clockpair import Way, run
from matplotlib.figure import Figure

from avlab.lab import plots
from avlab.measure.numbers import metrics
from avlab.measure.record.join import join
from avlab.measure.record.trace import Trace


@pytest.fixture(scope="module")
def far() -> Trace:
    made = run(seconds=6, down=Way(5, 1), up=Way(15, 1))
    return join(made.server, made.client)


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for ax in figure.axes for text in [*ax.texts, ax.title])


def bands(figure: Figure) -> list[shapes.PolyCollection]:
    return [each for ax in figure.axes for each in ax.collections if isinstance(each, shapes.PolyCollection)]


def test_a_delay_between_two_clocks_has_a_band_and_a_bar(far: Trace) -> None:
    error = metrics.summary(far).delay_error_ms
    assert error is not None
    assert 9 < error < 14
    figure = plots.delay(far)
    said = f"\N{PLUS-MINUS SIGN}{error:.2g}"
    assert said in texts(figure)
    assert f"two clocks: {said}" in texts(figure)
    [band] = bands(figure)
    [path] = band.get_paths()
    low, high = path.vertices[:, 1].min(), path.vertices[:, 1].max()
    median = metrics.summary(far).delay_ms
    assert median is not None
    assert low == pytest.approx(max(0, median - error), abs=4)
    assert high == pytest.approx(median + error, abs=4)
    assert figure.axes[0].get_ylim()[1] > high


def test_runs_laid_over_each_other_have_a_band_each(far: Trace) -> None:
    near = run(seconds=6)
    same = join(near.server, Trace(packets=[near.client.rows("packets")], meta=near.client.meta | {"clock": "one"}))
    figure = plots.delay({"far": far, "here": same})
    assert len(bands(figure)) == 1
    assert "\N{PLUS-MINUS SIGN}" in texts(figure)
    assert figure.axes[0].get_ylim()[1] > bands(figure)[0].get_paths()[0].vertices[:, 1].max() * 0.99


def test_the_distribution_has_a_bar(far: Trace) -> None:
    figure = plots.delays(far)
    assert "two clocks: \N{PLUS-MINUS SIGN}" in texts(figure)
    assert figure.axes[0].get_xlabel() == "one-way delay (ms)"
    low, high = figure.axes[0].get_xlim()
    found = metrics.summary(far)
    assert found.delay_ms is not None
    assert found.delay_error_ms is not None
    assert low <= max(0, found.delay_ms - found.delay_error_ms)
    assert high >= found.delay_ms + found.delay_error_ms


def test_one_clock_has_neither_band_nor_bar() -> None:
    near = run(seconds=3)
    same = join(near.server, Trace(packets=[near.client.rows("packets")], meta=near.client.meta | {"clock": "one"}))
    table = metrics.one_way_delay(same)
    assert (table["error_ms"] == 0).all()
    assert metrics.summary(same).delay_error_ms == 0
    found = metrics.clocks(same)
    assert found is not None
    assert (found.ahead_ms, found.error_ms, found.drift_ppm) == (0, 0, 0)
    for figure in (plots.delay(same), plots.delays(same)):
        assert "two clocks" not in texts(figure)
        assert not bands(figure)
