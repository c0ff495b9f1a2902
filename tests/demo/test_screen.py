import io

from rich.console import Console

from demo.screen import Screen


def run(*, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Screen(console) as screen:
        with screen.step("fetching", 10) as tell:
            tell(4)
            tell(10, "all there")
        with screen.step("waiting"):
            pass
        screen.say("a [bold] word")
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    lines = run(terminal=False).splitlines()
    assert lines[0] == "fetching ..."
    assert lines[1].startswith("fetching: all there (")
    assert lines[3].startswith("waiting: done (")
    assert lines[4] == "a [bold] word"
    assert "\x1b" not in "".join(lines)


def test_live_bars_on_a_terminal():
    text = run(terminal=True)
    assert "10/10" in text
    assert "all there" in text
    assert "fetching ..." not in text
