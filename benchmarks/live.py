"""What live plots cost beside the live view: pictures painted a second, and the kernel's CPU, without them and with.

    python -m benchmarks.live [--seconds 6] [--rounds 4] [--panel]

JupyterLab in headless Chromium; plots go on and off by turns, so that a machine's moods meet both alike. With --panel
the control panel is there all the time, with its numbers. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # as the browser's tests have it

import browser  # noqa: E402

CELLS = [
    ("start", f"import avlab, os\nserver = avlab.Server({str(ROOT / 'data' / 'count.mp4')!r}, loop=True).start()\n"
              "client = avlab.Client(server.url, audio='null').start()\nprint(os.getpid())"),
    ("view", "client.view(sound='none')"),
    ("panel", "avlab.panel(server, client)"),
    ("on", "live = avlab.plots.live(client)"),
    ("off", "live.close()"),
    ("stop", "avlab.stop_all()"),
]  # fmt: skip

COUNT = """() => {
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  window.painted = 0;
  CanvasRenderingContext2D.prototype.drawImage = function (...what) {
    if (this.canvas.closest(".avlab-view")) window.painted += 1;
    return draw.apply(this, what);
  };
}"""


def cpu(processes: list[psutil.Process]) -> float:
    """Seconds of CPU that these have taken so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measure(page: browser.Notebook, kernel: psutil.Process, seconds: float) -> tuple[float, float, float]:
    """Pictures painted a second, and the CPU of the kernel and of the browser in percent of a core."""
    pages = [child for child in psutil.Process().children(recursive=True) if "chrom" in child.name()]
    kernel_s, pages_s, painted = cpu([kernel]), cpu(pages), page.page.evaluate("window.painted")
    began = time.perf_counter()
    page.page.wait_for_timeout(seconds * 1000)
    kernel_s, pages_s = cpu([kernel]) - kernel_s, cpu(pages) - pages_s
    painted, taken = page.page.evaluate("window.painted") - painted, time.perf_counter() - began
    return painted / taken, 100 * kernel_s / taken, 100 * pages_s / taken


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each reading")
    parser.add_argument("--rounds", type=int, default=4, help="readings without plots, and as many with them")
    parser.add_argument("--panel", action="store_true", help="with the control panel all the time")
    chosen = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder, browser.lab(Path(folder)) as lab, browser.chromium() as chromium:
        name = lab.write("live.ipynb", CELLS)
        with browser.notebook(chromium, lab.url(name)) as page:
            page.run("start", *(["panel"] if chosen.panel else []), "view")
            page.picture()
            page.page.evaluate(COUNT)
            kernel = psutil.Process(int(page.text("start")))
            for number in range(2 * chosen.rounds):
                if number:
                    page.run("on" if number % 2 else "off")
                page.page.locator(".avlab-view").first.scroll_into_view_if_needed()
                page.page.wait_for_timeout(1500)
                found["on" if number % 2 else "off"].append(measure(page, kernel, chosen.seconds))
            page.run("stop")
    print(f"medians of {chosen.rounds} readings of {chosen.seconds:g} s, 640x360 at 30 fps")
    print(f"{'':<20}{'painted fps':>12}{'kernel CPU':>12}{'browser CPU':>12}")
    middle = {name: [statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in found.items()}
    middle["on less off"] = [on - off for on, off in zip(middle["on"], middle["off"], strict=True)]
    for name, (fps, kernel_cpu, browser_cpu) in middle.items():
        print(f"{'plots ' + name:<20}{fps:>12.1f}{kernel_cpu:>10.1f} %{browser_cpu:>10.1f} %")
    print("the plots may cost 1.5 fps")


if __name__ == "__main__":
    main()
