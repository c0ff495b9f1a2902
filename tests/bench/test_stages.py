"""The bench of what stages cost runs, and reckons by hand-made figures as it should. No speed is asserted."""

import json

import numpy as np
import pytest

from bench.stages import __main__ as command
from bench.stages import inputs, peers, ready, rounds, table
from bench.stages.peers import Agreement, Peer
from bench.stages.rounds import How, Measured, Task
from guard import filters, registry
from guard.types import KINDS
from tests import tiny_networks

SIZE = "28x28x1"


def images(n=4, shape=(28, 28, 1)):
    rng = np.random.default_rng(0)
    pictures, more = (rng.integers(256, size=(count, *shape), dtype=np.uint8) for count in (n, 300))
    return inputs.of("x".join(map(str, shape)), pictures, more, 10)


@pytest.fixture
def small(monkeypatch):
    """Noise instead of real images, four a batch, and a peer that needs no library."""
    art = Peer("a median", lambda _: lambda x: (filters.median(x, 3), None), peers._the_same)
    monkeypatch.setattr(inputs, "SIZES", {SIZE: images})
    monkeypatch.setattr(command, "BATCHES", (1, 4))
    monkeypatch.setattr(peers, "PEERS", {"purifier median": art})
    monkeypatch.setattr(peers, "installed", lambda: True)
    monkeypatch.setattr(peers, "use", lambda peer: lambda x: peer.make(None)(x)[0])


def measured(key="purifier median", size=table.LARGE, ratio=None, **changed):
    theirs = None if ratio is None else ratio * 2.0
    spread = None if ratio is None else (ratio, ratio)
    values = {"batch": 1, "rounds": 3, "further_rows": 0, "ms": 2.0, "ms_quartiles": (2.0, 2.0)}
    return Measured(key=key, size=size, their_ms=theirs, ratio=ratio, ratio_quartiles=spread, **{**values, **changed})


def test_it_runs(small, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    only = ["--only", "median", "--only", "vote", "--only", "fingerprint", "--only", "squeezing", "--only", "rounding"]
    words = ["--quick", *only, "--json", str(tmp_path / "costs.json"), "--docs", str(page)]
    assert command.main(words) in {0, 1}
    found = json.loads((tmp_path / "costs.json").read_text())
    keys = {one["key"] for one in found["measured"]}
    assert keys == {
        "purifier median", "filter median_2", "purifier gaussian_vote",
        "detector feature_squeezing", "output rounding",
    }  # fmt: skip
    assert {(one["size"], one["batch"]) for one in found["measured"]} == {(SIZE, 1), (SIZE, 4)}
    assert all(one["ms"] >= 0 for one in found["measured"])
    assert {one["further_rows"] for one in found["measured"] if one["key"] == "purifier gaussian_vote"} == {8}
    assert [one["within"] for one in found["answers"]] == [True]
    assert found["made"]["command"] == " ".join(["python -m bench.stages --quick", *only])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| purifier median | {SIZE} x 4 |" in text
    assert "of 2 within their bar" in capsys.readouterr().out


@pytest.fixture
def untrained(monkeypatch):
    """Networks of a few weights in place of those that take torch to make."""
    make = {"auxiliary": lambda shape: tiny_networks.auxiliary(shape, classes=10)}
    tiny = lambda name, material, *_, **__: make.get(name, tiny_networks.towards_grey)(material.x.shape[1:])
    monkeypatch.setattr(ready, "train", tiny)
    monkeypatch.setattr(ready, "_hasty", lambda *_: None)


def test_every_stage_can_be_timed(untrained, tmp_path):
    """All kinds, with networks where they are needed."""
    registry.load()
    here = images()
    made = ready.stages(here, tmp_path)
    wanted = {f"{kind} {name}" for kind in KINDS if kind != "monitor" for name in registry.names(kind)}
    assert {one.key for one in made} >= wanted
    for one in made:
        assert isinstance(one, ready.Ready), one
        one.use(here.noisy)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_networks_are_of_the_shapes_that_fitting_makes(tmp_path):
    made = ready.stages(images(), tmp_path, ("learned_denoiser", "onnx_denoiser"))
    assert [type(one) for one in made] == [ready.Ready, ready.Ready]
    x = images().noisy
    np.testing.assert_allclose(*(one.use(x) for one in made), atol=1e-6)


def test_what_a_stage_cannot_serve_is_told(tmp_path):
    made = ready.stages(images(shape=(8, 8, 2)), tmp_path, ("jpeg",))
    assert made == [ready.Unserved("purifier jpeg", "needs images of 1 or 3 channels, not 2")]


def test_pairs_change_who_is_first_and_keep_their_order(monkeypatch):
    went = []
    task = Task("a", SIZE, 2, lambda: went.append("a"), lambda: went.append("b"))
    monkeypatch.setattr(rounds, "cpu_s", lambda call, n: (call(), {"a": 1.0, "b": 6.0}[went[-1]])[1])
    rounds.measure([task], How(4, 0.5), lambda done, total: None)
    assert "".join(went[-8:]) == "abbaabba"
    assert task.taken == [(1.0, 6.0)] * 4
    one = rounds.told(task)
    assert (one.ms, one.their_ms, one.ratio, one.rounds) == (500.0, 3000.0, 6.0, 4)


def test_what_takes_long_has_fewer_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "cpu_s", lambda call, n: 10.0)
    slow = Task("a", SIZE, 1, lambda: None)
    rounds.measure([slow], How(9, 0.5, most_s=15.0), lambda done, total: None)
    assert len(slow.taken) == 3


