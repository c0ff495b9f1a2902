"""`python -m tests.fuzz TARGET [--runs N] [--seconds S]`: fuzz one target, led by coverage (atheris, libFuzzer).

It begins with the kept corpus (`tests/fuzz/corpus/TARGET`, one line of base64 an input) and good inputs. It fails where
an input raises, hangs for a second, or takes memory past 512 MB; that input is left in `--artifacts`. `--keep` puts
what reached new code into the corpus, the shortest first, until that has `MOST`.
"""

import argparse
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
RSS_MB, HANG_S, MAX_BYTES, MOST = 512, 1, 4096, 150
_CHILD = """
import sys
import atheris
with atheris.instrument_imports(include=["guard"]):
    import guard.registry
    from tests.fuzz.targets import TARGETS
guard.registry.load()
atheris.Setup(sys.argv[1:], TARGETS[sys.argv.pop(1)])
atheris.Fuzz()
"""


def kept(target: str) -> list[bytes]:
    """The corpus of one target."""
    file = CORPUS / target
    return [base64.b64decode(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(target: str, inputs: list[bytes]) -> None:
    """Write it."""
    CORPUS.mkdir(exist_ok=True)
    lines = sorted(base64.b64encode(one).decode() for one in set(inputs))
    (CORPUS / target).write_text("".join(f"{line}\n" for line in lines))


def _write(directory: Path, inputs: list[bytes]) -> None:
    directory.mkdir()
    for i, one in enumerate(inputs):
        (directory / f"{i:05}").write_bytes(one)


def fuzz(target: str, flags: list[str], directories: list[Path]) -> int:
    """Run the fuzzer; its status."""
    limits = [f"-timeout={HANG_S}", f"-rss_limit_mb={RSS_MB}", f"-max_len={MAX_BYTES}"]
    words = [sys.executable, "-c", _CHILD, target, *limits, *flags, *map(str, directories)]
    return subprocess.run(words, check=False).returncode


def main() -> int:
    """The fuzzer's status."""
    from tests.fuzz.seeds import SEEDS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Coverage-guided fuzzing.")
    parser.add_argument("target", choices=SEEDS)
    parser.add_argument("--runs", type=int, default=100_000, help="executions (100,000)")
    parser.add_argument("--seconds", type=int, default=0, help="at most so long (0: as long as it takes)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep what reached new code")
    parser.add_argument("--artifacts", type=Path, default=Path(), help="where a bad input is left")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="guard-fuzz-") as directory:
        found, begun = Path(directory, "found"), Path(directory, "begun")
        found.mkdir()
        _write(begun, [*kept(options.target), *SEEDS[options.target]()])
        flags = [f"-runs={options.runs}", f"-max_total_time={options.seconds}", f"-seed={options.seed}"]
        flags += ["-print_final_stats=1", f"-artifact_prefix={options.artifacts}/"]
        status = fuzz(options.target, flags, [found, begun])
        if options.keep and status == 0:
            fresh = sorted((file.read_bytes() for file in found.iterdir()), key=len)
            keep(options.target, [*kept(options.target), *fresh][:MOST])
    return status


if __name__ == "__main__":
    sys.exit(main())
