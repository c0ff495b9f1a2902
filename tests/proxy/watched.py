"""A real Guard that defends the digit classifier in its own process, and a real attack on it; for what looks on."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

from adversary.endpoint import Endpoint
from adversary.evasion import hop_skip_jump
from adversary.oracle import Oracle
from tests.servers import guard
from tests.servers.models import images

TOKEN = "the-token-of-the-operators"
HOSTILE_NAME = "<img src=x onerror=document.title='hacked'>&lt;b&gt;\"'`${1}"
STAGES = ("detector/feature_squeezing", "monitor/fingerprint", "monitor/similarity_graph")


@dataclass(frozen=True)
class Watched:
    """address: where it takes calls. admin: HOST:PORT of its page."""

    address: str
    admin: str

    @property
    def url(self) -> str:
        return f"http://{self.admin}/"

    def get(self, path: str, token: str = TOKEN) -> tuple[int, bytes]:
        asked = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(asked) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def overview(self) -> dict[str, Any]:
        return json.loads(self.get("overview")[1])

    def send(self, x: np.ndarray, caller: str) -> None:
        with InferenceServerClient(self.address) as client:
            tensor = InferInput("image", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            client.infer("digits", [tensor], headers={"x-user": caller})

    def attack(self, caller: str, budget: int = 150) -> int:
        """HopSkipJump on one image; how many queries it sent."""
        endpoint = Endpoint(self.address, "digits", identities=((("x-user", caller),),))
        x, rng = images(1, seed=5), np.random.default_rng(3)
        with Oracle(endpoint, budget + 1) as oracle:
            y = np.array([np.argmax(oracle.probabilities(x)[0])])
            hop_skip_jump.attack(oracle, x, y, eps=0.0, budget=budget, rng=rng, starts=images(1, seed=6), batch=1)
            return oracle.spent


def fit(directory: Path, model: Path, clean: Path) -> Path:
    stages = [word for stage in STAGES for word in ("--stage", stage)]
    named = ["--model", str(model), "--model-name", "digits", "--clean", str(clean), "--out", "profile"]
    guard.fit([*named, *stages], directory)
    return directory / "profile"


@contextlib.contextmanager
def start(directory: Path, model: Path, profile: Path, **changes: Any) -> Iterator[Watched]:
    (directory / "token").write_text(TOKEN)
    served = {
        "name": "digits",
        "embedded": {"file": str(model)},
        "profile": str(profile),
        "detectors": [{"stage": "feature_squeezing"}],
        "monitors": [{"stage": "fingerprint"}, {"stage": "similarity_graph"}],
    }
    settings: dict[str, Any] = {
        "models": [served],
        "identity": {"chain": [{"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]}]},
        "quarantine": {"url": str(directory / "quarantine"), "payload": True, "from_level": "watch"},
        "limits": {"drain_s": 0.0},
        **changes,
    }
    admin = changes.get("admin", {})
    settings["admin"] = {"http": None, "grpc": None, "token_file": str(directory / "token"), **admin}
    if settings["admin"]["http"] is None:
        from tests.servers.process import free_port

        settings["admin"]["http"] = f"127.0.0.1:{free_port()}"
    with guard.start(directory, settings) as served_at:
        yield Watched(served_at.address, settings["admin"]["http"])
