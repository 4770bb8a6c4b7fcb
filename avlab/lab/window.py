"""The live view in a desktop window, on the main thread as every system wants it: the newest picture and its fps."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from avlab.measure.numbers.rates import rate_of
from avlab.media import codec
from avlab.stream.client import Client
from avlab.stream.playing.tap import image_of

TITLE = "avlab"


class NoWindowError(RuntimeError):
    """There is no display to open a window on. The message is a sentence."""


def check_display() -> None:
    """Raise NoWindowError where no window can be opened: OpenCV would end the process instead of saying so.

    OpenCV's wheels for Linux open windows on X alone; a Wayland desktop offers it as XWayland, and sets DISPLAY.
    """
    if sys.platform.startswith("linux"):
        _check_x()


def _check_x() -> None:
    display = os.environ.get("DISPLAY")
    if not display:
        raise NoWindowError(
            "there is no display for a window (DISPLAY is not set): play with --no-window, or from a desktop"
        )
    if not answers(display):
        raise NoWindowError(
            f"the display {display} does not answer: play with --no-window, or set DISPLAY to one that does"
        )


def answers(display: str) -> bool:
    """Whether an X server takes connections there; True for a name whose form is not known here."""
    host, _, rest = display.rpartition(":")
    number = rest.split(".")[0]
    if not number.isdigit():
        return True
    places: list[tuple[int, Any]] = [(socket.AF_INET, (host, 6000 + int(number)))]
    if host in ("", "unix"):
        path = f"/tmp/.X11-unix/X{number}"
        local = getattr(socket, "AF_UNIX", None)  # which Windows' sockets have not
        places = [(local, path), (local, f"\0{path}")] if local is not None else []
    for family, address in places:
        with socket.socket(family, socket.SOCK_STREAM) as link, contextlib.suppress(OSError):
            link.settimeout(2.0)
            link.connect(address)
            return True
    return False


def _find_fonts() -> None:
    """Importing cv2 points Qt to a folder of fonts that its Linux wheels lack, and Qt complains: point it to some."""
    spec = importlib.util.find_spec("matplotlib")
    named = os.environ.get("QT_QPA_FONTDIR")
    if named and not Path(named).is_dir() and spec is not None and spec.origin is not None:
        os.environ["QT_QPA_FONTDIR"] = str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf")


class Window:
    """Shows a client's pictures until the stream ends or somebody presses q. Use it on the main thread.

    `show_fps` paints the rate of the last second into the corner. The moment a picture was on the screen goes back to
    the client, whose record then tells it as `shown`.
    """

    def __init__(self, client: Client, *, show_fps: bool = True) -> None:
        check_display()
        import cv2

        _find_fonts()
        self._cv2: Any = cv2
        self._client = client
        self._tap = client.tap(decides=True)
        self._show_fps = show_fps
        self._shown: deque[int] = deque(maxlen=240)
        # Now, before anything plays: a window's first picture and OpenCV's first text take 50 ms each.
        cv2.namedWindow(TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        blank = np.zeros((360, 640, 3), np.uint8)
        self._paint(blank)
        blank[:] = 0
        cv2.imshow(TITLE, codec.decode_jpeg(codec.encode_jpeg(blank)[0]))
        cv2.waitKey(50)

    def step(self, timeout: float = 0.02) -> bool:
        """Show the next picture, or wait `timeout` seconds for one; False once the window is to close."""
        frame = self._tap.take(timeout)
        image = None
        if frame is not None and frame.data is not None:
            try:
                image = image_of(frame.data, frame.image)
            except ValueError:  # whoever sends it: the next one may be whole
                self._tap.skipped(frame)
        if frame is not None and image is not None:
            if self._show_fps:
                self._paint(image)
            self._cv2.imshow(TITLE, image)
            key = self._cv2.pollKey() & 0xFF
            now_ns = self._client.clock.now_ns()
            self._client.presented(frame, now_ns)
            self._shown.append(now_ns)
        else:
            key = self._cv2.pollKey() & 0xFF
        return bool(key != ord("q") and self._cv2.getWindowProperty(TITLE, self._cv2.WND_PROP_VISIBLE) >= 1)

    def close(self) -> None:
        """Close the window and let go of the client's pictures."""
        self._client.untap(self._tap)
        self._cv2.destroyAllWindows()
        self._cv2.pollKey()

    @property
    def fps(self) -> float:
        """Frames shown a second over the last second, as the plots have it; 0 when nothing has come for two."""
        return rate_of(self._shown, self._client.clock.now_ns())

    def _paint(self, image: Any) -> None:
        text, place, font = f"{self.fps:.0f} fps", (12, 30), self._cv2.FONT_HERSHEY_SIMPLEX
        self._cv2.putText(image, text, place, font, 0.8, (0, 0, 0), 4, self._cv2.LINE_AA)
        self._cv2.putText(image, text, place, font, 0.8, (255, 255, 255), 2, self._cv2.LINE_AA)
