"""Make the pictures of docs/watch.md: a real Guard before the MNIST victim, honest callers, and attacks as they happen.

`python docs/make_pictures.py` takes about two minutes, Chromium, and the MNIST files that `make demo` keeps.
"""

import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from adversary.data import mnist  # noqa: E402
from adversary.endpoint import Endpoint  # noqa: E402
from adversary.evasion import hop_skip_jump, square  # noqa: E402
from adversary.oracle import Oracle  # noqa: E402
from guard import top  # noqa: E402
from guard.cli_top import Guard  # noqa: E402
from tests.proxy.watched import TOKEN  # noqa: E402
from tests.servers import browser, guard  # noqa: E402
from tests.servers.process import free_port  # noqa: E402

OUT = ROOT / "docs" / "images"
VICTIM = ROOT / "adversary" / "victims" / "mnist_cnn.onnx"
STAGES = ("detector/feature_squeezing", "monitor/fingerprint", "monitor/similarity_graph")
MAX_BYTES = 150_000
LOOK_AFTER_S = 40.0


def settings(directory: Path, admin: str) -> dict[str, Any]:
    """Everything enforced: a hostile caller is told labels alone, inputs that look odd are answered so, too."""
    (directory / "token").write_text(TOKEN)
    kinds = {
        kind: [{"stage": s.split("/")[1]} for s in STAGES if s.startswith(kind)] for kind in ("detector", "monitor")
    }
    model = {
        "name": "mnist",
        "embedded": {"file": str(VICTIM)},
        "profile": str(directory / "profile"),
        "mode": "enforce",
        "detectors": kinds["detector"],
        "monitors": kinds["monitor"],
        "outputs": [{"stage": "label_only"}],
        "policy": {"on_input": "degrade", "on_suspect": "degrade", "on_hostile": "degrade"},
    }
    return {
        "models": [model],
        "identity": {"chain": [{"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]}]},
        "quarantine": {"url": str(directory / "quarantine"), "payload": True, "from_level": "watch"},
        "admin": {"http": admin, "grpc": None, "token_file": str(directory / "token")},
        "limits": {"drain_s": 0.0},
    }


def oracle(address: str, caller: str, budget: int) -> Oracle:
    """One caller."""
    return Oracle(Endpoint(address, "mnist", identities=((("x-user", caller),),)), budget)


def honest(address: str, caller: str, x: Any, stop: threading.Event, pause_s: float) -> None:
    """Test images, one after the other."""
    with oracle(address, caller, len(x)) as asked:
        for row in x:
            if stop.wait(pause_s):
                return
            asked.probabilities(row[None])


def hostile(
    address: str, caller: str, attack: Any, x: Any, y: Any, stop: threading.Event, wait_s: float, pause_s: float
) -> None:
    """A query attack that takes its time."""

    def pause(_: int) -> None:
        if stop.wait(pause_s):
            sys.exit()  # of this thread

    stop.wait(wait_s)
    with oracle(address, caller, 2000) as asked:
        asked.pause = pause
        attack(asked, x, y)


def hop(asked: Oracle, x: Any, y: Any) -> None:
    """Decision-based."""
    hop_skip_jump.attack(
        asked, x[:1], y[:1], eps=0.0, budget=2000, rng=np.random.default_rng(1), starts=x[1:2], batch=1
    )


def squares(asked: Oracle, x: Any, y: Any) -> None:
    """Score-based."""
    for i in range(20):
        square.attack(asked, x[i : i + 1], y[i : i + 1], eps=0.15, budget=60, rng=np.random.default_rng(i))


def small(file: Path) -> None:
    """Fewer colours, fewer bytes. Raises ValueError where that is not enough."""
    with Image.open(file) as image:
        image.convert("RGB").quantize(160).save(file, optimize=True)
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes")


def pages(directory: Path, admin: str) -> None:
    """The page on a desk and on a phone."""
    with browser.page(directory, haste=False) as page:
        page.resize(1180, 1420)
        page.open(f"http://{admin}/")
        page.wait("document.activeElement.id === 'token'")
        page.type(TOKEN)
        page.press("Enter", "\r")
        page.wait("!document.querySelector('#shown').hidden")
        time.sleep(LOOK_AFTER_S)
        page.wait("[...document.querySelectorAll('#decisions canvas')].slice(0, 5).every(c => !c.hidden)")
        page.picture(OUT / "page.png")
        page.resize(400, 860)
        page.prefer("dark")
        time.sleep(1.0)
        page.picture(OUT / "page-phone.png")
        if page.errors:
            raise ValueError(page.errors)
    small(OUT / "page.png")
    small(OUT / "page-phone.png")


def terminal(admin: str) -> None:
    """`guard top`, as SVG without a font from elsewhere."""
    host, _, port = admin.rpartition(":")
    guarded = Guard(host, int(port), TOKEN)
    former = guarded.look()
    time.sleep(2.0)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=118, file=nowhere, force_terminal=True)
        console.print(top.screen(guarded.look(), former, 38))
    drawn = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="guard top"), flags=re.DOTALL)
    (OUT / "top.svg").write_text(drawn, encoding="utf-8")


def main() -> None:
    """Serve, be attacked, look on."""
    data = mnist.load()
    with tempfile.TemporaryDirectory() as name:
        directory, admin = Path(name), f"127.0.0.1:{free_port()}"
        np.savez(directory / "clean.npz", x=mnist.unit(data.clean.images[:600]))
        stages = [word for stage in STAGES for word in ("--stage", stage)]
        named = ["--model", str(VICTIM), "--model-name", "mnist", "--clean", str(directory / "clean.npz")]
        guard.fit([*named, "--out", "profile", *stages], directory)
        x, y, stop = mnist.unit(data.test.images), data.test.labels, threading.Event()
        with guard.start(directory, settings(directory, admin)) as served:
            people = [
                (honest, ("camera-7", x[1000:1800], stop, 0.05)),
                (honest, ("kiosk-berlin", x[2000:2400], stop, 0.11)),
                (honest, ("batch-reports", x[3000:3300], stop, 0.17)),
                (hostile, ("trial-4711", hop, x[4000:4002], y[4000:4002], stop, 8.0, 0.15)),
                (hostile, ("research-lab", squares, x[5000:5020], y[5000:5020], stop, 20.0, 0.3)),
            ]
            threads = [threading.Thread(target=f, args=(served.address, *args), daemon=True) for f, args in people]
            for thread in threads:
                thread.start()
            pages(directory, admin)
            terminal(admin)
            stop.set()
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main()
