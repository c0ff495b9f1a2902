import numpy as np
import pytest

from guard.monitors.boundary_pressure import BoundaryPressure
from guard.types import Link, Match, Neighbour, Past, Seen, Sketch

SURE, TIE = [0.98, 0.01, 0.01], [0.5, 0.49, 0.01]


def seen(label=0, distance=0.1, unexplained=1.0, *, duplicate=False, linked=True):
    near = Neighbour(0, 5, np.zeros(4, np.float32), 0, label, b"somebody")
    sketch = Sketch(b"d", np.arange(8, dtype=np.uint64), np.ones(4, np.float32))
    return Seen(sketch, Match(5, duplicate, 1, (near,)), Link(near, distance, unexplained) if linked else None)


def score(row, answer):
    return BoundaryPressure().judge_answers((row,), Past(), np.array([answer]))[0]


def test_a_flip_counts_more_the_closer_it_is_and_always_more_than_a_tie():
    near, far = score(seen(1, 0.01), SURE), score(seen(1, 0.4), SURE)
    assert near == pytest.approx(2.0 - 0.01 / 0.5)
    assert far == pytest.approx(2.0 - 0.4 / 0.5)
    assert near > far > score(seen(0, 0.01), TIE) == pytest.approx(0.99)


def test_a_sure_answer_that_stays_is_hardly_pressure():
    assert score(seen(0), SURE) == pytest.approx(0.03)


@pytest.mark.parametrize(
    "row",
    [
        seen(1, linked=False),
        seen(1, distance=0.9),
        seen(1, unexplained=0.1),
        seen(1, duplicate=True),
    ],
    ids=["unlinked", "far", "motion", "retry"],
)
def test_what_joins_nothing_is_no_pressure(row):
    assert score(row, TIE) == 0.0
    assert score(seen(1), TIE) > 1.0  # the control: the same row, linked


def test_a_neighbour_without_an_answer_has_not_flipped():
    assert score(seen(-1), SURE) == pytest.approx(0.03)


def test_labels_alone_tell_of_flips_alone():
    assert score(seen(0), [1.0, 0.0, 0.0]) == 0.0
    assert score(seen(2), [1.0, 0.0, 0.0]) > 1.0


def test_rows_are_judged_one_by_one():
    rows = (seen(1), seen(0), seen(1, linked=False))
    together = BoundaryPressure().judge_answers(rows, Past(), np.array([SURE, TIE, TIE]))
    assert together.shape == (3,)
    assert together.tolist() == [score(rows[0], SURE), score(rows[1], TIE), 0.0]
