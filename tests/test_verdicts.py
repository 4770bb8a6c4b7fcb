"""Who was given a picture, who saw it: every picture has one end, whoever speaks first."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.timing.jitterbuffer import Frame
from avlab.timing.verdicts import Decision, PictureVerdict, Verdicts

MS = 1_000_000
PAGE, WINDOW = "page", "window"


def frame(number: int) -> Frame:
    return Frame(number, number * 33 * MS, b"jpeg", 4, 1, 0, 0, 0)


def ends(decisions: object) -> list[tuple[int, str, int | None]]:
    """The numbers of the pictures decided, their fates, and when they were seen."""
    assert isinstance(decisions, list | tuple)
    out = []
    for each in decisions:
        assert isinstance(each, Decision)
        out.append((each.frame.ticks, each.fate, each.shown_ns))
    return out


def led(by: str = PAGE, *, most: int = 100) -> Verdicts:
    verdicts = Verdicts(most=most)
    verdicts.lead(by)
    return verdicts


def test_without_a_taker_playout_s_word_counts_at_once() -> None:
    verdicts = Verdicts()
    assert ends(verdicts.give(frame(0))) == []
    assert ends(verdicts.released(frame(0), 5)) == [(0, "shown", 5)]
    assert ends(verdicts.dropped(frame(1), "late", 6)) == [(1, "late", None)]
    assert ends(verdicts.close()) == []


@pytest.mark.parametrize("first", ["verdict", "playout"])
def test_a_verdict_counts_before_playout_s_moment_and_after_it_once(first: str) -> None:
    verdicts = led()
    verdicts.give(frame(0))
    if first == "playout":
        assert ends(verdicts.released(frame(0), 100)) == []
    assert verdicts.waiting
    assert ends(verdicts.told(PAGE, PictureVerdict(frame(0), 95))) == [(0, "shown", 95)]
    assert not verdicts.waiting
    assert ends(verdicts.told(PAGE, PictureVerdict(frame(0), 1))) == []
    if first == "verdict":
        assert ends(verdicts.released(frame(0), 100)) == []
    assert len(verdicts) == 0


def test_what_was_heard_is_handed_on_and_the_picture_itself_is_not_kept() -> None:
    verdicts = led()
    verdicts.give(frame(0))
    [decision] = verdicts.told(PAGE, PictureVerdict(frame(0), 95, heard_ns=90))
    assert decision.heard_ns == 90
    assert decision.frame.data is None
    assert decision.frame.bytes == len(b"jpeg")


@pytest.mark.parametrize(("reason", "fate"), [(None, "skipped"), ("late", "late"), ("skipped", "skipped")])
def test_a_picture_that_was_not_seen_is_what_playout_says_of_it(reason: str | None, fate: str) -> None:
    verdicts = led()
    verdicts.give(frame(0))
    if reason is not None:
        assert ends(verdicts.dropped(frame(0), reason, 50)) == []
    assert ends(verdicts.told(PAGE, PictureVerdict(frame(0), None))) == [(0, fate, None)]


def test_a_picture_that_playout_dropped_may_have_been_seen() -> None:
    verdicts = led()
    verdicts.give(frame(0))
    verdicts.dropped(frame(0), "skipped", 50)
    assert ends(verdicts.told(PAGE, PictureVerdict(frame(0), 49))) == [(0, "shown", 49)]


def test_only_whoever_was_given_the_picture_is_heard_or_somebody_without_a_name() -> None:
    verdicts = led()
    verdicts.give(frame(0))
    assert verdicts.holder(frame(0)) == PAGE
    assert ends(verdicts.told(WINDOW, PictureVerdict(frame(0), 50))) == []
    assert ends(verdicts.told(None, PictureVerdict(frame(0), 51))) == [(0, "shown", 51)]
    assert ends(verdicts.told(None, PictureVerdict(frame(1), 52))) == []  # nobody owes that one


def test_another_leader_is_given_the_next_picture_and_the_one_before_still_owes() -> None:
    verdicts = led()
    verdicts.give(frame(0))
    verdicts.lead(WINDOW)
    verdicts.give(frame(0))
    verdicts.give(frame(1))
    assert (verdicts.holder(frame(0)), verdicts.holder(frame(1))) == (PAGE, WINDOW)
    assert ends(verdicts.told(PAGE, PictureVerdict(frame(0), 60))) == [(0, "shown", 60)]


@pytest.mark.parametrize("shown", [True, False])
def test_who_resigns_leaves_what_was_released_as_seen_or_skipped_and_the_rest_to_playout(shown: bool) -> None:
    verdicts = led()
    for number in range(4):
        verdicts.give(frame(number))
    verdicts.released(frame(0), 100)
    verdicts.dropped(frame(1), "late", 110)
    assert ends(verdicts.told(PAGE, PictureVerdict(frame(2), 90))) == [(2, "shown", 90)]  # before playout
    expected = (0, "shown", 100) if shown else (0, "skipped", None)
    assert ends(verdicts.resign(PAGE, shown=shown)) == [expected, (1, "late", None)]
    assert ends(verdicts.resign(WINDOW, shown=shown)) == []
    assert ends(verdicts.released(frame(2), 166)) == []  # it has its end
    assert ends(verdicts.released(frame(3), 200)) == [(3, "shown", 200)]
    assert len(verdicts) == 0


def test_beyond_the_most_the_oldest_counts_as_skipped() -> None:
    verdicts = led(most=2)
    out = [ends(verdicts.give(frame(number))) for number in range(3)]
    assert out == [[], [], [(0, "skipped", None)]]
    verdicts.told(PAGE, PictureVerdict(frame(1), 5))  # settled, and playout has it still
    assert ends(verdicts.give(frame(3))) == []
    assert ends(verdicts.released(frame(0), 100)) == []  # it has its end
    assert ends(verdicts.released(frame(1), 133)) == []
    assert len(verdicts) == 2


def test_at_the_end_what_is_owed_is_in_flight_or_late() -> None:
    verdicts = led()
    for number in range(3):
        verdicts.give(frame(number))
    verdicts.dropped(frame(1), "late", 60)
    verdicts.told(PAGE, PictureVerdict(frame(2), 40))
    assert ends(verdicts.left(frame(0), "in_flight")) == []  # still owed
    assert ends(verdicts.left(frame(7), "in_flight")) == [(7, "in_flight", None)]
    assert ends(verdicts.close()) == [(0, "in_flight", None), (1, "late", None)]
    assert ends(verdicts.close()) == []


Step = tuple[Literal["give", "released", "dropped", "told", "lead", "resign"], int]


STEPS = st.sampled_from(["give", "released", "dropped", "told", "lead", "resign"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 5))))
def test_whatever_happens_in_whatever_order_each_picture_ends_once(steps: list[Step]) -> None:
    verdicts = led(most=3)
    given_to: dict[int, bool] = {}
    let_go: set[int] = set()
    decided: list[int] = []

    def take(decisions: object) -> None:
        decided.extend(number for number, _, _ in ends(decisions))

    for what, number in steps:
        picture = frame(number)
        if what == "lead":
            verdicts.lead([PAGE, WINDOW, None][number % 3])
        elif what == "resign":
            take(verdicts.resign([PAGE, WINDOW][number % 2], shown=number > 3))
        elif what == "told":
            take(verdicts.told([PAGE, WINDOW, None][number % 3], PictureVerdict(picture, 5)))
        elif number not in let_go and what == "give":
            if not given_to.get(number):  # a taker is given a picture once
                given_to[number] = True
                take(verdicts.give(picture))
        elif number not in let_go and what in ("released", "dropped"):
            let_go.add(number)
            take(verdicts.released(picture, 9) if what == "released" else verdicts.dropped(picture, "late", 9))
    take(verdicts.close())
    assert len(decided) == len(set(decided))
    assert let_go <= set(decided)
