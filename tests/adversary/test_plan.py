from dataclasses import replace

import numpy as np
import pytest

from adversary import campaign
from adversary.campaign import CampaignError
from adversary.catalogue import CATALOGUE, Entry
from adversary.inputs import Inputs
from adversary.plan import Fingerprints, Plan
from adversary.runner import ANY
from adversary.serving import Place

RNG = np.random.default_rng(0)
X, CLEAN = (RNG.uniform(size=(n, 4)).astype(np.float32) for n in (200, 50))
INPUTS = Inputs(X, RNG.integers(0, 3, 200), CLEAN, RNG.integers(0, 3, 50), "made up", "d")
PRINTS = Fingerprints("code", "model", {"control": "c", "guarded": "g"})
PLACE = Place("a:1", None, "secret", (), ())
TREE = {
    "name": "mine",
    "seeds": [3, 4],
    "victims": 20,
    "chunk": 8,
    "model": {"name": "m", "onnx": "m.onnx"},
    "targets": {"guarded": {"address": "127.0.0.1:1"}, "control": {"serve": {"fit": 30}}},
    "benign": {"images": 40, "every": 10},
    "attacks": [
        {"attack": "pgd", "per_victim": {}},
        {"attack": "hop-skip-jump", "victims": 12, "per_victim": {"starts": "other_class"}},
        {"attack": "mi-fgsm"},
    ],
}


def plan(inputs=INPUTS, prints=PRINTS, **parts):
    return Plan(campaign.validate({**TREE, **parts}), inputs, prints)


def names(units):
    return [(u.kind, u.target, u.attack, u.seed, u.start, u.stop) for u in units]


def test_the_units_of_a_campaign():
    made = plan(seeds=[3])
    assert names(made.first()) == [
        ("clean", "control", "", 3, 0, 20),
        ("clean", "guarded", "", 3, 0, 20),
        ("craft", "", "pgd", 3, 0, 20),
        ("craft", "", "mi-fgsm", 3, 0, 20),
    ]
    on = [
        ("benign", "", 0, 40),
        ("send", "pgd", 0, 20),
        ("hunt", "hop-skip-jump", 0, 8),
        ("hunt", "hop-skip-jump", 8, 12),
        ("send", "mi-fgsm", 0, 20),
    ]
    assert names(made.second()) == [
        (kind, target, attack, 3, start, stop) for target in ("control", "guarded") for kind, attack, start, stop in on
    ]


def test_one_caller_for_an_attack_makes_one_unit_of_it():
    made = plan(identities={"per": "attack"}, seeds=[3])
    assert [(u.start, u.stop) for u in made.second() if u.kind == "hunt"] == [(0, 12), (0, 12)]


def test_nobody_shares_an_input():
    made = plan()
    units = {unit.kind + str(unit.seed): unit for unit in (*made.first(), *made.second())}
    parts = [made.drawn.rows(units[name]) for name in ("clean3", "clean4", "benign3")]
    parts += [made.drawn.beside(units["hunt3"])]
    together = np.concatenate(parts)
    assert len(together) == len(set(together.tolist()))


def test_what_is_fitted_on_is_never_sent():
    inputs = replace(INPUTS, clean=INPUTS.x[:0], clean_y=INPUTS.y[:0])
    made = plan(inputs)
    fitted = {row.tobytes() for row in made.drawn.clean(30)}
    sent = [made.drawn.rows(unit) for unit in (*made.first(), *made.second())]
    sent += [made.drawn.beside(unit) for unit in made.second()]
    assert len(fitted) == 30
    assert not fitted & {inputs.x[i].tobytes() for i in np.concatenate(sent)}
    assert len(made.drawn.own()[0]) == 200 - 2 * 20 - 40 - 30
    assert len(plan().drawn.clean(30)) == 30
    assert len(plan().drawn.clean(0)) == 0


def test_too_few_inputs_are_said():
    with pytest.raises(CampaignError, match="200 test inputs"):
        plan(victims=90)
    with pytest.raises(CampaignError, match="50 clean"):
        plan(targets={**TREE["targets"], "control": {"serve": {"fit": 51}}})


@pytest.mark.parametrize(
    ("field", "name"), [("options", "nonsense"), ("options", "eps"), ("options", "rng"), ("per_victim", "nonsense")]
)
def test_an_option_the_attack_has_not_is_said_before_anything_runs(field, name):
    value = "other_class" if field == "per_victim" else 1
    with pytest.raises(CampaignError, match=r"no such option; it has .*batch") as caught:
        plan(attacks=[{"attack": "hop-skip-jump", field: {name: value}}])
    assert caught.value.path == f"attacks.0.{field}.{name}"


def keys(made):
    units = [*made.first(), *made.second()]
    return {name: unit.key for name, unit in zip(names(units), units, strict=True)}


