"""A campaign's report as data: what report.json holds, and what the page and the Markdown are made of.

Everything but `run` is the same in every run of the same campaign, to the last bit. Rates come with 95 % Wilson score
intervals, medians with 95 % bootstrap intervals (percentile, seeded).
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[2] = 2
SCHEMA = Path(__file__).with_name("report_schema.json")


class ReportError(ValueError):
    """A file that is no report of this version."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Share(_Part):
    """hits of n."""

    hits: int
    n: int
    rate: float | None
    """None where n is 0."""
    interval_95: tuple[float, float]


class Median(_Part):
    """Of n values."""

    n: int
    median: float | None
    interval_95: tuple[float, float] | None


class Curve(_Part):
    """Shares of victims by rows sent: a step at each."""

    queries: tuple[int, ...]
    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Side(_Part):
    """One attack on one endpoint."""

    victims: int
    answered_rightly: Share
    """Victims as they are, which are the ones attacked."""
    success: Share
    """Of those: the endpoint answered the final input, asked afresh, wrongly and within eps."""
    reached: Share
    """Of those: at some query it answered wrongly within eps, whatever came afterwards."""
    robust_accuracy: Share
    """Of all victims: answered rightly as they are, and not attacked with success."""
    noticed: Share
    """Of the attacked: some call was refused, or flagged in the endpoint's own audit log."""
    flagged_queries: Share
    """Rows in calls that were refused or flagged, of all rows sent."""
    cost: Median
    """Of an attack: gradients taken, or rows sent."""
    queries_to_success: Median
    """Rows sent until it was reached."""
    queries_to_detection: Median
    """Rows sent until the first call was noticed, of the victims where one was."""
    size: Median
    """Of successful perturbations, in the attack's own norm."""
    linf: Median
    l2: Median
    success_by_queries: Curve
    noticed_by_queries: Curve


class Watched(_Part):
    """What was noticed of an attack that is no evasion. A run: one seed, or one class rebuilt."""

    runs: int
    sent: int
    """Rows."""
    noticed: Share
    """Of runs: some call was refused, or flagged in the endpoint's own audit log."""
    queries_to_detection: Median
    """Rows sent until the first call was noticed, of the runs where one was."""
    flagged_queries: Share
    """Rows in calls that were refused or flagged, of all rows sent."""
    refused_queries: Share
    """Rows in calls that were not answered, of all rows sent."""


class CopyPoint(_Part):
    """One copy of an extraction."""

    seed: int
    sent: int
    """Rows sent before it was made."""
    answered: int
    """Of these, rows that were answered."""
    agreement: Share
    """Of test inputs that the thief has never seen: labelled as the undefended model does."""
    task_accuracy: Share
    """Of the same: labelled rightly."""


class Copied(_Part):
    """One extraction on one endpoint: its last copies, over seeds, and all on the way."""

    agreement: Share
    task_accuracy: Share
    model_accuracy: Share
    """Of the same test inputs: labelled rightly by the undefended model."""
    answered: Median
    """Rows that were answered, a seed."""
    copies: tuple[CopyPoint, ...]
    watched: Watched


class Estimate(_Part):
    """With a 95 % bootstrap interval over candidates."""

    value: float
    interval_95: tuple[float, float]


class Inferred(_Part):
    """One membership inference on one endpoint. Members are the positives."""

    members: int
    outsiders: int
    auroc: Estimate
    """Of the scores; 0.5 is chance."""
    advantage: Estimate
    """True- less false-positive rate at the attack's own threshold; 0 is chance."""
    tpr_at_1_fpr: Share
    """Members scored above all but 1 % of outsiders."""
    cost: Median
    """Rows a candidate."""
    watched: Watched


class Inverted(_Part):
    """One inversion on one endpoint."""

    wanted: int
    answered: Share
    """The endpoint, asked afresh, labels what was rebuilt as the class wanted."""
    recognised: Share
    """A network fitted on real inputs, which the attack never saw, does."""
    nearest: Share
    """Of the means of real inputs by class, the wanted class's correlates most."""
    likeness: Median
    """The correlation with the wanted class's mean."""
    cost: Median
    watched: Watched


