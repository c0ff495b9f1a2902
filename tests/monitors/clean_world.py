"""Clean rows in a small embedding: five classes on a sphere of 12 directions; x is the embedding itself."""

import numpy as np

from guard.types import Equipment, Link, Match, Material, Neighbour, Past, Recent, Seen, Sketch

CLASSES, WIDTH = 5, 12
_CENTRES = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))


def network(x):
    return {"embedding": x, "logits": (x @ _CENTRES.T).astype(np.float32)}


def of_length_one(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clean(n, seed, label=None):
    """-> (N, WIDTH), (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n) if label is None else np.full(n, label)
    return of_length_one(_CENTRES[labels] + 0.8 * rng.normal(size=(n, WIDTH))), labels


def probs_of(labels, best=0.9):
    return np.where(np.arange(CLASSES)[None] == np.asarray(labels)[:, None], best, (1 - best) / (CLASSES - 1))


def material(n=1500, seed=0):
    x, labels = clean(n, seed)
    return Material(x, probs_of(labels), CLASSES, {"auxiliary": network}, seed)


def at_work(stage, learned_from=None):
    given = learned_from or material()
    return stage.equip(Equipment({"auxiliary": network}, stage.learn(given), b"s" * 32))


def seen(rows, link=None, *, duplicate=False):
    none = np.zeros(0, np.uint64)
    return tuple(Seen(Sketch(b"", none, embedding=row), Match(duplicate=duplicate), link) for row in rows)


def link(unexplained):
    return Link(Neighbour(0, 1, np.zeros(1, np.float32), 0, 0, b""), 0.1, unexplained)


def recent(rows, labels, positions=None):
    given = rows if positions is None else positions
    return Recent(
        given.astype(np.float32),
        rows,
        np.asarray(labels, np.int64),
        np.full(len(rows), 0.9),
        np.ones(len(rows), np.bool_),
    )


def past(rows):
    return Past(recent=recent(rows, np.zeros(len(rows))))
