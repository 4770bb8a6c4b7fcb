"""The live view in JupyterLab in a real Chromium: fps painted, from handle to paint, CPU of the kernel, lip-sync.

The clip is served at 30 fps by a process of its own, so that the kernel holds the client and the view alone; what the
view costs is what the kernel takes beyond the client by itself. The browser is headless but for lip-sync, which is seen
from a screen and heard from a sound card. Prints a Markdown table. python -m benchmarks.view [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks import observe
from tests import browser, tools

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CLIP = Path(__file__).parents[1] / "data" / "count.mp4"

START = """\
import json, os
import numpy as np
import avlab
avlab.stop_all()
client = avlab.Client({url!r}, playout_delay={delay}, audio={audio!r}).start()
print(os.getpid())
"""
VIEW = "view = client.view(sound={sound!r})"
RESULT = """\
rows = client.trace.frames.query("stream == 'video'")
age = rows["complete"].max() - rows["complete"]
rows = rows[(age > 1) & (age < {seconds} + 1)]
seen = rows[rows["fate"] == "shown"]
span = rows["complete"].max() - rows["complete"].min()
wait = (seen["shown"] - seen["complete"]) * 1e3
print(json.dumps([len(seen) / span, float(wait.median()), float(wait.quantile(0.95))]))
client.stop()
"""


@dataclass(frozen=True)
class Seen:
    """What one run came to: pictures a second, ms from handle to paint, the view's and the client's share of a core."""

    fps: float
    median: float
    p95: float
    view: float
    client: float


@contextmanager
def served(width: int) -> Iterator[str]:
    """The clip served for ever by a process of its own; its URL."""
    command = [sys.executable, "-m", "avlab", "serve", str(CLIP), "--loop", "--port", "0", "--width", str(width)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def share(kernel: psutil.Process, notebook: browser.Notebook, seconds: float) -> float:
    """The kernel's share of a core over so many seconds."""
    before, began = sum(kernel.cpu_times()[:2]), time.perf_counter()
    notebook.page.wait_for_timeout(seconds * 1000)
    return (sum(kernel.cpu_times()[:2]) - before) / (time.perf_counter() - began)


def measure(chromium: Browser, lab: browser.Lab, width: int, *, sound: str, seconds: float) -> Seen:
    """One size, with pictures alone shown as they come, or with the sound in the page."""
    with served(width) as url:
        silent = sound == "none"
        cells = [
            ("start", START.format(url=url, delay=0.0 if silent else 0.1, audio="null")),
            ("view", VIEW.format(sound=sound)),
            ("result", RESULT.format(seconds=seconds)),
        ]
        with browser.notebook(chromium, lab.url(lab.write("measure.ipynb", cells))) as notebook:
            notebook.run("start")
            kernel = psutil.Process(int(notebook.text("start")))
            notebook.page.wait_for_timeout(1000)
            alone = share(kernel, notebook, seconds / 2)
            notebook.run("view")
            notebook.picture()
            notebook.page.wait_for_timeout(2000)
            whole = share(kernel, notebook, seconds)
            notebook.page.wait_for_timeout(1000)
            notebook.run("result")
            fps, median, p95 = json.loads(notebook.text("result"))
        lab.end_kernels()
    return Seen(fps, median, p95, whole - alone, alone)


def lip_sync(seconds: float, folder: Path) -> list[float]:
    """Picture minus sound in ms for each second of the clip, as an outsider sees and hears them."""
    with ExitStack() as stack:
        screen, sound, env = stack.enter_context(observe.stage())
        url = stack.enter_context(served(640))
        lab = stack.enter_context(browser.lab(folder, env=env))
        window = ["--window-size=1280,800", "--window-position=0,0"]
        chromium = stack.enter_context(browser.chromium(env=env, headless=False, args=window))
        cells = [("start", START.format(url=url, delay=0.1, audio="null")), ("view", VIEW.format(sound="browser"))]
        page = browser.notebook(chromium, lab.url(lab.write("sync.ipynb", cells)))
        notebook = stack.enter_context(page)
        notebook.run("start", "view")
        notebook.picture()
        notebook.page.get_by_role("button", name="Statistics").first.click()
        notebook.page.wait_for_timeout(3000)
        observer = observe.Observer(screen, sound)
        observer.start()
        try:
            notebook.page.wait_for_timeout(seconds * 1000)
        finally:
            seen = observer.stop()
        lab.end_kernels()
    return [pair.offset * 1e3 for pair in seen.pairs(observe.reference(CLIP))]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each of the four runs is measured")
    args = parser.parse_args()
    print("| view, 30 fps offered | fps painted | handle to paint, median (ms) | 95 % (ms) | kernel CPU for the view |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tools.pulse() as pulse, browser.lab(folder, env=pulse.env) as lab, browser.chromium(env=pulse.env) as page:
            for width, sound in product((640, 1280), ("none", "browser")):
                seen = measure(page, lab, width, sound=sound, seconds=args.seconds)
                words = "pictures alone" if sound == "none" else "with sound"
                paint = f"{seen.median:.1f} | {seen.p95:.1f}" if sound == "none" else "by the sound | "
                print(
                    f"| {width}x{width * 9 // 16}, {words} | {seen.fps:.1f} | {paint} | {seen.view:.1%} |", flush=True
                )
        offsets = np.array(lip_sync(max(12.0, 2 * args.seconds), folder))
    if not len(offsets):
        print("\nNo flash was seen with its tone.")
        return
    low, middle, high = np.percentile(offsets, [5, 50, 95])
    print(
        f"\nLip-sync in the browser from screen and sound card, {len(offsets)} flashes: median {middle:+.1f} ms, "
        f"5 to 95 % {low:+.1f} to {high:+.1f} ms, 95 % within {np.percentile(abs(offsets), 95):.1f} ms."
    )


if __name__ == "__main__":
    main()
