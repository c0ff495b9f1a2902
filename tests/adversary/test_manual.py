"""What docs/adversary.md shows is true: its campaign and its bars are read, its commands parse."""

import re
import shlex
from pathlib import Path

import pytest

from adversary import campaign, cli, judge_bars

PAGE = (Path(__file__).parents[2] / "docs" / "adversary.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language):
    return [body for kind, body in FENCE.findall(PAGE) if kind == language]


def test_its_campaign_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(blocks("yml")[0])
    made = campaign.load(str(path)).campaign
    assert made.attacks[1].options == {"batch": 16}
    assert made.data.file == tmp_path / "test.npz"


def test_its_bars_are_read(tmp_path):
    path = tmp_path / "score.yaml"
    path.write_text(blocks("yml")[1])
    assert judge_bars.load(path).attacks["square"].max_queries_to_detection == 100


def test_every_bar_there_is_can_be_found_in_it():
    for name in (*judge_bars.Bars.model_fields, "max_success", "min_noticed", "min_control_success"):
        assert name in PAGE


LINES = [line.partition(" #")[0].strip() for body in blocks("sh") for line in body.splitlines()]


@pytest.mark.parametrize("line", [line for line in LINES if line])
def test_its_commands_parse(line, monkeypatch):
    command, *arguments = shlex.split(line)
    assert command == "adversary"
    cli._parser().parse_args(arguments)


def test_the_shipped_campaigns_are_listed():
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE)) == set(campaign.shipped())
