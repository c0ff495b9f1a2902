"""`guard fit`, the command: flags in, a profile on disk and a table (or JSON) out.

The table goes to standard output, the progress bar to standard error and only to a terminal. Exit status 2, with one
line that says what to do, where the flags, the clean inputs or the model do not allow a fit.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from guard import config, fit_report, registry
from guard.equipping import NETWORKS
from guard.fit_clean import Clean, FitError, load
from guard.fit_inputs import Bounds, Choices, Shape
from guard.fit_learn import Given
from guard.fit_profile import FitResult, Options, fit
from guard.fit_stages import SCORING, Progress, Wanted, is_fitted
from guard.profile import Layout, Meaning, load_profile, save_profile
from guard.proxy.ask import AskError, ServedModel
from guard.settings import STAGE_LISTS, ClientTls, ConfigError, Embedded, Model, build_stage
from guard.types import KINDS

__all__ = ["Choices", "Clean", "FitError", "FitResult", "Options", "Wanted", "add_arguments", "fit", "load", "run"]

_SHAPE_RANK = 3
_FALSE_POSITIVE_RATE = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    _add_model(parser.add_argument_group("the served model"))
    _add_clean(parser.add_argument_group("clean inputs"))
    _add_choices(parser.add_argument_group("what is learned, unless it is told"))
    stages = parser.add_argument_group("stages")
    stages.add_argument(
        "--stage",
        action="append",
        metavar="KIND/NAME[=OPTIONS]",
        help="fit this one, with options as YAML: 'detector/feature_squeezing={squeezers: [median_2]}'; may be given "
        "several times; default: every detector and monitor that suits",
    )
    stages.add_argument(
        "--config", type=Path, metavar="FILE", help="fit the stages this settings file has for the model"
    )
    stages.add_argument(
        "--false-positive-rate",
        type=_share,
        metavar="RATE",
        help="to check for enough clean inputs and to measure at; default: the settings', or 0.01",
    )
    _add_learning(parser.add_argument_group("what stages learn"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write the profile")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_model(group: Any) -> None:
    group.add_argument("--upstream", metavar="HOST:PORT", help="its server, or unix:/PATH")
    group.add_argument(
        "--model", required=True, metavar="NAME|FILE.onnx", help="its name there; without --upstream a file"
    )
    group.add_argument("--model-name", metavar="NAME", help="how callers name a file; default: its stem")
    group.add_argument("--ca-file", type=Path, metavar="PEM", help="TLS, and who signs the server's certificate")
    group.add_argument("--tls", action="store_true", help="TLS, with the system's certificates")
    group.add_argument("--cert-file", type=Path, metavar="PEM", help="certificate to present")
    group.add_argument("--key-file", type=Path, metavar="PEM", help="its private key")
    group.add_argument("--server-name", metavar="NAME", help="the name in the server's certificate, if not the address")
    group.add_argument("--batch", type=_count, default=64, metavar="ROWS", help="rows to a call at most; default: 64")
    group.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one call; default: 60")


def _add_clean(group: Any) -> None:
    group.add_argument(
        "--clean",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help=".npz or .npy as the model takes them, IDX images, or a folder of .png and .jpg",
    )
    group.add_argument("--max", type=_count, metavar="N", help="use at most so many")
    group.add_argument("--held-out", type=_share_or_none, default=0.2, metavar="SHARE", help="default: 0.2")
    group.add_argument("--seed", type=int, default=0, help="of the split; default: 0")


def _add_learning(group: Any) -> None:
    group.add_argument(
        "--train",
        action="append",
        default=[],
        choices=(*NETWORKS, "all"),
        help="train this network from the model's answers, for the stages that need it; may be given several times. "
        "Stages of --stage and --config get what they need without it",
    )
    group.add_argument(
        "--networks", type=Path, metavar="DIR", help="take NAME.onnx from there, an older profile say, and train it not"
    )
    group.add_argument(
        "--backbone", type=Path, metavar="FILE.onnx", help="make the auxiliary of this network, which gives features"
    )
    group.add_argument(
        "--learn",
        type=Path,
        metavar="FILE|DIR",
        help="inputs to learn from, as for --clean; they may be those that the model has learned from; default: a "
        "share of the clean ones, where anything is to be learned",
    )
    group.add_argument("--learn-share", type=_share, default=0.5, metavar="SHARE", help="that share; default: 0.5")
    group.add_argument(
        "--refresh",
        type=Path,
        metavar="PROFILE",
        help="calibrate this profile's stages anew on the clean inputs; what they have learned stays",
    )


def _add_choices(group: Any) -> None:
    group.add_argument("--input", metavar="NAME", help="the input to guard")
    group.add_argument("--output", metavar="NAME", help="the output that classifies")
    group.add_argument("--layout", choices=get_args(Layout))
    group.add_argument("--image-shape", type=_shape, metavar="H,W,C", help="of flat or encoded images")
    group.add_argument(
        "--bounds",
        type=_bounds,
        metavar="LOW,HIGH",
        help="of the input; by channel with slashes; write --bounds=-1,1 where LOW is negative",
    )
    group.add_argument("--meaning", choices=get_args(Meaning), help="of the output's numbers")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("must lie between 0 and 1")
    return value


def _share_or_none(text: str) -> float:
    return 0.0 if float(text) == 0 else _share(text)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _shape(text: str) -> Shape:
    values = tuple(_count(part) for part in text.split(","))
    if len(values) != _SHAPE_RANK:
        raise argparse.ArgumentTypeError("must be H,W,C")
    return values[0], values[1], values[2]


def _bounds(text: str) -> Bounds:
    ends = [tuple(float(value) for value in end.split("/")) for end in text.split(",")]
    if len(ends) != 2 or len(ends[0]) != len(ends[1]):  # noqa: PLR2004 - low and high
        raise argparse.ArgumentTypeError("must be LOW,HIGH")
    if not all(low < high for low, high in zip(*ends, strict=True)):
        raise argparse.ArgumentTypeError("LOW must lie below HIGH")
    return ends[0], ends[1]


def run(args: argparse.Namespace) -> int:
    """The command. Raises ConfigError and ProfileError, which the command line knows."""
    try:
        result = _fit(args)
    except (FitError, AskError) as error:
        sys.stderr.write(f"guard fit: {error}\n")
        return 2
    digest = save_profile(result.profile, args.out)
    if args.json:
        sys.stdout.write(json.dumps(fit_report.as_data(result, str(args.out), digest), indent=2) + "\n")
    else:
        fit_report.show(result, str(args.out), digest, Console())
    return 0


def _fit(args: argparse.Namespace) -> FitResult:
    registry.load()
    name = args.model_name or (args.model if args.upstream else Path(args.model).stem)
    options = _options(args, name)
    clean = load(args.clean, maximum=args.max, seed=args.seed)
    with _served(args, name) as served, _progress() as progress:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return fit(served, clean, options, progress=progress, fitted_at=now)


def _served(args: argparse.Namespace, name: str) -> ServedModel:
    asking = {"batch": args.batch, "timeout_s": args.timeout}
    if not args.upstream:
        return ServedModel.embedded(Embedded(file=Path(args.model), max_batch_rows=max(args.batch, 1)), name, **asking)
    files = {key: getattr(args, key) for key in ("ca_file", "cert_file", "key_file", "server_name")}
    given = {key: value for key, value in files.items() if value is not None}
    if not given and not args.tls:
        return ServedModel.remote(args.upstream, name, **asking)
    if ("cert_file" in given) != ("key_file" in given):
        raise ConfigError("", "--cert-file and --key-file go together")
    return ServedModel.remote(args.upstream, name, settings=ClientTls(**given), **asking)


def _options(args: argparse.Namespace, name: str) -> Options:
    if sum(map(bool, (args.config, args.stage, args.refresh))) > 1:
        raise FitError("--config, --stage and --refresh each say which stages: give one of them")
    stages = tuple(map(_stage, args.stage)) if args.stage else None
    rate = _FALSE_POSITIVE_RATE
    if args.config:
        model = _model(config.load(args.config).models, name, args.config)
        stages, rate = _stages_of(model), model.false_positive_rate
    return Options(
        choices=Choices(args.input, args.output, args.layout, args.image_shape, args.bounds, args.meaning),
        stages=stages,
        train=NETWORKS if "all" in args.train else tuple(args.train),
        given=Given(_networks_in(args.networks), args.backbone and _file(args.backbone)),
        learn=None if args.learn is None else load(args.learn, seed=args.seed),
        learn_share=args.learn_share,
        refresh=None if args.refresh is None else load_profile(args.refresh),
        false_positive_rate=args.false_positive_rate or rate,
        held_out=args.held_out,
        maximum=args.max,
        seed=args.seed,
    )


def _networks_in(directory: Path | None) -> dict[str, bytes]:
    if directory is None:
        return {}
    found = {name: _file(directory / f"{name}.onnx") for name in NETWORKS if (directory / f"{name}.onnx").is_file()}
    if not found:
        raise FitError(f"{directory} has none of {', '.join(f'{name}.onnx' for name in NETWORKS)}")
    return found


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FitError(f"cannot read {path}: {error.strerror}") from None


def _model(models: tuple[Model, ...], name: str, file: Path) -> Model:
    for model in models:
        if model.name == name:
            return model
    raise FitError(f"{file} has no model {name!r}; it has {', '.join(model.name for model in models) or 'none'}")


def _stages_of(model: Model) -> tuple[Wanted, ...]:
    return tuple(
        Wanted(kind, stage.stage, stage.options, getattr(stage, "weight", 1.0))
        for attribute, kind in STAGE_LISTS
        for stage in getattr(model, attribute)
        if kind in SCORING or is_fitted(build_stage(kind, stage.stage, stage.options))
    )


def _stage(text: str) -> Wanted:
    """KIND/NAME[=OPTIONS]."""
    key, _, options = text.partition("=")
    prefix, _, name = key.strip().partition("/")
    kind = next((kind for kind in KINDS if kind == prefix), None)
    if kind is None or not name:
        raise FitError(f"--stage {text}: must be detector/NAME, monitor/NAME, purifier/NAME or output/NAME")
    try:
        parsed = yaml.safe_load(options) or {}
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict):
        raise FitError(f"--stage {text}: the options must be a YAML mapping, such as {{bits: 4}}")
    return Wanted(kind, name, parsed)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each thing that is done, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield tell
