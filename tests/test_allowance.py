"""What is sent to addresses that have proved nothing: so much, so often, to so many, whatever is forged."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlab.timing.allowance import AT_A_TIME, PERIOD_NS, REMEMBERED, UNPROVEN_NS, Allowance
from avlab.wire.units import NS

FRAME_NS = NS // 30


def watch(allowance: Allowance, host: str, now_ns: int, *, seconds: int = 30, ports: int = 1) -> int:
    """How many pictures go to viewers at `host`, one a port, in so many seconds of 30 a second."""
    sent = 0
    for at in range(seconds * 30):
        sent += sum(allowance.spend(host, FRAME_NS, now_ns + at * FRAME_NS) for _ in range(ports))
    return sent


@pytest.mark.parametrize("ports", [1, 2, 7, 40])
def test_all_ports_of_a_host_share_two_seconds(ports: int) -> None:
    allowance = Allowance()
    assert all(allowance.begin("h", 0) for _ in range(ports))
    assert watch(allowance, "h", 0, ports=ports) == pytest.approx(60, abs=1)


def test_once_a_minute_and_no_sooner() -> None:
    allowance = Allowance()
    assert allowance.begin("h", 0)
    watch(allowance, "h", 0)
    allowance.end("h")
    assert not allowance.begin("h", 30 * NS)
    assert not allowance.begin("h", UNPROVEN_NS - 2 * FRAME_NS + PERIOD_NS)  # a minute after the last of it
    assert allowance.begin("h", UNPROVEN_NS + PERIOD_NS)
    assert watch(allowance, "h", UNPROVEN_NS + PERIOD_NS) == pytest.approx(60, abs=1)


def test_what_is_left_may_be_used_within_the_minute() -> None:
    allowance = Allowance()
    assert allowance.begin("h", 0)
    assert watch(allowance, "h", 0, seconds=1) == 30
    allowance.end("h")
    assert allowance.begin("h", 10 * NS)
    assert watch(allowance, "h", 10 * NS) == pytest.approx(30, abs=1)


def test_only_so_many_hosts_at_a_time() -> None:
    allowance = Allowance()
    assert [allowance.begin(f"h{n}", 0) for n in range(AT_A_TIME + 3)] == [True] * AT_A_TIME + [False] * 3
    assert allowance.begin("h0", 0)  # another port of one who is there
    assert allowance.hosts == AT_A_TIME
    allowance.end("h0")
    assert not allowance.begin("h9", 0)  # its other port is there yet
    allowance.end("h0")
    assert allowance.begin("h9", 0)


def test_proof_settles_what_was_spent() -> None:
    """A person who starts a client again and again in one minute is served each time."""
    allowance = Allowance()
    for turn in range(50):
        assert allowance.begin("h", turn * NS)
        assert watch(allowance, "h", turn * NS, seconds=1) == 30
        allowance.prove("h")
        assert not allowance.spend("h", FRAME_NS, turn * NS)  # nobody without proof is there
    assert allowance.hosts == 0


def test_a_slide_that_is_shown_for_long_goes_once() -> None:
    allowance = Allowance()
    assert allowance.begin("h", 0)
    assert allowance.spend("h", 12 * NS, 0)
    assert not allowance.spend("h", 12 * NS, 12 * NS)


def test_names_beyond_number_take_no_memory() -> None:
    """Forged from everywhere, each refused by its machine at once: a bounded number is remembered, a minute long."""
    allowance = Allowance()
    begun = 0
    for n in range(10 * REMEMBERED):
        if allowance.begin(f"h{n}", n):
            begun += 1
            allowance.end(f"h{n}")
    assert begun == REMEMBERED
    assert allowance.begin("late", PERIOD_NS + 10 * REMEMBERED)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "spend", "spend", "spend", "end"]),
            st.sampled_from([f"h{n}" for n in range(7)]),
            st.integers(0, NS // 2),
        ),
        max_size=300,
    )
)
def test_whatever_is_forged_the_bounds_hold(moves: list[tuple[str, str, int]]) -> None:
    """In a minute no host gets more than its two seconds, and a picture; no more than four hosts are sent any."""
    allowance = Allowance()
    now_ns = 0
    present: Counter[str] = Counter()
    sent: defaultdict[str, list[int]] = defaultdict(list)
    for what, host, step_ns in moves:
        now_ns += step_ns
        if what == "begin":
            present[host] += allowance.begin(host, now_ns)
        elif what == "end" and present[host]:
            allowance.end(host)
            present[host] -= 1
        elif what == "spend" and allowance.spend(host, FRAME_NS, now_ns):
            assert present[host]
            sent[host].append(now_ns)
        assert allowance.hosts == sum(count > 0 for count in present.values()) <= AT_A_TIME
    for times in sent.values():
        bursts = [[times[0]]]
        for before, after in pairwise(times):
            if after - before >= PERIOD_NS:
                bursts.append([])
            bursts[-1].append(after)
        assert all(len(burst) <= 61 for burst in bursts)
