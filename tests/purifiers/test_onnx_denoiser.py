import numpy as np
import pytest
from onnx import helper

from guard.purifiers.onnx_denoiser import OnnxDenoiser
from guard.settings import ConfigError, build_stage
from guard.types import Equipment
from tests import tiny_networks

X = np.random.default_rng(0).random((2, 6, 4, 3), dtype=np.float32)


def saved(path, raw):
    file = path / "mine.onnx"
    file.write_bytes(raw)
    return file


def network(shape, nodes=(("Identity", ["in"], ["out"]),), out=None, constants=()):
    made = [helper.make_node(op, inputs, outputs) for op, inputs, outputs in nodes]
    return tiny_networks.model(made, {"in": ["n", *shape]}, {"out": ["n", *(out or shape)]}, constants)


def first_channel_only(shape, axis):
    """Keeps the first channel: tells one layout from the other."""
    mask = np.zeros([1, *(size if i == axis else 1 for i, size in enumerate(shape))], np.float32)
    mask.reshape(-1)[0] = 1
    return network(shape, [("Mul", ["in", "mask"], ["out"])], constants={"mask": mask})


def purify(file, x=X, **options):
    return OnnxDenoiser(file=file, **options).equip(Equipment()).purify(x)


@pytest.mark.parametrize(("shape", "axis"), [((6, 4, 3), 2), ((3, 6, 4), 0)])
def test_the_layout_is_worked_out(tmp_path, shape, axis):
    out = purify(saved(tmp_path, first_channel_only(shape, axis)))
    np.testing.assert_allclose(out, X * np.array([1, 0, 0], np.float32), rtol=1e-6)


def test_free_sides_and_fixed_channels_will_do(tmp_path):
    np.testing.assert_allclose(purify(saved(tmp_path, network((3, "h", "w")))), X)


@pytest.mark.parametrize("shape", [("c", "h", "w"), (3, 6, 3), (5, 6, 7)])
def test_a_layout_that_cannot_be_told_is_asked_for(tmp_path, shape):
    with pytest.raises(ValueError, match="set the option layout"):
        purify(saved(tmp_path, network(shape)))


def test_a_layout_that_is_set(tmp_path):
    file = saved(tmp_path, network(("c", "h", "w")))
    np.testing.assert_allclose(purify(file, layout="NCHW"), X)


def test_values_are_in_the_networks_range(tmp_path):
    """In [-1, 1], halving moves each value half of the way to the middle."""
    half = network((6, 4, 3), [("Mul", ["in", "half"], ["out"])], constants={"half": np.array(0.5, np.float32)})
    np.testing.assert_allclose(purify(saved(tmp_path, half), low=-1, high=1), X / 2 + 0.25, atol=1e-6)


def test_results_are_cut_to_the_bounds(tmp_path):
    thrice = network((6, 4, 3), [("Mul", ["in", "three"], ["out"])], constants={"three": np.array(3, np.float32)})
    np.testing.assert_allclose(purify(saved(tmp_path, thrice)), np.minimum(X * 3, 1), rtol=1e-6)


def test_the_first_output_like_the_input_counts(tmp_path):
    nodes = [helper.make_node("GlobalAveragePool", ["in"], ["pooled"]), helper.make_node("Identity", ["in"], ["out"])]
    raw = tiny_networks.model(nodes, {"in": ["n", 3, 6, 4]}, {"pooled": ["n", 3, 1, 1], "out": ["n", 3, 6, 4]})
    np.testing.assert_allclose(purify(saved(tmp_path, raw)), X)


def test_files_that_do_not_serve(tmp_path):
    with pytest.raises(ValueError, match=r"cannot load .*nothing\.onnx"):
        purify(tmp_path / "nothing.onnx")
    with pytest.raises(ValueError, match=r"cannot load .*mine\.onnx"):
        purify(saved(tmp_path, b"text"))
    with pytest.raises(ValueError, match="has 2 axes, not 4"):
        purify(saved(tmp_path, network((8,))))
    pooled = network((3, 6, 4), [("GlobalAveragePool", ["in"], ["out"])], out=(3, 1, 1))
    with pytest.raises(ValueError, match="no output of its input's shape"):
        purify(saved(tmp_path, pooled))


def test_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="takes rows of 6 x 5 x 3, not 6 x 4 x 3"):
        purify(saved(tmp_path, network((6, 5, 3))))


def test_values_that_are_none_are_refused(tmp_path):
    root = network(
        (6, 4, 3), [("Sub", ["in", "one"], ["less"]), ("Sqrt", ["less"], ["out"])], constants={"one": np.float32(1)}
    )
    with pytest.raises(ValueError, match="not finite"):
        purify(saved(tmp_path, root))


def test_options(tmp_path):
    with pytest.raises(ConfigError, match=r"options\.file"):
        build_stage("purifier", "onnx_denoiser", {})
    with pytest.raises(ConfigError, match="low must be less than high"):
        build_stage("purifier", "onnx_denoiser", {"file": "a.onnx", "low": 1})
