"""How a command line names an endpoint."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adversary import tls
from adversary.form import LAYOUTS
from adversary.oracle import Endpoint, Headers


class UsageError(ValueError):
    """Options that do not go together."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """--target and what goes with it."""
    parser.add_argument("--target", required=True, help="HOST:PORT of a server that speaks the Open Inference Protocol")
    parser.add_argument("--model-name", required=True, help="as the endpoint calls it")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="sent with every call")
    parser.add_argument(
        "--identity-header", default="x-api-key", metavar="NAME", help="tells made-up callers apart (default x-api-key)"
    )
    _add_model(parser.add_argument_group("the model's input and output"))
    _add_tls(parser.add_argument_group("TLS", "each of these turns it on"))


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--encoding", choices=("raw", "typed"), default="raw", help="how tensors travel")
    group.add_argument("--input", default="", metavar="NAME", help="of several inputs")
    group.add_argument("--output", default="", metavar="NAME", help="of several outputs (default: the first)")
    group.add_argument("--low", type=float, default=0.0, help="[0, 1] is mapped onto --low and --high")
    group.add_argument("--high", type=float, default=1.0)
    group.add_argument("--mean", type=_numbers, default=(), metavar="M,M,M", help="taken off, a channel each")
    group.add_argument("--std", type=_numbers, default=(), metavar="S,S,S", help="divided by, a channel each")
    group.add_argument("--layout", choices=LAYOUTS, default="as_given", help="what becomes of the axes")
    meanings = ("auto", "logits", "probabilities", "labels")
    group.add_argument("--meaning", choices=meanings, default="auto", help="of what the model answers")


def _add_tls(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--tls", action="store_true", help="with the system's authorities, unless --ca names others")
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="PEM: authorities that may sign the server's certificate"
    )
    group.add_argument("--cert", type=Path, metavar="FILE", help="PEM: the certificate to show (mutual TLS)")
    group.add_argument("--key", type=Path, metavar="FILE", help="PEM: its private key")
    group.add_argument("--server-name", default="", metavar="NAME", help="expected in the server's certificate")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def endpoint_of(options: argparse.Namespace) -> Endpoint:
    """What they name. Raises UsageError."""
    endpoint = Endpoint(
        options.target,
        options.model_name,
        input_name=options.input,
        output_name=options.output,
        encoding=options.encoding,
        low=options.low,
        high=options.high,
        mean=options.mean,
        std=options.std,
        layout=options.layout,
        meaning=options.meaning,
        identities=(headers(options.header),),
        tls=_tls(options),
    )
    try:
        endpoint.form  # noqa: B018 - it checks itself
    except ValueError as error:
        raise UsageError(f"--low, --high, --mean, --std: {error}") from None
    return endpoint


def _tls(options: argparse.Namespace) -> tls.Tls | None:
    if not (options.tls or options.ca or options.cert or options.key or options.server_name):
        return None
    try:
        return tls.read(options.ca, options.cert, options.key, options.server_name)
    except tls.TlsError as error:
        raise UsageError(f"--{error.name}: {error}") from None


def as_callers(endpoint: Endpoint, header: str, kind: str, n: int) -> Endpoint:
    """The same endpoint, asked as so many callers of a kind; 0: as it is."""
    base = endpoint.identities[0]
    return replace(endpoint, identities=tuple((*base, (header.lower(), f"{kind}-{i}")) for i in range(n)) or (base,))


def headers(given: Sequence[str]) -> Headers:
    """NAME=VALUE, ... -> metadata."""
    pairs = []
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--header {item}: write NAME=VALUE")
        pairs.append((name.lower(), value))
    return tuple(pairs)
