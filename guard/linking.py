"""How a row lies to the nearest earlier one like it: how far, and whether a camera's motion explains the way.

An attack moves a row by noise, by squares, by single values; a camera moves it along a few directions that the row
itself tells (`guard.sketching`). The difference of the two positions is fitted, by least squares, with those motions.
What is left, over what noise of the same length would leave, is `Link.unexplained`.

Contrast is a motion, too, and it is what remains of a row that is blended with an unlike one: half of the way there is
away from the row itself. So tone counts only as far as it outweighs what is left by FADING times.
"""

from collections.abc import Sequence

import numpy as np

from guard.sketching import TONES
from guard.types import Floats, Link, Match, Neighbour, Seen, Sketch

FADING = 2.0

_RIDGE = 1e-4  # motions of length 1
_TINY = 1e-12


def link(sketch: Sketch, match: Match) -> Link | None:
    """To the nearest of the match's neighbours; None where there is none."""
    return links((sketch,), (match,))[0].link


def links(sketches: Sequence[Sketch], matches: Sequence[Match]) -> tuple[Seen, ...]:
    """Each row beside what came before it, linked where it has neighbours; sketches of one sketcher."""
    near = [_nearest(sketch, match) for sketch, match in zip(sketches, matches, strict=True)]
    rows = [i for i, found in enumerate(near) if found is not None]
    shares = dict[int, float]()
    if rows:
        ways = np.stack([found[1] for found in near if found is not None])
        found_shares = unexplained(np.stack([sketches[i].motions for i in rows]), ways)
        shares = dict(zip(rows, map(float, found_shares), strict=True))
    return tuple(
        Seen(sketch, match, None if found is None else Link(found[0], found[2], shares[i]))
        for i, (sketch, match, found) in enumerate(zip(sketches, matches, near, strict=True))
    )


def _nearest(sketch: Sketch, match: Match) -> tuple[Neighbour, Floats, float] | None:
    """The neighbour, the way to it, and how far it is, relative to the row's own length."""
    others = [one for one in match.neighbours if one.position.shape == sketch.position.shape]
    if match.duplicate or not others or not sketch.position.size:
        return None
    ways = np.array([one.position for one in others], dtype=np.float64) - sketch.position
    squares = np.einsum("nd,nd->n", ways, ways)
    best = int(squares.argmin())
    own = float(np.linalg.norm(sketch.position))
    return others[best], ways[best], float(np.sqrt(squares[best])) / max(own, _TINY)


def unexplained(motions: Floats, ways: Floats) -> Floats:
    """(N, K, D), (N, D) -> (N,) in [0, 1]; 1 where there is no way, or where there are no motions."""
    count, dimensions = motions.shape[1:]
    squares = np.einsum("nd,nd->n", ways, ways)
    if not count:
        return np.ones(len(ways))
    m = motions.astype(np.float64)
    lengths = np.sqrt(np.einsum("nkd,nkd->nk", m, m))
    moves = lengths > _TINY
    m /= np.where(moves, lengths, 1.0)[:, :, None]
    lower = np.linalg.cholesky(m @ m.transpose(0, 2, 1) + _RIDGE * np.eye(count))
    # one motion after the other, each as far as those before do not do it
    parts = np.linalg.solve(lower, m @ ways[:, :, None])[:, :, 0] ** 2 / np.maximum(squares, _TINY**2)[:, None]
    tone = parts[:, -TONES:].sum(axis=1)
    left = np.clip(1.0 - parts.sum(axis=1), 0.0, 1.0) / (1.0 - moves.sum(axis=1) / dimensions)
    whole = np.maximum(left, 1.0 - tone + np.maximum(0.0, tone - FADING * left))
    return np.where(squares > 0.0, np.minimum(1.0, left / np.maximum(whole, _TINY)), 1.0)
