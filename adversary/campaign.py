"""A campaign: what is attacked, with what, how often, as whom. One YAML file, typed; an unknown key is an error.

Paths are relative to the file. `${NAME}` in a header's value is taken from the environment, so that no credential
stands in the file (the report shows the file as it is written).
"""

import hashlib
import os
import string
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from adversary import tls
from adversary.catalogue import CATALOGUE, Entry
from adversary.form import Form, Layout

SHIPPED = Path(__file__).with_name("campaigns")
CONTROL: Literal["control"] = "control"
GUARDED: Literal["guarded"] = "guarded"
TargetName = Literal["control", "guarded"]
TARGETS: tuple[TargetName, ...] = ("control", "guarded")


class CampaignError(ValueError):
    """A campaign that cannot be run. `path` names the key: `attacks.0.eps`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


def _beside(path: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path())
    return (base / path).resolve()


def _filled(value: str) -> str:
    try:
        return string.Template(value).substitute(os.environ)
    except KeyError as error:
        raise ValueError(f"the environment has no {error.args[0]}") from None


File = Annotated[Path, AfterValidator(_beside)]
Filled = Annotated[str, AfterValidator(_filled)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Data(_Part):
    """Test inputs and their labels."""

    kind: Literal["mnist", "cifar10", "npz"] = "mnist"
    directory: File | None = None
    """Of MNIST's IDX files (or another set's of this form), of CIFAR-10's binary version; default: fetched and kept."""
    file: File | None = None
    """Of kind npz: arrays `x` (N, ...), uint8 or float in [0, 1], in the model's layout, and `y` (N,) labels.
    It may have more pairs: `clean` and `clean_y`, `pool` and `pool_y`, `learned_x` and `learned_y`."""
    pool: Literal["own", "mnist", "cifar10"] = "own"
    """What an attacker who copies the model may send: inputs of its own kind, or images of another set, made to fit."""
    members: int | None = Field(None, ge=1)
    """The model has learned from the first so many alone of what a victim may learn from; default: from all."""

    @model_validator(mode="after")
    def _coherent(self) -> "Data":
        if (self.kind == "npz") != (self.file is not None) or (self.kind == "npz" and self.directory is not None):
            raise ValueError("kind npz goes with `file`, kind mnist or cifar10 with `directory` or nothing")
        return self


class Model(_Part):
    """The served model, as its callers and a white-box attacker know it."""

    name: str
    """As the endpoints call it."""
    version: str = ""
    input: str = ""
    output: str = ""
    encoding: Literal["raw", "typed"] = "raw"
    low: float = 0.0
    high: float = 1.0
    """The bounds of its input; [0, 1] is mapped onto them."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    """Of its input, a channel each, in units of the bounds: it wants (x - mean) / std."""
    layout: Layout = "as_given"
    """What becomes of the data's axes on the way to it."""
    meaning: Literal["auto", "logits", "probabilities", "labels"] = "auto"
    onnx: File | None = None
    """Its file: for white-box attacks, and what `serve` serves."""
    torch: str = "adversary.victims.mnist:load"
    """module:function that makes a torch module (logits of inputs in [0, 1]) of the ONNX file."""

    @property
    def form(self) -> Form:
        """What its input wants to be."""
        return Form(self.low, self.high, self.mean, self.std, self.layout)

    @model_validator(mode="after")
    def _formed(self) -> "Model":
        self.form  # noqa: B018 - it checks itself
        return self


class Serve(_Part):
    """Guard as a child process with the model inside, on a free port of the loopback."""

    settings: File | None = None
    """Guard's settings file; `listen`, `admin`, `audit` and the model's file are set by the campaign. Default: bare."""
    fit: int = Field(0, ge=0)
    """Run `guard fit` first on so many clean inputs, of which none is attacked; 0: the settings name the profile."""
    fresh: bool | None = None
    """A new process for every unit of work, so that no unit sees what another left behind. Default: if guarded."""


class Tls(_Part):
    """How the connection to an endpoint is protected. PEM files."""

    ca: File | None = None
    """Authorities that may sign its certificate; default: the system's."""
    cert: File | None = None
    """What the callers show (mutual TLS): one certificate for all of them."""
    key: File | None = None
    """The private key of `cert`."""
    server_name: str = ""
    """Expected in its certificate instead of the address's host."""


class Target(_Part):
    """An endpoint: an address, or a Guard to serve."""

    address: str | None = None
    """HOST:PORT."""
    serve: Serve | None = None
    headers: dict[str, Filled] = {}
    """Sent with every call."""
    tls: Tls | None = None
    """Default: plain text."""

    @model_validator(mode="after")
    def _coherent(self) -> "Target":
        if (self.address is None) == (self.serve is None):
            raise ValueError("give either `address` or `serve`")
        if self.tls is not None and self.serve is not None:
            raise ValueError("`tls` goes with `address`: what is served here listens on the loopback alone")
        return self


class Targets(_Part):
    """The guarded endpoint, and the same model undefended."""

    guarded: Target
    control: Target


class Identities(_Part):
    """Who the callers pretend to be."""

    header: str = "x-api-key"
    per: Literal["victim", "attack"] = "victim"
    """A new caller for every victim, or one for a whole attack."""
    keys_file: File | None = None
    """A key a line, dealt out in turn. Default: made-up names, new in every run where the target lives longer."""


class Benign(_Part):
    """Honest callers who send clean test inputs, one a call."""

    images: int = Field(300, ge=0)
    """Sent on their own, dealt out among the callers."""
    callers: int = Field(10, ge=1)
    every: int = Field(50, ge=0)
    """Beside every black-box attack a further honest caller sends one after so many rows of the attack; 0: none."""


