"""The button that ends all that plays: a notebook's last cell, where what it shows is to go on until then."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from avlab.lab.check.leftovers import nothing_left
from avlab.lab.predictions import Verdict
from avlab.stream.handle import stop_all


class StopButton(widgets.VBox):  # type: ignore[misc]
    """Made by `avlab.check.stop_button()`."""

    def __init__(self) -> None:
        self.button = widgets.Button(description="Stop everything", icon="stop", tooltip="end all servers and clients")
        self.said = widgets.HTML()
        super().__init__([self.button, self.said])
        self.button.on_click(self._pressed)

    def press(self) -> Verdict:
        """End all that plays, and say what is left, below the button as well."""
        try:
            stop_all()
            verdict = nothing_left()
        except Exception as error:  # what a handle failed of is to be read here, too
            verdict = Verdict(False, f"{type(error).__name__}: {error}")
        self.said.value = verdict._repr_html_()
        return verdict

    def _pressed(self, _button: Any) -> None:
        self.press()
