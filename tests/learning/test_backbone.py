import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from guard import learning, networks
from guard.learning import denoiser
from guard.types import Material
from tests.learning import toy

SIDE, FEATURES = 12, 70


def backbone(dims=("n", SIDE, SIDE, 1), *, opset=17, extra_output=False, element=TensorProto.FLOAT, maps=False, seed=0):
    """Random features: relu(x @ w), flattened from whatever layout; `maps` gives them as (N, F, 1, 1)."""
    size = SIDE * SIDE if len(dims) > 2 else dims[1]
    weight = (np.random.default_rng(seed).standard_normal((size, FEATURES)) / np.sqrt(size)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["positive"]),
    ]
    constants = [numpy_helper.from_array(weight, "w")]
    shape = ["n", FEATURES]
    if maps:
        constants.append(numpy_helper.from_array(np.array([0, FEATURES, 1, 1]), "maps"))
        nodes.append(helper.make_node("Reshape", ["positive", "maps"], ["features"]))
        shape += [1, 1]
    else:
        nodes.append(helper.make_node("Cast", ["positive"], ["features"], to=element))
    outputs = [helper.make_tensor_value_info("features", element, shape)]
    if extra_output:
        outputs.insert(0, helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["n", FEATURES]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(dims))
    graph = helper.make_graph(nodes, "backbone", [image], outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return proto.SerializeToString()


@pytest.mark.parametrize(
    "raw",
    [
        backbone(),
        backbone(("n", 1, SIDE, SIDE)),
        backbone(("n", "h", "w", "c")),
        backbone(opset=9),
        backbone(extra_output=True),
        backbone(element=TensorProto.FLOAT16),
        backbone(maps=True),
    ],
    ids=["unit", "channels first", "free", "old", "several outputs", "half precision", "maps"],
)
def test_a_linear_head_is_fitted_on_the_features(raw):
    network = networks.load(learning.adopt_backbone(raw, toy.material()))
    x, labels = toy.images(300, seed=1)
    given = network(x)
    assert [name for name, _ in network.outputs] == ["logits", "features", "embedding"]
    assert (given["logits"].argmax(1) == labels).mean() > 0.85
    assert given["features"].shape == (300, FEATURES)
    assert given["embedding"].shape == (300, 64)
    np.testing.assert_allclose(np.linalg.norm(given["embedding"], axis=1), 1, rtol=1e-4)
    one = network(x[:1])
    for name, values in given.items():
        np.testing.assert_allclose(one[name], values[:1], rtol=1e-3, atol=1e-4)


def test_the_features_are_the_backbones_own():
    x = toy.images(9)[0]
    own = networks.load(backbone())(x)["features"]
    adopted = networks.load(learning.adopt_backbone(backbone(), toy.material()))(x)["features"]
    np.testing.assert_allclose(adopted, own, rtol=1e-5)


def test_vectors():
    given = toy.vectors()
    network = networks.load(learning.adopt_backbone(backbone(("n", 6)), given))
    assert (network(given.x)["logits"].argmax(1) == given.probs.argmax(1)).mean() > 0.9


def test_the_same_each_time():
    assert learning.adopt_backbone(backbone(), toy.material()) == learning.adopt_backbone(backbone(), toy.material())


def test_a_denoiser_can_be_trained_beside_it():
    raw = {"auxiliary": learning.adopt_backbone(backbone(), toy.material())}
    brief = denoiser.Options(0.1, toy.Pace(1, least=3, most=3, batch=64, rate=0.002, adam=True), guide=toy.SHORT)
    made = learning.train("denoiser", toy.material(), raw, options=brief)
    assert networks.load(made)(toy.images(3)[0])["x"].shape == (3, SIDE, SIDE, 1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            (b"no such thing", "not an ONNX file"),
            (backbone((1, SIDE, SIDE, 1)), "fixed number of rows"),
            (backbone(("n", SIDE, SIDE, 3)), r"rows of \[12, 12, 3\]; the inputs are \[12, 12, 1\]"),
            (backbone(("n", SIDE * SIDE)), r"rows of \[144\]"),
        ],
    )
    def test_a_file_that_does_not_fit(self, raw, words):
        with pytest.raises(ValueError, match=words):
            learning.adopt_backbone(raw, toy.material())

    def test_labels_only(self):
        with pytest.raises(ValueError, match="labels only"):
            learning.adopt_backbone(backbone(), Material(toy.images(300)[0], None, toy.CLASSES, {}, seed=0))

    def test_a_backbone_with_two_inputs(self):
        proto = onnx.load_from_string(backbone())
        proto.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["n"]))
        with pytest.raises(ValueError, match="needs one input, not 2"):
            learning.adopt_backbone(proto.SerializeToString(), toy.material())
