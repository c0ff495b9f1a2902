import math

import pytest

from guard.alerts import act, advance, progress, reading
from guard.types import Alert, Level


def test_progress_is_one_where_the_evidence_is_the_alarm() -> None:
    assert progress(math.log(1000), 0.001) == pytest.approx(1.0)
    assert progress(0.0, 0.001) == 0.0


@pytest.mark.parametrize(
    ("way", "level"),
    [(0.0, Level.CLEAR), (0.34, Level.WATCH), (0.67, Level.SUSPECT), (1.0, Level.HOSTILE), (9.0, Level.HOSTILE)],
)
def test_levels(way: float, level: Level) -> None:
    assert reading(way) is level


def test_a_level_is_kept_a_tenth_of_the_way_back() -> None:
    assert reading(0.6, Level.SUSPECT) is Level.SUSPECT
    assert reading(0.6, Level.WATCH) is Level.WATCH
    assert reading(0.5, Level.SUSPECT) is Level.WATCH
    assert reading(0.25, Level.WATCH) is Level.WATCH
    assert reading(0.2, Level.WATCH) is Level.CLEAR


def test_hostile_is_kept_until_it_was_calm_for_long_enough() -> None:
    alert, anew = advance(Alert(), 1.0, added=True, now=100.0, calm_s=60.0)
    assert (alert, anew) == (Alert(Level.HOSTILE, 160.0), False)
    assert advance(alert, 0.0, added=False, now=159.0, calm_s=60.0) == (alert, False)
    assert advance(alert, 1.5, added=True, now=159.0, calm_s=60.0) == (Alert(Level.HOSTILE, 219.0), False)
    assert advance(alert, 5.0, added=False, now=160.0, calm_s=60.0) == (Alert(), True)


def test_lower_levels_follow_the_evidence() -> None:
    alert, anew = advance(Alert(Level.SUSPECT), 0.1, added=False, now=5.0, calm_s=60.0)
    assert (alert, anew) == (Alert(), False)


LATER = 0.99


class TestActing:
    """What is done about a caller is drawn, and no query's own doing."""

    def test_at_once_where_that_is_asked_for(self) -> None:
        alert, acting = act(Alert(Level.SUSPECT), Level.SUSPECT, rows=1, joined=0, lag_rows=1, draws=(LATER,) * 3)
        assert (alert, acting) == (Alert(Level.SUSPECT), Level.SUSPECT)
        assert act(Alert(), Level.CLEAR, rows=1, joined=1, lag_rows=1, draws=(LATER,) * 3) == (Alert(), Level.HOSTILE)

    def test_a_level_waits_for_its_row_and_so_does_its_end(self) -> None:
        for before, level in ((Level.CLEAR, Level.HOSTILE), (Level.HOSTILE, Level.CLEAR)):
            former = Alert(level, 5.0, before)
            kept, acting = act(former, level, rows=1, joined=0, lag_rows=8, draws=(0.13, 0.0, 0.0))
            assert (kept, acting) == (former, before)
            taken, acting = act(former, level, rows=1, joined=0, lag_rows=8, draws=(0.12, 0.0, 0.0))
            assert (taken, acting) == (Alert(level, 5.0, level), level)

    def test_a_call_of_many_rows_has_the_chances_of_each(self) -> None:
        draws = (1.0 - (7 / 8) ** 32 - 1e-6, LATER, LATER)
        for rows, acting in ((32, Level.HOSTILE), (31, Level.CLEAR)):
            assert act(Alert(), Level.HOSTILE, rows=rows, joined=0, lag_rows=8, draws=draws)[1] is acting

    def test_a_row_that_joins_is_held_against_its_caller_for_some_rows_or_not_at_all(self) -> None:
        missed = act(Alert(), Level.CLEAR, rows=1, joined=1, lag_rows=8, draws=(LATER, 0.5, 0.0))
        assert missed == (Alert(), Level.CLEAR)
        begun, acting = act(Alert(), Level.CLEAR, rows=1, joined=1, lag_rows=8, draws=(LATER, 0.49, 0.999))
        assert (begun, acting) == (Alert(held=15), Level.HOSTILE)
        alert, seen = begun, []
        for _ in range(16):  # whatever they are
            alert, acting = act(alert, Level.CLEAR, rows=1, joined=0, lag_rows=8, draws=(LATER, 0.0, 0.0))
            seen.append(acting)
        assert seen == [Level.HOSTILE] * 15 + [Level.CLEAR]
        assert alert == Alert()

    def test_rows_that_join_meanwhile_do_not_make_it_longer(self) -> None:
        alert, acting = act(Alert(held=3), Level.CLEAR, rows=5, joined=5, lag_rows=8, draws=(LATER, 0.0, LATER))
        assert (alert, acting) == (Alert(), Level.HOSTILE)


@pytest.mark.parametrize(
    ("alert", "outcast"),
    [
        (Alert(), False),
        (Alert(Level.SUSPECT, 0.0, Level.SUSPECT), False),
        (Alert(Level.HOSTILE), True),
        (Alert(acting=Level.HOSTILE), True),
        (Alert(held=1), True),
    ],
)
def test_outcasts(alert: Alert, outcast: bool) -> None:
    assert alert.outcast is outcast
