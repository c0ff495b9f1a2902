import math

import numpy as np
import pytest

from guard.monitors.similarity_graph import SimilarityGraph
from guard.types import Link, Match, Neighbour, Past, Seen, Sketch

SKETCH = Sketch(b"row", np.arange(10, dtype=np.uint64), np.ones(4, np.float32))
OTHER = Neighbour(1, 5, np.zeros(4, np.float32), 1, -1, b"somebody")


def row(distance: float, unexplained: float = 1.0, *, duplicate: bool = False) -> Seen:
    return Seen(SKETCH, Match(5, duplicate=duplicate), Link(OTHER, distance, unexplained))


def test_it_speaks_of_clusters() -> None:
    assert SimilarityGraph.credits == "component"


@pytest.mark.parametrize(
    ("seen", "joins"),
    [
        (row(0.1), True),
        (row(0.5), True),
        (row(0.51), False),
        (row(0.1, 0.4), False),
        (row(0.1, duplicate=True), False),
        (Seen(SKETCH, Match()), False),
    ],
)
def test_near_rows_that_motion_does_not_explain_join(seen: Seen, joins: bool) -> None:
    assert SimilarityGraph().joins(seen) is joins
    assert bool(SimilarityGraph().judge((seen,), Past())[0] > 0) is joins


def test_the_closer_the_more() -> None:
    scores = SimilarityGraph().judge((row(0.5), row(0.05), row(0.0)), Past())
    assert scores[0] == pytest.approx(1.0)
    assert scores[1] == pytest.approx(1.0 + math.log(10))
    assert math.isfinite(scores[2])
    assert scores[2] > scores[1]


def test_the_less_explained_the_more() -> None:
    half, whole = SimilarityGraph().judge((row(0.1, 0.7), row(0.1, 1.0)), Past())
    assert half == pytest.approx(whole / 2)
