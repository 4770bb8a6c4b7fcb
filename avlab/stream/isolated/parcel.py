"""Values and errors as plain JSON, for a server in a process of its own: settings go there, what it raised comes back.

Knows no process and no pipe. Nothing but avlab's own settings, pacers, rate controllers and errors, and Python's
errors, is ever made.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import os
from typing import Any

import numpy as np

from avlab.network.ratecontrol import CONTROLLERS, Aimd, Choice
from avlab.timing.pacing import PACERS, DeadlinePacer, FeedbackPacer, NoPacing, PiRule, TutorialPacer, tutorial_rule


def packed(name: str, value: Any) -> Any:
    """A setting's value as JSON has it. ValueError, naming the setting, for what lives in this process alone."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple | set):
        return [packed(name, item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"items": {key: packed(name, item) for key, item in value.items()}}
    kind = type(value)
    if kind in (DeadlinePacer, NoPacing):
        return {"pacer": value.name}
    if kind is TutorialPacer:
        return {"pacer": "tutorial", "settings": {"edition": value._edition, **_waits(value)}}
    if kind is FeedbackPacer and type(value.rule) is PiRule:
        gains = {"kp": value.rule.kp, "ki": value.rule.ki}
        return {"pacer": "pi", "gains": gains, "settings": _feedback(value)}
    if kind is FeedbackPacer and value.rule is tutorial_rule:
        return {"pacer": "rule", "settings": _feedback(value)}
    if kind is Aimd:
        return {"controller": "aimd", "settings": {k: packed(name, v) for k, v in value.settings().items()}}
    if dataclasses.is_dataclass(value) and kind.__module__.startswith("avlab."):
        fields = {field.name: packed(name, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"made": [kind.__module__, kind.__qualname__], "fields": fields}
    names = sorted(PACERS) if name == "pacer" else sorted(CONTROLLERS) if name == "rate_control" else []
    hint = f": choose {'one of ' if len(names) > 1 else ''}{', '.join(names)}" if names else ""
    raise ValueError(
        f"{name} is a {kind.__name__} of one's own, and isolated=True has the server run in another process{hint}, or "
        "leave isolated out"
    )


def _waits(pacer: FeedbackPacer) -> dict[str, Any]:
    known = {"fps": pacer.fps, "start": pacer.start, "stall": pacer._stall}
    return {name: value for name, value in known.items() if value is not None}


def _feedback(pacer: FeedbackPacer) -> dict[str, Any]:
    return {**_waits(pacer), "whole_ms": pacer._whole_ms, "name": pacer.name}


def unpacked(value: Any) -> Any:
    """What `packed` was given, or another just like it."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: unpacked(item) for key, item in value["items"].items()}
    if "made" in value:
        module, name = value["made"]
        return getattr(importlib.import_module(module), name)(**{k: unpacked(v) for k, v in value["fields"].items()})
    if "controller" in value:
        best = value["settings"]["best"]
        return Aimd(**value["settings"] | {"best": None if best is None else Choice(*best)})
    kind, settings = value["pacer"], value.get("settings", {})
    if "settings" not in value:
        return PACERS[kind]()
    if kind == "tutorial":
        return TutorialPacer(**settings)
    return FeedbackPacer(tutorial_rule if kind == "rule" else PiRule(**value["gains"]), **settings)


def packed_error(error: BaseException) -> dict[str, Any]:
    """An error's type, arguments and sentence."""
    known = (error.errno, error.strerror, error.filename) if isinstance(error, OSError) else None
    plain = all(value is None or isinstance(value, str | int) for value in known or ())
    kind = type(error)
    return {
        "type": [kind.__module__, kind.__qualname__],
        "system": known if known and plain and error.args[1:] else None,
        "text": str(error) or kind.__name__,
    }


def unpacked_error(value: dict[str, Any]) -> Exception:
    """The same error, when its type is Python's or avlab's; else a RuntimeError with its sentence."""
    module, name = value["type"]
    home: Any = builtins
    if module.startswith("avlab."):
        home = importlib.import_module(module)
    kind = getattr(home, name, None) if module == "builtins" or home is not builtins else None
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{name}: {value['text']}")
    try:
        if value["system"] is not None:
            number, text, path = value["system"]
            return kind(number, text) if path is None else kind(number, text, path)
        return kind(value["text"])
    except TypeError:  # made with other arguments than a sentence
        return RuntimeError(value["text"])
