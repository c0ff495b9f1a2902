"""The docs as a site: it builds strictly, a dead link or anchor ends the build, nothing is fetched from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
)


def built(settings: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(settings), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = built(ROOT / "mkdocs.yml", directory)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr  # --quiet would not count them, and nothing would be strict
    return directory


def test_every_page_is_there(site: Path) -> None:
    pages = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 30
    assert [page for page in pages if not (site / page).is_file()] == []
    assert not list(site.rglob("*.py"))


def test_files_of_the_repository_are_there(site: Path) -> None:
    copy = site / "repository" / "deploy" / "guard.yaml.txt"
    assert copy.read_bytes() == (ROOT / "deploy" / "guard.yaml").read_bytes()
    assert 'href="repository/deploy/guard.yaml.txt"' in (site / "configure.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if ELSEWHERE.search(page.read_text())] == []
    assert not [file.name for file in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", file.read_text())]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("[there](other.md#a-heading) and [outside](../mkdocs.yml)", True),
        ("[gone](gone.md)", False),
        ("[gone](other.md#no-heading)", False),
        ("[gone](../deploy/gone.yaml)", False),
    ],
)
def test_a_dead_link_ends_the_build(text: str, good: bool, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Home\n\n{text}\n")
    (docs / "other.md").write_text("# Other\n\n## A heading\n")
    settings = tmp_path / "mkdocs.yml"
    hook = ROOT / "docs" / "site_hook.py"
    settings.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nnav: [index.md, other.md]\nhooks: [{hook}]\n"
        "theme: {name: mkdocs}\nplugins: []\n"
    )
    done = built(settings, tmp_path / "site")
    assert (done.returncode == 0) is good, done.stderr
