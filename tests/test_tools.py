"""The private screen and sound card do what the other tests take for granted, and what is missing gets a sentence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tools

RED_WINDOW = """
import cv2, numpy, sys
cv2.namedWindow("avlab", cv2.WINDOW_AUTOSIZE)
cv2.moveWindow("avlab", 0, 0)
cv2.imshow("avlab", numpy.full((200, 300, 3), (20, 40, 220), numpy.uint8))
while cv2.waitKey(20) < 0:
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
    with subprocess.Popen(
        [sys.executable, "-c", RED_WINDOW], env=tools.environment(xvfb.env), stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            for _ in zip(range(1500), child.stdout, strict=False):  # 30 s at most
                if (seen := (screen == red).all(axis=2).sum()) >= 200 * 300:
                    break
        finally:
            child.terminate()
    assert seen == 200 * 300


@pytest.mark.slow
@pytest.mark.needs("pulse")
def test_a_tone_is_heard_on_the_null_sink(pulse: tools.Sound) -> None:
    with pulse.recording() as heard:
        done = subprocess.run(
            [sys.executable, "-c", TONE],
            env=tools.environment(pulse.env), capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        samples = heard()[:, 0].astype(float)
    assert done.stdout.strip() == "default"
    loud = np.flatnonzero(abs(samples) > 1000)
    assert len(loud) > 0.3 * pulse.rate
    tone = samples[loud[0] : loud[-1]]  # with a gap in it where a busy machine ran dry, which no pitch minds
    spectrum = abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert spectrum.argmax() * pulse.rate / len(tone) == pytest.approx(1000, abs=5)
