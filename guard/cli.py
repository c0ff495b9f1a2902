"""The command line: `guard serve | fit | check | sign | schema | callers | top | explain | forgive | ...`."""

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import guard
from guard import allocator, kernels
from guard.settings import ConfigError, Settings


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    named = os.environ.get("GUARD_CONFIG")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=named, help="settings (YAML); default: $GUARD_CONFIG, if set"
    )
    parser.add_argument("--upstream", metavar="HOST:PORT", help="the served model's server, or unix:/PATH")
    parser.add_argument("--model", type=Path, metavar="FILE.onnx", help="serve this file in-process instead")
    parser.add_argument("--model-name", metavar="NAME", help="how callers name the model; default: the file's stem")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="the model's profile, from `guard fit`")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: 127.0.0.1:9000")
    _signers_argument(parser)
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def _signers_argument(parser: argparse.ArgumentParser) -> None:
    text = "Ed25519 public keys (PEM): FILE must be signed by one of them, also where it is read again"
    parser.add_argument("--signers", type=Path, metavar="KEYS.pem", help=text)
    text = "with --signers: what FILE must be signed as; default: its own name"
    parser.add_argument("--signed-as", metavar="NAME", help=text)


def _vouch(args: argparse.Namespace, file: Path | None) -> Callable[[Path, bytes], None] | None:
    """What checks the signature of the settings. Raises ConfigError."""
    if args.signers is None:
        if args.signed_as is not None:
            raise ConfigError("--signed-as", "needs --signers")
        return None
    if file is None:
        raise ConfigError("--signers", "needs --config: there is no file to be signed")
    from guard.signing import signers_of

    signers = signers_of(args.signers, "--signers")
    return None if signers is None else signers.vouch("settings", args.signed_as or file.name)


