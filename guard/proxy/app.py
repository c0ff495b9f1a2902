"""`guard serve`: everything made, started, reloaded on SIGHUP and drained on SIGTERM.

Drain. At SIGTERM Guard says NOT_SERVING and not ready, and goes on taking calls for LINGER_S (less where `drain_s` is
short), so that load balancers can turn away first. Then the listener stops: calls in flight get the rest of `drain_s`.
gRPC drops calls that have arrived when it stops, but were not yet taken up. So answers are held for PAUSE_S before that
moment and after it: callers who wait for an answer send nothing new until they know that the connection ends. What a
caller sends without waiting, in the very moment of the stop, may still end CANCELLED.

Reload. The file is read and validated, every engine and new upstream is made, and only then everything is swapped at
once. What is wrong changes nothing; what needs a restart is named and changes nothing either. Calls that have begun end
with the settings that they began with, long streams, too.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import time
from collections.abc import Callable

import guard
from guard import config
from guard.metrics import Metrics
from guard.profile import ProfileError
from guard.proxy import admin_grpc, admin_http, plane, private
from guard.proxy.admin_page import AdminPage
from guard.proxy.door import Door
from guard.proxy.gate import Gate
from guard.proxy.overview import Overview, Own, Source
from guard.proxy.post import Post
from guard.proxy.probe import Prober
from guard.proxy.runtime import Runtime, build, share
from guard.settings import ConfigError, Settings

LINGER_S = 2.0
PAUSE_S = 0.2
FIRST_LOOK_S = 1.0
AT_LEAST_S = 5.0
_RESTART = (
    "workers",
    "allocator",
    "plane",
    "listen",
    "admin",
    "history",
    "audit.max_explained",
    "secret_file",
    "limits.max_request_bytes",
    "limits.max_response_bytes",
    "limits.max_metadata_bytes",
    "limits.max_connections",
)
_log = logging.getLogger(__name__)


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Serve until a signal; `load` reads the settings anew, at each SIGHUP. Raises ConfigError, ProfileError."""
    with asyncio.Runner(loop_factory=plane.new_loop(settings)) as runner:
        return runner.run(serve(settings, load))


async def serve(settings: Settings, load: Callable[[], Settings]) -> int:
    """The same inside an event loop. Prints one line to standard error when calls are taken."""
    token = config.read_secret(settings.admin.token_file, "GUARD_ADMIN_TOKEN", where="admin.token_file")
    app = await App.start(settings, load, token)
    settle()
    try:
        stop = asyncio.Event()
        app.listen_to_signals(stop)
        sys.stderr.write(f"guard: listening on {app.address}\n")
        sys.stderr.flush()
        await stop.wait()
    finally:
        await app.drain()
    return 0


