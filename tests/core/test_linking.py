import numpy as np
import pytest

from guard.linking import link, links, unexplained
from guard.sketching import Sketcher
from guard.types import Match, Neighbour, Recent, Sketch

SKETCHER = Sketcher(b"a secret of sixteen or more")


def scene(dx=0.0, dy=0.0, zoom=1.0, side=32):
    """(1, side, side, 3) in [0.2, 0.8], of waves of several lengths, so that it can be moved by any fraction."""
    rng = np.random.default_rng(7)
    v, u = (np.mgrid[0:side, 0:side] - side / 2) * zoom * 32 / side
    waves = [
        a * np.sin(kx * (u + dx) + ky * (v + dy) + t)[:, :, None] * rng.random(3)
        for a, kx, ky, t in zip(
            rng.random(12), rng.normal(0, 0.5, 12), rng.normal(0, 0.5, 12), rng.random(12) * 6, strict=True
        )
    ]
    total = np.sum(waves, axis=0)
    return (0.5 + 0.3 * total / np.abs(total).max())[None].astype(np.float32)


def neighbour(x, number=0):
    return Neighbour(number, 3, SKETCHER(x)[0].position, number, -1, b"somebody")


def between(x, y):
    """The link of x to an earlier y."""
    return link(SKETCHER(x)[0], Match(3, neighbours=(neighbour(y),)))


@pytest.mark.parametrize(
    "moved",
    [
        scene(0.7),
        scene(0, -1.0),
        scene(0.5, 0.5),
        scene(zoom=1.02),
        0.95 * scene(),
        scene() + np.float32(0.05) * scene(),
    ],
)
def test_motion_is_explained(moved):
    found = between(scene(), moved)
    assert 0 < found.distance < 0.6
    assert found.unexplained < 0.15


def test_motion_of_a_large_image_is_explained():
    found = between(scene(side=224), scene(0.7, 0.4, side=224))
    assert found.unexplained < 0.15


def test_noise_on_a_large_image_is_not_explained():
    rng, x = np.random.default_rng(0), scene(side=224)
    noisy = [np.clip(x + rng.normal(0, 0.02, x.shape), 0, 1).astype(np.float32) for _ in range(20)]
    found = [between(y, x) for y in noisy]
    assert min(one.unexplained for one in found) > 0.6
    assert max(one.distance for one in found) < 0.5


def test_single_values_and_squares_are_not_explained():
    x = scene()
    value, square = x.copy(), x.copy()
    value[0, 12, 9, 1] += 1e-4
    square[0, 5:14, 9:18] += np.float32(0.1)
    assert [between(y, x).unexplained > 0.6 for y in (value, square)] == [True] * 2


def test_a_row_that_differs_by_less_than_positions_tell_is_unexplained():
    x = scene()
    found = between(x, x.copy())
    assert found.distance == 0
    assert found.unexplained == 1


def test_vectors_are_never_explained():
    x = np.random.default_rng(0).random((1, 30), dtype=np.float32)
    found = between(x, x + np.float32(0.01))
    assert 0 < found.distance < 0.2
    assert found.unexplained == 1


def test_the_nearest_is_linked_not_the_one_that_shares_most():
    x, near, far = scene(), scene(0.2), scene(5.0)
    match = Match(9, neighbours=(neighbour(far, 1), neighbour(near, 2)))
    found = link(SKETCHER(x)[0], match)
    assert found.neighbour.number == 2
    wanted = np.linalg.norm(match.neighbours[1].position - SKETCHER(x)[0].position)
    assert found.distance == pytest.approx(wanted / np.linalg.norm(SKETCHER(x)[0].position), rel=1e-5)


def test_what_is_far_is_linked_all_the_same():
    found = between(scene(), 1 - scene())
    assert found.distance > 1


def test_none_without_neighbours_for_duplicates_and_for_strange_positions():
    sketch, other = SKETCHER(scene())[0], neighbour(scene(1.0))
    strange = Neighbour(1, 1, np.zeros(3, np.float32), 1, -1, b"")
    assert link(sketch, Match()) is None
    assert link(sketch, Match(9, duplicate=True, neighbours=(other,))) is None
    assert link(sketch, Match(1, neighbours=(strange,))) is None
    assert link(Sketch(b"", np.zeros(0, np.uint64)), Match(1, neighbours=(other,))) is None
    assert link(sketch, Match(1, neighbours=(strange, other))).neighbour is other


def test_a_batch_is_its_rows():
    x = [scene(0.1 * i) for i in range(6)]
    sketches = tuple(SKETCHER(row)[0] for row in x)
    matches = tuple(Match(2, neighbours=(neighbour(x[0]),)) if i % 2 else Match() for i in range(6))
    for sketch, match, seen in zip(sketches, matches, links(sketches, matches), strict=True):
        alone = link(sketch, match)
        assert (seen.sketch, seen.match) == (sketch, match)
        assert (seen.link is None) == (alone is None)
        if alone is not None:
            assert (seen.link.distance, seen.link.unexplained) == pytest.approx((alone.distance, alone.unexplained))
    assert links((), ()) == ()


def test_a_flat_row_has_finite_distances_and_no_motions_to_explain():
    flat = np.full((1, 28, 28, 1), 0.5, np.float32)
    other = np.clip(flat + np.random.default_rng(0).normal(0, 0.01, flat.shape), 0, 1).astype(np.float32)
    found = between(flat, other)
    assert 0 < found.distance < 2
    assert found.unexplained > 0.6


