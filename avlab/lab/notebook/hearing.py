"""Whether a page's words, sliders' included, are heard while a cell runs. All that is pinned in ipykernel is here."""

from __future__ import annotations

import threading
from typing import Any

from IPython.core.getipython import get_ipython


class Cells:
    """Whether a cell runs, and how the page's words come: told by IPython's own events, and by the words themselves."""

    def __init__(self) -> None:
        self.running = False
        self._shell: Any = None
        self._beside: bool | None = None  # whether the newest word came on another thread than the cells'

    def watch(self) -> None:
        """Have IPython tell when cells begin and end; asked for within a cell, one runs now."""
        shell = get_ipython()
        if shell is None or shell is self._shell:
            return
        self._shell = shell
        self.running = bool(getattr(shell, "kernel", None)) and getattr(shell, "execution_count", 0) > 0
        shell.events.register("pre_run_cell", self._begins)
        shell.events.register("post_run_cell", self._ends)

    def word(self) -> None:
        """A word from the page has come, on this thread."""
        self._beside = threading.current_thread() is not threading.main_thread()

    def unheard(self) -> None:
        """A word from the page was due, and did not come while a cell ran."""
        self._beside = False

    def sliders_wait(self) -> bool:
        """Whether what a page says waits while a cell runs: as seen, else as far as the kernel can tell."""
        if self._beside is not None:
            return not self._beside
        shell = get_ipython()
        kernel = getattr(shell, "kernel", None)
        if kernel is None:
            return True
        return not getattr(kernel, "_supports_kernel_subshells", False)

    def _begins(self, *_: Any) -> None:
        self.running = True

    def _ends(self, *_: Any) -> None:
        self.running = False


cells = Cells()
"""Those of this kernel."""


def sliders_wait() -> bool:
    """Whether sliders act only when the running cell has ended: the kernel, or the page, has no subshells for them.

    Known for certain once a live view's page has said something; until then as far as the kernel can tell.
    """
    return cells.sliders_wait()


def hear_while_cells_run() -> None:
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
