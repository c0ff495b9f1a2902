"""Every attack that can be replayed: family, access, source, and the defaults its authors or their critics use."""

import importlib
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Literal

from adversary.attack import Access, Attack, Extraction, Inversion, Membership, Norm

Goal = Literal["evasion", "extraction", "membership", "inversion"]
_GOALS: dict[str, Goal] = {"extraction": "extraction", "membership": "membership", "inversion": "inversion"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack. `eps` and `budget` are defaults for images in [0, 1]; their units are in adversary.attack.

    module:  where its function is, inside adversary; by default the module of its name in evasion.
    base:    of a wrapper, the name of the attack that it runs.
    joint:   whether it works on all victims at once, its budget being for all of them.
    """

    name: str
    family: str
    access: Access
    norm: Norm
    source: str
    eps: float
    budget: int
    module: str = ""
    base: str = ""
    joint: bool = False

    @property
    def goal(self) -> Goal:
        """What it is judged by; families without a goal of their own want wrong answers."""
        return _GOALS.get(self.family, "evasion")

    @property
    def origin(self) -> Literal["own", "library"]:
        """Whether it is written here, or a library's."""
        return "library" if self.module.startswith("library.") else "own"

    @property
    def crafted(self) -> bool:
        """Whether it is made without asking the endpoint, and then sent."""
        return self.access in {"gradients", "nothing"}

    @property
    def function(self) -> Any:
        """The attack's function, whatever its goal; white-box attacks import torch here."""
        module = importlib.import_module(f"adversary.{self.module or 'evasion.' + self.name.replace('-', '_')}")
        function: Any = module.attack
        return wraps(function)(partial(function, base=self.base)) if self.base else function

    def load(self) -> Attack:
        """Of an evasion."""
        attack: Attack = self.function
        return attack

    def load_extraction(self) -> Extraction:
        """Of an extraction."""
        attack: Extraction = self.function
        return attack

    def load_membership(self) -> Membership:
        """Of a membership inference."""
        attack: Membership = self.function
        return attack

    def load_inversion(self) -> Inversion:
        """Of an inversion."""
        attack: Inversion = self.function
        return attack


_WHITE_BOX = (
    Entry("fgsm", "white-box", "gradients", "linf", "Goodfellow et al. 2015, arXiv:1412.6572", 0.3, 1),
    Entry("bim", "white-box", "gradients", "linf", "Kurakin et al. 2017, arXiv:1607.02533", 0.3, 10),
    Entry("pgd", "white-box", "gradients", "linf", "Madry et al. 2018, arXiv:1706.06083", 0.3, 40),
    Entry("carlini-wagner", "white-box", "gradients", "l2", "Carlini, Wagner 2017, arXiv:1608.04644", 4.0, 1000),
)
_CLOSEST_AND_ENSEMBLE = (
    Entry("lbfgs", "white-box", "gradients", "l2", "Szegedy et al. 2014, arXiv:1312.6199", 4.0, 400),
    Entry("jsma", "white-box", "gradients", "l0", "Papernot et al. 2016, arXiv:1511.07528", 112.0, 112),
    Entry("deepfool", "white-box", "gradients", "l2", "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599", 4.0, 500),
    Entry("ead", "white-box", "gradients", "l1", "Chen et al. 2018, arXiv:1709.04114", 30.0, 1000),
    Entry("universal", "white-box", "gradients", "linf", "Moosavi-Dezfooli et al. 2017, arXiv:1610.08401", 0.3, 1000),
    Entry("apgd", "white-box", "gradients", "linf", "Croce, Hein 2020, arXiv:2003.01690", 0.3, 101),
    Entry("apgd-t", "white-box", "gradients", "linf", "Croce, Hein 2020, arXiv:2003.01690", 0.3, 909),
    Entry("fab", "white-box", "gradients", "linf", "Croce, Hein 2020, arXiv:1907.02044", 0.3, 900),
    Entry("autoattack", "white-box", "gradients", "linf", "Croce, Hein 2020, arXiv:2003.01690", 0.3, 6910),
)
_TRANSFER = (
    Entry("mi-fgsm", "transfer", "gradients", "linf", "Dong et al. 2018, arXiv:1710.06081", 0.3, 10),
    Entry("di-fgsm", "transfer", "gradients", "linf", "Xie et al. 2019, arXiv:1803.06978", 0.3, 10),
    Entry("ti-fgsm", "transfer", "gradients", "linf", "Dong et al. 2019, arXiv:1904.02884", 0.3, 10),
    Entry("jbda-fgsm", "transfer", "labels", "linf", "Papernot et al. 2017, arXiv:1602.02697", 0.3, 6400, joint=True),
)
_SHAPED = (
    Entry("one-pixel", "sparse", "scores", "l0", "Su et al. 2019, arXiv:1710.08864", 5.0, 8000),
    Entry("spatial-transform", "spatial", "labels", "spatial", "Engstrom et al. 2019, arXiv:1712.02779", 1.0, 775),
    Entry("patch", "patch", "gradients", "patch", "Brown et al. 2017, arXiv:1712.09665", 0.25, 50),
    Entry("advgan", "generative", "gradients", "linf", "Xiao et al. 2018, arXiv:1801.02610", 0.3, 150),
)
_SCORE_BASED = (
    Entry("square", "score-based", "scores", "linf", "Andriushchenko et al. 2020, arXiv:1912.00049", 0.3, 5000),
    Entry("square-l2", "score-based", "scores", "l2", "Andriushchenko et al. 2020, arXiv:1912.00049", 3.0, 5000),
    Entry("simba", "score-based", "scores", "l2", "Guo et al. 2019, arXiv:1905.07121", 4.0, 5000),
    Entry("simba-dct", "score-based", "scores", "l2", "Guo et al. 2019, arXiv:1905.07121", 3.0, 5000),
    Entry("nes", "score-based", "scores", "linf", "Ilyas et al. 2018, arXiv:1804.08598", 0.3, 5000),
    Entry("spsa", "score-based", "scores", "linf", "Uesato et al. 2018, arXiv:1802.05666", 0.3, 20_000),
    Entry("bandits", "score-based", "scores", "linf", "Ilyas et al. 2019, arXiv:1807.07978", 0.3, 5000),
    Entry("zoo", "score-based", "scores", "l2", "Chen et al. 2017, arXiv:1708.03999", 4.0, 20_000),
)
_DECISION_BASED = (
    Entry("boundary", "decision-based", "labels", "l2", "Brendel et al. 2018, arXiv:1712.04248", 3.0, 10_000),
    Entry("hop-skip-jump", "decision-based", "labels", "l2", "Chen et al. 2020, arXiv:1904.02144", 3.0, 2000),
    Entry("qeba", "decision-based", "labels", "l2", "Li et al. 2020, arXiv:2005.14137", 3.0, 2000),
    Entry("qeba-dct", "decision-based", "labels", "l2", "Li et al. 2020, arXiv:2005.14137", 3.0, 2000),
    Entry("sign-opt", "decision-based", "labels", "l2", "Cheng et al. 2020, arXiv:1909.10773", 3.0, 4000),
    Entry("geoda", "decision-based", "labels", "l2", "Rahmati et al. 2020, arXiv:2003.06468", 3.0, 2000),
    Entry("surfree", "decision-based", "labels", "l2", "Maho et al. 2021, arXiv:2011.12807", 3.0, 2000),
    Entry("rays", "decision-based", "labels", "linf", "Chen, Gu 2020, arXiv:2006.12792", 0.3, 2000),
)
_OARS = "Feng et al. 2023, arXiv:2303.06280"
_ADAPTIVE = (
    Entry("oars-nes", "adaptive", "scores", "linf", _OARS, 0.3, 5000, "adaptive.oars_nes"),
    Entry("oars-square", "adaptive", "scores", "linf", _OARS, 0.3, 5000, "adaptive.oars_square"),
    Entry("oars-boundary", "adaptive", "labels", "l2", _OARS, 3.0, 10_000, "adaptive.oars_boundary"),
    Entry("oars-hop-skip-jump", "adaptive", "labels", "l2", _OARS, 3.0, 10_000, "adaptive.oars_hop_skip_jump"),
    Entry("oars-qeba", "adaptive", "labels", "l2", _OARS, 3.0, 10_000, "adaptive.oars_qeba"),
    Entry("oars-surfree", "adaptive", "labels", "l2", _OARS, 3.0, 10_000, "adaptive.oars_surfree"),
    Entry(
        "query-blinding-square", "adaptive", "scores", "linf", "Chen et al. 2019, arXiv:1907.05587", 0.3, 5000,
        "adaptive.query_blinding", "square",
    ),
    Entry(
        "sybil-square", "adaptive", "scores", "linf", "Chen et al. 2019, arXiv:1907.05587", 0.3, 5000,
        "adaptive.sybil", "square",
    ),
    Entry(
        "sybil-hop-skip-jump", "adaptive", "labels", "l2", "Chen et al. 2019, arXiv:1907.05587", 3.0, 2000,
        "adaptive.sybil", "hop-skip-jump",
    ),
    Entry(
        "interleave-square", "adaptive", "scores", "linf", "Li et al. 2024, arXiv:2405.20641", 0.3, 20_000,
        "adaptive.interleave", "square",
    ),
    Entry(
        "averaging-square", "adaptive", "scores", "linf", "Qin et al. 2021, arXiv:2104.11470", 0.3, 10_000,
        "adaptive.averaging", "square",
    ),
    Entry(
        "averaging-hop-skip-jump", "adaptive", "labels", "l2", "Qin et al. 2021, arXiv:2104.11470", 3.0, 10_000,
        "adaptive.averaging", "hop-skip-jump",
    ),
    Entry(
        "eot-pgd", "adaptive", "gradients", "linf", "Athalye et al. 2018, arXiv:1707.07397", 0.3, 400,
        "adaptive.eot",
    ),
    Entry(
        "bpda-pgd", "adaptive", "gradients", "linf", "Athalye et al. 2018, arXiv:1802.00420", 0.3, 40,
        "adaptive.bpda",
    ),
)  # fmt: skip
_EXTRACTION = (
    Entry(
        "tramer", "extraction", "scores", "none", "Tramer et al. 2016, arXiv:1609.02943", 0.0, 1000,
        "extraction.tramer",
    ),
    Entry(
        "jbda", "extraction", "labels", "none", "Papernot et al. 2017, arXiv:1602.02697", 0.0, 6400,
        "extraction.jbda",
    ),
    Entry(
        "t-rnd", "extraction", "labels", "none", "Juuti et al. 2019, arXiv:1805.02628", 0.0, 6400,
        "extraction.t_rnd",
    ),
    Entry(
        "copycat", "extraction", "labels", "none", "Correia-Silva et al. 2018, arXiv:1806.05476", 0.0, 20_000,
        "extraction.copycat",
    ),
    Entry(
        "knockoff-random", "extraction", "scores", "none", "Orekondy et al. 2019, arXiv:1812.02766", 0.0, 20_000,
        "extraction.knockoff_random",
    ),
    Entry(
        "knockoff-adaptive", "extraction", "scores", "none", "Orekondy et al. 2019, arXiv:1812.02766", 0.0, 20_000,
        "extraction.knockoff_adaptive",
    ),
    Entry(
        "data-free", "extraction", "scores", "none", "Truong et al. 2021, arXiv:2011.14779", 0.0, 20_000,
        "extraction.data_free",
    ),
)  # fmt: skip
_PRIVACY: tuple[Entry, ...] = (
    Entry(
        "membership-confidence", "membership", "scores", "none", "Yeom et al. 2018, arXiv:1709.01604", 0.0, 1,
        "privacy.membership_confidence",
    ),
    Entry(
        "membership-shadow", "membership", "scores", "none", "Shokri et al. 2017, arXiv:1610.05820", 0.0, 1,
        "privacy.membership_shadow",
    ),
    Entry(
        "membership-label-only", "membership", "labels", "none", "Choquette-Choo et al. 2021, arXiv:2007.14321", 0.0,
        26, "privacy.membership_label_only",
    ),
    Entry(
        "inversion", "inversion", "scores", "none", "Fredrikson et al. 2015, CCS; NES, arXiv:1804.08598", 0.0, 5000,
        "privacy.inversion",
    ),
)  # fmt: skip
_BACKDOOR: tuple[Entry, ...] = (
    Entry("badnets", "backdoor", "nothing", "patch", "Gu et al. 2017, arXiv:1708.06733", 0.012, 1, "backdoor.badnets"),
    Entry("blend", "backdoor", "nothing", "linf", "Chen et al. 2017, arXiv:1712.05526", 0.2, 1, "backdoor.blend"),
    Entry("wanet", "backdoor", "nothing", "l2", "Nguyen, Tran 2021, arXiv:2102.10369", 3.0, 1, "backdoor.wanet"),
)
_ALL = (
    *_WHITE_BOX, *_CLOSEST_AND_ENSEMBLE, *_TRANSFER, *_SHAPED, *_SCORE_BASED, *_DECISION_BASED, *_ADAPTIVE,
    *_EXTRACTION, *_PRIVACY, *_BACKDOOR,
)  # fmt: skip
CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ALL}
