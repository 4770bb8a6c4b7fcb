"""One side of one system as a process, which ends with its parent.

python -m benchmarks.peers.worker MODULE send|receive JOB RECEIVER
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

from benchmarks.peers.job import Desk, Job


def main() -> None:
    """Run it. What fails is said in one line, the last on standard error."""
    module, role, job, receiver = sys.argv[1:5]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too, and ends this process
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        getattr(importlib.import_module(f"benchmarks.peers.{module}"), role)(Desk(Job.parse(job), int(receiver)))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)  # some systems leave threads that wait for ever


def _end_with(parent: int) -> None:
    """A parent that was killed cannot end its children."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