class Doubt(_Part):
    """Why an evaluation is not to be trusted without a second look."""

    code: Literal[
        "control_did_not_succeed",
        "few_samples",
        "gradients_masked",
        "budget_cut",
        "control_inaccurate",
        "state_kept",
        "no_audit",
        "few_benign",
        "failed",
    ]
    text: str


class Technique(_Part):
    """Of MITRE ATLAS."""

    id: str
    name: str


class Attacked(_Part):
    """What an attack of a campaign is, whatever its goal."""

    title: str
    attack: str
    family: str
    access: str
    origin: str
    source: str
    atlas: tuple[Technique, ...]
    budget: int
    options: dict[str, Any]
    expect: float
    warnings: tuple[Doubt, ...]


class AttackPart(Attacked):
    """An evasion."""

    norm: str
    eps: float
    control: Side
    guarded: Side


class ExtractionPart(Attacked):
    """A copy of the model."""

    control: Copied
    guarded: Copied


class MembershipPart(Attacked):
    """Who the model has learned from."""

    control: Inferred
    guarded: Inferred


class InversionPart(Attacked):
    """What the model takes for a class."""

    control: Inverted
    guarded: Inverted


class Honest(_Part):
    """What honest callers met. Callers: of those alone; flagged because of who they are, not of one input."""

    images: int
    clean_accuracy: Share
    refused: Share
    flagged: Share
    callers_flagged: Share


class Callers(_Part):
    """Alone, and beside attacks."""

    alone: Honest
    beside: Honest


class TargetPart(_Part):
    """An endpoint. settings: Guard's, where the campaign served it; audit: whether its log was read."""

    address: str
    settings: str
    settings_sha256: str
    profile: str
    fresh: bool
    audit: bool


class Endpoints(_Part):
    """Both."""

    control: TargetPart
    guarded: TargetPart


class HonestOn(_Part):
    """On both."""

    control: Callers
    guarded: Callers


class DataPart(_Part):
    """What was sent."""

    source: str
    note: str
    sha256: str
    inputs: int


class ModelPart(_Part):
    """What was served."""

    name: str
    version: str
    onnx_sha256: str


class Failure(_Part):
    """A unit of work that came to nothing."""

    unit: str
    reason: str


class Run(_Part):
    """What differs from run to run. work_seconds: of all units, earlier runs' included."""

    finished: str
    command: str
    machine: str
    seconds: float
    work_seconds: float


class Document(_Part):
    """The whole report."""

    schema_version: Literal[2]
    campaign: str
    description: str
    campaign_yaml: str
    campaign_sha256: str
    overrides: tuple[str, ...]
    """What the command line put in place of the file's words."""
    seeds: tuple[int, ...]
    identities: str
    atlas_version: str
    data: DataPart
    model: ModelPart
    targets: Endpoints
    honest: HonestOn
    attacks: tuple[AttackPart, ...]
    """Evasions."""
    extractions: tuple[ExtractionPart, ...]
    memberships: tuple[MembershipPart, ...]
    inversions: tuple[InversionPart, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[Doubt, ...]
    versions: dict[str, str]
    code_sha256: str
    run: Run

    @property
    def all_attacks(self) -> tuple[Attacked, ...]:
        """Whatever their goal."""
        return (*self.attacks, *self.extractions, *self.memberships, *self.inversions)


def schema() -> dict[str, Any]:
    """JSON Schema of report.json."""
    made = Document.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "Adversary report"
    return made


def write_schema() -> None:
    """The committed file anew: `python -c 'from adversary.report import write_schema as w; w()'`."""
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")


def dump(document: Document) -> str:
    """-> JSON."""
    return json.dumps(document.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


def load(path: Path) -> Document:
    """report.json, or the directory it lies in. Raises ReportError."""
    file = path / "report.json" if path.is_dir() else path
    try:
        return Document.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ReportError(f"{file} is not a report of version {SCHEMA_VERSION}: {error}") from None
