"""Thieves behind the ladder in small, on MNIST; beside the victim alone."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.ladder import __main__ as command
from bench.ladder import arms, bars, clones, document, recovery, sets, table
from bench.ladder.arms import BARE, DEGRADED, FULL, OUTCOMES, REFUSED, THROTTLED
from bench.ladder.asking import Asking
from bench.ladder.clones import Clone, averaged
from bench.ladder.document import Scale
from bench.ladder.honest import NOBODY, Honest
from bench.ladder.making import Making
from bench.monitors import ground as grounds
from bench.monitors import guarded, kept
from bench.monitors.ground import ground, softmax

ROWS = 60
MANUAL = arms.ARMS[document.RECOMMENDED]
RATE, BURST = 0.2, 5  # of the policy's throttle


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """What is made here stays here; two monitors, fitted on few rows, that act at once; a copy learns for a moment."""
    place = tmp_path_factory.mktemp("bench-ladder")
    with pytest.MonkeyPatch.context() as patch:
        for module in (kept, arms, guarded, document):
            patch.setattr(module, "home", lambda: place)
        whole = grounds.ground("mnist")
        small = replace(whole, learn=whole.learn.part(slice(0, 600)), test=whole.test.part(slice(0, 2000)))
        patch.setitem(grounds._GROUNDS, "mnist", lambda: small)
        grounds.ground.cache_clear()
        few = guarded.Defence(monitors=("embedding_novelty", "fingerprint"), clean=800)
        patch.setattr(arms, "DEFAULT", few)
        patch.setattr(arms, "WARM", 20)
        at_once = {arm: {**one, "policy": {**one.get("policy", {}), "lag_rows": 1}} for arm, one in arms.ARMS.items()}
        patch.setattr(arms, "ARMS", at_once)
        patch.setattr(clones, "STEPS", 20)
        arms.engine.cache_clear()
        yield place
    grounds.ground.cache_clear()
    arms.engine.cache_clear()


def asked(arm, n=ROWS, **options):
    one = Asking("mnist", "noise", arm, n, **options)
    return one.queries(), one.made()


def test_queries_repeat_themselves_and_are_images():
    for which in ("photos", "noise", "own"):
        x = sets.queries("mnist", which, 12, 3)
        assert x.shape == (12, 1, 28, 28)
        assert x.dtype == np.float32
        assert 0.0 <= x.min() < x.max() <= 1.0
        assert np.array_equal(x, sets.queries("mnist", which, 12, 3))
        assert not np.array_equal(x, sets.queries("mnist", which, 12, 4))


def test_who_averages_sends_each_image_often_and_never_the_same():
    x = sets.queries("mnist", "own", 12, 0, repeats=4).reshape(3, 4, -1)
    assert len(np.unique(x.reshape(12, -1), axis=0)) == 12
    within, across = np.abs(x[:, 0] - x[:, 1]).mean(), np.abs(x[0] - x[1]).mean()
    assert 0.0 < within < 2 * sets.JITTER < across


def test_the_victim_alone_answers_everything():
    x, got = asked(BARE)
    assert (got["outcome"] == FULL).all()
    assert np.allclose(got["p"], softmax(ground("mnist").model.logits(x)))


def test_the_default_policy_refuses_a_thief_from_some_row_on():
    _, got = asked("deny")
    first = int(np.argmax(got["outcome"] == REFUSED))
    assert 0 < first < 30
    assert (got["outcome"][:first] == FULL).all()
    assert (got["outcome"][first:] == REFUSED).all()
    assert np.isnan(got["p"][first:]).all()


def test_a_thief_in_a_hurry_is_throttled_and_misled():
    x, got = asked("mislead")
    hostile, outcome = got["level"] == 3, got["outcome"]
    assert set(outcome[hostile]) == {DEGRADED, THROTTLED}
    most = BURST + RATE * arms.STEP_S * hostile.sum() + 1
    assert BURST <= (outcome[hostile] == DEGRADED).sum() <= most
    wrong = got["p"].argmax(axis=1) != ground("mnist").model.labels(x)
    assert wrong[hostile & (outcome == DEGRADED)].all()
    assert not wrong[~hostile].any()


def test_who_waits_gets_every_answer_later_and_wrong_once_he_is_hostile():
    x, got = asked("mislead", patient=True)
    hurried = asked("mislead")[1]
    assert set(got["outcome"]) <= {FULL, DEGRADED}
    assert got["seconds"] > hurried["seconds"] + 0.5 * ((got["level"] == 3).sum() - BURST) / RATE
    wrong = got["p"].argmax(axis=1) != ground("mnist").model.labels(x)
    assert wrong.tolist() == (got["level"] == 3).tolist()


def test_the_ladder_that_keeps_labels_tells_a_hostile_caller_nothing_else():
    x, got = asked("labels", patient=True)
    hostile = got["level"] == 3
    assert (got["p"].argmax(axis=1) == ground("mnist").model.labels(x)).all()
    assert hostile.sum() > ROWS / 2
    assert np.allclose(got["p"][hostile].max(axis=1), 1.0)


def test_who_spreads_over_accounts_is_answered_more():
    alone, spread = (asked("deny", accounts=n)[1]["outcome"] for n in (1, 10))
    assert (spread == FULL).sum() > 2 * (alone == FULL).sum()


def test_answers_to_copies_are_averaged_and_what_did_not_come_is_left_out():
    x = np.array([[0.0], [2.0], [4.0], [6.0], [8.0], [8.0]], np.float32)
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2])
    loot = averaged(x, p, 2)
    assert loot.x.tolist() == [[1.0], [5.0]]
    assert loot.p.tolist() == [[0.75, 0.25], [0.2, 0.8]]


@pytest.fixture
def shadow(monkeypatch):
    """Answers of no network, to images of nothing."""
    rng = np.random.default_rng(0)
    p, calm = (softmax(3.0 * rng.standard_normal((n, 10))) for n in (400, 200))
    monkeypatch.setattr(recovery, "_shadow", lambda _data: (rng.random((400, 28, 28, 1)), p, calm))
    monkeypatch.setattr(recovery, "_STEPS", 300)
    recovery._network.cache_clear()
    yield p
    recovery._network.cache_clear()


def test_labels_are_recovered_as_what_usually_stands_behind_one(shadow):
    made = recovery.recovered("mnist", "labels", np.eye(10)[[3, 7]])
    assert made.argmax(axis=1).tolist() == [3, 7]
    assert made[0, 3] == pytest.approx(shadow.max(axis=1).mean(), abs=0.08)
    assert np.allclose(made.sum(axis=1), 1.0)
    assert np.ptp(np.delete(made[0], 3)) < 1e-9  # nothing tells them apart


def test_what_is_always_wrong_is_recovered_as_what_it_is_not(shadow):
    x = np.random.default_rng(1).random((len(shadow), 28, 28, 1))
    told = recovery.protected("mislead", x, shadow, shadow)
    assert (told.argmax(axis=1) != shadow.argmax(axis=1)).all()
    made = recovery.recovered("mnist", "mislead", told)
    led = made[np.arange(len(told)), told.argmax(axis=1)]
    assert led.mean() < 0.1
    order = np.arange(9, -1, -1)
    assert np.allclose(recovery.recovered("mnist", "mislead", told[:, order])[:, order], made, atol=1e-6)


def test_a_copy_that_was_refused_knows_less_and_is_made_once(home):
    bare = Clone(Asking("mnist", "own", BARE, 600)).agrees()
    denied = Clone(Asking("mnist", "noise", "deny", ROWS))
    assert bare.mean() > denied.agrees().mean() + 0.2
    before = sorted(path.name for path in home.rglob("*.npz"))
    assert len(denied.loot()) < 30
    denied.do()
    assert sorted(path.name for path in home.rglob("*.npz")) == before


def test_attacks_that_make_their_queries_meet_the_ladder_too():
    bare, guarded_ = (Making("mnist", "data-free", arm, 60).made() for arm in (BARE, "mislead"))
    assert bare["outcome"].tolist() == [FULL] * 60
    assert len(guarded_["outcome"]) == 60
    assert (guarded_["outcome"] == THROTTLED).any()


def test_honest_callers_are_answered_as_without_the_ladder():
    made = Honest("mnist", "natural", "mislead", most=200).made()
    found = document.clean([made])
    assert found["rows"] == found["judged"] == 200
    assert found["outcomes"][OUTCOMES[REFUSED]] == 0
    assert found["with"] == found["without"]
    assert found["without"]["rate"] > 0.9


def test_accuracy_counts_rows_that_were_not_answered_as_wrong():
    part = {
        "truth": np.array([1, 1, 2, NOBODY]), "own": np.array([1, 1, 0, 5]), "told": np.array([1, NOBODY, 2, 5]),
        "outcome": np.array([FULL, REFUSED, DEGRADED, FULL]), "level": np.array([0, 3, 2, 0]),
        "caller": np.array([0, 1, 1, 2]),
    }  # fmt: skip
    found = document.clean([part, part])
    assert (found["callers"], found["rows"], found["judged"], found["changed"]["hits"]) == (6, 8, 6, 4)
    assert found["points"] == 0.0  # one lost, one won
    assert found["low"] < -30 < 30 < found["high"]
    assert found["outcomes"] == dict(zip(OUTCOMES, (4, 2, 0, 2), strict=True))


def test_points_lost_are_paired():
    bare, with_it = np.array([1, 1, 1, 0] * 25, bool), np.array([1, 0, 0, 0] * 25, bool)
    found = document.lost(bare, with_it)
    assert found["points"] == pytest.approx(50.0)
    assert found["high"] - found["points"] == pytest.approx(1.96 * 50.0 / 10.0, rel=1e-3)
    assert document.lost(bare, bare) == {"points": 0.0, "low": 0.0, "high": 0.0}


def test_the_plan_has_every_thief_of_the_bar():
    keys = [run.key for run in document.runs(Scale())]
    assert keys[0] == {"queried": "photos", "way": "scores", "arm": BARE, "patient": False, "accounts": 1, "seed": 0,
                       "rows": 20_000}  # fmt: skip
    assert len({str(key) for key in keys}) == len(keys)
    there = {(key["queried"], key["way"]) for key in keys}
    assert there >= {("photos", way) for way in document.WAYS} | {("own", "scores"), ("data-free", "scores")}
    bare = {(key["queried"], key["way"], key["rows"]) for key in keys if key["arm"] == BARE}
    assert all(tuple(run.bare().key[name] for name in ("queried", "way", "rows")) in bare for run in
               document.runs(Scale()))  # fmt: skip


def test_the_page_tells_of_misses_and_of_thieves_without_a_bar(tmp_path):
    scale = Scale(data="mnist", main=ROWS, own=ROWS, side=20, small=10, made=(), accounts=(), honest=("natural",),
                  blocks=1, most=60, photos="noise")  # fmt: skip
    some = [run for run in document.runs(scale) if run.key["way"] == "scores" and run.key["queried"] in {"noise",
            "own"} and run.key["arm"] in {BARE, "deny"} and run.key["rows"] == ROWS]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "runs", lambda _scale: some)
        assert command.measured(scale, "none", done=True)["thieves"] == []
        found = command.measured(scale, "the slice")
        assert command.measured(scale, "again", done=True)["thieves"] == found["thieves"]
    assert [(one["queried"], one["arm"]) for one in found["thieves"]] == [
        ("noise", BARE), ("own", BARE), ("noise", "deny"), ("own", "deny"),
    ]  # fmt: skip
    assert found["thieves"][2]["lost"]["points"] == pytest.approx(
        100 * (found["thieves"][0]["agreement"]["rate"] - found["thieves"][2]["agreement"]["rate"])
    )
    text = table.markdown(found)
    assert all(one["what"] in text for one in found["bars"])
    assert not any(one["what"].startswith("own") for one in found["bars"])
    assert "## Images of the victim's own kind" in text
    page = tmp_path / "ladder.md"
    table.put(page, text)
    table.put(page, "new\n")
    assert page.read_text(encoding="utf-8").endswith(f"{table.BEGIN}\nnew\n{table.END}\n")


def test_a_loss_that_is_too_small_is_a_miss():
    one = {"queried": "photos", "way": "scores", "arm": "mislead", "patient": True, "accounts": 10, "seed": 1,
           "agreement": {"rate": 0.3}, "lost": {"points": 12.0, "low": 11.0, "high": 13.0}}  # fmt: skip
    shown = {"queried": "own", "arm": "mislead", "way": "scores"}
    clean = {"kind": "natural", "arm": "mislead", "points": -0.6, "low": -0.7, "high": -0.5}
    found = bars.judged({"thieves": [one, shown], "honest": [clean, {**clean, "points": -0.5}]})
    assert [bar.held for bar in found] == [False, False, True]
    assert found[0].what == "photos, scores, mislead, patient, 10 accounts, seed 1: agreement lost"
    assert found[0].measured == "12.0 (11.0 to 13.0), of 42.0 %"


def test_the_recommended_ladder_is_the_one_in_the_manual():
    page = (Path(__file__).parents[2] / "docs" / "respond.md").read_text(encoding="utf-8")
    trees = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    (model,) = (one for tree in trees for one in tree.get("models", ()) if one["name"] == "cifar10")
    assert (model["outputs"], model["policy"]) == (MANUAL["outputs"], MANUAL["policy"])
    assert tuple(stage["stage"] for stage in model["monitors"]) == guarded.DEFAULT.named
