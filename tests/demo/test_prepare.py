import numpy as np
import pytest

from adversary.data.mnist import Mnist, Split
from adversary.victims.mnist import CHECKPOINT
from demo import prepare
from demo.plan import CRAFTED, Plan


def split(n, seed):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n))


DATA = Mnist(split(60, 0), split(50, 1), "made up", "digest")
PLAN = Plan(victims=6, walkers=3, clean=30, callers=5)


def test_no_image_is_used_twice():
    images = prepare.part(DATA, PLAN)
    every = np.concatenate([images.victims_x, images.walkers_x, images.clean_x])
    assert len(every) == 39
    assert len(np.unique(every.reshape(39, -1), axis=0)) == 39


def test_walkers_start_from_another_class():
    images = prepare.part(DATA, PLAN)
    train = {image.tobytes(): label for image, label in zip(DATA.train.images, DATA.train.labels, strict=True)}
    starts = np.rint(images.starts[:, 0] * 255).astype(np.uint8)
    assert all(train[start.tobytes()] != y for start, y in zip(starts, images.walkers_y, strict=True))


def test_the_parts_repeat_themselves_by_seed():
    assert np.array_equal(prepare.part(DATA, PLAN).clean_y, prepare.part(DATA, PLAN).clean_y)
    other = Plan(victims=6, walkers=3, clean=30, callers=5, seed=1)
    assert not np.array_equal(prepare.part(DATA, PLAN).clean_x, prepare.part(DATA, other).clean_x)


def test_a_plan_fits_the_images_there_are():
    small = Plan(fit=100, clean=100, victims=6, walkers=3, callers=5).scaled_to(20, 50)
    assert (small.fit, small.clean, small.pairs) == (20, 41, 41)
    with pytest.raises(ValueError, match="too few"):
        Plan(victims=40).scaled_to(20, 50)


def test_the_committed_victim_is_taken_unless_told_otherwise():
    assert prepare.victim(DATA, PLAN, train=False, say=lambda _: None) == CHECKPOINT


def test_crafted_examples_are_cached_by_all_that_made_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVERSARY_CACHE", str(tmp_path))
    images = prepare.part(DATA, PLAN)
    first = prepare.craft(CRAFTED[0], CHECKPOINT, images, PLAN)
    again = prepare.craft(CRAFTED[0], CHECKPOINT, images, PLAN)
    assert np.array_equal(first[0], again[0])
    assert len(list(tmp_path.rglob("crafted-*.npz"))) == 1
    prepare.craft(CRAFTED[1], CHECKPOINT, images, PLAN)
    assert len(list(tmp_path.rglob("crafted-*.npz"))) == 2
