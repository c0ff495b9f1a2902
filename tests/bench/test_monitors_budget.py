"""What the budget leaves of a copy, in small: refused and degraded thieves beside undefended and spread ones."""

from dataclasses import replace

import numpy as np
import pytest

from bench.monitors import benign, copies, guarded, kept, spending, table, thefts
from bench.monitors.client import Bare, Told
from bench.monitors.ground import ground
from bench.monitors.spending import Spending, Turns
from guard.learning import extraction_curve
from guard.learning._training import Pace

QUERIES = 240
DENY = Spending("deny", (("hostile_at", 0.5),), (("lag_rows", "1"),), alone=True)
DEGRADE = Spending("degrade", (("suspect_at", 0.4),), (("on_suspect", "degrade"), ("lag_rows", "1")), alone=True)


class Echo:
    """Answers everything, and keeps who asked."""

    def __init__(self):
        self.callers = []

    def answer(self, x, caller):
        self.callers += [caller] * len(x)
        nothing = np.zeros(len(x), bool)
        return Told(np.full((len(x), 2), 0.5), np.zeros(len(x), int), nothing, nothing)


def test_what_was_kept_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "home", lambda: tmp_path)

    class Unit:
        name = "one"

    made = []

    def make():
        made.append(1)
        return {"a": np.arange(3)}, {"by": {"x": 2}}

    for _ in range(2):
        arrays, facts = kept.with_facts(Unit(), make)
        assert arrays["a"].tolist() == [0, 1, 2]
        assert facts["by"] == {"x": 2}
    assert kept.once(Unit(), lambda: pytest.fail("made again"))["a"].tolist() == [0, 1, 2]
    assert made == [1]


def test_rows_are_dealt_out_to_accounts_in_turn():
    echo = Echo()
    service = Turns(echo, 3)
    told = [service.answer(np.zeros((n, 2)), "thief") for n in (2, 3)]
    assert echo.callers == ["thief-0", "thief-1", "thief-2", "thief-0", "thief-1"]
    assert [len(one.p) for one in told] == [2, 3]


def test_the_thief_who_guesses_learns_from_what_he_is_sure_of_alone():
    class Net:
        def __call__(self, x):
            return x * 10.0

    rows = np.array([[1.0, 0.0], [0.1, 0.0], [0.0, 1.0]], np.float32)
    loot = copies.guessed(Net(), rows, 2)
    assert loot.x.tolist() == rows[[0, 2]].tolist()
    assert loot.labels.tolist() == [0, 1]
    assert copies.long(64) == copies.STEPS
    assert copies.long(10**6) == copies.EPOCHS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A curve of few and hasty students, by `guard fit`'s own function."""
    home = tmp_path_factory.mktemp("bench-monitors")
    with pytest.MonkeyPatch.context() as patch:
        for module in (kept, guarded, spending):
            patch.setattr(module, "home", lambda: home)
        whole = ground("mnist")
        some = slice(0, 600)
        small = replace(whole, learn=whole.learn.part(some), clean=whole.clean.part(some))
        patch.setattr(spending, "ground", lambda _name: small)
        patch.setattr(extraction_curve, "COUNTS", (30, 100))
        pace = Pace(epochs=1, least=120, most=120, batch=32, rate=0.1, average=0.9)
        patch.setattr(extraction_curve, "pace", lambda _shape: pace)
        spending.make("mnist")
        yield spending.curve("mnist")


def stolen(service):
    return thefts.copied("mnist", service, 0, most=QUERIES)


def test_a_thief_is_refused_where_the_curve_says_so(world):
    rows = world.rows_for(0.5)
    assert 5 < rows < 150
    bare, denied = stolen(Bare(ground("mnist").model)), stolen(spending.spent("mnist", 0, DENY))
    assert bare["answered"] == QUERIES  # the control
    assert denied["answered"] == pytest.approx(rows, abs=1.5)
    assert denied["levels"].tolist() == sorted(denied["levels"].tolist())
    assert denied["agrees"].mean() < bare["agrees"].mean() - 0.05


def test_who_spreads_over_accounts_is_not(world):
    many = stolen(Turns(spending.spent("mnist", 0, DENY), 50))
    assert many["answered"] == QUERIES  # the bypass that is known


def test_a_degraded_answer_has_a_label_and_no_more(world):
    service, x = spending.spent("mnist", 0, DEGRADE), thefts.pool("mnist", "own")[:QUERIES]
    told = service.answer(x, "thief")
    first = int(np.argmax(told.level >= 2))
    assert not told.refused.any()
    assert 1 < first < QUERIES - 1
    assert told.p[:first].max(axis=1).min() < 0.999
    assert np.allclose(told.p[first:].max(axis=1), 1.0)
    assert (told.p.argmax(axis=1) == ground("mnist").model.labels(x)).all()


def test_a_busy_benign_caller_reaches_a_level_too(world):
    made = benign.asked(spending.spent("mnist", 0, spending.ALONE), "natural", 0, 0, 400)
    assert made["rows"].sum() == 400
    assert made["refused"].sum() == 0
    some = made["rows"] > 0
    assert (made["level"][some] >= 1).tolist() == [world.at(n) >= 0.5 for n in made["rows"][some]]


def test_the_page_tells_how_far_the_estimate_is_off():
    part = {
        "curve": {"counts": [30, 100], "agreement": [0.5, 0.8], "rows_for": {"0.5": 30.0, "0.9": None}},
        "copies": [{"thief": "longer", "budget": 30, "estimate": 0.5, "agreement": [0.6, 0.7]}],
        "effect": [{"victim": "both", "accounts": 10, "sent": [50, 50], "answered": [20, 30],
                    "levels": [[5, 9, -1], [7, -1, -1]], "each": [0.5, 0.7],
                    "agreement": {"hits": 6, "n": 10, "rate": 0.6, "interval_95": [0.3, 0.8]}}],
        "benign": {},
    }  # fmt: skip
    text = "\n".join(table._budget(part))
    assert "| longer | 30 | 50.0 | 65.0 | 60.0, 70.0 | -15.0 |" in text
    assert "| both | 10 | 50 | 25 | 5 | 9 | - | 60.0 (30.0 to 80.0) | 50.0, 70.0 |" in text
