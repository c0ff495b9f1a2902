"""How surprising it is that a row lies so near to another, by how many others there are."""

import math

import numpy as np
import pytest

from guard.calibration import Calibration
from guard.nearness import Nearness

RNG = np.random.default_rng(0)


def nearest(rows: int, of: int, rng: np.random.Generator) -> np.ndarray:
    """(rows,) scores of clean rows: -ln of the distance to the nearest of so many, in three dimensions; 0 beyond 1."""
    distances = rng.random((rows, of)).min(axis=1) ** (1 / 3) * 4.0
    return np.maximum(0.0, -np.log(distances))


CLEAN = Calibration.of(nearest(4000, 100, RNG))


def test_with_as_many_others_as_when_fitted_p_values_are_conformal() -> None:
    made = Nearness.of(CLEAN, 100)
    for score in (0.0, 0.1, 0.5, 1.0):
        assert made.p_value(score, 100) == pytest.approx(float(CLEAN.p_values(np.array([score]))[0]), rel=1e-9)
        assert made.p_value(score, 3) == made.p_value(score, 100)  # fewer others: never more accusing


@pytest.mark.parametrize("entries", [100, 1_000, 10_000])
def test_p_values_hold_however_many_others_there_are(entries: int) -> None:
    """The control: without the correction, clean rows among many look guilty."""
    made, scores = Nearness.of(CLEAN, 100), nearest(1500, entries, RNG)
    p_values = np.array([made.p_value(score, entries) for score in scores])
    plain = CLEAN.p_values(scores)
    for level in (0.01, 0.05, 0.2):
        assert (p_values <= level).mean() <= 1.5 * level + 0.003
    if entries > 100:
        assert (plain <= 0.05).mean() > 0.2


def test_of_rows_that_are_near_to_something_it_tells_how_near() -> None:
    made, scores = Nearness.of(CLEAN, 100), nearest(4000, 1_000, RNG)
    p_values = np.array([made.p_near(score, 1_000) for score in scores[scores > 0]])
    assert (p_values <= 0.05).mean() <= 0.08
    assert np.median(p_values) == pytest.approx(0.5, abs=0.1)


def test_never_below_what_clean_rows_have_shown() -> None:
    made = Nearness.of(CLEAN, 100)
    assert made.p_value(50.0, 100) == CLEAN.least
    assert made.p_value(50.0, 10**9) == CLEAN.least  # so near is nobody by chance
    assert made.p_near(50.0, 100) == pytest.approx(CLEAN.least / made.often)


def test_a_full_store_makes_what_is_just_near_no_surprise() -> None:
    made = Nearness.of(CLEAN, 100)
    values = [made.p_value(1.5, entries) for entries in (100, 1_000, 10_000, 100_000)]
    assert values == sorted(values)
    assert values[0] < 0.05 < values[-1]


@pytest.mark.parametrize("scores", [np.zeros(500), np.r_[np.zeros(500), np.ones(10)], np.r_[np.zeros(50), np.ones(90)]])
def test_without_a_tail_to_fit_what_was_seen_counts(scores: np.ndarray) -> None:
    made = Nearness.of(Calibration.of(scores), 100)
    assert made.start == math.inf
    assert made.p_value(9.0, 100) == pytest.approx(1 / (len(scores) + 1))
    assert made.p_value(0.0, 10_000) == 1.0
    assert 0 < made.p_near(1.0, 10_000) <= 1.0


def test_an_old_profile_says_nothing_of_how_many_there_were() -> None:
    made = Nearness.of(CLEAN, math.inf)
    assert made.p_value(1.0, 10**6) == pytest.approx(float(CLEAN.p_values(np.array([1.0]))[0]), rel=1e-9)
