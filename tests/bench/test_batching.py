"""A seeded slice of `python -m bench.batching`, and its figures by hand."""

import json

import numpy as np
import pytest

from bench.batching import load, table
from bench.batching.__main__ import CALLERS, main
from bench.batching.load import STAGES, Load
from guard import networks
from guard.batching import Gathering
from guard.networks import CUDA

GATHERING = Gathering(max_wait_s=0.002, max_rows=8, where="everywhere")


def test_a_quick_run_says_all_that_there_is(tmp_path, capsys):
    page, file = tmp_path / "batching.md", tmp_path / "batching.json"
    assert main(["--quick", "--seconds", "0.02", "--docs", str(page), "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.rstrip() in page.read_text()
    document = json.loads(file.read_text())
    assert ("CUDA was not measured" in said) == ("cuda" not in document["devices"])
    told = [(one["device"], one["stage"], one["callers"]) for one in document["measured"]]
    assert told == [(d, stage, callers) for d in document["devices"] for stage in STAGES for callers in CALLERS]
    assert document["made"]["command"] == "python -m bench.batching --quick --seconds 0.02"
    for one in document["measured"]:
        assert one["apart"]["calls_per_s"] > 0
        assert one["batched"]["rows_per_run"] >= 1
        assert one["throughput_ratio"] == sorted(one["throughput_ratio"])
    assert said.count("\n| cpu |") == 2 * len(STAGES) * len(CALLERS)


def test_a_quick_run_writes_nothing_by_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--quick", "--rounds", "1", "--seconds", "0.01"])
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_drawn_by_the_seed():
    first, again = load.inputs(3), load.inputs(3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert all(x.flags.writeable for x in first[0]), "or a network would run on each but once"


@pytest.mark.parametrize("stage", STAGES)
def test_with_batching_and_without_it_is_the_same_stage(stage):
    apart = load.stages("cpu", Gathering(where="nowhere"))[stage]
    batched = load.stages("cpu", GATHERING)[stage]
    for x in load.inputs(1)[0][:4]:
        np.testing.assert_allclose(apart.use(x), batched.use(x), rtol=1e-5, atol=1e-6)
    assert batched.runs == [1.0] * 4
    assert apart.runs == []


def test_callers_at_once_share_runs():
    batched = load.stages("cpu", GATHERING)[STAGES[0]]
    found = load.drive(batched, load.inputs(8), 0.3)
    assert found.rows_per_run > 1
    assert found.calls_per_s > 0
    assert found.cpu_s > 0
    assert len(found.seconds) == sum(batched.runs)


def test_what_is_patched_for_a_device_is_put_back():
    before = dict(networks._sessions)
    load.stages("cpu", GATHERING)
    assert networks.CUDA == CUDA
    assert dict(networks._sessions) == before


def test_figures_by_hand():
    def of(calls_per_s, *ms, rows=1.0):
        return Load(calls_per_s, 1 / calls_per_s, np.array(ms) / 1e3, rows)

    rounds = [(of(100, 1, 2, 3), of(200, 2, 4, 6, rows=3)), (of(100, 1, 1, 1), of(50, 4, 4, 4, rows=5))]
    told = table.told("cpu", "s", 8, rounds)
    assert told["apart"]["calls_per_s"] == 100
    assert told["batched"]["calls_per_s"] == 125
    assert told["batched"]["rows_per_run"] == 4
    assert told["apart"]["median_ms"] == pytest.approx(1.5)
    assert told["apart"]["cpu_ms"] == 10
    assert told["cpu_ratio"] == pytest.approx([0.875, 1.25, 1.625])
    assert told["throughput_ratio"] == pytest.approx([0.875, 1.25, 1.625])
    assert told["median_ratio"] == pytest.approx([2.5, 3, 3.5])
