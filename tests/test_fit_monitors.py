"""What monitors say of clean rows, against the same by hand: who is matched with whom, frames, windows, classes."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from guard import fit_monitors
from guard.fit_monitors import WINDOWS, Rows, kept_of, recent_of, scores
from guard.sketching import Sketcher
from guard.types import Array, Past, Recent, Seen
from tests.fit_world import clean_images

SKETCHER = Sketcher(b"a secret of the test")


@dataclass
class Looking:
    """Scores by overlap; remembers what it saw."""

    seen: list[Seen] = field(default_factory=list)
    pasts: list[Past] = field(default_factory=list)

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        self.seen += rows
        self.pasts.append(past)
        return np.array([row.match.overlap for row in rows])


class Unsure:
    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        assert len(rows) == len(probs)
        return np.asarray(1.0 - probs.max(axis=1))


class Commonest:
    window = 16

    def judge_window(self, recent: Recent) -> float:
        return float(np.bincount(recent.labels).max() / len(recent))


def rows_of(x: Array, labels: Any = None) -> Rows:
    rows = Rows()
    labels = np.arange(len(x)) % 3 if labels is None else np.asarray(labels)
    for at in range(0, len(x), 7):
        part = x[at : at + 7]
        rows.add(SKETCHER(part.reshape(len(part), 8, 8, 1)), 0.05 + 0.85 * np.eye(3)[labels[at : at + 7]])
    return rows


def test_rows_are_matched_with_those_of_other_folds():
    """Rows 0 and 1 are near, so are 2 and 7, which lie in one fold and are not matched: 2 = 7 modulo 5."""
    x = np.random.default_rng(0).random((20, 8, 8)).astype(np.float32)
    for one, other in ((0, 1), (2, 7)):
        x[other] = x[one]
        x[other, 0, 0] = 1.0 - x[one, 0, 0]
    monitor = Looking()
    found = scores({"monitor/m": monitor}, rows_of(x), Rows(), 0)["monitor/m"]
    assert found.shape == (20,)
    own = [i for fold in range(5) for i in range(fold, 20, 5)]  # the order in which they are judged
    overlaps = dict(zip(own, found, strict=True))
    assert min(overlaps[0], overlaps[1]) > max(overlap for i, overlap in overlaps.items() if i > 1)
    nearest = monitor.seen[own.index(0)].match.neighbours[0]
    assert nearest.label == 1  # answers are known
    assert all(len(past.recent) == 16 for past in monitor.pasts)
    assert not any(row.match.duplicate for row in monitor.seen)


def test_frames_are_judged_beside_what_they_follow():
    x = clean_images(20)
    monitor = Looking()
    found = scores({"monitor/m": monitor}, rows_of(x), rows_of(np.clip(x + 0.02, 0.0, 1.0)), 0)["monitor/m"]
    assert found.shape == (40,)
    links = [row.link for row in monitor.seen]
    frames = [link for fold in range(5) for link in links[fold * 8 + 4 : fold * 8 + 8]]
    clean = [link for fold in range(5) for link in links[fold * 8 : fold * 8 + 4]]
    assert all(link is not None and link.distance < 0.2 for link in frames)
    assert all(link is None or link.distance > 0.2 for link in clean)


def test_answers_and_windows():
    found = scores({"a": Unsure(), "w": Commonest()}, rows_of(clean_images(40)), Rows(), 0)
    np.testing.assert_allclose(found["a"], 0.1)
    assert found["w"].shape == (WINDOWS,)
    again = scores({"w": Commonest()}, rows_of(clean_images(40)), Rows(), 0)
    np.testing.assert_array_equal(found["w"], again["w"])


def test_the_class_whose_windows_look_worst_counts():
    labels = np.zeros(600, np.int64)
    labels[300:] = 1 + np.arange(300) % 2
    alike = kept_of(rows_of(np.zeros((600, 8, 8), np.float32)).sketches, np.eye(3)[labels], range(600))
    found = fit_monitors._of_windows(Commonest(), [recent_of(alike)], 0)
    np.testing.assert_array_equal(found, 1.0)  # of windows of class 0 alone


def test_the_secret_by_which_windows_look_worst_counts():
    """Control: by the first secret alone, nothing looks bad."""

    class Spread:
        window = 16

        def judge_window(self, recent: Recent) -> float:
            return float(recent.positions.std())

    flat = recent_of(kept_of(rows_of(clean_images(40)).sketches, np.eye(3)[np.arange(40) % 3], range(40)))
    stretched = replace(flat, positions=flat.positions * np.float32(3.0))
    alone = fit_monitors._of_windows(Spread(), [flat], 0)
    found = fit_monitors._of_windows(Spread(), [flat, stretched, flat], 0)
    assert found.min() > alone.max()


def test_the_camera_by_which_windows_look_worst_counts():
    """Control: clean rows alone look well."""
    same, oblique = (
        recent_of(kept_of(rows_of(clean_images(40)).sketches, np.eye(3)[labels], range(40)))
        for labels in (np.arange(40) % 3, np.zeros(40, np.int64))
    )
    alone = fit_monitors._of_windows(Commonest(), [same], 0)
    found = fit_monitors._of_windows(Commonest(), [same], 0, [same, oblique, oblique.last(15)])  # the last is too short
    assert alone.max() < 0.7
    np.testing.assert_array_equal(found, 1.0)


def test_rows_of_cameras_reach_monitors_of_windows_alone():
    def seen(cameras):
        said = {"r": Looking(), "w": Commonest()}
        return scores(said, rows_of(clean_images(40)), Rows(), 0, cameras)

    without, with_one = seen([Rows()]), seen([rows_of(clean_images(40), np.zeros(40, np.int64))])
    np.testing.assert_array_equal(without["r"], with_one["r"])
    assert without["w"].max() < with_one["w"].min() == 1.0


def test_windows_are_judged_by_all_that_positions_say():
    rows = Rows()
    x = clean_images(40)
    rows.add(SKETCHER(x), np.tile([0.9, 0.05, 0.05], (40, 1)), [SKETCHER.positions(x) * np.float32(s) for s in (2, 5)])

    class Longest:
        window = 16

        def judge_window(self, recent: Recent) -> float:
            return float(np.linalg.norm(recent.positions, axis=1).max())

    longest = max(float(np.linalg.norm(one.position)) for one in rows.sketches)
    assert scores({"w": Longest()}, rows, Rows(), 0)["w"].max() == pytest.approx(5 * longest, rel=1e-5)


def test_with_how_many_others_a_row_is_compared():
    assert [fit_monitors.others_of(n) for n in (5, 20, 21)] == [4, 16, 16]


def test_films_do_not_make_rows_look_ordinary():
    """600 rows of one class, which a monitor finds more or less odd, and frames of them not at all."""

    class OddAlone:
        def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
            near = [row.link is not None and row.link.distance < 0.2 for row in rows]
            return np.array([0.0 if one else 9.0 + row.sketch.position[0] for one, row in zip(near, rows, strict=True)])

    x = np.random.default_rng(0).random((600, 8, 8)).astype(np.float32)
    labels = np.zeros(600, np.int64)
    found = scores({"m": OddAlone()}, rows_of(x, labels), rows_of(np.clip(x + 0.01, 0.0, 1.0), labels), 0)["m"]
    assert len(found) == 600
    assert found.min() > 0.0


def in_groups(*sizes: tuple[int, int]) -> Array:
    """(N, 2): so many rows and frames of each class, in turn."""
    return np.array([(label, kind) for label, both in enumerate(sizes) for kind in (0, 1) for _ in range(both[kind])])


def test_the_class_whose_rows_look_worst_counts():
    found = np.arange(1500.0)
    np.testing.assert_array_equal(
        fit_monitors._of_worst_group(found, in_groups((500, 0), (500, 0), (500, 0))), found[1000:]
    )
    few = np.arange(1200.0) % 300  # too few of each class, so all rows count
    np.testing.assert_array_equal(fit_monitors._of_worst_group(few, in_groups(*[(300, 0)] * 4)), few)
    fewer = np.arange(400.0)
    np.testing.assert_array_equal(fit_monitors._of_worst_group(fewer, in_groups((200, 200))), fewer)


def test_a_class_with_few_rows_has_its_frames_beside_them():
    found = np.arange(1200.0)
    groups = in_groups((300, 300), (300, 300))
    np.testing.assert_array_equal(fit_monitors._of_worst_group(found, groups), found[600:])


def test_rows_are_told_from_frames_where_classes_are_small():
    groups = in_groups((200, 200), (200, 200), (200, 200))
    found = np.where(groups[:, 1] == 0, 10.0, 0.0) + np.random.default_rng(0).random(1200)
    assert fit_monitors._of_worst_group(found, groups).min() >= 10.0


@pytest.mark.parametrize(("ease", "expected"), [(0.0, 4000), (10.0, 2000)])
def test_frames_count_beside_rows_where_they_look_alike(ease, expected):
    rng = np.random.default_rng(0)
    rows, frames = rng.normal(size=2000), rng.normal(size=2000) - ease
    found = fit_monitors._of_worst_group(np.concatenate([rows, frames]), in_groups((2000, 2000)))
    assert len(found) == expected
    assert np.isin(rows, found).all()


def test_too_few_rows_for_a_window():
    with pytest.raises(ValueError, match="a window has 16 rows, and there are 15 clean inputs"):
        scores({"w": Commonest()}, rows_of(clean_images(15)), Rows(), 0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_next_to_nothing(count):
    rows = rows_of(clean_images(count))
    assert scores({"m": Looking()}, rows, rows_of(clean_images(count, seed=1)), 0)["m"].size >= count
    assert len(recent_of([])) == 0


def test_without_monitors_there_is_nothing_to_say():
    assert scores({}, rows_of(clean_images(2)), Rows(), 0) == {}