def settle() -> None:
    """What the start of a process has made stays: the collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


class App:
    """A running Guard."""

    def __init__(self, gate: Gate, load: Callable[[], Settings], post: Post | None = None) -> None:
        self._gate, self._load, self._post = gate, load, post
        self._tasks: set[asyncio.Task[None]] = set()
        self._former: list[Runtime] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()
        self._reloading = asyncio.Lock()
        self.address = ""
        self.admin: dict[str, str] = {}

    @classmethod
    async def start(
        cls, settings: Settings, load: Callable[[], Settings], token: str | None, post: Post | None = None
    ) -> "App":
        """Make and start everything. post: where it is one of several workers. Raises ConfigError, ProfileError."""
        runtime = await build(settings, share(settings, None if post is None else post.turn))
        app = cls(Gate(runtime), load, post)
        try:
            await app._start(settings, token)
        except BaseException:
            await app._stack.aclose()
            await app.runtime.retire()
            raise
        return app

    @property
    def runtime(self) -> Runtime:
        """The settings in force, at work."""
        return self._gate.runtime

    async def _start(self, settings: Settings, token: str | None) -> None:
        prober = Prober(lambda: self.runtime)
        listen, post = settings.listen, self._post
        if post is not None:
            listen = listen.model_copy(update={"address": post.address})
        plane.explain(settings)
        self.runtime.metrics.plane.labels(plane.in_use(settings)).set(1)
        self._server, self.address = plane.make_server(self._gate, settings, listen, shared=post is not None)
        self._show_info()
        if post is None:
            await self._start_admin(settings, token)
        with contextlib.suppress(TimeoutError):  # an upstream that hangs does not hold up the start
            await asyncio.wait_for(prober.look(), FIRST_LOOK_S)
        await self._server.start()
        if post is not None:  # its parent knows by that socket that it takes calls
            own = await admin_grpc.start_private(
                lambda: self.runtime, post.socket, (private.handlers(lambda: self.runtime),)
            )
            self._stack.push_async_callback(own.close)
        task = asyncio.create_task(prober.run())
        self._tasks.add(task)

    async def _start_admin(self, settings: Settings, token: str | None) -> None:
        door = Door(token, lambda why: self.runtime.metrics.admin_refused.labels(why).inc())
        if settings.admin.http is not None:
            site = page_of(door, Own(lambda: self.runtime), lambda: self.runtime)
            http = await admin_http.start(lambda: self.runtime, settings.admin.http, door, site)
            self._stack.push_async_callback(http.close)
            self.admin["http"] = http.address
        if settings.admin.grpc is not None and token is not None:
            grpc = await admin_grpc.start(lambda: self.runtime, settings.admin.grpc, door)
            self._stack.push_async_callback(grpc.close)
            self.admin["grpc"] = grpc.address
        elif settings.admin.grpc is not None:
            _log.warning("no admin token is set: Guard's own API is not served")
        for name, address in self.admin.items():
            _log.info("admin %s on %s", name, address)

    def _show_info(self) -> None:
        self.runtime.metrics.show_info(guard.__version__, config.digest(self.runtime.settings))

    # --- signals

    def listen_to_signals(self, stop: asyncio.Event) -> None:
        """SIGTERM and SIGINT stop, SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload)

    def _begin_reload(self) -> None:
        task = asyncio.create_task(self._reload_once())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_once(self) -> None:
        async with self._reloading:
            await self.reload()

    async def reload(self) -> bool:
        """Read the settings again and swap them in; False: the old ones stay."""
        metrics = self.runtime.metrics
        try:
            settings = await asyncio.to_thread(self._load)
            check_reloadable(self.runtime.settings, settings)
            fresh = await build(settings, self.runtime.shared, self.runtime)
        except (ConfigError, ProfileError) as error:
            _log.error("settings not reloaded: %s", error)
            metrics.config_reloads.labels("refused").inc()
            return False
        except Exception:  # noqa: BLE001 - what runs must go on running
            _log.exception("settings not reloaded")
            metrics.config_reloads.labels("refused").inc()
            return False
        former, self._gate.runtime = self.runtime, fresh
        limits = settings.limits
        fresh.shared.admission.resize(limits.max_concurrent_calls, limits.max_queued_calls)
        forget_models(metrics, former, fresh)
        self._show_info()
        metrics.config_reloads.labels("done").inc()
        _log.info("settings reloaded: %s", config.digest(settings))
        self._former.append(former)
        task = asyncio.create_task(self._retire(former))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _retire(self, former: Runtime) -> None:
        """A stream may go on for long: what it began with stays."""
        await former.idle()
        self._former.remove(former)
        retiring = asyncio.create_task(former.retire())
        self._retiring.add(retiring)  # a drain that comes now waits for it: what it closes has something to write yet
        retiring.add_done_callback(self._retiring.discard)
        await asyncio.shield(retiring)

    # --- the end

    async def drain(self) -> None:
        """Let calls in flight end, then release everything."""
        shared, drain_s = self.runtime.shared, self.runtime.settings.limits.drain_s
        end = time.monotonic() + drain_s
        shared.draining = True
        _log.info("draining for at most %g s", drain_s)
        await asyncio.sleep(min(LINGER_S, drain_s / 4))
        shared.closing = True
        await self._stop_listening(end - time.monotonic())
        await shared.background.drain(end - time.monotonic())
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        within_s = max(AT_LEAST_S, end - time.monotonic())
        left = (runtime.retire(within_s) for runtime in (*self._former, self.runtime))
        await asyncio.gather(*self._retiring, *left)
        await shared.store.close()
        shared.metrics.close()

    async def _stop_listening(self, grace_s: float) -> None:
        """Stop the listener between two answers, see above."""
        answering = self.runtime.shared.answering
        pause_s = min(PAUSE_S, max(0.0, grace_s) / 8)
        answering.clear()
        await asyncio.sleep(pause_s)
        stopping = asyncio.create_task(self._server.stop(max(0.0, grace_s - pause_s)))
        await asyncio.sleep(pause_s)
        answering.set()
        await stopping


def page_of(door: Door, source: Source, runtime: Callable[[], admin_http.Runtime]) -> AdminPage | None:
    """None where the settings want none."""
    if not runtime().settings.admin.page:
        return None
    overview = Overview(source, lambda: runtime().settings, lambda: runtime().metrics, lambda: runtime().ready)
    return AdminPage(door, overview, lambda: runtime().settings.quarantine)


def check_reloadable(old: Settings, new: Settings) -> None:
    """Raises ConfigError where something changed that only a restart can change."""
    for path in _RESTART:
        before, after = old, new
        for name in path.split("."):
            before, after = getattr(before, name), getattr(after, name)
        if before != after:
            raise ConfigError(path, "changed: this needs a restart")


def forget_models(metrics: Metrics, former: Runtime, fresh: Runtime) -> None:
    """Take the gauges of models that are gone out of the exposition."""
    for name in former.models.keys() - fresh.models.keys():
        metrics.forget_model(name, former.models[name].drift.stages)
