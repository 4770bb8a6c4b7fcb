"""A class's traces and predictions in one table and one plot; files of strangers among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import run

import avlab
from avlab.measure.record import said
from avlab.measure.record.said import MOST_KEPT, PREDICTION, Said, Sayings, predictions_of
from avlab.measure.record.trace import Recorder, SettingRow, Trace

TAG = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Sayings:
    """Predictions of this test alone."""
    from avlab.lab import predictions
    from avlab.measure.record import files

    own = Sayings()
    for module in (said, predictions, files):
        monkeypatch.setattr(module, "sayings", own)
    return own


def trace(name: str = "", clip: str = "count.mp4", *, loss: float = 0.0, seed: int = 1) -> Trace:
    seen = run(seconds=2, loss=loss, seed=seed).client
    tables = {table: [seen.rows(table)] for table in ("frames", "packets", "sync", "reports")}
    meta = seen.meta | {"clip": clip} | ({"name": name} if name else {})
    return Trace(**tables, settings=seen.setting_rows, meta=meta)


# ---- predictions go with the trace


def test_what_was_predicted_and_found_is_saved_with_each_trace(tmp_path: Path, fresh: Sayings) -> None:
    size = avlab.predict("bytes of a frame", 14_000, "bytes")
    avlab.predict("not said yet", ...)
    avlab.predict("changed", 1)
    avlab.predict("changed", 2)
    avlab.predict("taken back", 1)
    avlab.predict("taken back", ...)
    size.against(15_200)
    trace().save(tmp_path / "a.avtrace")
    loaded = Trace.load(tmp_path / "a.avtrace")
    assert predictions_of(loaded.setting_rows) == [
        Said("bytes of a frame", 14_000.0, "bytes", 15_200.0),
        Said("changed", 2),
    ]
    rows = loaded.settings[loaded.settings["name"] == PREDICTION]
    assert len(rows) == 2
    assert set(rows["kind"]) == {"setting"}


def test_what_is_said_here_is_not_about_a_trace_of_elsewhere(tmp_path: Path) -> None:
    trace().save(tmp_path / "student.avtrace")
    avlab.predict("the teacher's", 5)
    loaded = Trace.load(tmp_path / "student.avtrace")
    for again in (loaded, loaded.between(0, 1)):
        again.save(tmp_path / "again.avtrace")
        assert predictions_of(Trace.load(tmp_path / "again.avtrace").setting_rows) == []


def test_the_same_prediction_said_again_keeps_what_was_found_and_another_does_not(fresh: Sayings) -> None:
    avlab.predict("x", 1, "s").against(3)
    avlab.predict("x", 1, "s")
    assert [row.measured for row in predictions_of(fresh.rows(0))] == [3.0]
    avlab.predict("x", 2, "s")
    assert [row.measured for row in predictions_of(fresh.rows(0))] == [None]


def test_predictions_are_bounded(fresh: Sayings) -> None:
    for number in range(2 * MOST_KEPT):
        avlab.predict(f"{number} " + "\u5c71" * 1_000, number, "\u5c71" * 1_000)
    kept = predictions_of(fresh.rows(0))
    assert [each.value for each in kept] == list(range(MOST_KEPT, 2 * MOST_KEPT))
    assert (
        len(predictions_of([*fresh.rows(0), SettingRow(0, PREDICTION, '{"question": "one more", "value": 1}')]))
        == MOST_KEPT
    )


@given(
    st.text()
    | st.none()
    | st.integers()
    | st.dictionaries(
        st.sampled_from(["question", "value", "unit", "measured"]),
        st.none() | st.text() | st.integers() | st.floats() | st.lists(st.integers()),
    ).map(json.dumps)
)
def test_what_is_no_prediction_is_passed_over(value: Any) -> None:
    for one in predictions_of([SettingRow(0, PREDICTION, value)]):
        assert one.question
        assert np.isfinite(one.value)
        assert one.measured is None or np.isfinite(one.measured)
        assert one.question.isprintable()


def test_deep_nonsense_is_passed_over() -> None:
    assert (
        predictions_of([SettingRow(0, PREDICTION, "[" * 100_000), SettingRow(0, "else", '{"question":"x","value":1}')])
        == []
    )


# ---- gathered


@pytest.fixture
def folder(tmp_path: Path, fresh: Sayings) -> Path:
    """Three of a class, one of them in a folder of its own, a file that is none, and what is no business of it."""
    for number, (name, guess) in enumerate((("Ada", 10.0), ("", 4_000.0), (TAG, 31.0))):
        avlab.predict("frames damaged", guess, "%").against(30 + number)
        if number == 2:
            avlab.predict(TAG, 7)
        home = tmp_path / ("bob" if number == 1 else ".")
        home.mkdir(exist_ok=True)
        trace(name, TAG if number == 2 else "count.mp4", loss=0.02 * number, seed=number).save(
            home / f"{number}.avtrace"
        )
    (tmp_path / "broken.avtrace").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".0.avtrace.12345678").write_text("a half")
    return tmp_path


def test_a_row_a_file_and_what_cannot_be_read_has_its_sentence(folder: Path) -> None:
    gathered = avlab.gather(folder)
    table = gathered.table.set_index("file")
    assert list(table.index) == ["0.avtrace", "2.avtrace", "bob/1.avtrace", "broken.avtrace"]
    assert list(table["name"]) == ["Ada", TAG, "", ""]
    assert (table["error"] == "").tolist() == [True, True, True, False]
    assert "broken.avtrace" in table.loc["broken.avtrace", "error"]
    assert list(table["said: frames damaged (%)"].dropna()) == [10.0, 31.0, 4000.0]
    assert list(table["found: frames damaged (%)"].dropna()) == [30.0, 32.0, 31.0]
    assert f"found: {TAG}" not in table
    ledger = avlab.metrics.summary(Trace.load(folder / "2.avtrace"))
    assert table.loc["2.avtrace", "shown"] == ledger.shown
    assert table.loc["2.avtrace", "shown_percent"] == pytest.approx(100 * ledger.shown / ledger.offered)
    assert list(gathered.predictions.columns) == ["file", "name", "question", "unit", "said", "found"]
    assert len(gathered.predictions) == 4
    assert "4 traces, 1 of them cannot be read" in repr(gathered)


def test_strangers_words_are_text_in_the_table_the_page_and_the_plot(folder: Path) -> None:
    gathered = avlab.gather(folder)
    assert "<img" not in gathered._repr_html_()
    assert "&lt;img" in gathered._repr_html_()
    shown = gathered.figure()._repr_mimebundle_()[0]["text/html"]  # type: ignore[attr-defined]
    assert shown.count("<img") == 1, "the plot itself"


def test_a_trace_shows_a_strangers_settings_as_text(tmp_path: Path, fresh: Sayings) -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="c")
    recorder.setting(0, TAG, TAG)
    recorder.meta |= {"clip": TAG, "name": TAG}
    avlab.predict(TAG, 5, TAG)
    recorder.trace().save(tmp_path / "x.avtrace")
    loaded = Trace.load(tmp_path / "x.avtrace")
    for shown in (loaded._repr_html_(), loaded.settings.to_html(), avlab.predict(TAG, 5).against(9)._repr_html_()):
        assert "<img" not in shown


def test_the_plot_has_a_line_a_trace_and_a_panel_a_question(folder: Path) -> None:
    figure = avlab.gather(folder).figure()
    first, *questions = figure.axes
    assert len(first.get_yticks()) == 4
    assert [" ".join(ax.get_xlabel().split()) for ax in questions] == ["frames damaged %", TAG]
    assert questions[0].get_xscale() == "log", "from 10 to 4,000"
    assert [text.get_text() for text in first.texts] == ["cannot be read"]
    figure.savefig(folder / "class.png")


@pytest.mark.parametrize("name", [r"$\frac{", "a$b$c", "50 % _^{}"])
def test_a_name_is_no_formula(tmp_path: Path, name: str) -> None:
    avlab.predict(name, 1, name)
    trace(name).save(tmp_path / "a.avtrace")
    avlab.gather(tmp_path).figure().savefig(tmp_path / "a.png")


def test_where_there_is_nothing_to_gather(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no trace in"):
        avlab.gather(tmp_path)
    (tmp_path / "x.avtrace").write_text("")
    with pytest.raises(NotADirectoryError, match="is no folder"):
        avlab.gather(tmp_path / "x.avtrace")
    alone = avlab.gather(tmp_path)
    assert len(alone.table) == 1
    assert alone.table["error"][0]
    alone.figure().savefig(tmp_path / "a.png")
    assert "x.avtrace" in alone._repr_html_()