class Attack(_Part):
    """One attack with its options."""

    attack: str
    title: str = ""
    """How the report calls it; default: its name."""
    eps: float | None = Field(None, gt=0)
    budget: int | None = Field(None, ge=1)
    victims: int | None = Field(None, ge=1)
    """Default: the campaign's."""
    options: dict[str, Any] = {}
    """Keywords of the attack's own."""
    per_victim: dict[str, Literal["other_class", "next_class"]] = {}
    """Keywords with a row a victim: an image of another class, or the number of the next class."""
    expect: float = Field(0.8, ge=0, le=1)
    """The success on the control below which this attack's figures are not to be trusted."""

    @property
    def entry(self) -> Entry:
        """What the catalogue says of it."""
        return CATALOGUE[self.attack]

    @model_validator(mode="after")
    def _known(self) -> "Attack":
        if self.attack not in CATALOGUE:
            raise ValueError(f"there is no attack {self.attack!r}; `adversary list` names them all")
        return self


class Campaign(_Part):
    """The whole file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = ""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Every attack runs once with each, on victims of its own."""
    victims: int = Field(50, ge=1)
    """Test inputs an attack and seed."""
    chunk: int = Field(10, ge=1)
    """Victims of a black-box attack in one unit of work: what is lost at most when the run is killed."""
    data: Data = Data()
    model: Model
    targets: Targets
    identities: Identities = Identities()
    benign: Benign = Benign()
    attacks: tuple[Attack, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _coherent(self) -> "Campaign":
        titles = [title(attack) for attack in self.attacks]
        twice = sorted({name for name in titles if titles.count(name) > 1})
        if twice:
            raise ValueError(f"two attacks are called {twice[0]!r}: give one a `title`")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed is listed twice")
        inside = any(attack.entry.access == "gradients" for attack in self.attacks)
        served = self.targets.guarded.serve is not None or self.targets.control.serve is not None
        if self.model.onnx is None and (inside or served):
            raise ValueError("model.onnx is needed: to be served, or for white-box attacks")
        return self

    def target(self, name: TargetName) -> Target:
        """One of the two."""
        return self.targets.guarded if name == GUARDED else self.targets.control


def protection(name: TargetName, target: Target) -> tls.Tls | None:
    """The files of a target's `tls`, read. Raises CampaignError."""
    if target.tls is None:
        return None
    files = target.tls
    try:
        return tls.read(files.ca, files.cert, files.key, files.server_name)
    except tls.TlsError as error:
        raise CampaignError(f"targets.{name}.tls.{error.name}", str(error)) from None


def title(attack: Attack) -> str:
    """How it is called in this campaign."""
    return attack.title or attack.attack


@dataclass(frozen=True, slots=True)
class Written:
    """A campaign, the text it was read from, and what else was asked for."""

    campaign: Campaign
    text: str
    overrides: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> list[str]:
    """The names of the campaigns that come along."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@dataclass(frozen=True, slots=True)
class Overrides:
    """What takes the place of the file's words.

    addresses:  endpoints to attack instead of its targets, and `model_name`, as they call the model.
    victims:    no attack has more.
    """

    addresses: Mapping[TargetName, str] = field(default_factory=dict)
    model_name: str = ""
    victims: int | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """In words, for the report."""
        said = [f"{name}: {address}" for name, address in sorted(self.addresses.items())]
        said += [f"model.name: {self.model_name}"] if self.model_name else []
        return (*said, *([f"at most {self.victims} victims"] if self.victims else []))

    def over(self, tree: dict[str, Any]) -> dict[str, Any]:
        """A parsed file -> the same with these."""
        changed = dict(tree)
        if self.addresses:
            old = tree.get("targets")
            given = {name: {"address": address} for name, address in self.addresses.items()}
            changed["targets"] = {**(old if isinstance(old, dict) else {}), **given}
        if self.model_name and isinstance(tree.get("model"), dict):
            changed["model"] = {**tree["model"], "name": self.model_name}
        return changed

    def fewer(self, campaign: Campaign) -> Campaign:
        """No attack with more victims than these."""
        most = self.victims
        if most is None:
            return campaign
        attacks = tuple(
            attack if attack.victims is None else attack.model_copy(update={"victims": min(attack.victims, most)})
            for attack in campaign.attacks
        )
        return campaign.model_copy(update={"victims": min(campaign.victims, most), "attacks": attacks})


NONE = Overrides()


def load(source: str, overrides: Overrides = NONE) -> Written:
    """A file's path, or the name of a shipped campaign. Raises CampaignError."""
    path = SHIPPED / f"{source}.yaml" if source in shipped() else Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CampaignError("", f"cannot read {source} ({error}); shipped are {', '.join(shipped())}") from None
    campaign = validate(overrides.over(parse(text)), path.resolve().parent)
    return Written(overrides.fewer(campaign), text, overrides.told)


def validate(tree: Mapping[str, Any], base: Path = Path()) -> Campaign:
    """A parsed tree -> a campaign; its paths are relative to `base`. Raises CampaignError."""
    try:
        return Campaign.model_validate(tree, context={"base": base})
    except pydantic.ValidationError as error:
        raise first_error(error) from None


def first_error(error: pydantic.ValidationError) -> CampaignError:
    """The first of pydantic's complaints, in one line with its path."""
    first = error.errors(include_url=False)[0]
    message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return CampaignError(".".join(map(str, first["loc"])), message)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise CampaignError(str(key), f"given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def parse(text: str) -> dict[str, Any]:
    """YAML -> a tree. Raises CampaignError."""
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise CampaignError("", f"not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise CampaignError("", "the file must be a mapping")
    return tree
