"""Interleaving: a monitor that looks at a caller's last queries sees mostly harmless ones."""

import numpy as np
import pytest

from adversary.catalogue import CATALOGUE
from adversary.gradients import predict
from tests.adversary.adaptive.defences import known
from tests.adversary.evasion.oracles import linear

interleave = CATALOGUE["interleave-square"].load()


def run(oracle, x, y, *, eps=0.2, budget=400, seed=0, **options):
    return interleave(oracle, x, y, eps=eps, budget=budget, rng=np.random.default_rng(seed), **options)


def test_a_small_share_slips_past_a_monitor_of_the_last_queries(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    won = []
    for share in (1.0, 0.2):
        found = []
        for i in range(len(x)):
            monitor = known(victim, radius=3.0, most=8, window=20)
            budget = int(200 / share)
            found.append(
                run(monitor, x[i : i + 1], y[i : i + 1], share=share, budget=budget, benign=prey[0][20:]).x_adv
            )
        won.append((predict(victim, np.concatenate(found)) != y).mean())
    assert won[0] <= 0.4
    assert won[1] > 0.8


def test_the_share_is_kept_and_the_crowd_is_the_one_given(victim, prey):
    oracle, benign = known(victim), prey[0][20:30]
    result = run(oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=1000, share=0.25, benign=benign)
    sent = np.stack(oracle.rows[0])
    crowd = (np.abs(sent[:, None] - benign.reshape(10, -1)).max(axis=2) == 0).any(axis=1)
    assert result.queries.tolist() == [1000]
    assert crowd.mean() == pytest.approx(0.75, abs=0.01)
    assert set(oracle.calls) == {1}
    assert set(np.flatnonzero(~crowd) % 4) == {0, 1, 2, 3}  # anywhere among them


def test_a_batch_travels_in_calls_of_its_own_size(victim, prey):
    oracle = known(victim)
    run(oracle, prey[0][:1], prey[1][:1], budget=84, share=0.25, base="nes", options={"samples": 20})
    assert oracle.calls == [21] * 4


def test_answers_come_back_to_their_rows(victim, prey):
    """The same attack out in the open: the crowd changes nothing of what it learns."""
    x, y = prey[0][:1], prey[1][:1]
    oracles = known(victim), known(victim)
    nes = {"samples": 20, "batch": 64}
    open_, hidden = (
        run(oracle, x, y, budget=int(63 / share), share=share, base="nes", benign=prey[0][20:], options=nes)
        for oracle, share in zip(oracles, (1.0, 0.25), strict=True)
    )
    assert (open_.queries[0], hidden.queries[0]) == (63, 252)
    for result in (open_, hidden):  # each went uphill: the label lost probability
        before, after = (known(victim).probabilities(z)[0, y[0]] for z in (x, result.x_adv))
        assert after < before


@pytest.mark.parametrize("shape", [(1, 12, 12), (12, 12, 3), (9,)])
def test_without_data_a_crowd_is_made_up(shape):
    x = np.full((1, *shape), 0.5, np.float32)
    shown = []
    oracle = linear(np.ones(shape), np.prod(shape))
    original = oracle.logits
    oracle.logits = lambda rows: shown.extend(rows) or original(rows)
    base = {"base": "nes", "options": {"samples": 2}} if len(shape) == 1 else {}
    run(oracle, x, np.array([0]), eps=0.01, budget=60, share=0.1, **base)
    far = [row for row in shown if np.abs(row - x[0]).max() > 0.02]
    assert len(far) >= 50
    assert len({row.tobytes() for row in far}) == len(far)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_an_error(victim, prey, share):
    with pytest.raises(ValueError, match="share"):
        run(known(victim), prey[0][:1], prey[1][:1], share=share)
