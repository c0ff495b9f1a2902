"""The libraries' attacks that ours are held against. A library is imported when its attack is run, and here alone.

Foolbox's boundary attack is by the authors of the paper; its gradient attacks are independent of ours. pyautoattack is
the source of AutoAttack's authors as a package. ART's ensemble of that name is another one, and its C&W searches along
lines where the paper has Adam: neither is compared with.
"""

from typing import Any

import numpy as np
import torch

from adversary.attack import Array, norms
from adversary.gradients import predict
from bench.attacks.gauge import Gauge
from bench.attacks.peers import Given, Options, Peer, Prey, Run

ART, FOOLBOX, PYAUTOATTACK = "adversarial-robustness-toolbox", "foolbox", "pyautoattack"
_BOUNDS = (0.0, 1.0)


def _foolbox(name: str) -> Run:
    """By gradients, all victims in one batch. What it hands back is not clipped to eps."""

    def run(model: Any, prey: Prey, options: Options) -> Array:
        import foolbox  # noqa: PLC0415

        attack = getattr(foolbox.attacks, name)(**options)
        wrapped = foolbox.PyTorchModel(model, bounds=_BOUNDS, device="cpu")
        raw, _, _ = attack(wrapped, torch.from_numpy(prey.x), torch.from_numpy(prey.y), epsilons=prey.eps)
        return np.asarray(raw.detach().numpy())

    return run


def _better(run: Run) -> Run:
    """The better of two step sizes, by what succeeds and then by l2; each has the whole budget."""

    def both(model: Any, prey: Prey, options: Options) -> Array:
        def worth(x_adv: Array) -> tuple[int, float]:
            l2 = norms(x_adv - prey.x, "l2")
            won = (predict(model, x_adv) != prey.y) & (l2 <= prey.eps)
            return int(won.sum()), -float(np.median(l2[won])) if won.any() else -np.inf

        return max((run(model, prey, {**options, "stepsize": step}) for step in options["stepsize"]), key=worth)

    return both


def _foolbox_by_labels(name: str) -> Run:
    def run(gauge: Gauge, prey: Prey, options: Options) -> Array:
        import foolbox  # noqa: PLC0415

        attack = getattr(foolbox.attacks, name)(**options)
        wrapped = foolbox.NumPyModel(gauge, bounds=_BOUNDS, data_format="channels_first")
        raw, _, _ = attack(wrapped, prey.x, prey.y, epsilons=None, starting_points=prey.start)
        return np.asarray(raw)

    return run


def _art_by_scores(name: str) -> Run:
    def run(gauge: Gauge, prey: Prey, options: Options) -> Array:
        from art.attacks import evasion  # noqa: PLC0415
        from art.estimators.classification import BlackBoxClassifierNeuralNetwork  # noqa: PLC0415

        shape = prey.x.shape[1:]
        wrapped = BlackBoxClassifierNeuralNetwork(gauge, shape, prey.classes, clip_values=_BOUNDS, channels_first=True)
        wrapped.predict = lambda x, **_: gauge(x)  # ART's rounds to float32, where a sure label's probability is 1
        attack = getattr(evasion, name)(wrapped, **options, batch_size=1, verbose=False)
        return np.asarray(attack.generate(prey.x.copy(), np.eye(prey.classes, dtype=np.float32)[prey.y]))

    return run


def _autoattack(model: Any, prey: Prey, options: Options) -> Array:
    from pyautoattack import AutoAttack  # noqa: PLC0415

    found, _ = AutoAttack(model, **options, seed=prey.seed).run_standard_evaluation(
        torch.from_numpy(prey.x), torch.from_numpy(prey.y)
    )
    return np.asarray(found.detach().numpy())


def _carlini_wagner(given: Given) -> dict[str, Any]:
    """Its steps are of one size: the paper's, or such that all together reach as far as ours."""
    iterations, own = given.budget // given.own["search_steps"], given.own["learning_rate"]
    return {
        "binary_search_steps": given.own["search_steps"],
        "steps": iterations,
        "stepsize": (0.01, 10.0 / iterations) if own is None else (own,),
        "initial_const": given.own["initial_price"],
        "confidence": max(given.own["kappa"], 1e-3),  # ours wants so much, lest another runtime's rounding undoes it
    }


PEERS = (
    Peer(
        "fgsm", FOOLBOX, "LinfFastGradientAttack", "model",
        lambda _: {},
        _foolbox("LinfFastGradientAttack"),
        "nothing",
    ),
    Peer(
        "pgd", FOOLBOX, "LinfProjectedGradientDescentAttack", "model",
        lambda given: {"abs_stepsize": 2.5 * given.eps / given.budget, "steps": given.budget},
        _foolbox("LinfProjectedGradientDescentAttack"),
        "other random starts",
    ),
    Peer(
        "carlini-wagner", FOOLBOX, "L2CarliniWagnerAttack", "model",
        _carlini_wagner,
        _better(_foolbox("L2CarliniWagnerAttack")),
        "its steps are of one size, the better of two with the whole budget each; ours fall to nothing",
    ),
    Peer(
        "deepfool", FOOLBOX, "L2DeepFoolAttack", "model",
        lambda given: {"steps": given.budget // given.own["candidates"], "candidates": given.own["candidates"],
                       "overshoot": given.own["overshoot"]},
        _foolbox("L2DeepFoolAttack"),
        "it stops where the label changes, ours past a margin of 0.001",
    ),
    Peer(
        "autoattack", PYAUTOATTACK, "AutoAttack", "model",
        lambda given: {"norm": "Linf", "eps": given.eps, "version": "standard"},
        _autoattack,
        "its Square shrinks squares as if it had 10,000 queries, ours over the 5,000 there are",
    ),
    Peer(
        "square", ART, "SquareAttack", "log-probabilities",
        lambda given: {"norm": "inf", "eps": given.eps, "max_iter": given.budget, "p_init": given.own["initial"]},
        _art_by_scores("SquareAttack"),
        "it asks for an image up to three times; its squares never touch the last row and column",
    ),
    Peer(
        "simba", ART, "SimBA", "probabilities",
        lambda given: {"attack": "px", "order": "random", "epsilon": given.own["step"], "max_iter": given.budget},
        _art_by_scores("SimBA"),
        "it asks for both signs of a step and takes the better, ours, as the paper, for the second only where the "
        "first is no better; it is given answers in float64, as ours is, where ART's own wrapper rounds to float32",
    ),
    Peer(
        "hop-skip-jump", FOOLBOX, "HopSkipJumpAttack", "labels",
        lambda given: {"steps": given.budget, "gamma": given.own["gamma"],
                       "initial_gradient_eval_steps": given.own["initial_evaluations"],
                       "max_gradient_eval_steps": given.own["most_evaluations"]},
        _foolbox_by_labels("HopSkipJumpAttack"),
        "its probes' radius follows the distance after the binary search; ours, as the authors' code, the one before",
    ),
    Peer(
        "boundary", FOOLBOX, "BoundaryAttack", "labels",
        lambda given: {"steps": given.budget, "spherical_step": given.own["spherical_step"],
                       "source_step": given.own["source_step"], "step_adaptation": given.own["adaptation"],
                       "source_step_convergance": given.own["least_source_step"]},
        _foolbox_by_labels("BoundaryAttack"),
        "float32",
    ),
)  # fmt: skip
