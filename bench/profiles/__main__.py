"""`python -m bench.profiles`: train the networks of the bench's profiles, and keep them in the cache."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from adversary.data.cache import DataUnavailable, sha256, write_atomic
from bench import profiles
from guard import learning


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.profiles", description="Train the bench's networks.")
    made.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(profiles.SUBJECTS)} (all)")
    made.add_argument("--only", action="append", default=[], choices=learning.NAMES, help="may be repeated")
    made.add_argument("--again", action="store_true", help="train what is in the cache already, too")
    made.add_argument("--seed", type=int, default=profiles.SEED)
    made.add_argument("--out", type=Path, metavar="DIR", help="write DIR/SUBJECT_NETWORK.onnx instead of the cache")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure on the clean split, write. 0, or 1 where data is out of reach, 2 for an unknown subject."""
    options = parser().parse_args(argv)
    wanted = options.subjects or list(profiles.SUBJECTS)
    unknown = sorted(set(wanted) - set(profiles.SUBJECTS))
    if unknown:
        print(f"bench.profiles: no subject is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    try:
        for subject in wanted:
            _subject(subject, options)
    except DataUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _shown(subject: str, name: str, seed: int, given: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Make one network, with a bar."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{subject}: {name}", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{subject}: {what}", completed=done, total=total)

        return profiles.make(subject, (name,), tell, seed=seed, given=given)


def _subject(subject: str, options: argparse.Namespace) -> None:
    def path(name: str) -> Path:
        return options.out / f"{subject}_{name}.onnx" if options.out else profiles.place(subject, name)

    asked = tuple(name for name in learning.NAMES if not options.only or name in options.only)
    missing = tuple(name for name in asked if options.again or not path(name).is_file())
    given = {name: path(name).read_bytes() for name in learning.NAMES if name not in missing and path(name).is_file()}
    for name in missing:
        started = time.monotonic()
        given |= _shown(subject, name, options.seed, given)
        write_atomic(path(name), given[name])
        took, digest = time.monotonic() - started, sha256(given[name])
        print(f"{path(name)}: {len(given[name]):,} bytes, sha256 {digest}, {took:.0f} s", flush=True)
    for what, value in profiles.measured(subject, {name: given[name] for name in asked}).items():
        print(f"{subject}: {what}: {value:.4f}")


if __name__ == "__main__":
    raise SystemExit(main())