def _base(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as a settings tree, over which the file and the environment lie."""
    base: dict[str, Any] = {}
    if args.listen:
        base["listen"] = {"address": args.listen}
    if args.upstream:
        base["upstream"] = {"address": args.upstream}
    if args.model:
        model = {"name": args.model_name or args.model.stem, "embedded": {"file": str(args.model)}}
        base["models"] = [model | _shadow(args.profile)]
    elif args.profile:
        if not args.model_name:
            raise ConfigError("--profile", "needs --model-name, or --config")
        base["models"] = [{"name": args.model_name} | _shadow(args.profile)]
    elif args.upstream:
        base["unlisted_models"] = "allow"  # nothing is guarded yet: a plain pass-through to start from
    return base


def _shadow(profile: Path | None) -> dict[str, Any]:
    """Every stage that the profile was fitted for, in shadow."""
    if profile is None:
        return {}
    from guard.profile import load_profile

    stages = [(*key.split("/", 1), fit.options) for key, fit in load_profile(profile).stages.items()]
    entries = {
        kind: [{"stage": n, "options": o} for k, n, o in stages if k == kind] for kind in ("detector", "monitor")
    }
    return {"profile": str(profile), "detectors": entries["detector"], "monitors": entries["monitor"]}


def _serve(args: argparse.Namespace) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its INFO lines name every connection that ends
    import guard.proxy.app
    from guard import config, threads

    logging.basicConfig(level=args.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if args.config and (args.model or args.model_name or args.profile):
        raise ConfigError("--config", "has the models: --model, --model-name and --profile exclude it")
    base = _base(args)

    def load() -> Settings:
        return config.load(args.config, base=base, vouch=_vouch(args, args.config))

    settings = load()
    if settings.allocator == "keep" and settings.workers == 1:  # before there are threads
        allocator.keep()
    threads.alone()
    if settings.workers > 1:
        from guard.proxy import supervisor

        return supervisor.run(settings, load, args.log_level)
    return guard.proxy.app.run(settings, load)


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    from guard import fit

    fit.add_arguments(parser)


def _fit(args: argparse.Namespace) -> int:
    from guard import fit, threads

    threads.alone()
    return fit.run(args)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="settings (YAML)")
    parser.add_argument("--json", action="store_true", help="print the settings in force, defaults filled in")
    _signers_argument(parser)


def _check(args: argparse.Namespace) -> int:
    """Read the settings as `guard serve` would, and build every engine, without serving."""
    from guard import config
    from guard.engine import Engine
    from guard.profile import load_profile
    from guard.signing import signers_of, vouch_of

    settings = config.load(args.file, vouch=_vouch(args, args.file))
    signers = signers_of(settings.signers_file, "signers_file")
    config.read_secret(settings.secret_file, "GUARD_SECRET", where="secret_file")
    config.read_secret(settings.admin.token_file, "GUARD_ADMIN_TOKEN", where="admin.token_file")
    for model in settings.models:
        if model.profile is not None:
            Engine(model, load_profile(model.profile, vouch_of(signers, model)), b"guard check")
    if args.json:
        print(json.dumps(config.public(settings), indent=2))
    else:
        stages = sum(len(m.detectors) + len(m.monitors) + len(m.purifiers) + len(m.outputs) for m in settings.models)
        print(f"{args.file}: good, {len(settings.models)} models, {stages} stages (digest {config.digest(settings)})")
    return 0


def _sign_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a profile's directory, or a settings file")
    parser.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="an Ed25519 private key")
    text = "what it is signed as; default: the model that the profile was made of, or the file's name"
    parser.add_argument("--name", metavar="NAME", help=text)


def _sign(args: argparse.Namespace) -> int:
    from guard import signing

    try:
        print(signing.sign(args.path, args.key, args.name))
    except OSError as error:
        raise ConfigError("", f"cannot sign {args.path}: {error.strerror}") from None
    return 0


def _schema(_: argparse.Namespace) -> int:
    from guard import config

    print(json.dumps(config.schema(), indent=2))
    return 0


def _deferred(module: str, name: str) -> Callable[[Any], Any]:
    """A function of a module that is imported when it is called."""

    def call(argument: Any) -> Any:
        return getattr(importlib.import_module(module), name)(argument)

    return call


def _version() -> str:
    return f"guard {guard.__version__}" + ("" if kernels.compiled else ", without compiled kernels")


def _parser(wanted: str) -> argparse.ArgumentParser:
    """Only the wanted command gets its arguments: `serve` does not pay for importing what `fit` needs."""
    parser = argparse.ArgumentParser(prog="guard", description=guard.__doc__)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, arguments, run, text in (
        ("serve", _serve_arguments, _serve, "run the proxy"),
        ("fit", _fit_arguments, _fit, "learn a profile of a served model from clean inputs"),
        ("check", _check_arguments, _check, "check a settings file, the profiles it names included"),
        ("schema", lambda _: None, _schema, "print the settings' JSON Schema, for editors"),
        ("sign", _sign_arguments, _sign, "sign a profile or a settings file"),
        *(
            (name, _deferred(module, f"{name}_arguments"), _deferred(module, name), text)
            for name, module, text in (
                ("callers", "guard.cli_callers", "list callers by the evidence against them"),
                ("explain", "guard.cli_callers", "say why a decision was taken, or a caller is alarming"),
                ("forgive", "guard.cli_callers", "let a caller begin anew"),
                ("export", "guard.exporting", "write an audit log in another form"),
                ("audit", "guard.cli_audit", "say whether a chained audit log is as it was written"),
                ("backtest", "guard.backtest", "replay an audit log through other settings"),
                (
                    "simulate",
                    "guard.cli_simulate",
                    "replay an audit log through a policy: who would have received what",
                ),
            )
        ),
        (
            "top",
            _deferred("guard.cli_top", "top_arguments"),
            _deferred("guard.cli_top", "run"),
            "look at one Guard as it works: traffic, callers, decisions",
        ),
        (
            "probe",
            _deferred("guard.cli_probe", "arguments"),
            _deferred("guard.cli_probe", "probe"),
            "ask a running Guard whether it serves: exit status 0 if so",
        ),
        (
            "quarantine",
            _deferred("guard.cli_quarantine", "arguments"),
            _deferred("guard.cli_quarantine", "quarantine"),
            "list flagged inputs, or say which rows of a data set are among them",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == wanted:
            arguments(command)
        command.set_defaults(run=run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed while running, 2 bad settings, profile or arguments."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(next((arg for arg in argv if not arg.startswith("-")), "")).parse_args(argv)
    from guard.profile import ProfileError

    try:
        status: int = args.run(args)
    except (ConfigError, ProfileError) as error:
        print(f"guard {args.command}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not _is_guard_error(error):
            raise
        print(f"guard {args.command}: {error}", file=sys.stderr)
        return 1
    return status


def _is_guard_error(error: Exception) -> bool:
    """Whether Guard's own API refused, or was not reached: only who imported the client can see that."""
    client = sys.modules.get("guard.client")
    return client is not None and isinstance(error, client.GuardError)


if __name__ == "__main__":
    sys.exit(main())
