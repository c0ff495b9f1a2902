"""The comparison as a table: on a terminal, and in Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adversary.report_text import NOTHING, number, per_cent
from bench.attacks.compare import Compared, Document

HEADINGS = (
    "attack", "n", "ours", "library's", "points between", "median queries, ours", "library's", "ratio",
    "median l2, ours", "library's", "within 3 points or 20 % of queries",
)  # fmt: skip
TITLE = "Beside other libraries"


def row(one: Compared) -> tuple[str, ...]:
    """Under HEADINGS."""
    ratio = NOTHING
    if one.ratio is not None:
        low, high = one.ratio.interval_95
        ratio = f"{one.ratio.value:.2f} ({low:.2f} to {high:.2f})"
    return (
        f"{one.title} ({one.norm} \u2264 {one.eps:.4g}, {one.budget:,})",
        str(one.ours.success.n),
        per_cent(one.ours.success),
        per_cent(one.theirs.success),
        one.difference,
        number(one.ours.queries),
        number(one.theirs.queries),
        ratio,
        number(one.ours.l2),
        number(one.theirs.l2),
        verdict(one),
    )


def verdict(one: Compared) -> str:
    """By what it is within the bar, or that it is not."""
    by = [word for word, held in (("success", one.success_within), ("queries", one.queries_within)) if held]
    return f"yes ({', '.join(by)})" if by else "no"


def notes(compared: Sequence[Compared]) -> Iterator[str]:
    """What each was compared with."""
    for one in compared:
        options = ", ".join(f"{name} {_plain(value)}" for name, value in one.options.items())
        yield (
            f"{one.title}: {one.name} of {one.library} {one.version}{f' ({options})' if options else ''}; "
            f"where it differs: {one.differs}."
        )


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " or ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_SHORT = ("attack", "n", "ours", "theirs", "points", "queries", "theirs", "ratio", "l2", "theirs", "bar")


def show(document: Document, console: Console) -> None:
    """On a terminal, without intervals."""
    table = Table(
        title="Success in per cent, median queries until it, median l2",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in _SHORT:
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for one in document.attacks:
        *cells, last = row(one)
        table.add_row(*(cell.partition(" (")[0] for cell in cells), last)
    console.print(table)
    for line in notes(document.attacks):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def markdown(document: Document) -> str:
    """A table, its notes, and what made it."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    lines += [f"| {' | '.join(row(one))} |" for one in document.attacks]
    return "\n".join([*lines, "", *(f"- {line}" for line in notes(document.attacks)), "", made(document)])


def made(document: Document) -> str:
    """The command, the seeds, the data, the versions."""
    seeds = f"seed{'s' * (len(document.seeds) > 1)} {', '.join(map(str, document.seeds))}"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(document.versions.items()))
    return (
        f"Made by `{document.command}` ({seeds}) on {document.data}, the victim {document.model_sha256[:12]}, "
        f"{document.machine}; {versions}."
    )


def put(page: Path, campaign: str, text: str) -> None:
    """Into its place of a page: between the campaign's marks, made at the end of the section where there are none."""
    begin, end = (f"<!-- beside other libraries, {campaign}: {word} -->" for word in ("begin", "end"))
    whole = page.read_text(encoding="utf-8")
    if begin not in whole:
        whole = _with_place(whole, f"{begin}\n{end}\n")
    before, _, rest = whole.partition(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _with_place(whole: str, place: str) -> str:
    heading = f"## {TITLE}\n"
    if heading not in whole:
        return f"{whole.rstrip()}\n\n{heading}\n{place}"
    before, _, rest = whole.partition(heading)
    section, following, after = rest.partition("\n## ")
    return f"{before}{heading}{section.rstrip()}\n\n{place}{following}{after}"
