"""Pages that a bench writes a part of: what stands between two marks."""

from pathlib import Path


def put(page: Path, text: str, *, begin: str, end: str, title: str) -> None:
    """Between the page's marks, which are made at its end where there are none. title: of a page that is new."""
    whole = page.read_text(encoding="utf-8") if page.is_file() else f"# {title}\n"
    if begin not in whole:
        whole = f"{whole.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = whole.partition(begin)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}", encoding="utf-8")
