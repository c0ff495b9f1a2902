"""`guard serve` with `workers: N`: a parent that answers no inference call, and N processes that answer them all.

The parent reads the settings, checks what they name, claims the address, and starts workers as fresh interpreters. A
worker that ends is started anew, after a while that doubles each time, and is short again where it ran for STEADY_S.
SIGTERM and SIGINT let all of them drain; SIGHUP reads the settings again, and only what is good reaches the workers.
These take it from a file beside them: one that begins later serves what the others serve, whatever the operator's file
says by then. Operators' listeners are the parent's: counts are in files that all write (`guard.metrics`), everything
else is asked of the workers (`guard.proxy.gathering`).
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from grpc import aio

from guard import config, metrics
from guard.metrics import Metrics
from guard.profile import ProfileError
from guard.proxy import admin_grpc, admin_http
from guard.proxy.app import AT_LEAST_S, LINGER_S, check_reloadable, page_of
from guard.proxy.claim import claim
from guard.proxy.door import Door
from guard.proxy.gathering import Gathered, Link
from guard.proxy.overview import Workers
from guard.proxy.post import Post
from guard.proxy.private import State
from guard.proxy.runtime import arm, secret_of
from guard.settings import ConfigError, Settings
from guard.signing import signers_of

SOON_S, LATE_S, STEADY_S = 0.2, 30.0, 60.0
LOOK_S = 0.5
OVERTIME_S = 2 * AT_LEAST_S + 10.0
HUNG_S, HUNG_LOOKS = 60.0, 3
"""A worker that has answered once, and then not when it was asked for so long, and so often, is killed."""
REFUSED_S = 30.0
"""Settings that no worker takes within this time are given up."""
_PLAIN = ("-I",) if sys.flags.isolated else ("-P",)
"""Nothing is imported from the directory that Guard happens to be started in."""
_SECRET, _TOKEN = "GUARD_SECRET", "GUARD_ADMIN_TOKEN"
_SOCKET_BYTES = 107
_log = logging.getLogger(__name__)


def run(settings: Settings, load: Callable[[], Settings], log_level: str) -> int:
    """Serve until a signal; the worst status of a worker. Raises ConfigError, ProfileError before one is started."""
    check(settings)
    secret = secret_of(settings)
    token = config.read_secret(settings.admin.token_file, _TOKEN, where="admin.token_file")
    with (
        tempfile.TemporaryDirectory(prefix="guard-", ignore_cleanup_errors=True) as directory,
        claim(settings.listen.address) as address,
    ):
        posts = [Post(Path(directory), number, address) for number in range(settings.workers)]
        if len(posts[-1].socket.removeprefix("unix:").encode()) > _SOCKET_BYTES:
            raise ConfigError("workers", f"{directory} is too long a path for sockets: set TMPDIR to a shorter one")
        posts[0].metrics.mkdir()
        metrics.join(posts[0].metrics, "parent")
        environ = {name: value for name, value in os.environ.items() if name != _TOKEN} | {_SECRET: secret}
        return asyncio.run(_Supervisor(settings, load, posts, environ, log_level).run(token))


def check(settings: Settings) -> None:
    """Read and try what the settings name, as far as a parent can. Raises ConfigError, ProfileError."""
    signers = signers_of(settings.signers_file, "signers_file")
    for model in settings.models:
        arm(model, b"made to be thrown away", signers=signers)


def backoff_s(before_s: float, ran_s: float) -> float:
    """How long to wait before a worker is started anew that ran so long."""
    return SOON_S if ran_s >= STEADY_S or not before_s else min(LATE_S, 2 * before_s)


def status_of(code: int, *, ending: bool) -> int:
    """A process's end as an exit status. ending: it was told to, perhaps before it could listen to signals."""
    if ending and -code in {signal.SIGTERM, signal.SIGINT}:
        return 0
    return 128 - code if code < 0 else code


