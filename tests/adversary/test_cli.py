import json
import subprocess
import sys

import numpy as np
import pytest

from adversary import cli
from adversary.catalogue import CATALOGUE
from adversary.victims import cifar10
from adversary.victims.mnist import CHECKPOINT
from tests.adversary.tiny import Tiny, serving


def test_list_as_json(capsys):
    assert cli.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == list(CATALOGUE)
    assert len(listed) >= 40
    columns = {"name", "family", "goal", "access", "norm", "source", "origin", "eps", "budget", "atlas"}
    assert all(set(row) == columns and all(row[name] for name in columns - {"eps"}) for row in listed)
    assert all((row["eps"] is None) == (row["goal"] != "evasion") for row in listed)
    assert {row["origin"] for row in listed} <= {"own", "library"}


def test_list_as_a_table(capsys):
    assert cli.main(["list"]) == 0
    assert "hop-skip-jump" in capsys.readouterr().out


def logits_of(model, x):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(np.array(x))).numpy()


@pytest.fixture
def tiny(victim):
    with serving(Tiny(lambda x: logits_of(victim, x), shape=(-1, 1, 28, 28))) as served:
        yield served


def attack(tiny, name, *more):
    return cli.main(["attack", name, "--target", tiny.address, "--model-name", "tiny", "--json", *more])


def test_a_white_box_attack_through_the_wire(tiny, data, capsys):
    assert attack(tiny, "pgd", "--onnx", str(CHECKPOINT), "--n", "10", "--header", "X-Api-Key=me") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attack_success"]["rate"] >= 0.9
    assert told["eps"] == 0.3
    assert told["rows_sent"] == told["calls"] == 20
    assert told["detected"]["hits"] == 0
    assert {sent["x-api-key"] for sent in tiny.metadata} == {"me"}


def test_photographs_through_the_wire(cifar, cifar_victim, capsys):
    with serving(Tiny(lambda x: logits_of(cifar_victim, x), shape=(-1, 3, 32, 32))) as served:
        named = ("--dataset", "cifar10", "--onnx", str(cifar10.CHECKPOINT))
        assert attack(served, "pgd", *named, "--n", "10", "--eps", "0.0314") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data_digest"] == cifar.digest
    assert told["clean_accuracy"]["hits"] >= 7
    assert told["attack_success"]["hits"] == told["clean_accuracy"]["hits"]


def test_a_black_box_attack_through_the_wire(tiny, data, capsys):
    assert attack(tiny, "hop-skip-jump", "--n", "2", "--budget", "400", "--eps", "8", "--seed", "5") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attack_success"]["hits"] == 2
    assert told["rows_sent"] <= 2 * 402
    assert (told["budget"], told["seed"], told["eps"]) == (400, 5, 8.0)


def test_a_transfer_attack_is_crafted_on_a_network_of_its_own(tiny, data, capsys):
    assert attack(tiny, "mi-fgsm", "--n", "10", "--callers", "4") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attack_success"]["hits"] > 0
    assert {sent["x-api-key"] for sent in tiny.metadata} == {f"attacker-{i}" for i in range(4)}


def test_the_table(tiny, data, capsys):
    arguments = [
        "attack",
        "fgsm",
        "--target",
        tiny.address,
        "--model-name",
        "tiny",
        "--onnx",
        str(CHECKPOINT),
        "--n",
        "3",
    ]
    assert cli.main(arguments) == 0
    assert "attack success (linf <= 0.3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("fgsm", [], "name its file by --onnx"),
        ("hop-skip-jump", ["--onnx", "v.onnx"], "does not see the victim's file"),
        ("hop-skip-jump", ["--n", "0"], "at least 1"),
        ("hop-skip-jump", ["--budget", "0"], "at least 1"),
        ("hop-skip-jump", ["--eps", "-1"], "above 0"),
        ("hop-skip-jump", ["--header", "novalue"], "write NAME=VALUE"),
        ("hop-skip-jump", ["--members", "10"], "--members is of no use"),
        ("hop-skip-jump", ["--option", "batch"], "write NAME=VALUE"),
        ("hop-skip-jump", ["--option", "nonsense=1"], "no such option; it has batch"),
        ("hop-skip-jump", ["--option", "eps=1"], "no such option"),
        ("square", ["--torch", "a:b"], "does not see the victim's file"),
    ],
)
def test_what_does_not_go_together(name, more, message, capsys):
    arguments = ["attack", name, "--target", "127.0.0.1:1", "--model-name", "m", *more]
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_said(tiny, data, capsys):
    arguments = ["attack", "hop-skip-jump", "--target", tiny.address, "--model-name", "other"]
    assert cli.main(arguments) == 2
    assert "NOT_FOUND" in capsys.readouterr().err


def test_a_loader_that_is_none_is_said(tiny, data, capsys):
    assert attack(tiny, "fgsm", "--onnx", str(CHECKPOINT), "--torch", "nonsense") == 2
    assert "cannot load nonsense" in capsys.readouterr().err


def test_list_does_not_load_torch():
    code = "import sys; from adversary.cli import main; main(['list', '--json']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
