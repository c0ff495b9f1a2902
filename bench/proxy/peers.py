"""Each proxy as a child process on core 0, in front of one upstream."""

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.proxy import programs
from bench.proxy.load import descendants
from bench.proxy.shapes import MODEL, MONITORS, Shape
from bench.proxy.upstream import INFER
from tests.servers import guard, valkey
from tests.servers.process import answers, free_port, running

_LARGEST = 64 * 1024 * 1024
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class Peer:
    """A running proxy. pids: all of its processes. metrics: of one that should inspect every call, its address."""

    name: str
    port: int
    pids: tuple[int, ...]
    metrics: str = ""

    def check(self) -> None:
        """Raises RuntimeError where a call went through uninspected: it would be cheap."""
        if self.metrics:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5) as page:
                told = page.read().decode()
            passed = [line for line in told.splitlines() if line.startswith("guard_uninspected_total{")]
            if passed or "guard_decisions_total{" not in told:
                raise RuntimeError(f"{self.name} does not inspect: {passed}")


Start = Callable[[Path, int, Shape], AbstractContextManager[Peer]]
"""(a directory, the upstream's port, a shape) -> a peer."""


def _up(port: int, shape: Shape) -> Callable[[], bool]:
    """Whether an inference goes through."""
    body = shape.request(shape.images()[: shape.rows])
    return lambda: answers(f"127.0.0.1:{port}", INFER, body, shape.response())


@contextmanager
def _process(name: str, command: list[str], directory: Path, port: int, shape: Shape) -> Iterator[Peer]:
    with running([*programs.pinned(0), *command], directory / f"{name}.log", _up(port, shape)) as process:
        yield Peer(name, port, tuple(descendants(process.pid)))


# --- nginx, Envoy


def nginx(*, tuned: bool) -> Start:
    """As it comes; tuned: buffers that hold a whole message, one round trip of flow control."""
    extra = (
        "client_body_buffer_size 2m; grpc_buffer_size 1m; http2_body_preread_size 1m; http2_chunk_size 64k;"
        if tuned
        else ""
    )

    @contextmanager
    def start(directory: Path, upstream: int, shape: Shape) -> Iterator[Peer]:
        port, name = free_port(), "nginx, tuned" if tuned else "nginx"
        own = directory / ("tuned" if tuned else "stock")
        own.mkdir()
        file = own / "nginx.conf"
        file.write_text(f"""
            daemon off; master_process off; worker_processes 1; pid {own}/pid; error_log stderr error;
            events {{ worker_connections 512; }}
            http {{
                access_log off; client_max_body_size 64m; keepalive_requests 100000000; {extra}
                client_body_temp_path {own}/body;
                upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
                server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://model; }} }}
            }}""")
        command = [programs.program("nginx"), "-p", str(own), "-c", str(file)]
        with _process(name, command, directory, port, shape) as peer:
            yield peer

    return start


def envoy(*, processor: bool) -> Start:
    """With a plain route; processor: and an external processor that looks at each body, whose time counts, too."""

    @contextmanager
    def start(directory: Path, upstream: int, shape: Shape) -> Iterator[Peer]:
        port, beside, name = free_port(), free_port(), "Envoy + ext_proc" if processor else "Envoy"
        file = directory / f"{name}.json"
        file.write_text(json.dumps(_envoy(port, upstream, beside if processor else None)))
        command = [
            programs.envoy(), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error",
            "--disable-hot-restart",
        ]  # fmt: skip
        with ExitStack() as stack:
            pids: tuple[int, ...] = ()
            if processor:
                own = [*programs.pinned(0), sys.executable, "-m", "bench.proxy.processor", str(beside)]
                log = directory / "processor.log"
                process = stack.enter_context(running(own, log, lambda: _listens(beside)))
                pids = tuple(descendants(process.pid))
            peer = stack.enter_context(_process(name, command, directory, port, shape))
            yield Peer(name, port, (*peer.pids, *pids))

    return start


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _envoy(port: int, upstream: int, processor: int | None) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "model", "timeout": "60s"}}
    filters: list[dict[str, Any]] = []
    clusters = [_cluster("model", upstream)]
    if processor is not None:
        clusters.append(_cluster("processor", processor))
        filters.append(_filter("envoy.filters.http.ext_proc", "ext_proc.v3.ExternalProcessor", {
            "grpc_service": {"envoy_grpc": {"cluster_name": "processor"}, "timeout": "10s"}, "message_timeout": "10s",
            "processing_mode": {
                "request_header_mode": "SKIP", "request_body_mode": "BUFFERED", "response_header_mode": "SKIP",
            },
        }))  # fmt: skip
    filters.append(_filter("envoy.filters.http.router", "router.v3.Router", {}))
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "HTTP2", "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }  # fmt: skip
    listener = {
        "address": _address(port), "per_connection_buffer_limit_bytes": _LARGEST,
        "filter_chains": [{
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        }],
    }  # fmt: skip
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _filter(name: str, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.{kind}", **values}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    protocols = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "per_connection_buffer_limit_bytes": _LARGEST,
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocols},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }  # fmt: skip


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


