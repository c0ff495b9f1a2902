import numpy as np
import pytest
import torch
from torch.nn import functional

from guard import learning, networks
from guard.learning import auxiliary
from guard.learning._networks import Auxiliary, auxiliary_plan
from guard.learning._perturbing import Ball, climb
from guard.types import Material
from tests.learning import toy

OPTIONS = auxiliary.Options(0.1, toy.SHORT)


@pytest.fixture(scope="module")
def made():
    return learning.train("auxiliary", toy.material(), {}, options=OPTIONS)


def accuracy(raw, x, labels):
    return float((networks.load(raw)(x)["logits"].argmax(1) == labels).mean())


class TestImages:
    def test_answers_like_the_served_model(self, made):
        x, labels = toy.images(300, seed=1)
        assert accuracy(made, x, labels) > 0.85

    def test_same_seed_same_bytes_and_another_seed_others(self, made):
        brief = auxiliary.Options(0.1, toy.Pace(1, least=5, most=5, batch=64, rate=0.05))
        first, again = (learning.train("auxiliary", toy.material(), {}, options=brief) for _ in range(2))
        x, rest = toy.material().x, toy.material()
        other = learning.train("auxiliary", Material(x, rest.probs, toy.CLASSES, {}, seed=8), {}, options=brief)
        assert first == again
        assert first != other

    def test_leaves_torch_as_it_was(self):
        threads, state = torch.get_num_threads(), torch.random.get_rng_state()
        brief = auxiliary.Options(0.1, toy.Pace(1, least=2, most=2, batch=64, rate=0.05))
        learning.train("auxiliary", toy.material(), {}, options=brief)
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_outputs(self, made):
        x = toy.images(7)[0]
        network = networks.load(made)
        given = network(x)
        assert given["logits"].shape == (7, toy.CLASSES)
        assert given["features"].shape == (7, 48)
        assert given["embedding"].shape == (7, 48)
        assert (given["features"] >= 0).all()
        np.testing.assert_allclose(np.linalg.norm(given["embedding"], axis=1), 1, rtol=1e-4)
        assert network.shape == x.shape[1:]
        assert network(x[:0])["logits"].shape == (0, toy.CLASSES)

    def test_a_batch_equals_its_rows_one_by_one(self, made):
        x = toy.images(5)[0]
        network = networks.load(made)
        for name, values in network(x).items():
            one = np.concatenate([network(x[i : i + 1])[name] for i in range(5)])
            np.testing.assert_allclose(values, one, rtol=1e-4, atol=1e-5)

    def test_what_is_served_equals_torch(self, made):
        x = toy.images(20)[0]
        with torch.no_grad():
            expected = auxiliary.load(made)(torch.from_numpy(x))
        for values, name in zip(expected, auxiliary.OUTPUTS, strict=True):
            np.testing.assert_allclose(networks.load(made)(x)[name], values.numpy(), rtol=1e-4, atol=1e-5)

    def test_withstands_more_than_one_that_saw_no_perturbations(self, made):
        plain = learning.train("auxiliary", toy.material(), {}, options=auxiliary.Options(0.0, toy.SHORT))
        x, labels = toy.images(300, seed=1)
        assert accuracy(plain, x, labels) > 0.85
        held, control = (accuracy(raw, hostile(raw, x, labels, 0.08), labels) for raw in (made, plain))
        assert held > 0.5
        assert held > control + 0.2

    def test_tells_how_far_it_is(self):
        told = []
        brief = auxiliary.Options(0.1, toy.Pace(1, least=12, most=12, batch=64, rate=0.05))
        learning.train("auxiliary", toy.material(), {}, lambda *args: told.append(args), options=brief)
        assert told == [("auxiliary", 0, 12), ("auxiliary", 10, 12), ("auxiliary", 12, 12)]


