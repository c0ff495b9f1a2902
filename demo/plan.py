"""What the demo does, in numbers. Everything that changes a result is here, and goes into the report."""

from dataclasses import dataclass, field, replace
from typing import Any

from adversary.catalogue import CATALOGUE, Entry

MODEL = "mnist"
FALSE_POSITIVE_RATE = 0.01
PAPER_FPR = 0.04
PAPER_DETECTION = 0.982
WALK = CATALOGUE["hop-skip-jump"]


@dataclass(frozen=True, slots=True)
class Crafted:
    """A white-box attack to craft on the victim. like_paper: it counts in the comparison with the paper."""

    title: str
    entry: Entry
    eps: float
    budget: int
    options: dict[str, Any] = field(default_factory=dict)
    next_class: bool = False
    like_paper: bool = False


CRAFTED = (
    Crafted("FGSM eps 0.3", CATALOGUE["fgsm"], 0.3, 1, like_paper=True),
    Crafted("BIM eps 0.3", CATALOGUE["bim"], 0.3, 10, like_paper=True),
    Crafted("PGD eps 0.3", CATALOGUE["pgd"], 0.3, 40),
    Crafted("C&W closest", CATALOGUE["carlini-wagner"], 4.0, 500),
    Crafted(
        "C&W kappa 10, next",
        CATALOGUE["carlini-wagner"],
        8.0,
        500,
        {"kappa": 10.0},
        next_class=True,
        like_paper=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and seeds.

    fit:      clean images, new to the victim, that `guard fit` sees without labels.
    clean:    clean test images sent by `callers` benign callers, one a call.
    victims:  test images that every crafted attack starts from.
    walkers:  test images that HopSkipJump attacks through the wire, each as a fresh caller.
    pairs:    interleaved calls that measure the added latency.
    """

    seed: int = 0
    fit: int = 10_000
    clean: int = 5_000
    callers: int = 50
    victims: int = 100
    walkers: int = 8
    walk_budget: int = 2_500
    walk_eps: float = 3.0
    walk_batch: int = 50
    pairs: int = 300

    def scaled_to(self, unseen: int, test: int) -> "Plan":
        """The same plan within fewer images: the attacked ones and those that measure latency come first."""
        spare = test - self.victims - self.walkers
        if spare < self.callers:
            raise ValueError(f"{test} test images are too few for {self.victims} victims and {self.walkers} walkers")
        return replace(self, fit=min(self.fit, unseen), clean=min(self.clean, spare), pairs=min(self.pairs, spare))
