import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adversary.data import cifar10
from adversary.data.split import Split
from adversary.victims import cifar10 as victims
from adversary.victims import cifar10_overfit

BOTH = pytest.mark.parametrize("made", [victims, cifar10_overfit], ids=["resnet", "overfit"])


def answers(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": x})[0]


def test_the_checkpoint_is_right_on_85_percent(cifar, cifar_victim):
    assert victims.accuracy(cifar_victim, cifar.test.part(slice(2000))) >= 0.85


@BOTH
@pytest.mark.parametrize("rows", [1, 2, 65])
def test_the_checkpoint_and_the_module_agree(cifar, made, rows):
    x = cifar10.unit(cifar.test.images[:rows])
    with torch.no_grad():
        expected = made.load()(torch.from_numpy(x)).numpy()
    assert np.allclose(answers(made.CHECKPOINT.read_bytes(), x), expected, atol=1e-4)


@BOTH
def test_the_checkpoint_is_small_and_says_nothing_of_its_maker(made):
    content = made.CHECKPOINT.read_bytes()
    assert len(content) < 5_000_000
    assert b".py" not in content
    graph = onnx.load_from_string(content).graph
    assert [t.name for t in graph.input] == ["image"]
    assert [t.name for t in graph.output] == ["logits"]
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim][1:] == [3, 32, 32]


@BOTH
def test_load_refuses_another_network(made, tmp_path):
    path = tmp_path / "other.onnx"
    proto = onnx.load(made.CHECKPOINT)
    del proto.graph.initializer[:]
    onnx.save(proto, path)
    with pytest.raises(ValueError, match=r"is not this victim: \w+\.weight"):
        made.load(path)


@pytest.fixture(scope="module")
def split() -> Split:
    """Noise, tinted by the label."""
    rng = np.random.default_rng(0)
    labels, tints = rng.integers(0, 10, 256), rng.integers(0, 200, (10, 1, 1, 3))
    return Split((tints[labels] + rng.integers(0, 50, (256, 32, 32, 3))).astype(np.uint8), labels)


def states_equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_learns_and_repeats_itself(split, monkeypatch):
    monkeypatch.setattr(victims, "BATCH", 32)
    first = victims.train(split, seed=3, epochs=6)
    assert victims.accuracy(first, split) > 0.8
    few = split.part(slice(64))
    once, again, other = (victims.train(few, seed=seed, epochs=1) for seed in (3, 3, 4))
    assert states_equal(once, again)
    assert not states_equal(once, other)


def test_what_is_served_answers_as_what_has_learned():
    torch.manual_seed(0)
    learned, x = victims.Victim(folded=False), torch.rand(16, 3, 32, 32)
    for module in learned.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, -1, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    learned(x)  # the running figures move
    learned.eval()
    served = victims.fold(learned)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in served.modules())
    with torch.no_grad():
        assert torch.allclose(served(x), learned(x), atol=1e-4)
        assert not torch.allclose(served(x), victims.Victim()(x), atol=1e-1)


def test_its_normalisation_is_that_of_the_training_split(cifar):
    pixels = cifar.train.images[::10].reshape(-1, 3) / 255
    assert np.allclose(pixels.mean(0), victims.MEAN, atol=0.005)
    assert np.allclose(pixels.std(0), victims.DEVIATION, atol=0.005)


def test_images_are_moved_one_by_one():
    images = np.arange(32 * 32 * 3, dtype=np.uint16).reshape(1, 32, 32, 3) % 251
    many = np.repeat(images.astype(np.uint8), 200, 0)
    moved = np.round(victims._moved(many, np.random.default_rng(0)) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert moved.shape == many.shape
    seen = set()
    for image in moved:
        for turned, view in ((False, image), (True, image[:, ::-1])):
            for down in range(-4, 5):
                for right in range(-4, 5):
                    inner = view[max(0, -down) : 32 - max(0, down), max(0, -right) : 32 - max(0, right)]
                    source = many[0, max(0, down) : 32 + min(0, down), max(0, right) : 32 + min(0, right)]
                    if np.array_equal(inner, source):
                        seen.add((turned, down, right))
    assert len(seen) > 100  # of 2 * 9 * 9


def test_export_and_load_give_the_same_network(tmp_path):
    torch.manual_seed(0)
    model = victims.Victim().eval()
    path = tmp_path / "v.onnx"
    path.write_bytes(victims.export(model))
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(victims.load(path)(x), model(x))
        assert np.allclose(answers(path.read_bytes(), x.numpy()), model(x).numpy(), atol=1e-4)


def put_bins(directory, split):
    directory.mkdir()
    records = [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    for i, name in enumerate(cifar10.BIN_SHA256):
        (directory / name).write_bytes(b"".join(records[i::6]))


@BOTH
def test_the_command_trains_and_says_how_good_it_is(made, tmp_path, split, capsys):
    put_bins(tmp_path / "data", split)
    out = tmp_path / "v.onnx"
    assert made.main(["--out", str(out), "--data", str(tmp_path / "data"), "--epochs", "1"]) == 0
    assert "test accuracy" in capsys.readouterr().err
    assert made.load(out)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@BOTH
def test_the_command_without_data(made, tmp_path, capsys):
    assert made.main(["--out", str(tmp_path / "v.onnx"), "--data", str(tmp_path)]) == 1
    assert "neither" in capsys.readouterr().err
    assert not (tmp_path / "v.onnx").exists()
