import numpy as np
import pytest

from guard.monitors.fingerprint import Fingerprint
from guard.types import Link, Match, Neighbour, Past, Seen, Sketch

SKETCH = Sketch(b"row", np.arange(10, dtype=np.uint64), np.ones(4, np.float32))
OTHER = Neighbour(1, 5, np.zeros(4, np.float32), 1, -1, b"somebody")


def row(overlap: int = 0, *, duplicate: bool = False, unexplained: float | None = None) -> Seen:
    link = None if unexplained is None else Link(OTHER, 0.1, unexplained)
    return Seen(SKETCH, Match(overlap, duplicate=duplicate), link)


def test_the_score_is_the_share_of_hashes_that_one_earlier_row_has() -> None:
    scores = Fingerprint().judge((row(), row(5, unexplained=1.0), row(10, unexplained=1.0)), Past())
    np.testing.assert_allclose(scores, [0.0, 0.5, 1.0])


def test_retries_and_films_score_nothing() -> None:
    rows = (row(10, duplicate=True), row(10, unexplained=0.4), row(10, unexplained=0.0))
    np.testing.assert_array_equal(Fingerprint().judge(rows, Past()), [0.0, 0.0, 0.0])


def test_what_is_half_explained_counts_half() -> None:
    scores = Fingerprint(explained=0.4).judge((row(10, unexplained=0.7),), Past())
    assert scores[0] == pytest.approx(0.5)


def test_whoever_explains_all_has_no_film() -> None:
    assert Fingerprint(explained=1.0).judge((row(10, unexplained=0.9),), Past())[0] == 0.0
    assert Fingerprint(explained=0.0).judge((row(10, unexplained=0.9),), Past())[0] == pytest.approx(0.9)


def test_no_rows() -> None:
    assert Fingerprint().judge((), Past()).shape == (0,)
