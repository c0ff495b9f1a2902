"""Headless Chromium, where there is one: what a page looks like once a browser has laid it out."""

import html
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.browser import executable

_MEASURE = """
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const broken = [...page.images].filter(image => !image.complete || image.naturalWidth === 0).length;
  const seen = [...page.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().height > 20).length;
  document.title = JSON.stringify({
    wide: root.scrollWidth, client: root.clientWidth, tall: root.scrollHeight, broken, seen,
    pictures: page.images.length, text: page.body.innerText.length,
  });
});
</script>
"""


@dataclass(frozen=True)
class Seen:
    """title: what the script measured; console: what the page said there."""

    title: str
    console: list[str]


def run(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    profile = f"--user-data-dir={directory / 'profile'}"
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars")
    command = [executable(), "--headless=new", *quiet, profile, "--enable-logging=stderr", "--v=0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def look(directory: Path, page: str, width: int) -> Seen:
    """The page in a frame so wide, with its console."""
    wrapper = directory / f"at-{width}.html"
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
    wrapper.write_text(f"<!doctype html><html><body>{frame}{_MEASURE}</body></html>", encoding="utf-8")
    done = run(directory, "--window-size=1600,1000", "--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri())
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stdout[:2000]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(html.unescape(title[1]), console)
