"""Start a built image with runc as a cluster would, call it, and end it. Used by deploy/image/check.py."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from adversary.data import mnist

Say = Callable[..., None]
CALL = Path(__file__).parent / "call.py"
VICTIM = Path(__file__).parent.parent.parent / "adversary" / "victims" / "mnist_cnn.onnx"
CLEAN = 1500
TRIES = 600
NAMESPACES = ("mount", "pid", "ipc", "uts", "network")


TMP = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}


def settings(plane: str) -> dict[str, Any]:
    """The demo's model, guarded and enforced."""
    model = {
        "name": "mnist",
        "embedded": {"file": "/etc/guard/mnist.onnx"},
        "profile": "/etc/guard/profile",
        "mode": "enforce",
        "detectors": [{"stage": "feature_squeezing"}],
        "monitors": [{"stage": "fingerprint"}],
    }
    return {"plane": plane, "listen": {"address": "0.0.0.0:9000"}, "admin": {"http": "0.0.0.0:9464"}, "models": [model]}


class Bundle:
    """An OCI bundle of an image: its own user, environment and command, and our mounts."""

    def __init__(self, rootfs: Path, config: Mapping[str, Any], directory: Path) -> None:
        self._rootfs, self._config, self._directory = rootfs, config, directory
        directory.mkdir()
        self.name = f"guard-check-{directory.name}-{time.time_ns()}"

    def write(self, command: Sequence[str], mounts: Mapping[str, tuple[Path, str]], *, tmp: bool = False) -> None:
        """The runtime's configuration. `mounts`: where -> (what, "ro" or "rw"). `tmp`: with an empty /tmp to write."""
        subprocess.run(["runc", "spec"], cwd=self._directory, check=True)
        file = self._directory / "config.json"
        spec = json.loads(file.read_text())
        uid, gid = map(int, self._config["User"].split(":"))
        spec["root"] = {"path": str(self._rootfs), "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": [*self._config["Entrypoint"], *command],
            "env": self._config["Env"],
            "cwd": self._config["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in spec["process"]["capabilities"]},
        }
        spec["linux"]["namespaces"] = [{"type": kind} for kind in NAMESPACES]
        unwritable = [one for one in spec["mounts"] if one["destination"] in {"/proc", "/dev", "/dev/pts"}]
        spec["mounts"] = (
            unwritable
            + [TMP] * tmp
            + [
                {"destination": at, "type": "bind", "source": str(what), "options": ["bind", mode]}
                for at, (what, mode) in mounts.items()
            ]
        )
        file.write_text(json.dumps(spec))

    def run(self) -> subprocess.CompletedProcess[str]:
        """To its end."""
        command = ["runc", "run", "--bundle", str(self._directory), self.name]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    @contextmanager
    def started(self) -> Any:
        """Until the block ends, by SIGTERM."""
        with (self._directory / "log").open("wb") as log:
            command = ["runc", "run", "--bundle", str(self._directory), self.name]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            subprocess.run(["runc", "kill", self.name, "KILL"], capture_output=True, check=False)
            process.wait(60)
            subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, check=False)

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Inside the running container, as its user."""
        full = ["runc", "exec", self.name, *command]
        return subprocess.run(full, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def pid(self) -> int:
        """Of its first process, as the host sees it."""
        state = subprocess.run(["runc", "state", self.name], capture_output=True, text=True, check=True)
        return int(json.loads(state.stdout)["pid"])

    def log(self) -> str:
        """The end of what it printed."""
        return (self._directory / "log").read_text(errors="replace")[-3000:]


def _until(good: Callable[[], bool], process: "subprocess.Popen[bytes]") -> bool:
    """Whether it became so before the process ended."""
    for _ in range(TRIES):
        if process.poll() is not None:
            return False
        if good():
            return True
        time.sleep(0.5)
    return False


def check(rootfs: Path, config: Mapping[str, Any], work: Path, target: str, say: Say) -> None:
    """Fit a profile in the image; with the serving one, serve it on both planes."""
    etc, made = work / "etc", work / "made"
    etc.mkdir()
    made.mkdir()
    made.chmod(0o777)
    (etc / "mnist.onnx").write_bytes(VICTIM.read_bytes())
    clean = mnist.unit(mnist.load(None, print).clean.images[:CLEAN])
    np.savez(etc / "clean.npz", image=clean)
    fitting = Bundle(rootfs, config, work / "fit")
    inputs = ["--model", "/etc/guard/mnist.onnx", "--model-name", "mnist", "--clean", "/etc/guard/clean.npz"]
    stages = ["pid", "mahalanobis"] if target == "tools" else ["feature_squeezing"]
    chosen = [part for one in stages for part in ("--stage", f"detector/{one}")] + ["--stage", "monitor/fingerprint"]
    mounts = {"/etc/guard": (etc, "ro"), "/out": (made, "rw")}
    fitting.write(["fit", *inputs, *chosen, "--out", "/out/profile"], mounts, tmp=target == "tools")
    done = fitting.run()
    say("guard fit, in the image", done.returncode == 0, done.stderr[-1000:] if done.returncode else "")
    if target != "serve" or done.returncode:
        return
    (made / "profile").rename(etc / "profile")
    for plane in ("grpcio", "fast"):
        (etc / "guard.yaml").write_text(json.dumps(settings(plane)))
        _serve(Bundle(rootfs, config, work / plane), config, etc, plane, say)


def _serve(bundle: Bundle, config: Mapping[str, Any], etc: Path, plane: str, say: Say) -> None:
    bundle.write(config["Cmd"], {"/etc/guard": (etc, "ro")})
    probe = config["Healthcheck"]["Test"][1:]
    with bundle.started() as process:
        healthy = _until(lambda: bundle.exec(*probe).returncode == 0, process)
        say(f"{plane}: starts, and its HEALTHCHECK says so", healthy, "" if healthy else bundle.log())
        if not healthy:
            return
        say(f"{plane}: HEALTHCHECK fails for a model that is not there", bundle.exec(*probe, "--model", "x").returncode)
        status = Path(f"/proc/{bundle.pid()}/status").read_text()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        say(f"{plane}: runs as", facts["Uid"].split() == ["65532"] * 4, facts["Uid"].split()[0])
        say(f"{plane}: has no capability", {int(facts[f"Cap{one}"], 16) for one in ("Prm", "Eff", "Bnd", "Inh")} == {0})
        say(f"{plane}: gets no new privileges", facts["NoNewPrivs"] == "1")
        for place in ("/", "/tmp", "/var/tmp", "/etc/guard", "/opt/guard"):
            tried = bundle.exec("/bin/sh", "-c", f"echo x > {place}/written")
            say(f"{plane}: {place} cannot be written", tried.returncode != 0 and "Read-only" in tried.stderr)
        inside = ["nsenter", "--net", "--target", str(bundle.pid()), sys.executable, str(CALL), plane]
        called = subprocess.run(inside, capture_output=True, text=True, check=False)
        say(f"{plane}: tritonclient", called.returncode == 0, (called.stdout or called.stderr[-2000:]).strip())
        subprocess.run(["runc", "kill", bundle.name, "TERM"], check=True)
        say(f"{plane}: SIGTERM ends it with 0", process.wait(60) == 0, process.returncode)
