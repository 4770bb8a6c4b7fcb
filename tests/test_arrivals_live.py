"""What a client makes of servers that are odd, on real sockets: notices, ends, and what is played all the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rawclient import until
from scripted import AUDIO, VIDEO, ScriptedServer, description, playing

import avlab
from avlab.measure import metrics

pytestmark = pytest.mark.slow


def client_of(server: ScriptedServer, **settings: Any) -> avlab.Client:
    return avlab.Client(server.url, **({"audio": "null"} | settings))


# ---- what cannot be played


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000"), "PCMU"),
        (("m=audio 0 RTP/AVP 8",), "PCMA"),
        (("m=audio 0 RTP/AVP 97", "a=rtpmap:97 MPEG4-GENERIC/48000/2"), r"MPEG4-GENERIC \(AAC\)"),
        (("m=audio 0 RTP/AVP 111", "a=rtpmap:111 opus/48000/2"), "OPUS"),
        (("m=audio 0 RTP/AVP 97",), "payload type 97"),
    ],
)
def test_sound_of_another_encoding_is_named_and_the_pictures_play(lines: tuple[str, ...], named: str) -> None:
    described = description(VIDEO, (*lines, "a=control:1"))
    with ScriptedServer(described, lambda s: playing(s, sound=False)) as server, client_of(server) as client:
        until(lambda: len(client.trace.frames) > 10)
        [words] = client.notices
    assert metrics.summary(client.trace).shown > 5
    assert re.search(rf"sound of this stream is {named}, which avlab does not play", words)
    assert "picture goes on without it" in words


def test_pictures_of_another_encoding_are_named_and_the_sound_plays() -> None:
    described = description(("m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=control:0"), AUDIO)
    with ScriptedServer(described, playing) as server, client_of(server) as client:
        until(lambda: client.audio_seconds > 0.2)
        [words] = client.notices
    assert "picture of this stream is H264" in words
    assert "sound goes on without it" in words


def test_a_second_track_of_a_kind_that_is_played_is_no_loss() -> None:
    spare = ("m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=control:1")
    with ScriptedServer(description(VIDEO, AUDIO, spare), playing) as server, client_of(server) as client:
        until(lambda: client.audio_seconds > 0.2)
        assert client.notices == ()


# ---- what is set while it starts


@pytest.mark.parametrize("delay", [0.37, "adaptive"])
@pytest.mark.parametrize("moment", ["OPTIONS", "PLAY"])
def test_a_playout_delay_that_is_set_while_the_client_starts_holds(moment: str, delay: Any) -> None:
    client: avlab.Client

    class Server(ScriptedServer):
        def _answer(self, connection: Any, head: str) -> None:
            if head.startswith(moment):
                client.playout_delay = delay
            super()._answer(connection, head)

    with Server(description(VIDEO, AUDIO), playing) as server:
        client = client_of(server)
        with client:
            assert client.playout_delay == delay
            until(lambda: (client.trace.frames["fate"] == "shown").sum() > 5)
            waits = client.trace.frames.query("fate == 'shown' and stream == 'video'").eval("shown - first_packet")
            if delay == "adaptive":
                assert client.playout_target > 0
            else:
                assert client.playout_target == pytest.approx(delay)
                assert waits.median() > 0.25