def hostile(raw, x, labels, eps):
    model, y = auxiliary.load(raw), torch.from_numpy(labels)
    ball = Ball.around(torch.from_numpy(x), eps, even=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return climb(ball, lambda some: functional.cross_entropy(model.logits(some), y, reduction="sum"), 10).numpy()


class TestVectors:
    def test_learns_and_answers(self):
        raw = learning.train("auxiliary", toy.vectors(), {}, options=OPTIONS)
        fresh = toy.vectors(seed=1)
        assert accuracy(raw, fresh.x, fresh.probs.argmax(1)) > 0.9
        given = networks.load(raw)(fresh.x)
        assert given["features"].shape == (400, 128)
        assert given["embedding"].shape == (400, 64)


@pytest.mark.parametrize(
    ("shape", "kind", "stem", "widths"),
    [
        ((28, 28, 1), "images", [], [24, 48, 96]),
        ((32, 32, 3), "images", [], [32, 64, 128]),
        ((224, 224, 3), "images", [16, 16], [32, 64, 128]),
        ((9, 13, 2), "images", [], [32, 64]),
        ((3, 40, 1), "vectors", None, [128, 128]),
        ((17,), "vectors", None, [128, 128]),
    ],
)
def test_the_architecture_follows_the_shape(shape, kind, stem, widths):
    plan = auxiliary_plan(shape, 10)
    assert (plan["kind"], plan.get("stem"), plan["widths"]) == (kind, stem, widths)
    model = Auxiliary(plan).eval()
    assert sum(p.numel() for p in model.parameters()) < 500_000
    logits, features, embedding = model(torch.zeros(2, *shape))
    assert (logits.shape, features.shape) == ((2, 10), (2, widths[-1]))
    assert embedding.shape == (2, min(64, widths[-1]))


class TestRefusals:
    def test_too_few_rows(self):
        with pytest.raises(ValueError, match="needs 200 clean inputs to learn from; there are 30"):
            learning.train("auxiliary", toy.material(30), {})

    def test_labels_only(self):
        with pytest.raises(ValueError, match="answers with labels only"):
            learning.train("auxiliary", Material(toy.images(300)[0], None, toy.CLASSES, {}, seed=0), {})

    def test_answers_of_another_number_of_classes(self):
        given = toy.material()
        with pytest.raises(ValueError, match=r"shape \(400, 3\), not \(400, 5\)"):
            learning.train("auxiliary", Material(given.x, given.probs, 5, {}, seed=0), {})

    def test_an_unknown_network(self):
        with pytest.raises(ValueError, match="no network 'oracle' to train: auxiliary, autoencoder, denoiser"):
            learning.train("oracle", toy.material(), {})

    def test_a_file_of_another_origin_is_not_rebuilt(self, made):
        import onnx

        proto = onnx.load_from_string(made)
        del proto.metadata_props[:]
        with pytest.raises(ValueError, match="not trained here"):
            auxiliary.load(proto.SerializeToString())

    def test_a_file_that_does_not_follow_its_plan_is_not_rebuilt(self, made):
        import onnx

        proto = onnx.load_from_string(made)
        next(t for t in proto.graph.initializer if t.name == "head.weight").name = "other"
        with pytest.raises(ValueError, match=r"head.weight \(3, 48\) is missing"):
            auxiliary.load(proto.SerializeToString())


def test_withstands_what_was_made_on_another_network():
    """Perturbations made on a network that saw none: here the control is fooled, too."""
    given = toy.material(seed=5)
    victim = learning.train("auxiliary", given, {}, options=auxiliary.Options(0.0, toy.SHORT))
    options = auxiliary.Options(0.02, toy.SHORT, foreign=0.1, guide=toy.SHORT)
    foreign, control = (
        learning.train("auxiliary", toy.material(), {}, options=chosen)
        for chosen in (options, auxiliary.Options(0.0, toy.SHORT))
    )
    x, labels = toy.images(300, seed=1)
    x_adv = hostile(victim, x, labels, 0.1)
    assert accuracy(foreign, x, labels) > 0.85
    assert 1 - accuracy(foreign, x_adv, labels) < 0.6 * (1 - accuracy(control, x_adv, labels))
