import numpy as np
import onnxruntime
import pytest
import torch

from adversary.data import mnist
from adversary.victims import mnist_linear as victims


def test_the_checkpoint_is_as_good_as_softmax_regression_gets(data):
    assert 0.915 <= victims.accuracy(victims.load(), data.test) <= 0.935


def test_the_checkpoint_and_the_module_agree(data):
    x = mnist.unit(data.test.images[:65])
    session = onnxruntime.InferenceSession(victims.CHECKPOINT, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = victims.load()(torch.from_numpy(x)).numpy()
    assert np.allclose(session.run(["logits"], {"image": x})[0], expected, atol=1e-4)


def test_it_is_linear(data):
    x = torch.from_numpy(mnist.unit(data.test.images[:2]))
    model = victims.load()
    with torch.no_grad():
        assert torch.allclose(model(x.mean(0, keepdim=True)), model(x).mean(0, keepdim=True), atol=1e-4)


def test_training_repeats_itself(data):
    split = data.learn.part(slice(0, 2000))
    first, again = (victims.train(split, seed=3, epochs=2) for _ in range(2))
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert not torch.equal(first.linear.weight, victims.train(split, seed=4, epochs=2).linear.weight)
    assert victims.accuracy(first, data.test) > 0.7


@pytest.mark.slow
def test_the_checkpoint_can_be_made_again(data, tmp_path):
    if len(data.train) < 60_000:
        pytest.skip("made from all of MNIST")
    out = tmp_path / "again.onnx"
    assert victims.main(["--out", str(out)]) == 0
    again, kept = victims.load(out), victims.load()
    x = torch.from_numpy(mnist.unit(data.test.images[:1000]))
    with torch.no_grad():
        assert (again(x).argmax(1) == kept(x).argmax(1)).float().mean() > 0.99
