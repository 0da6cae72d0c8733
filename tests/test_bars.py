"""A bar is shown for long work alone."""

from itertools import count

import pytest

from mmctr import bars


class Bar:
    """What tqdm shows: how far it is, and how often it was closed."""

    made: list["Bar"]

    def __init__(self, **options):
        assert "disable" not in options, "it would overrule TQDM_DISABLE"
        self.options, self.done, self.closed = options, options["initial"], 0
        Bar.made.append(self)

    def update(self):
        self.done += 1

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """The bars that a test makes, where each part of the work takes a second."""
    seconds = count()
    monkeypatch.setattr(bars, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(bars, "tqdm", Bar)
    monkeypatch.delenv("RANK", raising=False)
    Bar.made = []
    return Bar.made


def test_work_of_more_than_two_seconds_shows_how_far_it_is(made):
    seen = []
    for part in bars.bar_if_long("abcdef", 6, "letters"):
        seen.append((part, made[0].done if made else None))
    # After three seconds; the part that is worked on is not done yet.
    assert seen == [("a", None), ("b", None), ("c", None), ("d", 3), ("e", 4), ("f", 5)]
    (bar,) = made
    assert (bar.done, bar.closed) == (6, 1)
    numbers = {"total": 6, "initial": 3}
    assert bar.options == {"desc": "letters", "unit": " parts", "leave": False} | numbers


def test_short_work_and_other_processes_show_nothing(made, monkeypatch):
    assert list(bars.bar_if_long("ab", 2, "letters")) == ["a", "b"]
    assert list(bars.bar_if_long("abc", 3, "letters")) == ["a", "b", "c"], "it is done by then"
    monkeypatch.setenv("RANK", "1")
    assert len(list(bars.bar_if_long("abcdef", 6, "letters"))) == 6
    assert made == []


def test_a_bar_is_closed_when_the_work_fails(made):
    def work():
        yield from "abcd"
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        list(bars.bar_if_long(work(), 6, "letters"))
    assert [bar.closed for bar in made] == [1]
