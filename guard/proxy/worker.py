"""One of several workers: `python -m guard.proxy.worker DIRECTORY NUMBER ADDRESS LOG_LEVEL`, started by its parent.

It serves like a Guard that is alone, but shares the address, has no operators' listeners, takes its settings as the
parent read them, and ends when its standard input does: then the parent is gone.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from guard import allocator, config, metrics, registry, threads
from guard.profile import ProfileError
from guard.proxy import plane
from guard.proxy.app import App, settle
from guard.proxy.post import Post
from guard.settings import ConfigError, Settings


def main(argv: Sequence[str]) -> int:
    """0 after a drain, 2 where the settings cannot be served; the reason goes to standard error."""
    directory, number, address, level = argv
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    text = f"%(levelname)s worker {number}: %(name)s: %(message)s"
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format=text)
    post = Post(Path(directory), int(number), address)
    metrics.join(post.metrics, post.name)
    try:
        settings = settings_of(post)
        if settings.allocator == "keep":  # before there are threads
            allocator.keep()
        threads.alone()
        with asyncio.Runner(loop_factory=plane.new_loop(settings)) as runner:
            return runner.run(_serve(settings, post))
    except (ConfigError, ProfileError) as error:
        sys.stderr.write(f"guard serve: {error}\n")
        return 2


def settings_of(post: Post) -> Settings:
    """As the parent wrote them. Raises ConfigError."""
    registry.load()
    return config.validate(json.loads(post.settings.read_text(encoding="utf-8")))


async def _serve(settings: Settings, post: Post) -> int:
    app = await App.start(settings, lambda: settings_of(post), None, post)
    settle()
    stop = asyncio.Event()
    try:
        app.listen_to_signals(stop)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
        await stop.wait()
    finally:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        await app.drain()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
