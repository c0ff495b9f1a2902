"""Campaigns from end to end: on servers that answer as a test wants, and on Guard itself, killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml

from adversary import cli, report, shelf
from adversary.data import mnist
from adversary.victims.mnist import CHECKPOINT
from tests.adversary.tiny import Tiny, serving

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "adversary" / "campaigns" / "settings" / "mnist.yaml"


# --- servers that answer as told


def brightness(x):
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


@pytest.fixture
def dark(tmp_path):
    """Images below the middle grey, all of class 0."""
    x = np.random.default_rng(0).uniform(0.2, 0.45, (200, 1, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "dark.npz", x=x, y=np.zeros(200, int))
    return tmp_path / "dark.npz"


@pytest.fixture
def pair():
    """Bare, and one that refuses what is bright."""
    refuse = lambda x, n: grpc.StatusCode.PERMISSION_DENIED if x.mean() > 0.5 else None
    with (
        serving(Tiny(brightness, shape=(-1, 1, 6, 6))) as bare,
        serving(Tiny(brightness, refuse, shape=(-1, 1, 6, 6))) as guarded,
    ):
        yield bare, guarded


def campaign(tmp_path, dark, **changed):
    tree = {
        "name": "dark",
        "seeds": [1, 2],
        "victims": 5,
        "chunk": 3,
        "data": {"kind": "npz", "file": str(dark)},
        "model": {"name": "tiny"},
        "targets": {"guarded": {"address": "127.0.0.1:1"}, "control": {"address": "127.0.0.1:1"}},
        "benign": {"images": 20, "callers": 4, "every": 10},
        "attacks": [{"attack": "square", "budget": 120}],
        **changed,
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def replay(path, pair, out, *more):
    bare, guarded = pair
    return cli.main(["replay", path, "--out", str(out), "--control", bare.address, "--guarded", guarded.address, *more])


def test_a_campaign_against_addresses(tmp_path, dark, pair, capsys):
    out = tmp_path / "out"
    assert replay(campaign(tmp_path, dark), pair, out) == 0
    made = report.load(out)
    (square,) = made.attacks
    assert square.control.success.rate == 1.0
    assert square.control.noticed.hits == 0
    assert square.control.success.n == square.guarded.success.n == 10
    assert square.guarded.success.hits == 0
    assert square.guarded.noticed.rate == 1.0
    assert square.guarded.queries_to_detection.median is not None
    assert [doubt.code for doubt in made.warnings] == ["state_kept", "no_audit", "few_benign"]
    assert made.honest.guarded.alone.clean_accuracy.rate == 1.0
    assert made.honest.guarded.alone.callers_flagged.n == 4
    assert made.honest.guarded.beside.images > 0
    assert made.targets.guarded.address == pair[1].address
    for name in ("report.html", "report.md"):
        assert "square" in (out / name).read_text()
    shown = capsys.readouterr()
    assert "square" in shown.out
    assert "[100 %]" in shown.err


def test_what_is_done_is_not_done_again(tmp_path, dark, pair):
    path, out = campaign(tmp_path, dark), tmp_path / "out"
    assert replay(path, pair, out) == 0
    first, calls = report.load(out), [len(tiny.requests) for tiny in pair]
    assert replay(path, pair, out) == 0
    assert [len(tiny.requests) for tiny in pair] == calls
    assert report.load(out).model_copy(update={"run": first.run}) == first


def test_a_change_keeps_what_it_does_not_touch(tmp_path, dark, pair):
    out, two = tmp_path / "out", [{"attack": "square", "budget": 120}, {"attack": "rays", "budget": 120}]
    assert replay(campaign(tmp_path, dark), pair, out) == 0
    before = {file.name for file in (out / "units").iterdir()}
    assert replay(campaign(tmp_path, dark, attacks=two), pair, out) == 0
    new = {file.name for file in (out / "units").iterdir()} - before
    assert {name.split("_")[2] for name in new} == {"rays"}
    assert [attack.title for attack in report.load(out).attacks] == ["square", "rays"]


def test_what_the_model_is_asked_with_is_part_of_what_was_found(tmp_path, dark, pair):
    """Found with other bounds, nothing is taken over."""
    bare, out = pair[0], tmp_path / "out"
    assert replay(campaign(tmp_path, dark), pair, out) == 0
    before = {file.name for file in (out / "units").iterdir()}
    calls = len(bare.requests)
    assert replay(campaign(tmp_path, dark, model={"name": "tiny", "high": 0.9}), pair, out) == 0
    assert len(bare.requests) > 1.5 * calls
    assert len({file.name for file in (out / "units").iterdir()}) == 2 * len(before)


def test_one_attack_that_fails_does_not_end_the_campaign(tmp_path, dark, pair, capsys):
    attacks = [{"attack": "square", "budget": 120}, {"attack": "hop-skip-jump", "budget": 40, "options": {"batch": 0}}]
    path, out = campaign(tmp_path, dark, attacks=attacks), tmp_path / "out"
    assert replay(path, pair, out) == 1
    made = report.load(out)
    assert [attack.title for attack in made.attacks] == ["square"]
    assert {failure.unit.split("_")[2] for failure in made.failures} == {"hop-skip-jump"}
    assert "failed" in {doubt.code for doubt in made.warnings}
    assert "FAILED" in capsys.readouterr().err


def test_bars_decide_the_exit_status(tmp_path, dark, pair, capsys):
    path, out, score = campaign(tmp_path, dark), tmp_path / "out", tmp_path / "score.yaml"
    score.write_text("every_attack: {max_success: 0, min_noticed: 1}\nmin_clean_accuracy: 0.99\n")
    assert replay(path, pair, out, "--fail-under", str(score)) == 0
    score.write_text("every_attack: {max_queries_to_detection: 1}\nmax_callers_flagged: 0\n")
    assert replay(path, pair, out, "--fail-under", str(score)) == 1
    assert "missed: square: queries to detection" in capsys.readouterr().err
    score.write_text("nonsense: 1")
    assert replay(path, pair, out, "--fail-under", str(score)) == 2


def test_an_endpoint_that_is_away_ends_the_campaign(tmp_path, dark, pair, capsys):
    path = campaign(tmp_path, dark, model={"name": "other"})
    assert replay(path, pair, tmp_path / "out") == 2
    assert "the control endpoint" in capsys.readouterr().err


def test_one_run_a_directory(tmp_path, dark, pair, capsys):
    with shelf.open_shelf(tmp_path / "out"):
        assert replay(campaign(tmp_path, dark), pair, tmp_path / "out") == 2
    assert "another run writes" in capsys.readouterr().err


def test_ray_is_asked_for_before_anything_is_done(tmp_path, dark, pair, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert replay(campaign(tmp_path, dark), pair, tmp_path / "out", "--ray", "auto") == 2
    assert "pip install ray" in capsys.readouterr().err
    assert not (tmp_path / "out" / "units").exists()


def test_keys_of_a_file(tmp_path, dark, pair, capsys):
    (tmp_path / "keys").write_text("k1\n\nk2\n")
    identities = {"header": "X-Key", "keys_file": str(tmp_path / "keys")}
    assert replay(campaign(tmp_path, dark, identities=identities), pair, tmp_path / "out") == 0
    assert {sent["x-key"] for tiny in pair for sent in tiny.metadata} == {"k1", "k2"}
    assert "k1" not in (tmp_path / "out" / "report.json").read_text()
    (tmp_path / "keys").write_text("\n")
    assert replay(campaign(tmp_path, dark, identities=identities), pair, tmp_path / "other") == 2
    assert "has no keys" in capsys.readouterr().err


# --- Guard itself


@pytest.fixture(scope="module")
def guarded_campaign(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("campaign")
    np.savez(directory / "digits.npz", x=mnist.unit(data.test.images[:900]), y=data.test.labels[:900])
    tree = {
        "name": "digits",
        "victims": 4,
        "chunk": 2,
        "data": {"kind": "npz", "file": "digits.npz"},
        "model": {"name": "mnist", "onnx": str(CHECKPOINT)},
        "targets": {"guarded": {"serve": {"settings": str(SETTINGS), "fit": 600}}, "control": {"serve": {}}},
        "benign": {"images": 30, "callers": 3, "every": 20},
        "attacks": [
            {"attack": "pgd"},
            {"attack": "hop-skip-jump", "budget": 120, "eps": 8.0, "options": {"batch": 16}},
        ],
    }
    (directory / "campaign.yaml").write_text(yaml.safe_dump(tree))
    return directory / "campaign.yaml"


def start(path, out, *more):
    command = [sys.executable, "-m", "adversary", "replay", str(path), "--out", str(out), *more]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process):
    _, said = process.communicate(timeout=170)
    assert process.returncode == 0, said[-3000:]


def units(out):
    return {file.name: file.read_bytes() for file in (out / "units").glob("*.npz")}


def without_run(out):
    told = json.loads((out / "report.json").read_text())
    told.pop("run")
    return told


def kill_once(process, out, wanted):
    """Kill without warning as soon as so many units are stored; the whole of it, as a machine that goes down would."""
    until = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < until:
        if len(list((out / "units").glob("*.json"))) >= wanted:
            break
        time.sleep(0.01)
    killed = process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return killed


@pytest.fixture(scope="module")
def whole(guarded_campaign, tmp_path_factory):
    """A run that nothing interrupts, in two processes."""
    out = tmp_path_factory.mktemp("whole")
    finish(start(guarded_campaign, out, "--jobs", "2"))
    return out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(guarded_campaign, whole, tmp_path):
    out = tmp_path / "out"
    kills = [
        kill_once(start(guarded_campaign, out, "--jobs", str(jobs)), out, wanted)
        for wanted, jobs in ((1, 1), (5, 2), (8, 1))
    ]
    assert all(kills)
    assert len(units(out)) < len(units(whole))
    finish(start(guarded_campaign, out))
    assert units(out) == units(whole)
    assert without_run(out) == without_run(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_stops_quietly(guarded_campaign, tmp_path, number):
    """Amid a hunt: nothing half-done is stored, no failure is told, no Guard is left."""
    process, out = start(guarded_campaign, tmp_path / "out"), tmp_path / "out"
    until = time.monotonic() + 150
    while not list((out / "units").glob("send_control*.json")) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    family = descendants(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "FAILED" not in said
    assert not list((out / "units").glob(".*"))
    until = time.monotonic() + 10  # a worker of its pool hears of the end from its parent
    while any(runs(pid) for pid in family) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(runs(pid) for pid in family)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid):
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(child for one in found for child in descendants(one))]


@pytest.mark.slow
def test_a_guard_of_its_own_is_measured_by_its_own_log(whole):
    made = report.load(whole)
    pgd, walk = made.attacks
    assert pgd.control.success.rate == 1.0
    assert pgd.guarded.success.rate < 1.0
    assert walk.guarded.noticed.rate == 1.0
    assert walk.guarded.queries_to_detection.median < 60
    assert walk.control.noticed.hits == 0
    assert [doubt.code for doubt in made.warnings] == ["few_benign"]
    assert made.targets.guarded.fresh
    assert made.targets.guarded.profile
    assert "feature_squeezing" in made.targets.guarded.settings
    told = json.dumps({**without_run(whole), "campaign_yaml": ""})
    assert str(ROOT) not in told
