"""In the build stage of the serving image: OpenCV without ffmpeg.

opencv-python-headless is linked against ffmpeg, and with it OpenSSL 1.1.1, to read films: 40 MB. Guard reads none, and
what is not there cannot be attacked. Stand-ins with the same names, versions and symbols let cv2 load; a call of one of
them ends the process. Last, what Guard does call of OpenCV is called.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

REPLACED = ("libavcodec", "libavformat", "libavutil", "libswscale")
THEIRS = ("libswresample", "libvpx", "libssl", "libcrypto", "libdrm")
USE = """
import cv2, numpy as np
x = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
for kind in (".jpg", ".png"):
    assert cv2.imdecode(cv2.imencode(kind, x)[1], cv2.IMREAD_COLOR).shape == x.shape
for y in (cv2.medianBlur(x, 3), cv2.GaussianBlur(x, (5, 5), 1), cv2.fastNlMeansDenoisingColored(x)):
    assert cv2.warpAffine(cv2.resize(y, (8, 8), interpolation=cv2.INTER_AREA), np.eye(2, 3), (8, 8)).any()
"""


def stand_in(file: Path, version: str, symbols: list[str]) -> None:
    """Put a library with these symbols, each of which traps, in the place of a file."""
    with tempfile.TemporaryDirectory() as place:
        source, script = Path(place, "films.c"), Path(place, "films.map")
        source.write_text("".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in symbols))
        script.write_text(f"{version} {{ global: {' '.join(f'{symbol};' for symbol in symbols)} local: *; }};\n")
        options = [
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{file.name}",
            f"-Wl,--version-script={script}",
            "-Wl,--build-id=none",
        ]
        subprocess.run(["cc", *options, "-o", str(file), str(source)], check=True)


def main(packages: Path) -> None:
    """packages: where cv2 is installed."""
    (module,) = packages.glob("cv2/cv2*.so")
    asked = subprocess.run(["nm", "-D", "--undefined-only", module], capture_output=True, text=True, check=True).stdout
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for symbol, version in re.findall(r" U (\w+)@+(LIB[A-Z]+_\d+)$", asked, re.MULTILINE):
        wanted[version].append(symbol)
    for file in sorted(packages.glob("opencv_python_headless.libs/lib*")):
        name = file.name.partition("-")[0]
        if name in REPLACED:
            ((version, symbols),) = (one for one in wanted.items() if one[0].startswith(f"{name.upper()}_"))
            stand_in(file, version, sorted(symbols))
        elif name in THEIRS:
            file.unlink()
    for now in ("", "1"):  # with every symbol bound at once, too
        subprocess.run([sys.executable, "-c", USE], check=True, env={"LD_BIND_NOW": now})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
