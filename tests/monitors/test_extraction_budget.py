import math
from dataclasses import replace

import numpy as np
import pytest

from guard.extraction_budget import Curve, Limits, effective_rows, fresh_share
from guard.monitors.extraction_budget import ExtractionBudget
from guard.types import Equipment, Level, Match, Monitor, Past, Seen, Sketch
from tests.monitors.clean_world import recent

CURVE = Curve.of(np.array([1000, 100]), np.array([0.8, 0.4]))


def rows(n, *, duplicate=False):
    return tuple(Seen(Sketch(b"", np.zeros(0, np.uint64)), Match(duplicate=duplicate)) for _ in range(n))


def known(n, spread=1.0, seed=0):
    positions = np.random.default_rng(seed).normal(size=(1, 48)) + spread * np.random.default_rng(1).normal(
        size=(n, 48)
    )
    return recent(np.zeros((n, 1), np.float32), np.zeros(n), positions)


def test_the_curve_passes_through_its_points_and_rises():
    assert CURVE.at(0) == 0.0
    assert CURVE.at(100) == pytest.approx(0.4)
    assert CURVE.at(1000) == pytest.approx(0.8)
    assert CURVE.at(10**9) == 1.0
    found = [CURVE.at(n) for n in np.geomspace(1, 1e6, 60)]
    assert (np.diff(found) >= 0).all()
    assert CURVE.rows_for(0.4) == pytest.approx(100)


def test_noise_that_makes_it_fall_is_taken_out():
    bent = Curve.of(np.array([10, 100, 1000]), np.array([0.5, 0.4, 0.4]))
    assert bent.at(1000) == 0.5
    assert bent.rows_for(0.9) == math.inf


@pytest.mark.parametrize(("counts", "agreement"), [([], []), ([0], [0.5]), ([10], [1.5]), ([10, 10], [0.1, 0.2])])
def test_no_curve(counts, agreement):
    with pytest.raises(ValueError):
        Curve.of(np.array(counts), np.array(agreement))


def test_levels():
    levels = [Limits(hostile=0.9).level(share) for share in (0.49, 0.5, 0.7, 0.95)]
    assert levels == [Level.CLEAR, Level.WATCH, Level.SUSPECT, Level.HOSTILE]
    assert Limits().level(1.0) == Level.SUSPECT


def test_near_copies_count_for_little_and_others_in_full():
    assert fresh_share(known(64)) == 1.0
    assert fresh_share(known(64, spread=0.01)) == pytest.approx(1 / 64)
    assert fresh_share(known(3, spread=0.01)) == 1.0
    assert effective_rows(6400, known(64, spread=0.01)) == pytest.approx(100)


def test_the_stage_counts_answered_rows_and_this_querys():
    arrays = {"counts": np.array([100, 1000]), "agreement": np.array([0.4, 0.8])}
    working = ExtractionBudget(hostile_at=0.9).equip(Equipment(arrays=arrays))
    assert isinstance(working, Monitor)
    found = working.judge(rows(2), Past(rows=998, recent=known(64)))
    assert found[1] == pytest.approx(0.8)
    assert found[0] < found[1]
    assert working.judge(rows(2, duplicate=True), Past(rows=100)).tolist() == pytest.approx([0.4, 0.4])
    assert working.level(float(found[1])) == Level.SUSPECT


def test_the_curve_is_measured_on_rows_held_out():
    pytest.importorskip("torch")
    from guard.learning import extraction_curve
    from guard.learning._training import Pace
    from tests.monitors.clean_world import material

    pace = Pace(epochs=5, least=60, most=60, batch=32, rate=0.05, average=0.9)
    given = material(800)
    told = []
    counts, agreement = extraction_curve.measure(
        given, pace, lambda what, done, total: told.append((what, done, total))
    )
    assert counts.tolist() == [10, 30, 100, 300, 640]
    assert [what for what, done, total in told if done == total].count(
        "student of 100 answers"
    ) == extraction_curve.DRAWS
    assert agreement[0] < agreement[-1]
    assert agreement[-1] > 0.7
    shuffled = replace(given, probs=np.random.default_rng(0).permutation(given.probs))
    assert extraction_curve.measure(shuffled, pace)[1].max() < 0.45
    with pytest.raises(ValueError, match="labels only"):
        extraction_curve.measure(replace(given, probs=None))


def test_whoever_fits_is_told_how_far_the_students_are():
    pytest.importorskip("torch")
    from tests.monitors.clean_world import material

    class Told(Exception):
        pass

    def tell(what, done, total):
        raise Told(what)

    with pytest.raises(Told, match="student of 10 answers"):
        ExtractionBudget().learn(replace(material(800), tell=tell))
