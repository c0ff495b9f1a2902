import pytest

from adversary import judge_bars, report
from adversary.campaign import CampaignError
from adversary.judge_bars import AttackBars, Bars
from tests.adversary import samples


def missed(**bars):
    return judge_bars.missed(Bars.model_validate(bars), samples.document())


def test_no_bars_are_cleared():
    assert missed() == []


@pytest.mark.parametrize(
    ("bars", "lines"),
    [
        ({"every_attack": {"max_success": 0.3}}, []),
        ({"every_attack": {"max_success": 0.2}}, ["pgd <eps>: success: 0.2500 of 4 is above 0.2"]),
        ({"attacks": {"walk": {"max_success": 0.0}}}, []),
        ({"attacks": {"walk": {"max_reached": 0.4}}}, ["walk: reached: 0.5000 of 4 is above 0.4"]),
        ({"every_attack": {"min_noticed": 0.9}}, ["pgd <eps>: noticed: 0.5000 of 4 is below 0.9"]),
        ({"attacks": {"walk": {"max_queries_to_detection": 3}}}, ["walk: queries to detection: 4 is above 3"]),
        ({"attacks": {"walk": {"min_control_success": 1}}}, []),
        ({"attacks": {"other": {"max_success": 1}}}, ["other: was not measured"]),
        ({"min_clean_accuracy": 0.995}, ["clean accuracy: 0.9900 of 400 is below 0.995"]),
        ({"min_clean_accuracy": 0.99}, []),
        ({"max_accuracy_loss": 0.005}, ["loss of clean accuracy: 0.0100 is above 0.005"]),
        ({"max_false_alarms": 0.005}, ["false alarms: 0.0100 of 400 is above 0.005"]),
        ({"max_callers_flagged": 0.05}, ["honest callers flagged: 0.1000 of 10 is above 0.05"]),
        ({"allow_warnings": False}, ["pgd <eps>: warning: 4 <victims>"]),
    ],
)
def test_each_bar(bars, lines):
    assert missed(**bars) == lines


def test_what_was_not_measured_is_missed():
    nobody = report.HonestOn(control=samples.callers(n=0), guarded=samples.callers(n=0))
    made = samples.document(honest=nobody, attacks=())
    bars = Bars(min_clean_accuracy=0.1, max_false_alarms=1, max_accuracy_loss=1)
    assert judge_bars.missed(bars, made) == [
        "no attack was measured",
        "clean accuracy: was not measured",
        "false alarms: was not measured",
        "loss of clean accuracy: was not measured",
    ]
    silent = samples.part("quiet", guarded=samples.evidence([0]))
    lines = judge_bars.missed(
        Bars(every_attack=AttackBars(max_queries_to_detection=9)), samples.document(attacks=(silent,))
    )
    assert lines == ["quiet: queries to detection: never noticed"]


def test_a_failed_unit_misses():
    failures = (report.Failure(unit="hunt_x", reason="boom"),)
    assert judge_bars.missed(Bars(), samples.document(failures=failures)) == ["hunt_x: failed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_fun: 1", "max_fun: unknown key"),
        ("every_attack: {max_success: 2}", "every_attack.max_success"),
        ("[", "YAML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, message):
    path = tmp_path / "score.yaml"
    path.write_text(text)
    with pytest.raises(CampaignError, match=message):
        judge_bars.load(path)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "score.yaml"
    path.write_text("every_attack: {max_success: 0.1}\nattacks: {pgd: {min_noticed: 0.5}}\n")
    assert judge_bars.load(path).attacks["pgd"].min_noticed == 0.5
    with pytest.raises(CampaignError, match="cannot read"):
        judge_bars.load(tmp_path / "none.yaml")
