"""What proof of work costs, in small: the arithmetic by hand, and all of it once through real servers."""

import argparse

import numpy as np
import pytest

from bench.challenge import __main__ as bench
from bench.challenge import table
from bench.challenge.pricing import Rates, at_most, interval, prices, total_s
from bench.challenge.profiled import AGREEMENT, COUNTS, curve
from guard.extraction_budget import Curve
from guard.settings import Challenge

CHALLENGE = Challenge(hashes_per_row=100, growth=16, grows_from=0.5, max_hashes_per_row=1000)
LINE = Curve.of(np.array([1.0, 10.0, 100.0]), np.array([0.5, 0.75, 1.0]))


def test_prices_follow_the_curve() -> None:
    assert prices(LINE, CHALLENGE, np.array([0, 1, 10, 100])) == pytest.approx([100, 100, 400, 1000])


def test_a_total_is_each_batch_at_the_price_of_its_last_row() -> None:
    rates = Rates(hashes_per_s=100.0, row_s=0.5)
    assert total_s(LINE, CHALLENGE, 1, 1, rates) == pytest.approx(1.5)
    assert total_s(LINE, CHALLENGE, 20, 10, rates) == pytest.approx(
        (10 * 400 + 10 * prices(LINE, CHALLENGE, np.array([20]))[0]) / 100 + 10
    )
    assert total_s(LINE, CHALLENGE, 12, 10, rates) < total_s(LINE, CHALLENGE, 20, 10, rates)


def test_an_interval_holds_its_median() -> None:
    median, low, high = interval(np.random.default_rng(0).normal(2.0, 1.0, 200))
    assert low < median < high
    assert 0.1 < high - low < 0.6
    assert interval(np.ones(5)) == (1.0, 1.0, 1.0)


def test_the_last_that_is_not_above() -> None:
    assert [at_most([10, 20, 30], n) for n in (5, 10, 25, 99)] == [0, 0, 1, 2]


@pytest.mark.parametrize("data", AGREEMENT)
def test_a_kept_curve_is_one(data: str) -> None:
    assert [curve(data).at(float(n)) for n in COUNTS] == pytest.approx(list(AGREEMENT[data]))


def test_all_of_it_in_small() -> None:
    found = bench.measured(argparse.Namespace(data="mnist", callers=2, rows=2, cpu=0.5))
    found["made"] = {"command": "this", "day": "today", "seed": 0, "machine": "any", "load": [0.0, 0.0]}
    text = table.markdown(found)
    assert "| 1,000 |" in text
    assert found["theft"][-1]["rows"] >= 32  # he got something, and each row was dearer than without
    assert found["theft"][-1]["cpu_s"] > found["theft"][-1]["plain_s"]
    assert [one["how"] for one in found["totals"]][-1] == "computed"
    assert all(one["ratio"][0] > 0 for one in found["honest"])
