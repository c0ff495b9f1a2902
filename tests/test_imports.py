"""Who may import whom: every import statement of the two packages is read, and held against the design's rules."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HELPERS = ("guard.filters", "guard.keyed", "guard.features", "guard.extraction_budget")
STAGES = ("guard.detectors.*", "guard.purifiers.*", "guard.monitors.*", "guard.outputs.*", *HELPERS)
STAGE_HOUSE = ("guard.types", "guard.registry", "guard.networks", *HELPERS)
TAUGHT = ("guard.learning.extraction_curve",)  # what a stage learns with, imported where it does
ARRAYS = ("numpy", "cv2", "pydantic.Field", "pydantic.TypeAdapter", "pydantic.ValidationError")
CORE = (
    "guard.types",
    "guard.registry",
    "guard.calibration",
    "guard.profile",
    "guard.settings",
    "guard.engine",
    "guard.weighing",
)
WIRE_USERS = ("guard.proxy.*", "guard.client", "guard.wire", "guard.wire.*", "adversary.*")  # adversary: its own rules
ORACLE = ("adversary.oracle", "adversary.messages")
IO = ("grpc", "aiohttp", "prometheus_client", "time", "asyncio", "random", "secrets", "socket", "guard.proxy")
COMPUTING = (
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "math",
    "operator",
    "pathlib.Path",  # the type of an option; what reads the file is guard.networks
    "re",
    "statistics",
    "typing",
)


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of these, or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def one_of(*patterns: str) -> Callable[[str], bool]:
    return lambda module: any(fnmatch(module, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Rule:
    """Modules, and what they may not import. `early`: only what runs at import time counts."""

    why: str
    applies: Callable[[str], bool]
    forbids: Callable[[str, str], bool]
    early: bool = False


def _not_for_a_stage(name: str, module: str) -> bool:
    """A package may share a helper among its own stages, under a name with an underscore."""
    helper = f"{module.rpartition('.')[0]}._"
    return not within(name, *STAGE_HOUSE, *TAUGHT, *ARRAYS, *COMPUTING) and not name.startswith(helper)


RULES = (
    Rule("a stage knows arrays: no I/O, clock, settings or other stage", one_of(*STAGES), _not_for_a_stage),
    Rule("the core is pure", one_of(*CORE), lambda name, _: within(name, *IO)),
    Rule(
        "the engine reads nothing", one_of("guard.engine"), lambda name, _: within(name, "yaml", "guard.config", "os")
    ),
    Rule(
        "the words stand on evidence alone",
        one_of("guard.types"),
        lambda name, _: within(name, "guard") and not within(name, "guard.evidence"),
    ),
    Rule("a store knows no wire", one_of("guard.stores.*"), lambda name, _: within(name, "grpc", "guard.proxy")),
    Rule(
        "only the proxy, the client and the oracle speak the wire",
        lambda module: not one_of(*WIRE_USERS)(module),
        lambda name, _: within(name, "guard.wire"),
    ),
    Rule(
        "torch is never needed to serve",
        lambda module: within(module, "guard") and not one_of("guard.learning.*")(module),  # these train, and are ...
        lambda name, _: within(name, "torch", "torchvision", "onnx", "onnxscript") or fnmatch(name, "guard.learning.*"),
        early=True,
    ),
    Rule(
        "the defence knows no attacker",
        one_of("guard", "guard.*"),
        lambda name, _: within(name, "adversary", "demo", "bench", "tests"),
    ),
    Rule(
        "the oracle sees the wire and nothing else",
        one_of(*ORACLE),
        lambda name, _: within(name, "guard") and not within(name, "guard.wire"),
    ),
    Rule(
        "an attack sees its oracle and nothing else",
        lambda module: within(module, "adversary") and module not in ORACLE,
        lambda name, _: within(name, "guard", "grpc"),
    ),
)


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name, generated code left out."""
    found = {}
    for package in ("guard", "adversary"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if not fnmatch(path.name, "*_pb2*.py"):
                found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(source: str, module: str, *, early: bool) -> Iterator[str]:
    """The dotted names that a source imports; `early`: only where importing the module runs the statement."""
    tree = ast.parse(source)
    for node in _at_import(tree) if early else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            name = ".".join(filter(None, [base, node.module]))
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Walk without entering functions, nor blocks that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _at_import(child)


def breaches(module: str, source: str) -> list[str]:
    """What a module imports and may not, in words."""
    return [
        f"{module} imports {name}: {rule.why}"
        for rule in RULES
        if rule.applies(module)
        for name in sorted(set(imports(source, module, early=rule.early)))
        if rule.forbids(name, module)
    ]


@pytest.mark.parametrize("module", modules())
def test_keeps_the_rules(module: str) -> None:
    assert breaches(module, modules()[module].read_text(encoding="utf-8")) == []


def test_finds_the_packages() -> None:
    assert {"guard", "guard.engine", "guard.types", "guard.proxy.seam", "adversary"} <= set(modules())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("guard.detectors.mine", "import grpc"),
        ("guard.detectors.mine", "from guard.config import load"),
        ("guard.detectors.mine", "from guard.purifiers import median"),
        ("guard.detectors.mine", "from . import other"),
        ("guard.monitors.mine", "import time"),
        ("guard.outputs.mine", "def f():\n    import asyncio"),
        ("guard.purifiers.mine", "import os"),
        ("guard.engine", "import yaml"),
        ("guard.engine", "from time import monotonic"),
        ("guard.types", "from guard import profile"),
        ("guard.stores.memory", "import grpc"),
        ("guard.metrics", "from guard.wire import tensors"),
        ("guard.fit", "from guard.wire import tensors"),
        ("guard", "import torch"),
        ("guard.proxy.app", "from torch import nn"),
        ("guard.proxy.app", "if True:\n    import torch"),
        ("guard.proxy.app", "class A:\n    import torch"),
        ("guard.fit", "def f():\n    from adversary import scores"),
        ("adversary.evasion.mine", "from guard.wire import tensors"),
        ("adversary.evasion.mine", "import grpc"),
        ("adversary.messages", "from guard.proxy import tls"),
        ("adversary.oracle", "from guard.engine import Engine"),
    ],
)
def test_a_breach_is_caught(module: str, source: str) -> None:
    assert len(breaches(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("guard.detectors.mine", "import numpy as np\nimport cv2\nfrom guard.types import Array\nimport math"),
        ("guard.detectors.mine", "from guard.detectors import _squeeze"),
        ("guard.detectors.mine", "from ._squeeze import squeeze"),
        ("guard.fit", "def train():\n    import torch"),
        ("guard.fit", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("guard.proxy.app", "from guard.wire import tensors"),
        ("adversary.oracle", "import grpc\nfrom guard.wire import tensors"),
        ("adversary.evasion.mine", "import torch"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert breaches(module, source) == []
