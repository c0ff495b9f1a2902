"""The attacks of the table: the adversary's own, with the bounds and budgets that are usual for each data set.

C&W and EAD have half of their usual gradients, and on CIFAR-10 a third, so that the table is made within its time;
their bounds are wide enough that both reach nearly every image. JSMA may change a tenth of the pixels. The universal
perturbation and the patch are made from the images they are then put on. The transfer is MI-FGSM on a network of the
attacker's own, fitted on labelled images that the victim did not learn from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adversary.catalogue import CATALOGUE, Entry

_WIDE = 8 / 255


@dataclass(frozen=True, slots=True)
class Planned:
    """One attack of the table: eps in the norm of its entry, budget in gradients a victim.

    joint:      whether one perturbation is made from all images, which are then one unit of work.
    surrogate:  whether it is made on the attacker's own network.
    cost:       gradients a victim as they turn out, about: what the progress bar goes by.
    """

    entry: Entry
    eps: float
    budget: int
    cost: float
    options: Mapping[str, Any] = field(default_factory=dict)
    joint: bool = False
    surrogate: bool = False

    @property
    def name(self) -> str:
        """As the table calls it."""
        return "transfer" if self.surrogate else self.entry.name


def _planned(name: str, eps: float, budget: int, cost: float, **more: Any) -> Planned:
    return Planned(CATALOGUE[name], eps, budget, cost, **more)


MNIST = (
    _planned("fgsm", 0.3, 1, 1),
    _planned("bim", 0.3, 10, 10),
    _planned("pgd", 0.3, 40, 40),
    _planned("deepfool", 4.0, 500, 60),
    _planned("autoattack", 0.3, 6910, 30),
    _planned("mi-fgsm", 0.3, 10, 20, surrogate=True),
    _planned("patch", 0.25, 20, 20, joint=True),
    _planned("carlini-wagner", 4.0, 500, 500),
    _planned("jsma", 78.0, 78, 100),
    _planned("universal", 0.3, 200, 200, options={"passes": 2, "candidates": 5}, joint=True),
    _planned("ead", 30.0, 500, 750),
)
CIFAR10 = (
    _planned("fgsm", _WIDE, 1, 1),
    _planned("bim", _WIDE, 10, 10),
    _planned("pgd", _WIDE, 40, 40),
    _planned("deepfool", 1.0, 500, 40),
    _planned("autoattack", _WIDE, 6910, 10),
    _planned("mi-fgsm", _WIDE, 10, 40, surrogate=True),
    _planned("patch", 0.1, 20, 20, joint=True),
    _planned("carlini-wagner", 1.0, 300, 300),
    _planned("jsma", 102.0, 102, 120),
    _planned("universal", _WIDE, 200, 100, options={"passes": 2, "candidates": 5}, joint=True),
    _planned("ead", 30.0, 300, 450),
)
_NEAR = 4 / 255
PHOTOS = (
    _planned("fgsm", _NEAR, 1, 60),
    _planned("bim", _NEAR, 10, 600),
    _planned("pgd", _NEAR, 40, 2400),
    _planned("deepfool", 5.0, 100, 1200, options={"candidates": 5}),
    _planned("autoattack", _NEAR, 691, 600),
    _planned("carlini-wagner", 5.0, 120, 7000, options={"search_steps": 3}),
)
ATTACKS: Mapping[str, tuple[Planned, ...]] = {"mnist": MNIST, "cifar10": CIFAR10, "photos": PHOTOS, "fashion": ()}
