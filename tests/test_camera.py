"""A camera as a source, held against a stand-in for cv2.VideoCapture: this is no test of any real camera."""

from __future__ import annotations

import threading
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest

import avlab
from avlab.media.camera import CameraSource
from avlab.media.codec import Picture
from avlab.media.packets import MediaError
from avlab.media.sources import open_source

FRAME_NS = 40_000_000


class StandIn:
    """A camera of 25 pictures a second on a clock of its own, whose driver keeps four; picture n is grey of level n.

    It gives `length` pictures, after `dark` failed reads; `missing` cannot be opened.
    """

    def __init__(self, *, length: int = 250, dark: int = 0, missing: bool = False) -> None:
        self.length, self.dark, self.missing = length, dark, missing
        self.now_ns = 1_000_000_000_000
        self.opened: list[int] = []
        self.released = 0
        self.settings: dict[int, float] = {}
        self._next = 0  # the number of the picture that is given next

    def __call__(self, index: int) -> StandIn:
        self.opened.append(index)
        self.begun_ns, self._next = self.now_ns, 0
        return self

    def clock(self) -> int:
        return self.now_ns

    def isOpened(self) -> bool:  # noqa: N802
        return not self.missing

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def grab(self) -> bool:
        taken = (self.now_ns - self.begun_ns) // FRAME_NS  # pictures taken so far; the oldest beyond four are lost
        self._next = max(self._next, taken - 4)
        self.now_ns = max(self.now_ns, self.begun_ns + (self._next + 1) * FRAME_NS)
        self._next += 1
        return self._next <= self.length

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.dark:
            self.dark -= 1
            return False, None
        if not self.grab():
            return False, None
        return True, np.full((48, 64, 3), (self._next - 1) % 256, np.uint8)

    def release(self) -> None:
        self.released += 1


def camera(device: StandIn, fps: float | None = None) -> CameraSource:
    return CameraSource(3, fps=fps, opener=device, now_ns=device.clock)


def numbers(pictures: list[Picture]) -> list[int]:
    return [int(np.asarray(picture.image)[0, 0, 0]) for picture in pictures]


def test_pictures_are_stamped_when_they_are_read() -> None:
    device = StandIn()
    source = camera(device)
    assert (source.live, source.has_video, source.has_audio, source.duration_ns) == (True, True, False, None)
    assert (source.width, source.height, source.fps) == (None, None, 30)
    assert device.opened == [], "nothing is opened before it is needed"
    iterator = source.pictures()
    pictures = list(islice(iterator, 50))
    assert device.opened == [3]
    assert (source.width, source.height) == (64, 48)
    assert [picture.index for picture in pictures] == list(range(50))
    assert [picture.pts_ns for picture in pictures] == [n * FRAME_NS for n in range(50)]
    assert numbers(pictures) == list(range(50))
    assert device.released == 0
    iterator.close()
    assert device.released == 1
    assert list(source.chunks()) == []
    source.close()


def test_it_is_asked_for_a_short_queue_and_a_rate() -> None:
    device = StandIn()
    source = camera(device, fps=15)
    assert source.fps == 15
    next(source.pictures())
    assert device.settings == {cv2.CAP_PROP_BUFFERSIZE: 1, cv2.CAP_PROP_FPS: 15}


def test_a_slow_reader_loses_pictures_and_no_time() -> None:
    device = StandIn()
    pictures = []
    for picture in islice(camera(device).pictures(), 40):
        pictures.append(picture)
        device.now_ns += 100_000_000  # the encoder takes two and a half pictures' time
    times = [picture.pts_ns for picture in pictures]
    assert all(99_000_000 <= after - before <= 141_000_000 for before, after in pairwise(times[4:]))
    shown = numbers(pictures)
    assert shown[-1] > 90, "the oldest are lost"
    assert all(after > before for before, after in pairwise(shown))


