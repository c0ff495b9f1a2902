"""`python -m bench.monitors.traces`: the first queries of each attack on images of the `clean` split, for choices.

What is chosen about monitors is chosen by these: other images and other seeds than those of the figures. Each file is
DATA-ATTACK.npz: `x` (R, Q, ...) float32 rows in [0, 1] as sent, `length` (R,), `labels` (R, Q) the bare victim's
answers, `top` (R, Q) its largest probability, `y` (R,) and `seed`.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from adversary.attack import Array
from bench.monitors.attacks import aim, chosen, run
from bench.monitors.client import Bare, Client, Told
from bench.monitors.ground import DATA, ground, home
from bench.monitors.planned import OARS, PLAIN, planned

SEED = 7_000
QUERIES = 300
IMAGES = 10


def trace(data: str, attack: str, images: int = IMAGES, queries: int = QUERIES, seed: int = SEED) -> dict[str, Array]:
    """The first queries of so many runs."""
    on, plan = ground(data), planned(data, attack)
    rows = chosen(on, on.clean, images, seed)
    shape = rows.x.shape[1:]
    x = np.zeros((images, queries, *shape), np.float32)
    labels, top = np.full((images, queries), -1, np.int64), np.full((images, queries), np.nan)
    length = np.zeros(images, np.int64)
    for i in range(images):

        def keep(sent: Array, told: Told, i: int = i) -> None:
            at = int(length[i])
            n = min(len(sent), queries - at)
            x[i, at : at + n], labels[i, at : at + n] = sent[:n], told.p[:n].argmax(axis=1)
            top[i, at : at + n] = told.p[:n].max(axis=1)
            length[i] += n

        run(plan, Client(Bare(on.model), aim(plan, rows, i), most=queries, keep=keep), rows, i, seed)
    return {"x": x, "length": length, "labels": labels, "top": top, "y": rows.y, "seed": np.array(seed)}


def main(argv: Sequence[str] | None = None) -> int:
    """Write those that are missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.monitors.traces", description="First queries of attacks.")
    parser.add_argument("data", nargs="*", default=list(DATA), metavar="DATA")
    options = parser.parse_args(argv)
    directory = home() / "traces"
    directory.mkdir(parents=True, exist_ok=True)
    for data in options.data:
        for attack in (*PLAIN, *OARS):
            path = directory / f"{data}-{attack}.npz"
            if not path.is_file():
                made = trace(data, attack)
                np.savez_compressed(path, **made)  # type: ignore[arg-type]
                print(f"{path}: {int(made['length'].min())} to {int(made['length'].max())} queries a run")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
