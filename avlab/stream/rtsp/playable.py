"""Which of the media that a server describes can be played, in which of their formats; and why the others cannot."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from avlab.media.sounddecoder import DecodedSound
from avlab.media.videodecoder import VideoDecoder
from avlab.wire import sdp
from avlab.wire.payloads.formats import (
    SOUND,
    VIDEO,
    AacFormat,
    H264Format,
    H265Format,
    OpusFormat,
    sound_format,
    video_format,
)

CLOCKS = {"video": range(1_000, 10_000_001), "audio": range(4_000, 384_001)}
MAX_CHANNELS = 8
"""Ticks a second of a clock, and channels of a sound, that can be played."""

OWN = "X-"
"""How the encodings of anyone's own payload formats begin."""

KNOWN: Mapping[str, Collection[str]] = {"video": VIDEO, "audio": SOUND}
USUAL = {"video": "JPEG", "audio": "L16"}
NOUNS = {"video": "picture", "audio": "sound"}
_FAMILIAR = {"MPEG4-GENERIC": "AAC", "MP4A-LATM": "AAC", "MPA": "MPEG audio"}  # what encodings are better known as


@dataclass(frozen=True, slots=True)
class Playable:
    """What a client plays. `payload` is the encoding of its own payload format, "" for none; `codec` is whether it has
    a codec of its own.
    """

    payload: str = ""
    codec: bool = False

    def as_played(self, media: sdp.Media) -> sdp.Media | None:
        """The medium by that of its formats which can be read, with a clock that can be its; None when there is none.

        What is described first is what is sent, where it is anyone's own: a further format only stands in for it.
        """
        first = sdp.Format(media.encoding, media.clock_rate, media.channels)
        formats = ((media.payload_type, first), *media.others)
        if media.encoding.upper().startswith(OWN):
            formats = formats[:1]
        for number, form in formats:
            fits = form.clock_rate in CLOCKS.get(media.kind, ()) and 1 <= form.channels <= MAX_CHANNELS
            if fits and not _unfit(media, number, form) and self._reads(media, number, form.encoding.upper()):
                others = ((media.payload_type, first), *media.others)
                others = tuple(one for one in others if one[0] != number)
                return replace(media, payload_type=number, others=others, **form._asdict())
        return None

    def chosen(self, media: Iterable[sdp.Media]) -> dict[str, sdp.Media]:
        """Of each kind the first medium that can be played, by the format that can, in the order of the description.

        A camera's way back, for who speaks to it, is marked sendonly: what another track carries is rather taken.
        """
        described = list(media)
        wanted: dict[str, sdp.Media] = {}
        for each in sorted(described, key=lambda one: ("sendonly", "") in one.attributes):
            played = self.as_played(each)
            if played is not None and played.kind not in wanted:
                wanted[played.kind] = played
        return {each.kind: wanted[each.kind] for each in described if each.kind in wanted}

    def _reads(self, media: sdp.Media, number: int, encoding: str) -> bool:
        if encoding.startswith(OWN):
            if self._wants_codec(media, number):
                return False
            return media.kind == "video" and encoding in ("X-BYTES", self.payload.upper())
        return encoding in KNOWN.get(media.kind, ())

    def _wants_codec(self, media: sdp.Media, number: int) -> bool:
        return not self.codec and "codec" in media.parameters(number)

    def refusal(self, media: Iterable[sdp.Media], url: str) -> str:
        """Why none of a stream's media is played, in a sentence."""
        described = list(media)
        own = next((one for one in described if one.kind == "video" and one.encoding.upper().startswith(OWN)), None)
        if own is not None:
            return f"the pictures at {url} {self._wanted(own)}"
        offered = ", ".join(_name(one) for one in described)
        why = next((words for one in described if (words := _why(one))), "")
        plays = "avlab plays pictures of JPEG, H.264 and H.265, and sound of AAC, Opus, G.711, L8, L16 and L24"
        return f"the stream at {url} carries {offered or 'nothing'}{why and f' ({why})'}: {plays}"

    def _wanted(self, media: sdp.Media) -> str:
        """What a client would have to be given to show pictures of anyone's own."""
        encoding = media.encoding.upper()
        if encoding not in ("X-BYTES", self.payload.upper()):
            given = f", and {self.payload} was given" if self.payload else ""
            name = OWN + printable(media.encoding[len(OWN) :]).lower()  # descriptions are read in capitals
            return (
                f"come as {name}, a payload format of somebody's own{given}: hand that format to "
                "the client, as payload="
            )
        codec = printable(media.parameters(media.payload_type).get("codec", ""))
        return f"are made by the codec {codec}, which is somebody's own: hand it to the client, as codec="

    def left_out(self, media: Iterable[sdp.Media], wanted: Mapping[str, sdp.Media]) -> tuple[str, ...]:
        """What is described and not played, by kind; another track of a kind that is played is no loss."""
        encodings: dict[str, dict[str, None]] = {}
        out = []
        for each in media:
            if each.kind not in KNOWN or each.kind in wanted:
                continue
            if each.kind == "video" and each.encoding.upper().startswith(OWN):
                played = " and the ".join(NOUNS[kind] for kind in wanted)
                out.append(f"the pictures of this stream {self._wanted(each)}; the {played} goes on without them")
                continue
            name = each.encoding or f"payload type {each.payload_type}"
            familiar = _FAMILIAR.get(each.encoding.upper())
            name = f"{name} ({familiar})" if familiar else name
            if why := _why(each):
                out.append(f"the {NOUNS[each.kind]} of this stream, {printable(name)}, is left out: {why}")
                continue
            encodings.setdefault(each.kind, {})[name] = None
        return (
            *out,
            *(
                f"the {NOUNS[kind]} of this stream is {' or '.join(names)}, which avlab does not play, so the "
                f"{' and the '.join(NOUNS[played] for played in wanted)} goes on without it: have the server send "
                f"{USUAL[kind]}"
                for kind, names in encodings.items()
            ),
        )