def test_ratios_are_of_pairs():
    """By hand: 1 and 2, 4 and 2, 1 and 3 seconds; the ratios are 2, 0.5, 3."""
    task = Task("a", SIZE, 4, lambda: None, lambda: None, taken=[(1.0, 2.0), (4.0, 2.0), (1.0, 3.0)])
    one = rounds.told(task)
    assert (one.ratio, one.ratio_quartiles) == (2.0, (1.25, 2.5))
    assert (one.ms, one.their_ms) == (250.0, 500.0)


def test_the_bars():
    found = table.Found(
        [
            measured(ratio=5.0),
            measured("a", ratio=4.9),
            measured("b", SIZE, 1.1),
            measured("c", SIZE, 0.9),
            measured("d"),
        ],
        {("purifier median", SIZE): Agreement(True, "equal"), ("purifier jpeg", SIZE): Agreement(False, "far")},
        {},
    )
    assert [one.key for one in table.short(found)] == ["a", "c"]
    assert table.unequal(found) == ["purifier jpeg (28x28x1)"]
    assert table.verdict(found).startswith("2 of 4 within their bar; below it: a at 224x224x3 x 1 (4.9), c at")


def test_without_the_library_ours_are_told_alone():
    found = table.Found([measured()], {}, {SIZE: [ready.Unserved("detector x", "why")]})
    made = table.Made("python -m bench.stages", "a machine", {"numpy": "2"}, "2026-01-01", (0.1, 0.2), How())
    text = table.markdown(found, made)
    assert "| purifier median | 0 | 2 |" in text
    assert "- detector x does not serve 28x28x1: why." in text
    assert "ratio" not in text
    assert "was not there to compare with" in text


@pytest.mark.parametrize(("ours", "within"), [(0.0, True), (1.0, False)])
def test_answers_are_compared(ours, within):
    here = images()
    agreement = peers._the_same(lambda x: x + ours, lambda x: x, here)
    assert agreement.within is within


def test_the_objective_by_hand():
    """Two pixels 0.2 and 0.6, moved to 0.3 and 0.5: 0.5 * 0.02 + 0.1 * 0.2."""
    x, u = (np.array(values).reshape(1, 1, 2, 1) for values in ([0.2, 0.6], [0.3, 0.5]))
    assert peers.objective(u, x, 0.1) == pytest.approx(0.03)


def test_a_page_without_its_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="lacks"):
        table.put(page, "text")
    assert page.read_text() == "nothing"


def test_the_results_page_has_its_marks():
    text = (command.Path(__file__).parents[2] / "docs" / "results" / "stages.md").read_text()
    assert text.index(table.BEGIN) < text.index(table.END)


def test_the_library_agrees():
    pytest.importorskip("art")
    here = inputs.of(
        "x", np.random.default_rng(0).integers(256, size=(4, 16, 16, 3), dtype=np.uint8), np.zeros((1, 1, 1, 3)), 2
    )
    for key, peer in peers.PEERS.items():
        (one,) = (one for one in ready.stages(here, command.Path(), (key,)) if one.key == key)
        assert peer.compare(one.use, peers.use(peer), here).within is not False
