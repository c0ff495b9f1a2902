import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench import profiles
from bench.profiles import __main__ as command
from guard import learning, networks

SIDE, CLASSES = 4, 10


def network(outputs):
    """An ONNX file over (rows, 4, 4, 1): `logits` are the first ten pixels, `x` is its input."""
    value = helper.make_tensor_value_info
    nodes, made = [], []
    if "logits" in outputs:
        nodes += [helper.make_node("Reshape", ["given", "flat"], ["row"])]
        nodes += [helper.make_node("Gather", ["row", "first"], ["logits"], axis=1)]
        made += [value("logits", TensorProto.FLOAT, ["n", CLASSES])]
    if "x" in outputs:
        nodes += [helper.make_node("Identity", ["given"], ["x"])]
        made += [value("x", TensorProto.FLOAT, ["n", SIDE, SIDE, 1])]
    constants = [
        numpy_helper.from_array(np.array([0, -1]), "flat"),
        numpy_helper.from_array(np.arange(CLASSES), "first"),
    ]
    graph = helper.make_graph(nodes, "g", [value("given", TensorProto.FLOAT, ["n", "a", "b", "c"])], made, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One subject of sixteen pixels; training answers at once."""
    victim = tmp_path / "victim.onnx"
    victim.write_bytes(network(["logits"]))
    images = np.random.default_rng(0).integers(0, 256, (30, SIDE, SIDE, 1), np.uint8)
    subject = profiles.Subject(victim, lambda: (images[:20], images[20:]))
    monkeypatch.setattr(profiles, "SUBJECTS", {"small": subject})
    monkeypatch.setenv("ADVERSARY_CACHE", str(tmp_path / "cache"))
    trained = []

    def train(name, material, raw, tell):
        tell(name, 1, 1)
        trained.append((name, material, sorted(raw)))
        return network(["logits"] if name == "auxiliary" else ["x"])

    monkeypatch.setattr(learning, "train", train)
    return trained


def test_each_network_is_made_once_in_order_and_measured(small, capsys):
    assert command.main(["small"]) == 0
    assert [(name, raw) for name, _, raw in small] == [
        ("auxiliary", []), ("autoencoder", ["auxiliary"]), ("denoiser", ["autoencoder", "auxiliary"]),
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "agreement with the victim: 1.0000" in out
    assert "answers kept through the denoiser: 1.0000" in out
    assert "sha256" in out
    assert command.main(["small"]) == 0
    assert len(small) == 3
    assert command.main(["small", "--again", "--only", "denoiser"]) == 0
    assert len(small) == 4


def test_the_material_is_the_victims_answers_to_what_it_learns_from(small):
    command.main(["small", "--only", "auxiliary"])
    ((_, material, _),) = small
    assert material.x.shape == (20, SIDE, SIDE, 1)
    assert material.x.max() <= 1
    np.testing.assert_allclose(material.probs.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(material.probs.argmax(1), material.x.reshape(20, -1)[:, :CLASSES].argmax(1))


def test_files_are_found_in_the_cache_then_beside_the_command(small, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "BESIDE", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m bench.profiles small"):
        profiles.kept("small", "denoiser")
    assert command.main(["small", "--out", str(tmp_path)]) == 0
    assert profiles.kept("small", "denoiser") == tmp_path / "small_denoiser.onnx"
    command.main(["small"])
    assert profiles.kept("small", "denoiser") == profiles.place("small", "denoiser")


def test_an_unknown_subject(capsys):
    assert command.main(["moon"]) == 2
    assert "no subject is called moon" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(profiles.BESIDE.glob("*.onnx")), ids=lambda path: path.stem)
def test_what_lies_beside_the_command_can_be_served(path):
    subject, _, name = path.stem.partition("_")
    assert subject in profiles.SUBJECTS
    assert name in learning.NAMES
    assert path.stat().st_size < 2_000_000
    made = networks.load(path)
    given = made(np.random.default_rng(0).random((2, *made.shape), np.float32))
    wanted = {"logits", "features", "embedding"} if name == "auxiliary" else {"x"}
    assert set(given) == wanted
    assert all(np.isfinite(values).all() for values in given.values())
