"""`guard serve` as a child process, as an operator starts it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.process import free_port, running

_LISTENING = re.compile(r"^guard: listening on (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Guarded:
    """A running Guard: where it listens, where its metrics are, and the files it writes."""

    address: str
    admin: str
    audit: Path
    log: Path
    process: "subprocess.Popen[bytes]"

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


def command(*arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "guard.cli", *arguments]


def _without_settings(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without somebody else's settings for Guard."""
    return {name: value for name, value in env.items() if not name.startswith("GUARD_")}


@contextmanager
def start(
    directory: Path,
    settings: Mapping[str, Any],
    *,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> Iterator[Guarded]:
    """Serve with these settings on free ports of the loopback; yields when it takes calls."""
    admin, audit = f"127.0.0.1:{free_port()}", directory / "audit.jsonl"
    tree = {
        "listen": {"address": "127.0.0.1:0"},
        "admin": {"http": admin, "grpc": None},
        "audit": {"file": str(audit)},
        **settings,
    }
    file, log = directory / "guard.yaml", directory / "guard.log"
    file.write_text(json.dumps(tree))  # JSON is YAML
    audit.touch()

    def ready() -> bool:
        return _LISTENING.search(log.read_text(errors="replace")) is not None

    own = _without_settings(os.environ if env is None else env)
    with running(command("serve", "--config", str(file), python=python), log, ready, own) as process:
        found = _LISTENING.search(log.read_text(errors="replace"))
        assert found is not None
        yield Guarded(found[1], admin, audit, log, process)


def fit(arguments: list[str], directory: Path) -> str:
    """Run `guard fit`; returns what it printed."""
    done = subprocess.run(
        command("fit", *arguments),
        cwd=directory,
        env=_without_settings(os.environ),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


EVERY_STAGE: Mapping[str, Any] = {
    "detectors": [{"stage": "feature_squeezing"}],
    "monitors": [{"stage": "fingerprint"}],
    "purifiers": [{"stage": "median", "when": "always"}, {"stage": "bit_depth"}, {"stage": "jpeg"}],
    "outputs": [{"stage": "label_only", "when": "always"}, {"stage": "rounding"}],
}
"""One of each kind and more; some would change every query and every answer, were they to enforce."""
