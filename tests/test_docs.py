"""What the docs show is true: settings are valid, code runs, links lead somewhere, generated parts are fresh."""

import asyncio
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from guard import config
from guard.types import Action, History, Match
from tests.servers import guard
from tests.servers.models import images
from tests.servers.process import free_port

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=named)
def test_settings_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        if "total_variation" in block:
            continue  # the stage that add-a-stage.md makes up; tested below
        if not {"models", "plane"} & set(tree):
            tree = {"models": [{"name": "m", "profile": "p", **tree}]}
        if not {"upstream"} & set(tree):
            tree["upstream"] = {"address": "127.0.0.1:8001"}
            tree["models"] = [{k: v for k, v in m.items() if k != "embedded"} for m in tree["models"]]
        config.load(None, {}, tree)


def test_the_example_is_valid() -> None:
    settings = config.load(ROOT / "deploy" / "guard.yaml", {})
    assert settings.models[0].detectors


def test_generated_parts_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stale_reference_is_seen(tmp_path: Path) -> None:
    for name in ("make_reference.py", "configure.md", "api.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("max_rows", "most_rows"), encoding="utf-8")
    command = [sys.executable, str(tmp_path / "make_reference.py"), "--check"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.fixture(scope="module")
def fitted(digits_file: Path, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a profile of a model called mnist."""
    directory = tmp_path_factory.mktemp("docs")
    model = ["--model", str(digits_file), "--model-name", "mnist"]
    guard.fit([*model, "--clean", str(clean_file), "--out", "profile"], directory)
    return directory


@pytest.fixture(scope="module")
def predict(digits_file: Path):
    session = onnxruntime.InferenceSession(str(digits_file), providers=["CPUExecutionProvider"])
    return lambda x: session.run(["probabilities"], {"image": x})[0]


def test_the_library_page(fitted: Path, predict, capsys: pytest.CaptureFixture[str]) -> None:
    engine, store = blocks(ROOT / "docs" / "library.md", "python")
    space = {"x": images(2), "predict": predict, "Action": Action, "History": History, "Match": Match}
    exec(engine.replace("profile/", f"{fitted}/profile/"), space)
    assert capsys.readouterr().out.startswith("allow []")
    body = textwrap.indent("import time\n" + store.replace("...", ""), "    ")
    exec(f"async def page():\n{body}\n    return history", space)
    assert len(asyncio.run(space["page"]()).matches) == 2


def test_the_api_page(
    fitted: Path, digits_file: Path, predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = blocks(ROOT / "docs" / "api.md", "python")
    _, watching = blocks(ROOT / "docs" / "respond.md", "python")
    address, token = f"127.0.0.1:{free_port()}", tmp_path / "token"
    token.write_text("the admin token")
    stages = {key: value for key, value in guard.EVERY_STAGE.items() if key in {"detectors", "monitors"}}
    model = {"name": "mnist", "embedded": {"file": str(digits_file)}, "profile": str(fitted / "profile"), **stages}
    admin = {"http": None, "grpc": address, "token_file": str(token)}
    with guard.start(tmp_path, {"models": [model], "admin": admin}):
        code = page.replace("127.0.0.1:9465", address)
        exec(code, {"x": images(1), "ask": predict, "token": "the admin token"})
        assert capsys.readouterr().out == "mnist shadow True ['feature_squeezing', 'fingerprint']\nallow []\n"
        compile(watching, "respond.md", "exec")


def test_the_client_that_is_challenged(fitted: Path, digits_file: Path, predict, tmp_path: Path) -> None:
    """respond.md's example is answered, and a client that knows of nothing is not."""
    example, _ = blocks(ROOT / "docs" / "respond.md", "python")
    model = {"name": "mnist", "embedded": {"file": str(digits_file)}, "profile": str(fitted / "profile")}
    model |= {"mode": "enforce", "policy": {"on_clear": "challenge"}}
    x = InferInput("image", [1, *images(1).shape[1:]], "FP32")
    x.set_data_from_numpy(images(1))
    with guard.start(tmp_path, {"models": [model]}) as served:
        space = {"x": x}
        exec(example.replace("127.0.0.1:9000", served.address), space)
        np.testing.assert_allclose(space["y"], predict(images(1)), rtol=1e-5)
        with pytest.raises(InferenceServerException, match="proof of work"):
            InferenceServerClient(served.address).infer("mnist", [x])


def test_the_made_up_stage(tmp_path: Path) -> None:
    """add-a-stage.md's example is a stage as it stands."""
    source = blocks(ROOT / "docs" / "add-a-stage.md", "python")[0]
    (tmp_path / "total_variation.py").write_text(source)
    check = textwrap.dedent("""
        import numpy as np, total_variation
        from guard.settings import build_stage
        stage = build_stage("detector", "total_variation", {})
        x = np.zeros((2, 8, 8, 1), np.float32); x[1, ::2] = 1
        flat, rough = stage.score(x)
        assert flat == 0 < rough
    """)
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, check=True)


def test_the_made_up_stage_that_learns(tmp_path: Path) -> None:
    """add-a-stage.md's second example is a stage as it stands, too."""
    (tmp_path / "far_from_mean.py").write_text(blocks(ROOT / "docs" / "add-a-stage.md", "python")[1])
    check = textwrap.dedent("""
        import numpy as np, far_from_mean
        from guard.equipping import equip, learner_of
        from guard.settings import build_stage
        from guard.types import Material
        stage = build_stage("detector", "far_from_mean", {})
        x = np.random.default_rng(0).random((50, 4), dtype=np.float32)
        working = equip(stage, "detector/far_from_mean", {}, learner_of(stage)(Material(x, None, 2)), b"")
        usual, odd = working.score(np.array([x.mean(axis=0), [9, 9, 9, 9]], np.float32))
        assert usual < 0.1 < 9 < odd
    """)
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, check=True)


def test_pages_are_reached_from_the_readme() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    linked = {(page.parent / link).resolve() for page, text in texts.items() for link in LINK.findall(text)}
    assert {page.resolve() for page in PAGES} - linked == {ROOT / "README.md"}


def test_no_numbers_that_nobody_made() -> None:
    """results.md holds what a run wrote, between its marks."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert np.array_equal(re.findall(r"results: (begin|end)", text), ["begin", "end"])
