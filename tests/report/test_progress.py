"""The bar of a sweep: from its first second on, with a time left that is told."""

import io
import time
from fractions import Fraction
from types import SimpleNamespace

import pytest

from linksim.engine.plan import Point, Unit
from linksim.engine.remaining import Remaining
from linksim.engine.variants import Variant
from linksim.report import progress
from linksim.report.progress import Bar


class Screen(io.StringIO):
    """A terminal of 100 columns."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return [line for line in self.getvalue().replace("\n", "\r").split("\r") if line.strip()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    found = Screen()
    # pytest sets its own for the call.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found, modules={}))
    monkeypatch.setattr(progress, "WATCHED", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    return found


def test_it_moves_before_the_first_unit_and_after_the_last(screen: Screen) -> None:
    with Bar() as bar:
        bar.tell("loading images and networks")
        assert screen.lines[-1].startswith("sweep [00:00, loading images and networks]")
        time.sleep(1.2)
        assert screen.lines[-1].startswith("sweep [00:01, loading")
        bar.update(0, 4)
        assert "0/4 units" in screen.lines[-1]
        assert "<?" in screen.lines[-1]
        bar.update(2, 4, 90.0)
        assert "2/4 units" in screen.lines[-1]
        assert "<01:30" in screen.lines[-1]
        bar.update(4, 4, 0.0)
        bar.tell("writing tables")
        assert "100%" in screen.lines[-1]
        assert screen.lines[-1].rstrip().endswith("writing tables]")


def test_one_that_never_came_to_a_unit_leaves_nothing(screen: Screen) -> None:
    with Bar() as bar:
        bar.tell("loading images and networks")
        progress.make_room()
        print("note: ...", file=screen)
    assert screen.getvalue().rsplit("\n", 1)[1].strip() == ""


def test_a_resumed_sweep_begins_where_it_stood(screen: Screen) -> None:
    with Bar() as bar:
        bar.update(30, 40)
        assert " 75%" in screen.lines[-1]


def test_schemes_of_unlike_cost_are_told_apart() -> None:
    def points(name: str) -> list[Point]:
        return [Point(Variant(name), "awgn", Fraction(1, 6), snr) for snr in (0.0, 10.0)]

    fast, slow = points("klt"), points("kdd")
    remaining = Remaining(workers=2)
    left = dict.fromkeys(fast + slow, 10)
    for point, seconds in [(fast[0], 9.0), (fast[1], 0.1), (fast[0], 0.1)]:
        assert remaining.seconds(left) is None
        remaining.add(Unit(point, 0, 64), seconds)
    remaining.add(Unit(slow[0], 0, 64), 20.0)
    # What the first unit of a scheme pays for all is not taken for the rule.
    assert remaining.seconds(left) == pytest.approx((20 * 0.1 + 20 * 20) / 2)


def test_where_nobody_knows_how_many_work_what_they_do_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    point = Point(Variant("klt"), "awgn", Fraction(1, 6), 0.0)
    remaining = Remaining(workers=None)
    for _ in range(40):
        clock[0] += 0.25
        remaining.add(Unit(point, 0, 64), 1.0)
    assert remaining.seconds({point: 40}) == pytest.approx(10.0)
