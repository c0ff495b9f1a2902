"""MkDocs hook: links from the docs to other files of the repository work in the site, too.

On GitHub `../deploy/guard.yaml` is the file itself. The site gets a copy of each file that is linked so, as text, and
the link leads there; a target that does not exist is left as it is, and fails the strict build as any dead link does.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)((?:#[^)\s]*)?\))")
PLACE = "repository"


def _outside(page: Path, link: str, docs: Path) -> str | None:
    """The linked file's path in the repository; None where it is a page of the docs, or no file."""
    target = (page.parent / link).resolve()
    if target.is_relative_to(docs) or not target.is_relative_to(docs.parent) or not target.is_file():
        return None
    return target.relative_to(docs.parent).as_posix()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to outside the docs."""
    docs = Path(config.docs_dir).resolve()
    wanted = {
        outside
        for file in files.documentation_pages()
        for _, link, _ in LINK.findall(file.content_string)
        if (outside := _outside(docs / file.src_uri, link, docs)) is not None
    }
    for path in sorted(wanted):
        content = (docs.parent / path).read_bytes()
        files.append(File.generated(config, f"{PLACE}/{path}.txt", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead these links to the copies."""
    docs = Path(config.docs_dir).resolve()

    def led(match: re.Match[str]) -> str:
        outside = _outside(docs / page.file.src_uri, match[2], docs)
        if outside is None or files.get_file_from_path(f"{PLACE}/{outside}.txt") is None:
            return match[0]
        return f"{match[1]}{get_relative_url(f'{PLACE}/{outside}.txt', page.file.src_uri)})"

    return LINK.sub(led, markdown)