def differing(a, b):
    a, b = keys(a), keys(b)
    return {(name[0], name[1], name[2]) for name in a if a[name] != b.get(name)}


def test_the_same_campaign_has_the_same_keys():
    assert differing(plan(), plan()) == set()
    assert differing(plan(), plan(description="in other words", name="other")) == set()


def test_code_changes_everything():
    assert len(differing(plan(), plan(prints=replace(PRINTS, code="other")))) == len({n[:3] for n in keys(plan())})


def test_a_target_changes_what_was_asked_of_it():
    changed = differing(plan(), plan(prints=replace(PRINTS, targets={"control": "c", "guarded": "other"})))
    assert {target for _, target, _ in changed} == {"guarded"}
    assert {kind for kind, _, _ in changed} == {"clean", "benign", "send", "hunt"}


def test_an_attacks_words_change_its_own_units():
    attacks = [{**TREE["attacks"][0], "eps": 0.1}, *TREE["attacks"][1:]]
    assert {name for _, _, name in differing(plan(), plan(attacks=attacks))} == {"pgd"}
    retitled = [{**TREE["attacks"][0], "expect": 0.1}, *TREE["attacks"][1:]]
    assert differing(plan(), plan(attacks=retitled)) == set()


def test_the_model_changes_what_is_crafted_on_it():
    changed = differing(plan(), plan(prints=replace(PRINTS, model="other")))
    assert {kind for kind, _, _ in changed} == {"craft", "send"}


def unit(made, kind, attack=""):
    return next(u for u in (*made.first(), *made.second()) if (u.kind, u.attack) == (kind, attack))


def test_what_a_hunt_brings_along():
    made = plan()
    hunt = replace(unit(made, "hunt", "hop-skip-jump"), start=8, stop=12)
    (clean,) = made.needs(hunt)
    assert clean in made.first()
    task = made.task(hunt, [{"labels": np.arange(20)}], PLACE)
    assert task.arrays["clean"].tolist() == [8, 9, 10, 11]
    assert np.array_equal(task.arrays["x"], INPUTS.x[made.drawn.rows(hunt)])
    starts = task.arrays["per_victim.starts"]
    assert starts.shape == (4, 4)
    label_of = {row.tobytes(): label for row, label in zip(INPUTS.x, INPUTS.y, strict=True)}
    assert all(label_of[s.tobytes()] != y for s, y in zip(starts, task.arrays["y"], strict=True))
    whole = made.task(replace(hunt, start=0, stop=12), [{"labels": np.arange(20)}], PLACE)
    assert np.array_equal(whole.arrays["per_victim.starts"][8:], starts)
    assert len(task.arrays["beside_x"]) == 200 - 2 * 20 - 40


def test_what_a_send_brings_along():
    made = plan()
    send = unit(made, "send", "pgd")
    clean, craft = made.needs(send)
    assert (clean.kind, craft) == ("clean", unit(made, "craft", "pgd"))
    crafted = {"x_adv": INPUTS.x[:20], "queries": np.arange(20), "aim": np.full(20, ANY)}
    task = made.task(send, [{"labels": np.arange(20)}, crafted], PLACE)
    assert task.arrays["x_adv"] is crafted["x_adv"]
    assert len(task.arrays["beside_x"]) == 0


def test_a_transfer_attack_brings_its_own_inputs():
    made = plan()
    assert "own_x" in made.task(unit(made, "craft", "mi-fgsm"), [], None).arrays
    assert "own_x" not in made.task(unit(made, "craft", "pgd"), [], None).arrays


def test_the_next_class_wraps_around():
    made = plan(attacks=[{"attack": "carlini-wagner", "per_victim": {"targets": "next_class"}}])
    craft = unit(made, "craft", "carlini-wagner")
    targets = made.task(craft, [], None).arrays["per_victim.targets"]
    assert targets.tolist() == ((INPUTS.y[made.drawn.rows(craft)] + 1) % 3).tolist()


def test_a_units_name_is_a_file_name():
    made = plan(attacks=[{"attack": "pgd", "title": "../PGD eps 0.3/é"}])
    name = unit(made, "send", "../PGD eps 0.3/é").name
    assert "/" not in name
    assert name.startswith("send_control_..-PGD-eps-0.3-")


# --- attacks that are no evasions


LEARNED = RNG.uniform(size=(60, 4)).astype(np.float32)
ALL = replace(INPUTS, pool=CLEAN, pool_y=RNG.integers(0, 3, 50), learned=LEARNED, learned_y=RNG.integers(0, 3, 60))
FAKES = {
    "thief": ("extraction", "labels"),
    "guesser": ("membership", "scores"),
    "mirror": ("inversion", "scores"),
    "together": ("transfer", "labels"),
    "trigger": ("backdoor", "nothing"),
}


def anything(target, x, y, *, budget, rng, own_x=None, own_y=None, classes=0, knob=1):
    raise NotImplementedError


