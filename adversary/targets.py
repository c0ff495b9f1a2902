"""How a command line names an endpoint."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

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
    parser.add_argument("--encoding", choices=("raw", "typed"), default="raw", help="how tensors travel")


def endpoint_of(options: argparse.Namespace) -> Endpoint:
    """What they name. Raises UsageError."""
    identity = headers(options.header)
    return Endpoint(options.target, options.model_name, encoding=options.encoding, identities=(identity,))


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
