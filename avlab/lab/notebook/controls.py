"""Sliders over a server and a client: what each stands for, in its unit, and the way from it into a handle.

A callback writes one value into a handle, and nothing else. What the handle refuses is said, and the slider goes back.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import ipywidgets as widgets

from avlab.lab.notebook.page_sound import PageSpeaker
from avlab.network.settings import Network
from avlab.parts import Pacer
from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, NoPacing, PiRule, TutorialPacer, pi_rule
from avlab.timing.seat import pacer_name

_RATES = (250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)
_OWN = "own"
_CLEAR = "none"
_NOTABLE_S = 0.005
_PACERS = [(name, name) for name in ("deadline", "tutorial", "pi", "none")]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A slider and what it stands for, in the slider's unit; `read` gives None where the handle has no such value."""

    widget: Any
    read: Callable[[], Any]
    write: Callable[[Any], None]


class Handles(Protocol):
    """Whose sliders they are; the handles may be replaced at any time by others of the same kind."""

    server: Any
    client: Any


class Controls:
    """The sliders, in titled groups in `box`. `say(sentence)` is told what a handle refuses; empty when all is well.

    Callbacks may come on several threads, of which `lock` lets one in.
    """

    _help: ClassVar[dict[str, str]] = {
        "bit_rate": "kilobits a second of H.264, at a quality of 80 and above",
        "key_interval": "from one picture that needs no other to the next: what a loss has spoilt is mended by it",
        "quality": "of each JPEG, 1 to 100: acts on the next frame that is encoded",
        "width": "of the picture, in pixels; its height follows",
        "pacer": "what decides when a frame leaves the server",
        "playout": "from the quickest arrival to its presentation: more of it forgives more jitter; "
        "while the browser plays the sound it is 320 ms at least",
        "preset": "networks that one meets; each moves the sliders below",
        "kp": "weight of the change of the error",
        "ki": "part of an error that is made good with the next frame",
        "start": "the wait with which the tutorial's loop begins",
        "fps": "the rate that the pacer aims at",
        "loss": "of the packets, on average",
        "burst": "how many are lost in a row, on average",
    }

    def __init__(self, handles: Handles, *, say: Callable[[str], None], lock: threading.RLock) -> None:
        self._handles, self._say, self._lock = handles, say, lock
        self._showing = False
        self._own_pacer: Pacer | None = None  # what was there and is none of the choices
        self._made: Pacer | None = None
        self._held = widgets.HTML()
        self._held.add_class("avlab-held")
        self.settings: dict[str, Setting] = {}
        self.box = self._columns()
        self.refresh()

    @property
    def _server(self) -> Any:
        return self._handles.server

    @property
    def _client(self) -> Any:
        return self._handles.client

    # ---- what there is to set

    def _columns(self) -> Any:
        has_network = hasattr(self._server, "network")
        picture = [] if self._server is None else [self._picture_group()]
        pacing = [] if self._server is None else [self._pacing_group()]
        playout = [] if self._client is None else [self._playout_group()]
        network = [self._network_group()] if has_network else []
        left, right = (picture + pacing, playout + network) if has_network else (picture + playout, pacing)
        columns = [widgets.VBox(column) for column in (left, right) if column]
        grid = widgets.GridBox(columns)
        grid.add_class("avlab-columns")
        return grid

    def _picture_group(self) -> Any:
        own = getattr(self._server, "clip_width", None) or 640
        top = max(640, own, self._server.width or 0)

        def width() -> Any:
            return self._server.width or own

        coded = []
        if getattr(self._server, "codec", None) == "h264":
            rate, interval = lambda: self._server.bit_rate, lambda: self._server.key_interval
            coded = [
                self._slider("bit_rate", "Rate (kbit/s)", 50, 8000, rate, self._set("bit_rate"), step=50),
                self._slider("key_interval", "Key frame (s)", 0.1, 10.0, interval, self._set("key_interval"), step=0.1),
            ]
        return _group(
            "Picture",
            *coded,
            self._slider("quality", "Quality", 1, 100, lambda: self._server.quality, self._set("quality"))
            if coded
            else self._slider("quality", "JPEG quality", 1, 100, lambda: self._server.quality, self._set("quality")),
            self._slider("width", "Width (px)", 80, top // 8 * 8, width, self._set("width"), step=8),
        )

    def _playout_group(self) -> Any:
        def read() -> Any:
            asked = self._client.playout_delay
            return round((asked if isinstance(asked, int | float) else self._client.playout_target) * 1e3)

        def write(value: float) -> None:
            self._client.playout_delay = value / 1e3

        return _group("Playout", self._slider("playout", "Delay (ms)", 0, 1000, read, write, step=10), self._held)

    def _pacing_group(self) -> Any:
        # The clip's rate, as far as it says one.
        nominal = self._nominal_fps = float(self._server.trace.meta.get("target_fps") or 30.0)
        choice = widgets.Dropdown(options=_PACERS, description="Pacer", tooltip=self._help["pacer"], **_LOOK)

        def remake(_value: Any) -> None:
            self._set_pacer(self._made_pacer())

        def gain(name: str) -> Callable[[], float | None]:
            return lambda: getattr(getattr(self._pacer(), "rule", None), name, None)

        def begins() -> float | None:
            pacer = self._pacer()
            return pacer.start * 1e3 if isinstance(pacer, TutorialPacer) and pacer.start is not None else None

        def target() -> float | None:
            pacer = self._pacer()
            return (pacer.fps or nominal) if isinstance(pacer, FeedbackPacer) else None

        late = {"continuous_update": False}  # a rule begins anew with each change, so it is made when the slider rests
        boxes = [
            choice,
            self._slider("kp", "Gain kp", -0.9, 0.9, gain("kp"), remake, step=0.05, value=0.1, **late),
            self._slider("ki", "Gain ki", 0.05, 1.95, gain("ki"), remake, step=0.05, value=0.2, **late),
            self._slider("start", "First wait (ms)", 1.0, 100.0, begins, remake, value=round(500 / nominal, 1), **late),
            self._slider("fps", "Target (fps)", 5.0, 60.0, target, remake, step=0.5, value=nominal, **late),
        ]
        self._observed("pacer", choice, self._pacer_choice, remake)
        return _group("Pacing", *boxes)

    def _network_group(self) -> Any:
        def field(name: str, unit: float) -> dict[str, Callable[..., Any]]:
            def write(value: float) -> None:
                network = dataclasses.replace(self._network(), **{name: value / unit})
                self._server.network = network

            def read() -> Any:
                value = getattr(self._network(), name)
                return None if callable(value) else round(value * unit, 3)  # one's own function has no place there

            return {"read": read, "write": write}

        def limit(value: float) -> None:
            self._server.network = dataclasses.replace(self._network(), rate=value or None)

        rates = [*((f"{rate:,}", rate) for rate in _RATES), ("no limit", 0)]  # None would be no choice at all
        rate = widgets.SelectionSlider(options=rates, value=0, description="Rate (kbit/s)", **_LOOK)
        boxes = [
            self._slider("loss", "Loss (%)", 0.0, 50.0, step=0.1, **field("loss", 100)),
            self._slider("burst", "Burst (packets)", 1.0, 20.0, step=0.5, **field("burst", 1)),
            self._slider("delay", "Delay (ms)", 0.0, 1000.0, step=1.0, **field("delay", 1e3)),
            self._slider("jitter", "Jitter (ms)", 0.0, 200.0, step=1.0, **field("jitter", 1e3)),
            rate,
        ]
        self._observed("rate", rate, lambda: self._network().rate or 0, limit)
        known = {_CLEAR: Network(), **Network.presets}
        names = [*((name, name) for name in known), ("own values", _OWN)]
        preset = widgets.Dropdown(options=names, description="Preset", tooltip=self._help["preset"], **_LOOK)

        def which() -> str:
            now = self._network()
            return _CLEAR if now.clear else next((name for name, each in known.items() if each == now), _OWN)

        def choose(name: str) -> None:
            if name != _OWN:  # which is whatever the sliders say
                self._server.network = known[name]

        self._observed("preset", preset, which, choose)
        boxes.insert(0, preset)
        return _group("Network", *boxes)

    def _slider(
        self, name: str, label: str, low: float, high: float, read: Any, write: Any, *, step: float = 1, **more: Any
    ) -> Any:
        kind = widgets.IntSlider if isinstance(low, int) else widgets.FloatSlider
        if kind is widgets.FloatSlider:
            more["readout_format"] = ".2f" if step < 0.1 else ".1f"
        slider = kind(
            min=low, max=high, step=step, description=label, tooltip=self._help.get(name, ""), **_LOOK, **more
        )
        self._observed(name, slider, read, write)
        return slider

    def _observed(self, name: str, widget: Any, read: Any, write: Any) -> None:
        self.settings[name] = setting = Setting(widget, read, write)
        widget.observe(lambda change: self._changed(setting, change["new"]), "value")

    # ---- between sliders and handles

    def refresh(self) -> None:
        """Have every slider show what its handle has; not from a worker."""
        with self._lock:
            for setting in self.settings.values():
                value = setting.read()
                if value is not None:
                    self._show(setting.widget, value)
            if self._client is not None:
                self._held.value = held(self._client)
                self._held.layout.display = "" if self._held.value else "none"
            pacer = self._pacer_choice() if "pacer" in self.settings else ""
            for name, seen in (("kp", ("pi",)), ("ki", ("pi",)), ("start", ("tutorial",)), ("fps", ("pi", "tutorial"))):
                if name in self.settings:
                    shown = None if pacer in seen else "none"
                    if self.settings[name].widget.layout.display != shown:
                        self.settings[name].widget.layout.display = shown

    def _show(self, widget: Any, value: Any) -> None:
        if widget.value == value:
            return
        self._showing = True
        try:
            if hasattr(widget, "max"):
                widget.max, widget.min = max(widget.max, value), min(widget.min, value)
            elif hasattr(widget, "options") and value not in _values_of(widget):
                widget.options = [(f"{value:,g}", value), *widget.options]
            widget.value = value
        finally:
            self._showing = False

    def _changed(self, setting: Setting, value: Any) -> None:
        """A slider was moved: its value goes into the handle, or the handle says why not and the slider goes back.

        `value` is where it was moved to. While this waited for the lock, a refresh on another thread may have set the
        widget back to what the handle had.
        """
        with self._lock:
            if self._showing:
                return
            self._show(setting.widget, value)
            said = ""
            try:
                setting.write(round(value, 6) if isinstance(value, float) else value)  # steps of 0.05 add up to less
            except (ValueError, TypeError) as error:
                said = sentence(error)
            self.refresh()
            self._say(said)

    def _set(self, name: str) -> Callable[[Any], None]:
        return lambda value: setattr(self._server, name, value)

    def _pacer(self) -> Any:
        return self._server.pacer

    def _set_pacer(self, pacer: str | Pacer) -> None:
        self._server.pacer = pacer

    def _pacer_choice(self) -> str:
        """Which of the choices the server's pacer is; one of anyone's own is a choice beside them."""
        pacer = self._pacer()
        known = {DeadlinePacer: "deadline", NoPacing: "none", TutorialPacer: "tutorial", FeedbackPacer: "pi"}
        kind: Any = type(pacer)
        if kind in known and (kind is not FeedbackPacer or isinstance(pacer.rule, PiRule)):
            return known[kind]
        if pacer is not self._own_pacer:
            self._own_pacer = pacer
            choice = self.settings["pacer"].widget
            label = f"{pacer_name(pacer)} (your own)"
            self._showing = True
            choice.options = [*_PACERS, (label, _OWN)]
            self._showing = False
        return _OWN

    def _made_pacer(self) -> str | Pacer:
        """The pacer that the sliders say.

        One that was made here is given its new gains and goes on from where it is: beginning anew, it would forget how
        far behind its timestamps the stream has come. Anyone else's is left as it is, for Reset.
        """
        choice = self.settings["pacer"].widget.value
        kp, ki, start, fps = (round(self.settings[name].widget.value, 6) for name in ("kp", "ki", "start", "fps"))
        target = None if fps == round(self._nominal_fps, 6) else fps
        pacer: Any = self._made if self._made is self._pacer() else None
        if choice == "pi":
            rule = pi_rule(kp=kp, ki=ki)
            if not isinstance(getattr(pacer, "rule", None), PiRule):
                pacer = FeedbackPacer(rule)
            pacer.rule.kp, pacer.rule.ki, pacer.name = kp, ki, f"pi (kp={kp:g}, ki={ki:g})"
        elif choice == "tutorial":
            if not isinstance(pacer, TutorialPacer) or pacer.start != start / 1e3:
                pacer = TutorialPacer(start=start / 1e3)
        else:
            return self._own_pacer if choice == _OWN and self._own_pacer is not None else str(choice)
        pacer.fps = target
        self._made = pacer
        return self._made

    def _network(self) -> Any:
        return self._server.network or Network()


def held(client: Any) -> str:
    """What holds in place of the playout delay that was asked for, in a few words; empty when that one does."""
    if not client.running:
        return ""
    asked, target = client.playout_delay, client.playout_target
    if asked == "adaptive":
        return "adaptive: this is what it has found"
    if not isinstance(asked, int | float):
        return "your own: this is what it asks for"
    if asked == 0:
        return "pictures as they come, ahead of their sound" if client.speaker_name else "pictures as they come"
    if target - asked < _NOTABLE_S:
        return ""
    who = "sound in the browser" if client.speaker_name == PageSpeaker.name else "the sound device"
    return f"in force: {round(target, 2) * 1e3:.0f} ms, for {who}"


_LOOK = {"style": {"description_width": "112px"}, "layout": {"width": "calc(100% - 4px)"}}


def _group(title: str, *boxes: Any) -> Any:
    group = widgets.VBox([widgets.HTML(f"<b>{title}</b>"), *boxes])
    group.add_class("avlab-group")
    return group


def _values_of(widget: Any) -> list[Any]:
    return [option[1] if isinstance(option, tuple) else option for option in getattr(widget, "options", ())]


def sentence(error: BaseException | None) -> str:
    """What an error says, as a sentence."""
    text = str(error) or type(error).__name__
    text = text if "_" in text.split()[0] else text[0].upper() + text[1:]  # a name stays as it is spelt
    return text if text.endswith((".", "!", "?")) else f"{text}."
