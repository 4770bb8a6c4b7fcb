"""What a server, a client and a relay say of themselves reaches the person who runs them, whenever it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import avlab
from avlab.cli import main
from avlab.stream.handle import Worker

SAID = ["before it began", "as it began", "as it failed", "as it ended"]


def talking(kind: Any, *, fails: bool) -> Any:
    """A server, client or relay that does nothing but say something at each moment of its life."""

    class Talking(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self._notices.add(SAID[0])

        @property
        def url(self) -> str:
            return "rtsp://127.0.0.1:9/talking"

        @url.setter
        def url(self, _: str) -> None:
            pass

        def _begin(self) -> None:
            self._notices.add(SAID[1])
            self.spawn("talking", self._talk)

        def _talk(self, _worker: Worker) -> None:
            self._notices.add(SAID[2])
            if fails:
                raise OSError("it broke")
            self._ended.set()

        def _release(self) -> None:
            self._notices.add(SAID[3])

    Talking.__name__ = kind.__name__
    return Talking


COMMANDS: dict[str, list[str]] = {
    "Client": ["play", "rtsp://127.0.0.1:9/talking", "--audio", "null", "--no-window"],
    "Server": ["serve", "CLIP", "--port", "0"],
    "Relay": ["relay", "--to", "127.0.0.1:9", "--listen", "0"],
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", list(COMMANDS))
def test_a_command_prints_every_notice_also_the_last(
    kind: str, fails: bool, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(avlab, kind, talking(getattr(avlab, kind), fails=fails))
    assert main([str(clip) if word == "CLIP" else word for word in COMMANDS[kind]]) == int(fails)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("note: ")] == [f"note: {words}" for words in SAID]
    assert ("avlab: it broke" in said[-1:]) == fails


@pytest.mark.parametrize("kind", ["Server", "Client"])
def test_demo_prints_the_notices_of_both(
    kind: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = getattr(avlab, kind)

    class Noting(original):  # type: ignore[misc]
        def _release(self) -> None:
            super()._release()
            self._notices.add(f"the {kind} ends")

    Noting.__name__ = kind
    monkeypatch.setattr(avlab, kind, Noting)
    assert main(["demo", str(clip), "--seconds", "0.5", "--audio", "null", "--out", str(tmp_path)]) == 0
    assert f"note: the {kind} ends\n" in capsys.readouterr().err


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("parity", [0.25, 0.5, 1.0])
def test_parity_on_the_classic_wire_is_told_to_do_nothing(clip: Path, parity: float, isolated: bool) -> None:
    server = avlab.Server(clip, wire="classic", parity=parity, isolated=isolated)
    assert [words for words in server.notices if "parity does nothing on the classic wire" in words]
    changed = avlab.Server(clip, wire="classic")
    assert changed.notices == ()
    changed.parity = parity
    assert len(changed.notices) == 1


@pytest.mark.parametrize("settings", [{"wire": "rtsp", "parity": 0.5}, {"wire": "classic", "parity": 0.0}])
def test_parity_that_acts_or_is_none_is_not_worth_a_word(clip: Path, settings: dict[str, Any]) -> None:
    assert avlab.Server(clip, **settings).notices == ()


def test_an_isolated_server_passes_on_what_its_process_says(clip: Path) -> None:
    with avlab.Server(clip, wire="classic", isolated=True) as quiet:
        assert quiet.notices == ()
    with avlab.Server(clip, wire="classic", isolated=True, parity=0.5) as server:
        assert len(server.notices) == 1
        server.spread = 0.5
        assert len(server.notices) == 2
    assert len(server.notices) == 2
