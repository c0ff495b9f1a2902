import numpy as np
import pytest
import torch

from adversary import tensors
from adversary.gradients import BATCH, predict
from tests.adversary.evasion.models import colour, planes


def test_rows_and_classes_share_no_memory():
    x, y = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    tensors.rows(x)[0] = 1.0
    tensors.classes(y)[0] = 1
    assert not x.any()
    assert not y.any()


def test_the_margin_is_above_zero_where_the_model_is_wrong():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    assert tensors.margin(logits, torch.tensor([1, 0])).tolist() == [-1.0, 2.0]


def test_the_runner_up_is_the_best_wrong_class(victim, prey):
    x, y = prey[0][:5], prey[1][:5]
    with torch.no_grad():
        ranked = victim(torch.from_numpy(x)).argsort(1, descending=True).numpy()
    assert tensors.runner_up(victim, x, y).tolist() == ranked[:, 1].tolist()
    assert tensors.runner_up(victim, x[:0], y[:0]).shape == (0,)


def test_batches_come_back_in_order_and_in_bounds():
    n = 2 * BATCH + 3
    x = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    sizes = []

    def craft(a, b):
        sizes.append(len(a))
        return a * 2.0, b * 3

    x_adv, cost = tensors.batched(craft, x, np.arange(n))
    assert sizes == [BATCH, BATCH, 3]
    assert x_adv[:, 0].tolist() == pytest.approx(np.minimum(2 * x[:, 0], 1.0).tolist())
    assert cost.tolist() == (3 * np.arange(n)).tolist()


@pytest.mark.parametrize("layout", ["first", "last"])
def test_a_model_sees_its_own_layout(layout):
    x = torch.rand(2, 3, 12, 12)
    shape = (3, 12, 12) if layout == "first" else (12, 12, 3)
    assert torch.equal(tensors.on_planes(colour(layout), shape)(x), colour("first")(x))


def test_a_grey_model_without_channels():
    seen = []
    tensors.on_planes(lambda x: seen.append(x.shape), (5, 6))(torch.zeros(2, 1, 5, 6))
    assert seen == [(2, 5, 6)]


def test_a_local_oracle_answers_as_the_model_does():
    model = planes([[0.0, 0.0], [1.0, -1.0]])
    x = np.array([[0.9, 0.1], [0.2, 0.4]], np.float32)
    oracle = tensors.LocalOracle(model)
    p = oracle.probabilities(x)
    assert p.dtype == np.float64
    assert p[:, 1].tolist() == pytest.approx([1 / (1 + np.exp(-0.8)), 1 / (1 + np.exp(0.2))])
    assert oracle.labels(x).tolist() == predict(model, x).tolist() == [1, 0]
