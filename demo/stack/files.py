"""What the stack serves with, in one directory: Triton's models, Guard's profile, secrets. Compose mounts them, too."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adversary import processes
from adversary.data import mnist
from adversary.victims.mnist import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MODEL = "mnist"
FIT = 2000
_SECRETS = {"guard.env": ("GUARD_SECRET", "GUARD_ADMIN_TOKEN"), "grafana.env": ("GF_SECURITY_ADMIN_PASSWORD",)}
STAGES = ("detector/feature_squeezing", "monitor/fingerprint", "monitor/extraction_budget")


def repositories(directory: Path) -> Path:
    """`models` for the container's Triton, `models-python` for the one from a wheel; returns the latter.

    They differ in the backend alone.
    """
    for name in ("models", "models-python"):
        shutil.rmtree(directory / name, ignore_errors=True)
        shutil.copytree(DEPLOY / "stack" / "models", directory / name)
        version = directory / name / MODEL / "1"
        version.mkdir()
        shutil.copy(CHECKPOINT, version / "model.onnx")
    config = directory / "models-python" / MODEL / "config.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace('"onnxruntime"', '"python"'), encoding="utf-8")
    shutil.copy(DEPLOY / "stack" / "python_backend.py", config.parent / "1" / "model.py")
    return directory / "models-python"


def keys(directory: Path) -> dict[str, str]:
    """Guard's secrets; they are made once, for nobody else to read, and Grafana's password beside them."""
    for name, variables in _SECRETS.items():
        if not (directory / name).exists():
            (directory / name).touch(mode=0o600)
            lines = [f"{variable}={secrets.token_hex(16)}\n" for variable in variables]
            (directory / name).write_text("".join(lines), encoding="utf-8")
    return dict(line.split("=", 1) for line in (directory / "guard.env").read_text(encoding="utf-8").split())


def profile(directory: Path, upstream: str, env: dict[str, str], say: Callable[[str], None]) -> None:
    """What `guard fit` learns of the served model from clean digits; kept."""
    place = directory / "profile"
    if (place / "profile.json").is_file():
        return
    say(f"guard fit: {FIT} clean digits through Triton, once")
    data = mnist.load(None, say)
    clean, made = directory / "clean.npz", directory / "profile.new"
    shutil.rmtree(made, ignore_errors=True)
    np.savez(clean, image=mnist.unit(data.clean.images[:FIT]))
    stages = [word for stage in STAGES for word in ("--stage", stage)]
    arguments = ["--upstream", upstream, "--model", MODEL, "--clean", str(clean), "--meaning", "logits", *stages]
    processes.fit([*arguments, "--out", str(made)], directory / "fit.log", env, lambda _: None)
    shutil.rmtree(place, ignore_errors=True)
    made.rename(place)
