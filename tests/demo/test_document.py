import json

import numpy as np
import pytest

from demo import document
from demo.measure import Latency
from demo.plan import Plan
from tests.demo import samples


def test_clean_traffic():
    part = document.clean_part(samples.CLEAN_BARE, samples.CLEAN_GUARDED, samples.Y, samples.VERDICTS)
    assert part["bare_accuracy"]["rate"] == 0.75
    assert part["guarded_accuracy"]["rate"] == 0.5
    assert part["refused"]["hits"] == 2
    assert part["changed_answers"]["hits"] == 0
    assert part["callers_flagged"] == {**part["callers_flagged"], "hits": 1, "n": 2}


def test_an_attack():
    part = document.attack_part(samples.duel(), samples.VERDICTS)
    assert (part["bare_success"]["hits"], part["guarded_success"]["hits"], part["detected"]["hits"]) == (3, 1, 2)
    assert part["detected"]["n"] == 3  # of what fools the bare model
    assert part["queries_to_detection"] == 2.0
    assert part["queries_to_flagged_caller"] is None
    assert part["right_when_purified"] == {**part["right_when_purified"], "hits": 2, "n": 3}


def test_the_flagged_caller_of_an_attack_through_the_wire():
    records = [samples.record(5, "a0", 0), samples.record(50, "a1", 0), samples.record(9, "a0", 1)]
    part = document.attack_part(samples.duel(records=records), samples.VERDICTS)
    assert part["queries_to_flagged_caller"] == 55.0


def test_feature_squeezing_beside_its_paper():
    part = document.paper_part(samples.CLEAN_GUARDED, [samples.duel()], samples.VERDICTS)
    measured = part["false_positive_rate"]["measured"]
    assert (measured["hits"], measured["n"]) == (1, 3)  # the lost decision is not counted as good
    found = part["detected"]["FGSM <eps> 0.3"]
    assert (found["hits"], found["n"]) == (1, 2)  # of what fooled the bare model and was looked at
    assert part["mean"] == 0.5


def test_latency_is_a_ratio_of_pairs():
    part = document.latency_part(samples.LATENCY)
    assert part["ratio"] == 3.0
    assert part["quartiles"] == pytest.approx([2.75, 3.25])
    assert document.latency_part(Latency(np.zeros(0), np.zeros(0)))["ratio"] is None


def test_where_it_came_from_is_json():
    made = document.provenance(Plan(), ["python", "-m", "demo"], data="d")
    assert json.loads(json.dumps(made, allow_nan=False))["plan"]["seed"] == 0
    assert made["versions"]["numpy"] == np.__version__
    assert made["digests"] == {"data": "d"}
