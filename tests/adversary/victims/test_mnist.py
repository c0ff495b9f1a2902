import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adversary.data import mnist
from adversary.victims import mnist as victims


def answers(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": x})[0]


def test_the_checkpoint_is_right_on_99_percent(data):
    model = victims.load()
    assert victims.accuracy(model, data.test) >= 0.99


@pytest.mark.parametrize("rows", [1, 2, 65])
def test_the_checkpoint_and_the_module_agree(data, rows):
    x = mnist.unit(data.test.images[:rows])
    with torch.no_grad():
        expected = victims.load()(torch.from_numpy(x)).numpy()
    assert np.allclose(answers(victims.CHECKPOINT.read_bytes(), x), expected, atol=1e-4)


def test_the_checkpoint_is_small_and_says_nothing_of_its_maker():
    content = victims.CHECKPOINT.read_bytes()
    assert len(content) < 5_000_000
    assert b".py" not in content
    tensors = onnx.load_from_string(content).graph
    assert [t.name for t in tensors.input] == ["image"]
    assert [t.name for t in tensors.output] == ["logits"]


@pytest.fixture(scope="module")
def split() -> mnist.Split:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    images = rng.integers(0, 30, (512, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        images[i, 4 : 5 + 2 * label] = 255  # a bar whose height is the label
    return mnist.Split(images, labels)


def test_training_learns_and_repeats_itself(split):
    first = victims.train(split, seed=3, epochs=20)
    second = victims.train(split, seed=3, epochs=20)
    assert victims.accuracy(first, split) > 0.9
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    other = victims.train(split, seed=4, epochs=1)
    assert not torch.equal(other.fc2.weight, first.fc2.weight)


def test_the_number_of_threads_does_not_matter(split):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = victims.train(split, epochs=1)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = victims.train(split, epochs=1)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_export_and_load_give_the_same_network(split, tmp_path):
    model = victims.train(split, epochs=1)
    path = tmp_path / "v.onnx"
    path.write_bytes(victims.export(model))
    x = torch.from_numpy(mnist.unit(split.images[:5]))
    with torch.no_grad():
        assert torch.equal(victims.load(path)(x), model(x))
        assert np.allclose(answers(path.read_bytes(), x.numpy()), model(x).numpy(), atol=1e-4)


def test_load_refuses_another_network(tmp_path):
    path = tmp_path / "other.onnx"
    proto = onnx.load(victims.CHECKPOINT)
    del proto.graph.initializer[:]
    onnx.save(proto, path)
    with pytest.raises(ValueError, match=r"is not this victim: conv1\.weight"):
        victims.load(path)


def test_the_command_trains_and_says_how_good_it_is(tmp_path, split, capsys):
    data = tmp_path / "idx"
    data.mkdir()
    for name in ("train", "t10k"):
        header = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in split.images.shape)
        (data / f"{name}-images-idx3-ubyte").write_bytes(header + split.images.tobytes())
        labels = bytes((0, 0, 8, 1)) + len(split).to_bytes(4, "big") + split.labels.astype(np.uint8).tobytes()
        (data / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    out = tmp_path / "v.onnx"
    assert victims.main(["--out", str(out), "--data", str(data), "--epochs", "1"]) == 0
    assert "test accuracy" in capsys.readouterr().err
    assert victims.load(out).fc2.out_features == 10


def test_the_command_without_data(tmp_path, capsys):
    assert victims.main(["--out", str(tmp_path / "v.onnx"), "--data", str(tmp_path)]) == 1
    assert "lacks" in capsys.readouterr().err
    assert not (tmp_path / "v.onnx").exists()
