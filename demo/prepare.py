"""What must be there before anything is attacked: the victim's file, its profile, crafted examples. All cached."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adversary import processes, runner
from adversary.attack import Array
from adversary.data import mnist
from adversary.data.cache import write_atomic
from adversary.victims.mnist import CHECKPOINT
from demo import caching
from demo.plan import MODEL, Crafted, Plan
from demo.screen import Tell

STAGES = ("detector/feature_squeezing", "monitor/fingerprint")


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The test images, parted so that none is used twice. x: (N, 1, 28, 28) float32 in [0, 1]."""

    victims_x: Array
    victims_y: Array
    walkers_x: Array
    walkers_y: Array
    starts: Array
    clean_x: Array
    clean_y: Array


def part(data: mnist.Mnist, plan: Plan) -> Images:
    """Shuffled by the seed; each walker starts from a training image of another class."""
    rng = np.random.default_rng(plan.seed)
    order = rng.permutation(len(data.test))
    victims, walkers, clean = np.split(
        order[: plan.victims + plan.walkers + plan.clean], [plan.victims, plan.victims + plan.walkers]
    )
    others = [rng.choice(np.flatnonzero(data.train.labels != data.test.labels[i])) for i in walkers]

    def x_of(rows: Array) -> Array:
        return mnist.unit(data.test.images[rows])

    labels = data.test.labels
    starts = mnist.unit(data.train.images[np.asarray(others, np.int64)])
    return Images(
        x_of(victims), labels[victims], x_of(walkers), labels[walkers], starts, x_of(clean), labels[clean]
    )  # fmt: skip


def victim(data: mnist.Mnist, plan: Plan, *, train: bool, say: Callable[[str], None]) -> Path:
    """The committed checkpoint, or one trained on this data with this seed."""
    if not train:
        return CHECKPOINT
    from adversary.victims import mnist as victims  # noqa: PLC0415 - torch only where it is needed

    name = caching.key(data=data.digest, seed=plan.seed, code=caching.code_digest("adversary/victims"))
    path = caching.place(f"victim-{name}.onnx")
    if not path.is_file():
        write_atomic(path, victims.export(victims.train(data.learn, seed=plan.seed, say=say)))
    return path


def profile(data: mnist.Mnist, plan: Plan, file: Path, *, log: Path, env: dict[str, str], tell: Tell) -> Path:
    """What `guard fit` learns of the victim from clean images that it was not trained on."""
    name = caching.key(
        data=data.digest, victim=caching.file_digest(file), code=caching.code_digest("guard"), fit=plan.fit,
        seed=plan.seed, stages=STAGES,
    )  # fmt: skip
    place = caching.place(f"profile-{name}")
    if (place / "profile.json").is_file():
        tell(0, "cached")
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(plan.seed).choice(len(data.clean), min(plan.fit, len(data.clean)), replace=False)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".profile-") as directory:
        clean, out = Path(directory) / "clean.npz", Path(directory) / "profile"
        np.savez(clean, image=mnist.unit(data.clean.images[rows]))
        arguments = ["--model", str(file), "--model-name", MODEL, "--clean", str(clean), "--out", str(out)]
        processes.fit(arguments, log, env, lambda word: tell(0, word))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place)
        out.rename(place)
    return place


def craft(attack: Crafted, file: Path, images: Images, plan: Plan) -> tuple[Array, Array]:
    """The victims under one white-box attack: x_adv and what each cost."""
    x, y = images.victims_x, images.victims_y

    def make() -> dict[str, Array]:
        from adversary.victims import mnist as victims  # noqa: PLC0415 - torch only where it is needed

        options = {**attack.options, **({"targets": (y + 1) % 10} if attack.next_class else {})}
        done = runner.craft(
            attack.entry, victims.load(file), x, y, eps=attack.eps, budget=attack.budget, seed=plan.seed, **options
        )
        return {"x_adv": done.x_adv, "queries": done.queries}

    name = caching.key(
        victim=caching.file_digest(file), x=caching.digest(x), y=caching.digest(y), attack=attack.entry.name,
        eps=attack.eps, budget=attack.budget, options=attack.options, next_class=attack.next_class, seed=plan.seed,
        code=caching.code_digest("adversary/evasion", "adversary/victims"),
    )  # fmt: skip
    made = caching.arrays(f"crafted-{name}", make)
    return made["x_adv"], made["queries"]
