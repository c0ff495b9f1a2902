"""In the image's build stage: bytecode for what serving imports, since a read-only root cannot get any later.

It is valid whatever the time of its source (PEP 552), so two builds give the same files. All else is compiled when it
is asked for, and costs its command a moment.
"""

import importlib
import pkgutil
import py_compile
import sys
from pathlib import Path

IMPORTED = ("guard.cli", "redis.asyncio", "uvloop", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "onnxruntime", "cv2")
NOT_HERE = ("guard.learning", "guard.fit", "guard._nghttp2")  # torch, and a library that comes later


def main() -> None:
    """Import what serves, then compile what that imported."""
    names = [module.name for module in pkgutil.walk_packages(importlib.import_module("guard").__path__, "guard.")]
    for name in (*IMPORTED, *(name for name in names if not name.startswith(NOT_HERE))):
        importlib.import_module(name)
    files = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    ours = sorted(file for file in files if file.suffix == ".py" and file.is_relative_to(sys.prefix))
    for file in ours:
        py_compile.compile(str(file), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    sys.stdout.write(f"compiled {len(ours)} modules\n")


if __name__ == "__main__":
    main()
