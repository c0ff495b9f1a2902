"""The one helper through which stages run ONNX, against networks made on the spot."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from guard import networks
from tests import tiny_networks

SHAPE = (4, 3, 2)


def images(n=3, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)


def doubling(rows="n", kind=TensorProto.FLOAT, width=3):
    return tiny_networks.model(
        [helper.make_node("Add", ["x", "x"], ["y"])], {"x": [rows, width]}, {"y": [rows, width]}, kind=kind
    )


def test_outputs_come_by_name_in_float32():
    network = networks.load(tiny_networks.auxiliary(SHAPE))
    found = network(images())
    assert {name: y.shape for name, y in found.items()} == {"logits": (3, 5), "features": (3, 8), "embedding": (3, 4)}
    assert all(y.dtype == np.float32 for y in found.values())
    np.testing.assert_allclose(np.linalg.norm(found["embedding"], axis=1), 1, rtol=1e-5)
    assert (found["features"] >= 0).all()


def test_a_network_says_what_it_takes_and_gives():
    network = networks.load(tiny_networks.auxiliary(SHAPE))
    assert network.shape == SHAPE
    assert network.outputs == (("logits", (5,)), ("features", (8,)), ("embedding", (4,)))
    assert networks.load(doubling(width="wide")).shape == (-1,)


def test_by_hand_and_from_a_file(tmp_path):
    file = tmp_path / "tiny.onnx"
    file.write_bytes(tiny_networks.towards_grey(SHAPE, 0.5))
    found = networks.load(file)(np.ones((1, *SHAPE), np.float32))["x"]
    np.testing.assert_allclose(found, np.full((1, *SHAPE), 0.75), rtol=1e-6)


def test_a_batch_equals_its_rows():
    network, x = networks.load(tiny_networks.auxiliary(SHAPE)), images(5)
    whole = network(x)
    for name, y in whole.items():
        alone = np.concatenate([network(x[i : i + 1])[name] for i in range(len(x))])
        np.testing.assert_allclose(y, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, networks.CHUNK_ROWS, networks.CHUNK_ROWS + 1, 2 * networks.CHUNK_ROWS])
def test_any_number_of_rows(n):
    x = images(n, (3,))
    for rows in ("n", 1, 7):
        np.testing.assert_array_equal(networks.load(doubling(rows))(x)["y"], x + x)


def test_inputs_are_read_only_and_need_not_lie_in_a_row():
    x = images(4)[:, ::-1]
    x.flags.writeable = False
    before = x.copy()
    found = networks.load(tiny_networks.towards_grey(SHAPE))(x)["x"]
    np.testing.assert_allclose(found, x * 0.75 + 0.125, rtol=1e-6)
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(found, x)


def test_half_precision_outputs_become_float32():
    assert networks.load(_cast(TensorProto.FLOAT16))(images(2, (2,)))["y"].dtype == np.float32


def _cast(kind):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind)],
        "cast",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_threads_share_a_network():
    network, xs = networks.load(tiny_networks.auxiliary(SHAPE)), [images(4, seed=i) for i in range(32)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(network, xs))
    for x, found in zip(xs, together, strict=True):
        np.testing.assert_array_equal(found["logits"], network(x)["logits"])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 3), np.float64), "takes float32, not float64"),
        (np.zeros((2, 4), np.float32), "takes rows of 3, not 4"),
        (np.zeros((2, 3, 1), np.float32), "takes rows of 3, not 3 x 1"),
    ],
)
def test_other_inputs_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        networks.load(doubling())(x)


def test_what_is_no_network_is_refused(tmp_path):
    for raw in (b"", b"not onnx at all"):
        with pytest.raises(ValueError, match="cannot load the network"):
            networks.load(raw)
    with pytest.raises(ValueError, match=r"cannot load .*missing\.onnx"):
        networks.load(tmp_path / "missing.onnx")


def test_networks_of_another_form_are_refused():
    two = tiny_networks.model(
        [helper.make_node("Add", ["a", "b"], ["y"])], {"a": ["n", 2], "b": ["n", 2]}, {"y": ["n", 2]}
    )
    with pytest.raises(ValueError, match="one input, not 2"):
        networks.load(two)
    with pytest.raises(ValueError, match="x must be float32 rows"):
        networks.load(doubling(kind=TensorProto.DOUBLE))
    with pytest.raises(ValueError, match="output y must be rows of floats"):
        networks.load(_cast(TensorProto.INT64))


def test_an_output_that_is_not_one_row_an_input_is_refused():
    total = tiny_networks.model(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)], {"x": ["n", 2]}, {"y": ["m", 1]}
    )
    with pytest.raises(ValueError, match="output y has not one row an input"):
        networks.load(total)(images(3, (2,)))


def test_onnxruntime_waits_until_it_is_needed():
    code = "import sys, guard.networks; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_onnxruntime_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="install one of the extras cpu and gpu"):
        networks.load(doubling())


class Counting:
    """A session that counts its runs."""

    def __init__(self, session):
        self._session, self.runs = session, 0

    def run(self, names, feeds):
        self.runs += 1
        return self._session.run(names, feeds)


def counted():
    network = networks.load(tiny_networks.auxiliary(SHAPE))
    network._session = Counting(network._session)
    return network


def test_on_an_array_that_nobody_can_write_to_it_runs_once():
    network, x = counted(), images()
    before = network(x)
    assert network(x) is not before  # the control: whoever may write may have written
    assert network._session.runs == 2
    x.flags.writeable = False
    first = network(x)
    assert network(x) is first
    assert network._session.runs == 3
    assert network(x[:2])["logits"].shape == (2, 5)  # another array
    with pytest.raises(ValueError, match="read-only"):
        first["logits"][0] = 0


def test_what_it_said_goes_with_the_array():
    network = counted()
    for seed in range(50):
        x = images(seed=seed)
        x.flags.writeable = False
        np.testing.assert_array_equal(network(x)["logits"], network._all(x)["logits"])
        del x
    assert len(network._said) == 0


def test_threads_share_what_it_said():
    network, x = counted(), images(n=40)
    x.flags.writeable = False
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: network(x)["logits"], range(40)))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert network._session.runs <= 8