class _Supervisor:
    """The parent at work. Also what its listeners show: `settings` and `metrics`."""

    def __init__(
        self, settings: Settings, load: Callable[[], Settings], posts: list[Post], environ: dict[str, str], level: str
    ) -> None:
        self.settings, self.metrics = settings, Metrics()
        self._load, self._posts, self._environ, self._level = load, posts, environ, level
        self._links: list[Link] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._states: dict[int, State] = {}
        self._heard: set[int] = set()
        self._silent: dict[int, tuple[float, int]] = {}
        """Since when a worker does not answer, and how many looks."""
        self._told: dict[int, tuple[int, str]] = {}
        self._begun = False
        self._taken, self._changed_at = settings, time.monotonic()
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether calls are welcome: as every worker that runs says, and one does."""
        return not self._stop.is_set() and bool(self._states) and all(one.ready for one in self._states.values())

    @property
    def serving(self) -> bool:
        """Whether some calls are welcome: as one worker at least says."""
        return not self._stop.is_set() and any(one.serving for one in self._states.values())

    async def run(self, token: str | None) -> int:
        """Until a signal, or until a worker fails before all have begun."""
        self._listen_to_signals()
        self._write_settings()
        async with contextlib.AsyncExitStack() as stack:
            for post in self._posts:
                self._links.append(Link(post.socket))
                stack.push_async_callback(self._links[-1].close)
            await self._start_admin(stack, token)
            keepers = [asyncio.create_task(self._keep(post)) for post in self._posts]
            looking = asyncio.create_task(self._look())
            try:
                await self._begin(keepers)
                await self._stop.wait()
            finally:
                looking.cancel()
                codes = await self._end(keepers)
        return max(codes)

    async def _begin(self, keepers: list[asyncio.Task[int]]) -> None:
        """Until all workers take calls; one that fails before that ends it all."""
        while not self._stop.is_set() and len(self._states) < len(self._posts):
            await asyncio.sleep(0.05)
            if any(keeper.done() for keeper in keepers):
                self._stop.set()
        if not self._stop.is_set():
            self._begun = True
            sys.stderr.write(f"guard: listening on {self._posts[0].address}\n")
            sys.stderr.flush()

    async def _start_admin(self, stack: contextlib.AsyncExitStack, token: str | None) -> None:
        admin = self.settings.admin
        door, started = Door(token, lambda why: self.metrics.admin_refused.labels(why).inc()), time.time()
        if admin.http is not None:
            site = page_of(door, Workers(self._links, started), lambda: self)
            http = await admin_http.start(lambda: self, admin.http, door, site)
            stack.push_async_callback(http.close)
            _log.info("admin http on %s", http.address)
        if admin.grpc is not None and token is not None:
            gathered = Gathered(self._links, started)
            grpc = await admin_grpc.listen(gathered, self.settings.limits, admin.grpc, door, gathered.end_watches)
            stack.push_async_callback(grpc.close)
            _log.info("admin grpc on %s", grpc.address)
        elif admin.grpc is not None:
            _log.warning("no admin token is set: Guard's own API is not served")

    # --- workers

    async def _keep(self, post: Post) -> int:
        """Run one worker, over and over. Its status at the end, or where it fails before all have begun."""
        wait_s = 0.0
        self.metrics.worker_restarts.labels(str(post.number))  # that the first one counts as one
        while True:
            began = time.monotonic()
            try:
                code = await (await self._spawn(post)).wait()
            except OSError as error:  # no memory, no descriptors, no room for another process
                _log.error("worker %d cannot be started: %s", post.number, error.strerror)
                code = 1
            self._processes.pop(post.number, None)
            self._states.pop(post.number, None)
            self._heard.discard(post.number)
            self._silent.pop(post.number, None)
            self._count()
            metrics.bury(post.metrics, post.name)
            if self._stop.is_set() or not self._begun:
                return status_of(code, ending=self._stop.is_set()) or int(not self._stop.is_set())
            wait_s = backoff_s(wait_s, time.monotonic() - began)
            self.metrics.worker_restarts.labels(str(post.number)).inc()
            _log.error("worker %d ended with %d: a new one in %g s", post.number, code, wait_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)
            if self._stop.is_set():
                return 0

    async def _spawn(self, post: Post) -> asyncio.subprocess.Process:
        """A fresh interpreter: gRPC's threads and locks do not survive a fork. Raises OSError."""
        self._write_settings()  # whatever has become of the file
        words = (str(post.directory), str(post.number), post.address, self._level)
        command = (sys.executable, *_PLAIN, "-m", "guard.proxy.worker", *words)
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, env=self._environ)
        self._processes[post.number] = process
        if self._stop.is_set():  # meanwhile
            process.terminate()
        return process

    def _signal(self, number: int, what: signal.Signals) -> None:
        process = self._processes.get(number)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(what)

    async def _look(self) -> None:
        """Ask every worker how it is, again and again. One that runs other settings is told of those in force."""
        while True:
            try:
                await asyncio.gather(*(self._look_at(number) for number in range(len(self._posts))))
                self._settle(time.monotonic())
            except Exception:  # noqa: BLE001 - who looks must not end
                _log.exception("the workers could not be looked at")
            self._count()
            await asyncio.sleep(LOOK_S if self._begun else 0.05)

    def _count(self) -> None:
        self.metrics.workers.labels("running").set(len(self._processes))
        self.metrics.workers.labels("ready").set(sum(one.ready for one in self._states.values()))

    async def _look_at(self, number: int) -> None:
        process = self._processes.get(number)
        if process is None:
            return
        try:
            state = await self._links[number].own.state()
        except aio.AioRpcError:
            self._states.pop(number, None)
            self._end_if_hung(number, process)
            return
        if self._processes.get(number) is not process:
            return
        self._states[number] = state
        self._heard.add(number)
        self._silent.pop(number, None)
        if self._stop.is_set():
            return
        wanted = config.digest(self.settings)
        if state.digest != wanted and self._told.get(number) != (process.pid, wanted):
            self._tell(number, wanted)

    def _end_if_hung(self, number: int, process: asyncio.subprocess.Process) -> None:
        """A probe asks the parent alone: what a worker does is the parent's to see."""
        if self._processes.get(number) is not process or number not in self._heard or self._stop.is_set():
            return
        now = time.monotonic()
        since, looks = self._silent.get(number, (now, 0))
        self._silent[number] = since, looks + 1
        if now - since > HUNG_S and looks >= HUNG_LOOKS:
            _log.error("worker %d has not answered for %.0f s: it is killed", number, now - since)
            self._signal(number, signal.SIGKILL)

    def _tell(self, number: int, digest: str) -> None:
        """Let a worker read the settings; once, for one that is looked at before it has read them is not told again."""
        process = self._processes.get(number)
        if process is not None:
            self._told[number] = (process.pid, digest)
            self._signal(number, signal.SIGHUP)

    def _settle(self, now: float) -> None:
        """Keep the former settings where no worker takes the new ones: what they name may not be there."""
        wanted = config.digest(self.settings)
        if any(state.digest == wanted for state in self._states.values()):
            self._taken = self.settings
        elif self.settings is not self._taken and now - self._changed_at > REFUSED_S:
            _log.error("no worker takes the settings %s: the former ones stay", wanted)
            self.metrics.config_reloads.labels("refused").inc()
            self.settings = self._taken
            self._write_settings()

    async def _end(self, keepers: list[asyncio.Task[int]]) -> list[int]:
        """Let all of them drain; who takes too long is killed."""
        self._stop.set()
        for number in tuple(self._processes):
            self._signal(number, signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self.settings.limits.drain_s + LINGER_S + OVERTIME_S)
        if late:
            _log.error("%d workers do not end: they are killed", len(late))
            for number in tuple(self._processes):
                self._signal(number, signal.SIGKILL)
        ended = await asyncio.gather(*keepers, return_exceptions=True)
        return [one if isinstance(one, int) else 1 for one in ended]

    # --- settings

    def _write_settings(self) -> None:
        target = self._posts[0].settings
        fresh = target.with_suffix(".fresh")
        fresh.write_text(json.dumps(config.public(self.settings)), encoding="utf-8")
        fresh.replace(target)

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload)

    def _begin_reload(self) -> None:
        task = asyncio.create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        """What is wrong reaches no worker."""
        async with self._reloading:
            try:
                settings = await asyncio.to_thread(self._load)
                check_reloadable(self.settings, settings)
                await asyncio.to_thread(check, settings)
            except (ConfigError, ProfileError) as error:
                _log.error("settings not reloaded: %s", error)
                self.metrics.config_reloads.labels("refused").inc()
                return
            except Exception:  # noqa: BLE001 - what runs must go on running
                _log.exception("settings not reloaded")
                self.metrics.config_reloads.labels("refused").inc()
                return
            self.settings, self._changed_at = settings, time.monotonic()
            self._write_settings()
            digest = config.digest(settings)
            for number in self._states:
                self._tell(number, digest)
            _log.info("settings read again: %s", digest)
