"""Small slips at the student's door get a sentence: misspelt settings, milliseconds for seconds, names and ports."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

import avlab
from avlab import Network
from avlab.measure.record.trace import Recorder, Trace
from avlab.wire.urls import Place

ROOT = Path(__file__).parents[1]
CLIP = str(ROOT / "data" / "count.mp4")


# ---- settings


@pytest.mark.parametrize(
    ("made", "name", "near"),
    [
        (lambda: avlab.Server(CLIP), "qualty", "'quality'"),
        (lambda: avlab.Server(CLIP), "Width", "'width'"),
        (lambda: avlab.Server(CLIP), "ratecontrol", "'rate_control'"),
        (lambda: avlab.Client("rtsp://127.0.0.1:1/x"), "playout_dely", "'playout_delay'"),
        (lambda: avlab.Relay("rtsp://127.0.0.1:1/x"), "netwrok", "'network'"),
    ],
)
def test_a_misspelt_setting_is_told_with_the_nearest_name(made: Any, name: str, near: str) -> None:
    handle = made()
    with pytest.raises(AttributeError, match=f"has no setting '{name}': did you mean {near}"):
        setattr(handle, name, 5)


def test_a_setting_that_is_like_none_is_told_with_all_there_are() -> None:
    with pytest.raises(AttributeError, match="a client has no setting 'quality', only playout_delay"):
        avlab.Client("rtsp://127.0.0.1:1/x").quality = 50  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "called", "name", "near"),
    [
        (lambda **given: avlab.Server(CLIP, **given), "Server", "qualtiy", "quality"),
        (lambda **given: avlab.Server(CLIP, isolated=True, **given), "Server", "packetsize", "packet_size"),
        (lambda **given: avlab.Client("rtsp://127.0.0.1:1/x", **given), "Client", "playoutdelay", "playout_delay"),
        (lambda **given: avlab.Relay("127.0.0.1:1", **given), "Relay", "idle_time", "idle_timeout"),
        (Network, "Network", "los", "loss"),
        (Network, "Network", "bottelneck", "bottleneck"),
        (lambda **given: avlab.Bottleneck(1000, **given), "Bottleneck", "queu", "queue"),
        (lambda **given: avlab.simulate(30, **given), "simulate", "rate_contol", "rate_control"),
        (lambda **given: avlab.FeedbackPacer(avlab.pi_rule, **given), "FeedbackPacer", "strat", "start"),
        (avlab.TutorialPacer, "TutorialPacer", "editon", "edition"),
    ],
)
def test_a_misspelt_argument_is_told_with_the_nearest_name(make: Any, called: str, name: str, near: str) -> None:
    with pytest.raises(TypeError) as told:
        make(**{name: 5})
    assert str(told.value) == f"{called}() got an unexpected keyword argument '{name}': did you mean '{near}'?"
    with pytest.raises(TypeError) as told:
        make(zzzz=5)
    assert str(told.value) == f"{called}() got an unexpected keyword argument 'zzzz'"


def test_another_type_error_is_told_as_it_is() -> None:
    for make in (avlab.Server, lambda: avlab.Relay(5), lambda: Network(bottleneck=[]), avlab.simulate):  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)) as told:
            make()
        assert "unexpected keyword" not in str(told.value)
    with pytest.raises(TypeError, match="simulate has no setting 'qualty': did you mean 'quality'"):
        avlab.simulate_together({"a": 30}, qualty=5)


def test_settings_that_are_there_are_set() -> None:
    server = avlab.Server(CLIP)
    server.quality, server.network = 50, Network(loss=0.1)
    assert (server.quality, server.network.loss) == (50, 0.1)


@pytest.mark.parametrize(
    ("name", "value", "meant"), [("delay", 20, "0.02"), ("jitter", 40, "0.04"), ("queue", 200, "0.2")]
)
def test_milliseconds_for_seconds_are_asked_about(name: str, value: float, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"at most 10 seconds, not {value}: did you mean {meant} s\?"):
        Network(**{name: value})


def test_a_playout_delay_in_milliseconds_is_asked_about_live_and_simulated() -> None:
    for run in (
        lambda: avlab.Client("rtsp://127.0.0.1:1/x", playout_delay=100),
        lambda: avlab.simulate(30.0, playout_delay=100),
    ):
        with pytest.raises(ValueError, match=r"0 to 5 seconds or 'adaptive', not 100: did you mean 0.1 s\?"):
            run()


def test_milliseconds_are_asked_about_wherever_seconds_are_wanted() -> None:
    for asks, meant in (
        (lambda: avlab.simulate(30, seconds=1, work=40), "0.04"),
        (lambda: avlab.simulate(30, seconds=1, work=lambda _chance: 25.0), "0.025"),
        (lambda: avlab.FeedbackPacer(avlab.pi_rule, start=16.7), "0.0167"),
        (lambda: avlab.simulate(30, seconds=1, delay=80), "0.08"),
    ):
        with pytest.raises(ValueError, match=rf"did you mean {meant} s\?"):
            asks()


@pytest.mark.parametrize(("per_cent", "share"), [(5, "0.05"), (2.5, "0.025"), (50, "0.5")])
def test_per_cent_are_asked_about_where_a_share_is_wanted(per_cent: float, share: str) -> None:
    with pytest.raises(ValueError, match=rf"from 0 to 1, not {per_cent}: did you mean {share}\?"):
        avlab.Network(loss=per_cent)


def test_a_quality_or_width_that_cannot_be_is_refused_without_a_network_too() -> None:
    for made in ({"quality": 500}, {"quality": 0}, {"width": 1}):
        for network in (None, avlab.Network(loss=0.1)):
            with pytest.raises(ValueError, match=f"{next(iter(made))} must be"):
                avlab.simulate(30, seconds=1, network=network, **made)


@pytest.mark.parametrize(("name", "near"), [("wifi", "home-wifi"), ("4G", "4g"), ("class-room", "classroom")])
def test_a_preset_that_is_none_is_told_with_those_there_are(name: str, near: str) -> None:
    with pytest.raises(KeyError) as told:
        Network.presets[name]
    assert str(told.value).startswith(f"there is no preset '{name}', only home-wifi, 4g,")
    assert str(told.value).endswith(f"did you mean '{near}'?")
    assert Network.presets.get(name) is None
    with pytest.raises(TypeError):
        Network.presets["mine"] = Network()  # type: ignore[index]


# ---- addresses


def test_an_address_without_a_port_says_which_was_tried() -> None:
    assert Place.parse("rtsp://127.0.0.1/x").port == 554
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 554)) == 0:
            return  # this machine has an RTSP server of its own
    with pytest.raises(OSError, match=r"127.0.0.1:554: .*the address has no port, so 554 was tried"):
        avlab.Client("rtsp://127.0.0.1/x").start()


@pytest.mark.parametrize("url", ["rtsp://host:8554/x", "rtsp://[::1]:554", "rtsp://user:secret@host:1/x"])
def test_an_address_with_a_port_says_nothing_of_it(url: str) -> None:
    assert not Place.parse(url).tried


def test_make_lab_takes_a_port() -> None:
    def lines(*given: str) -> str:
        return subprocess.run(
            ["make", "-n", "lab", *given], cwd=ROOT, capture_output=True, text=True, timeout=60
        ).stdout

    assert re.search(r"avlab lab --port=8890\s*$", lines("PORT=8890"))
    assert re.search(r"avlab lab\s*$", lines())


# ---- names


def completed(code: str) -> list[str]:
    """What a notebook offers after a tab."""
    shell = InteractiveShell()
    shell.push({"avlab": avlab})
    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(code, len(code))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ["avlab", "avlab.plots", "avlab.check", "avlab.metrics", "avlab.testing"])
def test_tab_completion_offers_what_is_exported_and_nothing_else(module: str) -> None:
    avlab.plots, avlab.check, avlab.metrics, avlab.testing  # noqa: B018 - bound when first used
    names = dir(eval(module, {"avlab": avlab}))
    assert len(names) == len(set(names))
    offered = completed(f"{module}.")
    assert not {"np", "Any", "annotations", "TYPE_CHECKING", "import_module"} & {*offered, *names}
    assert set(offered) <= set(names)
    assert set(eval(module, {"avlab": avlab}).__all__) <= set(names)


def test_every_name_that_is_listed_is_there() -> None:
    for name in dir(avlab):
        getattr(avlab, name)


# ---- plots


def test_titles_side_by_side_do_not_run_into_each_other() -> None:
    trace = Trace.load(ROOT / "data" / "classroom.avtrace")
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = np.ravel(figure.subplots(2, 2))
    for ax in axes:
        avlab.plots.sync(trace, ax=ax)
    figure.draw_without_rendering()
    boxes = [ax._left_title.get_window_extent() for ax in axes]
    assert boxes[0].x1 < boxes[1].x0
    assert boxes[2].x1 < boxes[3].x0
    assert boxes[1].x1 <= figure.bbox.x1
    alone = avlab.plots.sync(trace)
    assert "\n" not in alone.axes[0].get_title(loc="left")
    assert "\n" not in avlab.plots.page(trace).described()  # type: ignore[attr-defined]


def test_a_page_of_sound_alone_has_no_empty_frames() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="test")
    for number in range(40):
        at = number * 20_000_000
        recorder.packet("audio", 1, number, 441 * number, True, 900, at, at + 1_000_000, "used")
    figure = avlab.plots.page(recorder.trace())
    assert len(figure.axes) == 2
    assert {ax.get_ylabel() for ax in figure.axes} == {"bit rate (kbit/s)", "one-way delay (ms)"}
