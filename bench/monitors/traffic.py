"""Benign traffic that looks bad, made of real images: seeded, a list of callers at a time.

A block is some callers who share one history from its start on; within a block no two callers send the same image,
unless that is the point. So none is spared suspicion because somebody asked the same before him.

    natural    random images of the test split
    retries    the same, and a fifth of the queries repeat one of the last five exactly
    one_class  images of one class alone
    hot_keys   most queries are about the same five images, whoever asks; the rest are natural
    video      a clip each (`bench.monitors.video`)
    noisy_video the same with a sensor's noise; not asked for, to show where it ends
    batch_job  one caller and 10,000 images of the training distribution, as fast as they are answered
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from adversary.attack import Array
from bench.monitors import video
from bench.monitors.ground import Ground

SHORTEST, LONGEST = 10, 300
REPEATS = 0.2
_LATELY = 5
_HOT_IMAGES, _HOT_SHARE, _HOT_CALLERS = 5, 0.8, 250
_FRAMES = (30, 121)
_CLIPS = 100  # a block
BATCH = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """One caller's queries, in order: (N, ...) float32 in [0, 1]."""

    name: str
    rows: Array


Block = list[Caller]
Maker = Callable[[Ground, np.random.Generator], Block]


def lengths(total: int, rng: np.random.Generator) -> list[int]:
    """How many queries callers send, evenly spread on a logarithmic scale, until so many are dealt out."""
    found, left = list[int](), total
    while left >= SHORTEST:
        n = min(left, int(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST + 1)))))
        found.append(n)
        left -= n
    return found


def _dealt(on: Ground, places: Array, rng: np.random.Generator, name: str) -> Block:
    order, at, block = rng.permutation(places), 0, Block()
    for i, n in enumerate(lengths(len(order), rng)):
        block.append(Caller(f"{name}-{i}", on.unit(on.quiet.images[order[at : at + n]])))
        at += n
    return block


def natural(on: Ground, rng: np.random.Generator) -> Block:
    """The whole split, dealt out."""
    return _dealt(on, np.arange(len(on.quiet)), rng, "natural")


def retries(on: Ground, rng: np.random.Generator) -> Block:
    """Natural callers whose every fifth query is one of their last five again."""
    return [Caller(one.name, _repeated(one.rows, rng)) for one in natural(on, rng)]


def _repeated(rows: Array, rng: np.random.Generator) -> Array:
    order = list[int]()
    for i in range(len(rows)):
        order.append(i)
        while rng.random() < REPEATS:
            order.append(order[-int(rng.integers(1, min(_LATELY, len(order)) + 1))])
    return np.asarray(rows[order])


def one_class(on: Ground, rng: np.random.Generator) -> Block:
    """Each caller keeps to a class."""
    labels = on.quiet.labels
    parts = [_dealt(on, np.flatnonzero(labels == c), rng, f"class-{c}") for c in range(on.classes)]
    return [caller for part in parts for caller in part]


def hot_keys(on: Ground, rng: np.random.Generator) -> Block:
    """Many callers ask about five images; every fifth query is another."""
    order = rng.permutation(len(on.quiet))
    hot, rest, block = order[:_HOT_IMAGES], list(order[_HOT_IMAGES:]), Block()
    for i in range(_HOT_CALLERS):
        n = int(rng.integers(5, 41))
        places = [int(rng.choice(hot)) if rng.random() < _HOT_SHARE else int(rest.pop()) for _ in range(n)]
        block.append(Caller(f"hot-{i}", on.unit(on.quiet.images[places])))
    return block


def clips(on: Ground, rng: np.random.Generator, *, noise: float = 0.0) -> Block:
    """A clip of a test image for each caller, 30 to 120 frames."""
    places = rng.permutation(len(on.quiet))[:_CLIPS]
    images = on.unit(on.quiet.images[places])
    return [
        Caller(f"clip-{i}", video.clip(image, int(rng.integers(*_FRAMES)), rng, noise=noise))
        for i, image in enumerate(images)
    ]


def noisy_clips(on: Ground, rng: np.random.Generator) -> Block:
    """The same through a sensor whose noise has a standard deviation of 2 grey levels."""
    return clips(on, rng, noise=2.0 / 255.0)


def batch_job(on: Ground, rng: np.random.Generator) -> Block:
    """One caller, 10,000 images of what the victim learned from, none twice."""
    places = rng.permutation(len(on.learned))[:BATCH]
    return [Caller("batch", on.unit(on.learned.images[places]))]


KINDS: Mapping[str, Maker] = {
    "natural": natural, "retries": retries, "video": clips, "one_class": one_class, "hot_keys": hot_keys,
    "batch_job": batch_job, "noisy_video": noisy_clips,
}  # fmt: skip
ASKED = tuple(name for name in KINDS if name != "noisy_video")


def interleaved(block: Block, rng: np.random.Generator, at_once: int = 20) -> Iterator[tuple[str, Array]]:
    """(caller, one row (1, ...)): so many callers at a time, in no order; each one's own queries stay in order."""
    waiting, active = list(block), list[tuple[Caller, int]]()
    while waiting or active:
        while waiting and len(active) < at_once:
            active.append((waiting.pop(0), 0))
        place = int(rng.integers(len(active)))
        caller, at = active[place]
        yield caller.name, caller.rows[at : at + 1]
        if at + 1 < len(caller.rows):
            active[place] = (caller, at + 1)
        else:
            active.pop(place)