def test_time_stands_still_while_nobody_watches() -> None:
    device = StandIn(length=10_000)
    iterator = camera(device).pictures()
    before = list(islice(iterator, 2))  # read ahead, before the first client comes
    device.now_ns += 60_000_000_000
    after = list(islice(iterator, 3))
    gaps = np.diff([picture.pts_ns for picture in before + after])
    assert (gaps > 0).all()
    assert gaps.max() <= 2 * FRAME_NS, "a minute is taken out"
    newest = (device.now_ns - device.begun_ns) // FRAME_NS % 256
    assert (newest - numbers(after)[-1]) % 256 <= 1, "what the driver kept is thrown away"
    assert [picture.index for picture in after] == [2, 3, 4]


def test_each_pass_opens_it_anew() -> None:
    device = StandIn()
    source = camera(device)
    for _ in range(2):
        iterator = source.pictures()
        assert [picture.pts_ns for picture in islice(iterator, 3)] == [0, FRAME_NS, 2 * FRAME_NS]
        iterator.close()
    assert (device.opened, device.released) == ([3, 3], 2)


def test_what_fails_is_said_in_a_sentence_and_releases_it() -> None:
    device = StandIn(missing=True)
    with pytest.raises(MediaError, match=r"Camera 3 cannot be opened: plug one in .*, and allow access"):
        next(camera(device).pictures())
    assert device.released == 1
    device = StandIn(length=0)
    with pytest.raises(MediaError, match=r"Camera 3 was opened but gives no picture: close the programs that use it"):
        next(camera(device).pictures())
    assert device.released == 1
    device = StandIn(length=5)
    iterator = camera(device).pictures()
    assert len(list(islice(iterator, 5))) == 5
    with pytest.raises(MediaError, match=r"Camera 3 gives no more pictures after 5: it was unplugged"):
        next(iterator)
    assert device.released == 1


def test_a_camera_that_is_dark_at_first_is_waited_for() -> None:
    assert numbers(list(islice(camera(StandIn(dark=5)).pictures(), 3))) == [0, 1, 2]


@pytest.mark.parametrize("number", [0, 2, np.int64(1)])
def test_a_number_is_a_camera(number: int) -> None:
    source = open_source(number, fps=25)
    assert isinstance(source, CameraSource)
    assert (source.index, source.fps) == (number, 25)


def test_what_is_no_camera() -> None:
    for value in (True, False, 1.0, None):
        with pytest.raises(
            TypeError, match=r"A source is the path of a clip, .*, or a camera's number, or micro.*=True, not"
        ):
            open_source(value)
    with pytest.raises(ValueError, match="A camera's number is 0 or more, not -1"):
        open_source(-1)
    with pytest.raises(ValueError, match="fps must be above 0 and at most 1000"):
        open_source(0, fps=0)
    with pytest.raises(
        ValueError, match="loop=True needs a clip or frames that can be read again; a camera has no end"
    ):
        open_source(0, loop=True)


class Paced(StandIn):
    """The same in real time, near enough: each read takes a picture's time. Picture n is grey of level 4 n."""

    def read(self) -> tuple[bool, np.ndarray | None]:
        threading.Event().wait(FRAME_NS / 1e9)
        self._next += 1
        return self._next <= self.length, np.full((48, 64, 3), 4 * self._next, np.uint8)

    def grab(self) -> bool:
        return True


@pytest.mark.slow
def test_a_server_streams_a_camera_live(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Paced(length=40)
    monkeypatch.setattr("avlab.media.camera.open_camera", device)
    with avlab.Server(0) as server:
        threading.Event().wait(1.0)  # nobody watches at first
        with avlab.Client(server.url, audio="null") as client:
            seen = [(p.pts, round(float(p.image.mean()) / 4), device._next) for p in client.frames()]
        with pytest.raises(MediaError, match="Camera 0 gives no more pictures after 40"):
            server.stop()
    assert device.opened[0] == 0
    assert len(seen) > 25
    times, shown, read = np.array(seen).T
    assert (np.diff(times) > 0).all()
    assert np.diff(times).max() < 0.5, "the second before the first client is no hole"
    assert (np.diff(shown) > 0).all()
    assert np.median(read - shown) <= 8, "live: a third of a second at most behind the camera"