# --- Python


def through(*words: str) -> Start:
    """grpc.aio, bytes through; inspect: with the same check as the others; fast: Guard's fast plane in its place."""

    @contextmanager
    def start(directory: Path, upstream: int, shape: Shape) -> Iterator[Peer]:
        port, name = free_port(), "fast plane" if "fast" in words else "grpc.aio, inspecting" if words else "grpc.aio"
        command = [sys.executable, "-m", "bench.proxy.through", str(port), f"127.0.0.1:{upstream}", *words]
        with _process(name, command, directory, port, shape) as peer:
            yield peer

    return start


_WATCHED: Mapping[str, Any] = {
    "monitors": [{"stage": name} for name in MONITORS],
    "policy": {"on_hostile": "allow"},  # rows under noise are near-repeats, and who is refused is cheap
}
_MODELS: Mapping[str, Mapping[str, Any]] = {
    "inspect": {},
    "monitors": _WATCHED,
    "monitors, Valkey": _WATCHED,
    "purify": {"purifiers": [{"stage": "median", "when": "always"}]},
}


def guarded(name: str, plane: str = "grpcio") -> Start:
    """`guard serve`: pass (no model is known), inspect (read and validated), monitors, purify."""
    title = f"Guard, {name}" if plane == "grpcio" else f"Guard, {plane} plane, {name}"

    @contextmanager
    def start(directory: Path, upstream: int, shape: Shape) -> Iterator[Peer]:
        own = directory / f"guard-{plane}-{name.replace(', ', '-')}"
        own.mkdir()
        tree: dict[str, Any] = {"upstream": {"address": f"127.0.0.1:{upstream}"}, "unlisted_models": "allow"}
        tree["plane"] = plane
        with ExitStack() as stack:
            if name in _MODELS:
                tree["models"] = [
                    {"name": MODEL, "profile": str(shape.profile()), "mode": "enforce", **_MODELS[name]},
                ]
            if "Valkey" in name:
                port = stack.enter_context(valkey.start(own))
                tree["history"] = {"store": "valkey", "valkey": {"addresses": [f"127.0.0.1:{port}"]}}
            served = stack.enter_context(guard.start(own, tree))
            pids = descendants(served.process.pid)
            for pid in pids:
                _pin(pid)
            metrics = served.admin if name in _MODELS else ""
            yield Peer(title, int(served.address.rpartition(":")[2]), tuple(pids), metrics)

    return start


def _pin(pid: int) -> None:
    core = min(os.sched_getaffinity(0))
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


ALL: Mapping[str, Start] = {
    "nginx": nginx(tuned=False),
    "nginx, tuned": nginx(tuned=True),
    "Envoy": envoy(processor=False),
    "Envoy + ext_proc": envoy(processor=True),
    "grpc.aio": through(),
    "grpc.aio, inspecting": through("inspect"),
    "fast plane": through("fast"),
    **{f"Guard, {name}": guarded(name) for name in ("pass", "inspect", "monitors", "monitors, Valkey", "purify")},
    **{f"Guard, fast plane, {name}": guarded(name, "fast") for name in ("pass", "inspect", "purify")},
}
QUICK = frozenset({"nginx", "nginx, tuned", "Envoy"})
