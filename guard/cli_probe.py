"""`guard probe`: ask a running Guard, over gRPC health, whether it serves. For HEALTHCHECK and exec probes.

Asked as a caller would ask, at the port where callers connect. It needs no token, and no settings but the address.
"""

import argparse
import sys
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from guard.settings import ConfigError

ADDRESS = "127.0.0.1:9000"
SERVING, NOT_SERVING = 0, 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard probe`."""
    parser.add_argument("--address", metavar="HOST:PORT", default=ADDRESS, help=f"or unix:/PATH; default: {ADDRESS}")
    parser.add_argument("--model", default="", metavar="NAME", help="this model only; default: everything is ready")
    parser.add_argument("--timeout-s", type=float, default=3.0, metavar="S", help="for the whole call; default: 3")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="Guard has TLS: who signed its certificate (PEM)")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="a client certificate (PEM), with --key")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key (PEM)")
    parser.add_argument("--server-name", metavar="NAME", help="the name in the certificate, where it is not HOST")


def probe(args: argparse.Namespace) -> int:
    """Print the status; exit 0 where it is SERVING."""
    with _channel(args) as channel:
        try:
            reply = HealthStub(channel).Check(HealthCheckRequest(service=args.model), timeout=args.timeout_s)
        except grpc.RpcError as error:
            sys.stderr.write(f"guard probe: {args.address}: {error.code().name}\n")
            return NOT_SERVING
    sys.stdout.write(f"{HealthCheckResponse.ServingStatus.Name(reply.status)}\n")
    return SERVING if reply.status == HealthCheckResponse.SERVING else NOT_SERVING


def _channel(args: argparse.Namespace) -> grpc.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    if args.ca is None:
        if args.cert or args.key or args.server_name:
            raise ConfigError("--ca", "is needed for TLS")
        return grpc.insecure_channel(args.address, options)
    if (args.cert is None) != (args.key is None):
        raise ConfigError("--cert", "and --key go together")
    if args.server_name:
        options.append(("grpc.ssl_target_name_override", args.server_name))
    files = [None if file is None else _read(file) for file in (args.ca, args.key, args.cert)]
    return grpc.secure_channel(args.address, grpc.ssl_channel_credentials(*files), options)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from None
