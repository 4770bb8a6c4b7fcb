"""The private screen and sound card do what the other tests take for granted, and what is missing gets a sentence."""

from __future__ import annotations

import ast
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tools

RED_WINDOW = """
import cv2, numpy, sys
cv2.namedWindow("avlab", cv2.WINDOW_AUTOSIZE)
cv2.moveWindow("avlab", 0, 0)
while cv2.waitKey(100) < 0:
    cv2.imshow("avlab", numpy.full((200, 300, 3), (20, 40, 220), numpy.uint8))
    print("drawn", flush=True)
"""

TONE = """
import numpy, pyaudio
rate = 44100
tone = (8000 * numpy.sin(2 * numpy.pi * 1000 * numpy.arange(rate // 2) / rate)).astype("<i2")
audio = pyaudio.PyAudio()
print(audio.get_default_output_device_info()["name"])
stream = audio.open(rate, 1, pyaudio.paInt16, output=True)
stream.write(tone.tobytes())
stream.stop_stream()
stream.close()
audio.terminate()
"""


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    tools.missing.cache_clear()
    try:
        sentence = tools.missing("ffplay")
        assert sentence is not None
        assert "apt-get install ffmpeg" in sentence
    finally:
        tools.missing.cache_clear()


def test_a_gstreamer_element_that_is_missing_is_named() -> None:
    assert "gst:nosuchelement is missing" in str(tools.missing("gst:nosuchelement"))


def test_an_unknown_tool_is_a_mistake_in_the_test() -> None:
    with pytest.raises(KeyError):
        tools.packages("nosuchtool")


@pytest.mark.slow
@pytest.mark.needs("xvfb")
def test_a_window_is_seen_in_the_framebuffer(xvfb: tools.Screen) -> None:
    screen = xvfb.pixels()
    red = np.array((20, 40, 220), np.uint8)
    assert screen.shape == (800, 1280, 3)
    assert not (screen == red).all(axis=2).any()
    for _ in range(10):  # where no window manager maps it, one window in ten is never painted by Qt
        with tools.started(sys.executable, "-c", RED_WINDOW, env=xvfb.env) as child:
            assert child.stdout is not None
            for _ in zip(range(30), child.stdout, strict=False):
                if (seen := (screen == red).all(axis=2).sum()) >= 200 * 300:
                    break
        if seen:
            break
    assert seen == 200 * 300


def test_what_is_started_heeds_ctrl_c_where_it_is_ignored() -> None:
    """As it is in what a shell runs in the background, such as all these tests."""
    code = (
        "import time\ntry:\n    print(flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('heard')\n"
    )
    with tools.disposition(signal.SIG_IGN, signal.SIGINT), tools.started(sys.executable, "-c", code) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=tools.SECONDS)[0] == "heard\n"


def test_what_is_started_ends_in_its_time_though_it_says_nothing() -> None:
    with tools.started(sys.executable, "-c", "import time; time.sleep(600)", seconds=0.5) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == ""
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_every_wait_for_a_program_or_a_thread_has_a_limit(path: Path) -> None:
    endless = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        limited = any(keyword.arg == "timeout" for keyword in node.keywords)
        run = owner == "subprocess" and name in ("run", "call", "check_call", "check_output")
        if ((run or name == "communicate") and not limited) or (name == "join" and not node.args and not limited):
            endless.append(f"line {node.lineno}: {ast.unparse(node)}")
        if owner == "subprocess" and name == "Popen" and path.name != "tools.py":
            endless.append(f"line {node.lineno}: tools.started and tools.process end what they begin")
    assert endless == []


@pytest.mark.slow
@pytest.mark.needs("pulse")
def test_a_tone_is_heard_on_the_null_sink(pulse: tools.Sound) -> None:
    with pulse.recording() as heard:
        said = tools.run(sys.executable, "-c", TONE, env=pulse.env)
        samples = heard()[:, 0].astype(float)
    assert said.strip() == "default"
    loud = np.flatnonzero(abs(samples) > 1000)
    assert len(loud) > 0.3 * pulse.rate
    tone = samples[loud[0] : loud[-1]]  # with a gap in it where a busy machine ran dry, which no pitch minds
    spectrum = abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert spectrum.argmax() * pulse.rate / len(tone) == pytest.approx(1000, abs=5)
