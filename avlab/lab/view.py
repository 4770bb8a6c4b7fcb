"""The live view in a notebook: a client's newest picture in the page, fewer where the page cannot follow.

One thread takes pictures from a tap and sends each JPEG as it came; `send` is all it may touch of the widget. The page
decodes, paints, and says every 250 ms how far it has come: only so much may be under way, and nothing is queued here.
"""

from __future__ import annotations

import threading
from typing import Any

import anywidget
from IPython.core.getipython import get_ipython
from IPython.display import display

from avlab.stream.client import Client
from avlab.stream.clock import MonotonicClock, VirtualClock
from avlab.stream.worker import Worker
from avlab.wire.units import NS

MOST_UNDER_WAY = 20
"""Pictures sent and not acknowledged: a third of a second at 60 fps, more than is painted between two acknowledgements.
A browser tab that takes nothing more then costs the notebook server no more memory than these."""

OVERDUE_NS = NS // 2
TRICKLE_NS = 90_000_000  # just below 100 ms: of 30 fps, every third picture


class Flow:
    """Which pictures may go to the page, and when: deciding apart from sending. Safe on any thread.

    Nothing goes before the page's first hello. From then on up to `MOST_UNDER_WAY` pictures may be unacknowledged.
    When no word has come for 0.5 s although one was due, ten pictures a second go blindly: in many kernels a cell that
    runs keeps words from the page waiting, and the picture should move meanwhile. The longer the silence, the fewer
    they become, so that a page which is gone for good costs next to nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard = False
        self._sent = self._acknowledged = 0
        self._sent_ns = 0
        self._since_ns = 0  # since when a word from the page is waited for

    def hello(self, now_ns: int) -> None:
        """The page is there, or there again: what was under way to it is forgotten."""
        with self._lock:
            self._heard = True
            self._acknowledged, self._since_ns = self._sent, now_ns

    def acknowledge(self, number: int, now_ns: int) -> None:
        """The page has seen everything up to picture `number`."""
        with self._lock:
            self._acknowledged = max(self._acknowledged, min(number, self._sent))
            self._since_ns = now_ns

    def admit(self, now_ns: int) -> int | None:
        """The number, from 1, under which a picture is to be sent now; None when it is not to be sent."""
        with self._lock:
            under_way = self._sent - self._acknowledged
            silent_ns = now_ns - self._since_ns if under_way else 0
            if silent_ns > OVERDUE_NS:
                admitted = now_ns - self._sent_ns >= max(TRICKLE_NS, silent_ns // 200)
            else:
                admitted = under_way < MOST_UNDER_WAY
            if not self._heard or not admitted:
                return None
            if not under_way:
                self._since_ns = now_ns
            self._sent, self._sent_ns = self._sent + 1, now_ns
            return self._sent


# `render` says hello when a page shows the view, after a reload too. A page that shows none is silent.
_PAGE = """
export default () => {
  const painters = new Set();
  let newest = null, decoding = false, asked = false, bitmap = null, seen = 0, timer = null;
  let painted = 0, moments = [], note = "";

  const paint = () => {
    asked = false;
    for (const painter of painters) painter.draw(bitmap);
    moments.push(performance.now());
    painted += 1;
  };
  const decode = async () => {
    if (decoding) return;
    decoding = true;
    while (newest) {
      const { content, buffer } = newest;
      newest = null;
      try {
        const next = await createImageBitmap(new Blob([buffer], { type: "image/jpeg" }));
        bitmap?.close();
        bitmap = next;
      } catch {
        continue;
      }
      const size = `${bitmap.width} \\u00d7 ${bitmap.height}, ${(buffer.byteLength / 1000).toFixed(1)} kB`;
      note = `${content.pts.toFixed(2)} s, ${size}`;
      if (!asked) requestAnimationFrame(paint);
      asked = true;
    }
    decoding = false;
  };
  const status = () => {
    const now = performance.now();
    moments = moments.filter((moment) => moment > now - 1000);
    return painted ? `${moments.length} fps painted, ${painted} frames, ${note}` : "waiting for the first picture";
  };

  return {
    initialize({ model }) {
      model.on("msg:custom", (content, buffers) => {
        if (!painters.size || !buffers.length) return;
        seen = content.number;
        newest = { content, buffer: buffers[0] };
        decode();
        timer ??= setTimeout(() => {
          timer = null;
          model.send({ seen });
        }, 250);
      });
    },
    render({ model, el }) {
      const frame = document.createElement("div");
      const canvas = document.createElement("canvas");
      const line = document.createElement("div");
      frame.className = "avlab-view";
      frame.append(canvas, line);
      el.append(frame);
      const context = canvas.getContext("2d", { alpha: false });
      const painter = {
        draw(picture) {
          if (canvas.width !== picture.width || canvas.height !== picture.height) {
            canvas.width = picture.width;
            canvas.height = picture.height;
            frame.style.aspectRatio ||= `${picture.width} / ${picture.height}`;
          }
          context.drawImage(picture, 0, 0);
        },
      };
      const tell = () => { line.textContent = status(); };
      const ticking = setInterval(tell, 250);
      painters.add(painter);
      tell();
      if (bitmap) painter.draw(bitmap);
      model.send({ hello: true });
      return () => {
        clearInterval(ticking);
        painters.delete(painter);
      };
    },
  };
};
"""

# A narrower picture is drawn as large as before, so that the eye compares and nothing below it moves.
_STYLE = """
.avlab-view { position: relative; width: 640px; max-width: 100%; aspect-ratio: 16 / 9; background: black; }
.avlab-view canvas { display: block; width: 100%; height: 100%; }
.avlab-view div {
  position: absolute; left: 0; top: 0; padding: 2px 8px; color: white; background: rgb(0 0 0 / 60%);
  font: 12px/18px monospace; pointer-events: none;
}
"""


class View(anywidget.AnyWidget):  # type: ignore[misc]
    """A client's pictures, live in the page. Made by `client.view()`; `close()` ends it, and so does the client's end.

    The saved notebook holds no picture. `clock` is for tests.
    """

    _esm = _PAGE
    _css = _STYLE
    _worker: Worker | None = None

    def __init__(self, client: Client, *, clock: MonotonicClock | VirtualClock | None = None) -> None:
        _hear_while_cells_run()
        super().__init__()
        self._flow = Flow()
        self._clock = clock or MonotonicClock()
        self._client = client
        self._cell: int | None = None
        self._tap = client.tap()
        self.on_msg(self._hear)
        # The client owns the thread: its stop() joins it, and shows what it failed of.
        self._worker = client.spawn("view", self._forward, self._tap.close)

    def close(self) -> None:
        """Take the view off the page; ends its thread."""
        if self._worker is not None:
            self._worker.signal()
            self._worker.join(1.0)
        super().close()

    def _forward(self, worker: Worker) -> None:
        try:
            while not worker.stopping.is_set():
                frame = self._tap.take(0.5)
                if frame is None:
                    if self._tap.closed or not self._client.running:
                        return
                elif frame.jpeg is not None:
                    number = self._flow.admit(self._clock.now_ns())
                    if number is not None:
                        self.send({"number": number, "pts": frame.pts_ns / NS}, [frame.jpeg])
        finally:
            self._client.untap(self._tap)

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A word from the page; on the kernel's main thread or on a subshell's."""
        if "hello" in content:
            self._flow.hello(self._clock.now_ns())
        elif "seen" in content:
            self._flow.acknowledge(content["seen"], self._clock.now_ns())

    def _ipython_display_(self) -> None:
        # view() has shown it; as the last line of the same cell it is not shown again, in a later cell it is.
        shell = get_ipython()
        cell = shell.execution_count if shell is not None else None
        if cell is None or cell != self._cell:
            self._cell = cell
            data, metadata = self._repr_mimebundle_()
            display(data, metadata=metadata, raw=True)


def _hear_while_cells_run() -> None:
    """Have what the page says heard at once, sliders included, where JupyterLab and the kernel have subshells for it.

    ipykernel 7.4.0 overrules JupyterLab: it sends a page's words to the main shell, where they wait for the cell's end,
    and when that cell awaits, it never confirms them, upon which sliders stay mute for good. This gives the choice
    back to JupyterLab, as it was up to 7.3. The name is private: where it is not, nothing is done.
    """
    try:
        from ipykernel.comm.comm import BaseComm
    except ImportError:
        return
    if hasattr(BaseComm, "_reply_subshell_for"):
        BaseComm._reply_subshell_for = lambda _self, _data, subshell: subshell  # type: ignore[method-assign]


def view(client: Client) -> View:
    """Show a client's pictures in the notebook; returns the widget. RuntimeError when the client does not run."""
    if not client.running:
        raise RuntimeError("this client is not playing, so there is nothing to view: start it, or make a new one")
    made = View(client)
    if get_ipython() is not None:
        display(made)
    return made
