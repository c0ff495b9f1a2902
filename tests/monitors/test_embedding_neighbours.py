import numpy as np
import pytest

from guard.monitors.embedding_neighbours import LEAST, EmbeddingNeighbours
from guard.types import Monitor, Past
from tests.monitors.clean_world import at_work, clean, link, material, of_length_one, past, seen

WORKING = at_work(EmbeddingNeighbours())


def near(rows, by=0.02):
    return of_length_one(rows + by * np.random.default_rng(5).normal(size=rows.shape))


def test_variants_of_recent_rows_are_closer_than_any_clean_row():
    assert isinstance(WORKING, Monitor)
    before, _ = clean(64, 1)
    benign, _ = clean(500, 2)
    assert WORKING.judge(seen(near(before[:20])), past(before)).min() > WORKING.judge(seen(benign), past(before)).max()


def test_a_caller_of_one_class_is_no_closer_than_others():
    """Without regard to density his rows would be: he has sent five times as many of them nearby."""
    mixed = WORKING.judge(seen(clean(500, 2)[0]), past(clean(64, 1)[0]))
    one = WORKING.judge(seen(clean(500, 3, label=2)[0]), past(clean(64, 4, label=2)[0]))
    limit = np.quantile(mixed, 0.95)
    assert (one > limit).mean() < 0.10


def test_motion_duplicates_and_first_rows_say_nothing():
    before, _ = clean(64, 1)
    moved = near(before[:3])
    assert (WORKING.judge(seen(moved, link(0.1)), past(before)) == LEAST).all()
    assert (WORKING.judge(seen(moved, duplicate=True), past(before)) == LEAST).all()
    assert (WORKING.judge(seen(moved), Past()) == LEAST).all()
    assert (WORKING.judge(seen(moved, link(0.9)), past(before)) > 5).all()


def test_only_the_latest_rows_count():
    before, _ = clean(80, 1)
    old, new = near(before[:1]), near(before[-1:])
    assert WORKING.judge(seen(new), past(before))[0] > WORKING.judge(seen(old), past(before))[0] + 5


def test_too_few_rows_to_learn_from():
    with pytest.raises(ValueError, match="at least"):
        EmbeddingNeighbours().learn(material(20))
