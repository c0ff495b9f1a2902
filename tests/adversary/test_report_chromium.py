"""The page in a real browser: it renders, fits a phone, prints, and says nothing on the console."""

import json

import pytest

from adversary import report_html
from tests.adversary import chromium, samples_leaks


@pytest.fixture(scope="module")
def page():
    return report_html.render(samples_leaks.judged())


@pytest.mark.parametrize("width", [390, 1280])
def test_it_renders_and_fits(tmp_path, page, width):
    seen = chromium.look(tmp_path, page, width)
    told = json.loads(seen.title)
    assert seen.console == []
    assert told["client"] == width
    assert told["wide"] <= width, "it scrolls sideways"
    assert told["broken"] == 0
    assert told["pictures"] == page.count("<img")
    assert told["seen"] == page.count("<svg")
    assert told["text"] > 1000


def test_what_overflows_would_be_seen(tmp_path):
    wide = chromium.look(tmp_path, '<html><body><div style="width:900px">x</div></body></html>', 390)
    assert json.loads(wide.title)["wide"] > 390


def test_a_console_error_would_be_seen(tmp_path):
    loud = chromium.look(tmp_path, '<html><body><script>console.error("loud")</script></body></html>', 390)
    assert any("loud" in line for line in loud.console)


def test_it_prints(tmp_path, page):
    file, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    file.write_text(page, encoding="utf-8")
    chromium.run(tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer", file.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page") >= 1