@pytest.fixture
def goals(monkeypatch):
    for name, (family, access) in FAKES.items():
        entry = Entry(name, family, access, "none", "made up", 0.0, 9, joint=name == "together")
        monkeypatch.setitem(CATALOGUE, name, entry)
    monkeypatch.setattr(Entry, "function", property(lambda _: anything))
    wanted = [{"attack": name, "victims": 20} for name in FAKES]
    return lambda inputs=ALL, attacks=wanted, **parts: plan(inputs, attacks=attacks, seeds=[3], **parts)


def test_units_of_each_goal(goals):
    made = goals()
    assert names(made.first()) == [
        ("clean", "control", "", 3, 0, 20),
        ("clean", "guarded", "", 3, 0, 20),
        ("craft", "", "trigger", 3, 0, 20),
    ]
    on_guarded = [(kind, attack, start, stop) for kind, target, attack, _, start, stop in names(made.second())
                  if target == "guarded"]  # fmt: skip
    assert on_guarded == [
        ("benign", "", 0, 40),
        ("steal", "thief", 0, 20),
        ("infer", "guesser", 0, 20),
        ("invert", "mirror", 0, 20),
        ("hunt", "together", 0, 20),  # whole, where others come in chunks of 8
        ("send", "trigger", 0, 20),
    ]


def test_only_who_is_held_against_clean_answers_asks_for_them(goals):
    def clean(*attacks):
        made = goals(attacks=[{"attack": name, "victims": 20} for name in attacks])
        return [(u.target, u.stop) for u in made.first() if u.kind == "clean"]

    assert clean("guesser", "mirror") == []
    assert clean("thief", "guesser") == [("control", 20)]
    assert clean("trigger") == [("control", 20), ("guarded", 20)]


def test_a_thief_gets_the_pool_and_is_judged_by_the_bare_models_answers(goals):
    made = goals()
    steal = next(u for u in made.second() if (u.kind, u.target) == ("steal", "guarded"))
    (clean,) = made.needs(steal)
    assert (clean.kind, clean.target) == ("clean", "control")
    task = made.task(steal, [{"labels": np.arange(20)}], PLACE)
    assert np.array_equal(task.arrays["pool"], CLEAN)
    assert np.array_equal(task.arrays["x"], INPUTS.x[made.drawn.rows(steal)])
    assert task.arrays["clean"].tolist() == list(range(20))
    assert task.classes == 3
    assert np.array_equal(task.arrays["own_x"], CLEAN)  # it asks for them


def test_candidates_are_half_members_in_no_order(goals):
    made = goals()
    infer = next(u for u in made.second() if u.kind == "infer")
    arrays = made.task(infer, [], PLACE).arrays
    member = arrays["member"]
    assert member.sum() == 10
    assert 0 < member[:10].sum() < 10
    learned = {row.tobytes(): label for row, label in zip(LEARNED, ALL.learned_y, strict=True)}
    test = {row.tobytes(): label for row, label in zip(INPUTS.x, INPUTS.y, strict=True)}
    for x, y, inside in zip(arrays["candidates"], arrays["candidates_y"], member, strict=True):
        assert (learned if inside else test)[x.tobytes()] == y
    assert len({row.tobytes() for row in arrays["candidates"]}) == 20


def test_an_inversion_starts_from_grey_for_each_class_in_turn(goals):
    made = goals()
    invert = next(u for u in made.second() if u.kind == "invert")
    arrays = made.task(invert, [], PLACE).arrays
    assert arrays["wanted"].tolist() == [0, 1, 2] * 6 + [0, 1]
    assert (arrays["start"] == 0.5).all()
    assert arrays["start"].shape == (20, 4)
    assert len(made.drawn.rows(invert)) == 0


def test_what_an_attack_is_given_changes_its_units_alone(goals):
    other = replace(ALL, pool=CLEAN[:49], pool_y=ALL.pool_y[:49])
    assert {name for _, _, name in differing(goals(), goals(other))} == {"thief"}
    other = replace(ALL, learned=LEARNED[:40], learned_y=ALL.learned_y[:40])
    assert {name for _, _, name in differing(goals(), goals(other))} == {"guesser"}


def test_data_without_what_an_attack_needs_are_said_before_anything_runs(goals):
    with pytest.raises(CampaignError, match=r"attacks\.0: thief needs inputs to send: the data have no pool"):
        goals(replace(ALL, pool=CLEAN[:0]), [{"attack": "thief"}])
    with pytest.raises(CampaignError, match=r"wants 10 members; the data have 9 that the victim learned from"):
        goals(replace(ALL, learned=LEARNED[:9]), [{"attack": "guesser", "victims": 20}])


def test_what_the_runner_gives_is_no_option(goals):
    with pytest.raises(CampaignError, match="has no such option; it has knob"):
        goals(attacks=[{"attack": "thief", "options": {"own_x": 1}}])