def _unfit(media: sdp.Media, number: int, form: sdp.Format) -> str:
    """Why a format that is known cannot be read as it is described, or decoded here; "" where it can."""
    parameters = media.parameters(number)
    try:
        if media.kind == "video":
            pictures = video_format(form.encoding, parameters)
            if isinstance(pictures, H264Format | H265Format):
                VideoDecoder(pictures.coding, setup=pictures.setup)
        elif media.kind == "audio":
            sound = sound_format(form.encoding, form.clock_rate, form.channels, parameters)
            if isinstance(sound, AacFormat | OpusFormat):
                DecodedSound(sound)
    except ValueError as error:  # a WireError is one
        return printable(str(error).rstrip("."))
    return ""


def _why(media: sdp.Media) -> str:
    if media.encoding.upper() in KNOWN.get(media.kind, ()):
        clocks = CLOCKS[media.kind]
        if media.clock_rate not in clocks:
            return (
                f"its clock has {media.clock_rate:,} ticks a second, and {clocks[0]:,} to {clocks[-1]:,} can be played"
            )
        if not 1 <= media.channels <= MAX_CHANNELS:
            return f"it has {media.channels:,} channels, and {MAX_CHANNELS} are the most that can be played"
    return _unfit(media, media.payload_type, sdp.Format(media.encoding, media.clock_rate, media.channels))


def _name(media: sdp.Media) -> str:
    """What a medium carries, for a sentence: with its clock, when it is that which cannot be."""
    if not media.encoding:
        return f"payload type {media.payload_type}"
    odd = media.encoding.upper() in KNOWN.get(media.kind, ())
    channels = f"/{media.channels}" if media.channels != 1 else ""
    return printable(f"{media.encoding}/{media.clock_rate}{channels}" if odd else media.encoding)


def printable(text: str) -> str:
    """What a peer said, fit for a message: no control characters, and not too long."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