def test_blending_with_an_unlike_row_is_not_mere_contrast():
    """Half of the way to an image at right angles, and as long, is away from this one."""
    rng = np.random.default_rng(0)
    motions = rng.normal(size=(1, 10, 48)).astype(np.float32)
    motions[0, 7] = own = rng.normal(size=48)
    other = rng.normal(size=48)
    other *= np.linalg.norm(own) / np.linalg.norm(other)
    ((blend, fade),) = unexplained(motions, np.stack([0.1 * (other - own), -0.1 * own + 0.01 * other])[None], [0.0])
    assert blend > 0.6
    assert fade < 0.1


def recent(positions, heard=None):
    """A caller's own latest rows."""
    n = len(positions)
    heard = np.ones(n, np.bool_) if heard is None else np.array(heard)
    return Recent(np.asarray(positions), np.zeros((n, 0), np.float32), np.zeros(n, np.int64), np.ones(n), heard)


def test_a_frame_follows_the_callers_own_latest_though_no_hash_finds_it():
    frames = [SKETCHER(scene(0.7 * i))[0] for i in range(3)]
    far = SKETCHER(1 - scene())[0]
    matches = (Match(),) * 3
    none = recent(np.zeros((0, frames[0].position.size), np.float32))
    assert [row.follows for row in links(frames, matches)] == [False] * 3  # nobody says whose they are
    assert [row.follows for row in links(frames, matches, none)] == [False, True, True]
    before = recent(np.stack([frames[0].position, *[far.position] * 5]))
    assert [row.follows for row in links(frames[1:], matches[1:], before)] == [True, True]
    long_ago = recent(np.stack([frames[0].position, *[far.position] * 8]))
    assert not links(frames[1:2], matches[:1], long_ago)[0].follows


def test_what_an_attack_made_of_the_latest_row_does_not_follow_nor_does_a_retry_or_a_vector():
    rng, x = np.random.default_rng(0), scene()
    last = recent(SKETCHER(x)[0].position[None])
    square = x.copy()
    square[0, 5:14, 9:18] += np.float32(0.1)
    assert not links(SKETCHER(square), (Match(),), last)[0].follows
    moved = SKETCHER(scene(0.7))
    assert links(moved, (Match(),), last)[0].follows
    assert not links(moved, (Match(duplicate=True),), last)[0].follows
    assert not links(moved, (Match(),), recent(last.positions[:, :7]))[0].follows  # positions of another sketcher
    vector = SKETCHER(rng.random((1, 30), dtype=np.float32))
    assert not links(vector, (Match(),), recent(vector[0].position[None]))[0].follows
    assert links((), (), last) == ()


def test_what_its_link_explains_needs_no_latest_row():
    x = SKETCHER(scene())
    match = Match(3, neighbours=(neighbour(scene(0.7)),))
    assert not links(x, (match,), recent(x[0].position[None]))[0].follows


def test_what_lies_near_the_callers_own_latest_is_beside_it_whatever_moved_it():
    last = recent(SKETCHER(scene())[0].position[None])
    square = scene().copy()
    square[0, 5:14, 9:18] += np.float32(0.1)
    ways = {"attack": square, "frame": scene(0.7), "other": 1 - scene()}
    seen = {name: links(SKETCHER(x), (Match(),), last)[0] for name, x in ways.items()}
    assert {name: (row.follows, row.beside) for name, row in seen.items()} == {
        "attack": (False, True),
        "frame": (True, True),
        "other": (False, False),
    }
    assert not links(SKETCHER(square), (Match(),))[0].beside  # nobody says whose they are
    assert not links(SKETCHER(square), (Match(duplicate=True),), last)[0].beside


def test_only_what_was_heard_excuses_what_is_beside_it():
    """Steps of an attack, each near the one before: every one that is away from the last that was judged is judged."""
    steps = [(1 - 0.25 * i) * scene() + 0.25 * i * scene(6.0)[:, ::-1] for i in range(5)]
    sketches = [SKETCHER(x.astype(np.float32))[0] for x in steps]
    seen = links(sketches, (Match(),) * 5, recent(np.zeros((0, 48), np.float32)))
    assert [row.heard for row in seen[:2]] == [True, False]
    assert [row.beside for row in seen[:2]] == [False, True]
    assert sum(row.heard for row in seen) >= 2
    for heard in (True, False):
        one = links(sketches[1:2], (Match(),), recent(sketches[0].position[None], [heard]))[0]
        assert (one.beside, one.heard) == (heard, not heard)


def test_what_motion_explains_is_heard_where_that_was():
    frames = [SKETCHER(scene(0.7 * i))[0] for i in range(2)]
    for heard in (True, False):
        one = links(frames[1:], (Match(),), recent(frames[0].position[None], [heard]))[0]
        assert (one.follows, one.heard) == (heard, True)  # explained by one that was; else judged itself
    still = links(frames[1:], (Match(3, neighbours=(neighbour(scene()),)),), recent(np.zeros((0, 48), np.float32)))[0]
    assert not still.heard  # it is not judged, and nobody knows of whose row it is the next frame


def test_uniform_images_differ_by_brightness_alone():
    grey = SKETCHER(np.full((1, 28, 28, 1), 0.4, np.float32))[0]
    assert link(grey, Match(3, neighbours=(neighbour(np.full((1, 28, 28, 1), 0.9, np.float32)),))).unexplained == 0.0
