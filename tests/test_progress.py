"""The guess of the time that is left, and large numbers in words."""

import io

import pytest

from jmbrl import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_fast_warm_up_is_soon_forgotten(clock):
    """1000 steps at once, then 10 a second: after five such chunks the rest is guessed from these alone."""
    text = io.StringIO()
    display = progress.Plain(text, seconds=0.0)
    display.start(11_000, 0)
    for done in range(1000, 7000, 1000):
        display.update(done, {})
        clock[0] += 100.0
    told = [line.split(" | ")[-1] for line in text.getvalue().splitlines()]
    assert told[1] == "0:07:30 left"  # 2000 steps took 100 s as it seems, so the other 9000 take 450
    assert told[-1] == "0:08:20 left"  # 5000 steps


@pytest.mark.parametrize(
    ("count", "words"),
    [(999_999, "999,999"), (9_940_000, "9.9 million"), (9_960_000, "10 million"), (2_500_000_000_000, "2,500 billion")],
)
def test_large_numbers(count, words):
    assert progress.amount(count) == words
