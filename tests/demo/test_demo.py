"""The whole demo, small, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adversary.data import mnist
from adversary.data.cache import DataUnavailable

SMALL = ("--fit=1000", "--clean=200", "--victims=10", "--walkers=3", "--walk-budget=1500", "--pairs=60")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache of its own, with MNIST in it already."""
    try:
        mnist.load()
    except DataUnavailable as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("cache")
    (root / "mnist").symlink_to(Path(os.environ.get("ADVERSARY_CACHE", Path.home() / ".cache" / "guard")) / "mnist")
    return root


def start(home, out, *more):
    command = [sys.executable, "-m", "demo", "--out", str(out), *SMALL, *more]
    env = {**os.environ, "ADVERSARY_CACHE": str(home)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children_of(out):
    """Processes that name the output folder: the demo's own, and no one else's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(out).encode() in words and b"guard.cli" in words:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def first(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    process = start(home, out)
    printed, said = process.communicate(timeout=170)
    assert process.returncode == 0, said
    return out, printed, said


def test_ends_with_the_table_and_the_page(first):
    out, printed, _ = first
    assert "One model, bare and behind Guard" in printed
    assert str(out / "index.html") in printed.replace("\n", "")
    assert (out / "index.html").read_text().startswith("<!doctype html>")


def test_the_control_succeeds_and_guard_notices(first):
    results = json.loads((first[0] / "results.json").read_text())
    attacks = {row["title"]: row for row in results["attacks"]}
    assert [title for title, row in attacks.items() if row["bare_success"]["hits"] == 0] == []
    assert attacks["C&W closest"]["detected"]["rate"] >= 0.6
    assert attacks["FGSM eps 0.3"]["guarded_success"]["rate"] <= 0.5
    assert attacks["HopSkipJump"]["detected"]["rate"] == 1.0
    assert results["clean"]["refused"]["rate"] <= 0.05  # 800 calibration scores and 200 images: a coarse look
    assert results["clean"]["guarded_accuracy"]["rate"] >= 0.9
    assert results["clean"]["changed_answers"]["hits"] == 0
    assert results["paper"]["false_positive_rate"]["measured"]["n"] == 200  # no decision is missing in the audit log
    assert results["latency"]["ratio"] > 1.0


def test_says_what_it_does_in_plain_lines(first):
    said = first[2]
    assert "guard fit, 1,000 clean images" in said
    assert "HopSkipJump, guarded" in said
    assert "\x1b" not in said


def test_leaves_no_process_behind(first):
    assert children_of(first[0]) == []


def test_a_second_run_makes_nothing_anew_and_repeats_itself(first, home):
    told = json.loads((first[0] / "results.json").read_text())
    cached = {path: path.stat().st_mtime_ns for path in (home / "demo").rglob("*") if path.is_file()}
    process = start(home, first[0])
    _, said = process.communicate(timeout=170)
    assert process.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in (home / "demo").rglob("*") if path.is_file()} == cached
    assert json.loads((first[0] / "results.json").read_text())["attacks"] == told["attacks"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing_behind(first, home, tmp_path, number):
    process = start(home, tmp_path, "--walk-budget", "100000")
    until = time.monotonic() + 120
    while not children_of(tmp_path) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing is left running" in said
    assert children_of(tmp_path) == []
