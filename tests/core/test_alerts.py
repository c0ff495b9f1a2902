import math

import pytest

from guard.alerts import advance, progress, reading
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
