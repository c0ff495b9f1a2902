"""The declarations of guard/_nghttp2_abi.h, held against the library's own header by a C compiler."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from guard import _nghttp2
from tests.servers import install

HERE = Path(__file__).parents[3] / "guard" / "_nghttp2_abi.h"
STRUCTS = {
    "ng_nv": ("nghttp2_nv", ("name", "value", "namelen", "valuelen", "flags")),
    "ng_frame_hd": ("nghttp2_frame_hd", ("length", "stream_id", "type", "flags", "reserved")),
    "ng_priority_spec": ("nghttp2_priority_spec", ("stream_id", "weight", "exclusive")),
    "ng_goaway": ("nghttp2_goaway", ("hd", "last_stream_id", "error_code", "opaque_data", "opaque_data_len")),
    "ng_settings_entry": ("nghttp2_settings_entry", ("settings_id", "value")),
    "ng_data_source": ("nghttp2_data_source", ("fd", "ptr")),
    "ng_data_provider": ("nghttp2_data_provider", ("source", "read_callback")),
    "ng_info": ("nghttp2_info", ("age", "version_num", "version_str", "proto_str")),
}
NUMBERS = {
    **{f"NG_{name}": f"NGHTTP2_{name}" for name in ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PING")},
    **{f"NG_{name}": f"NGHTTP2_{name}" for name in ("GOAWAY", "CONTINUATION", "FLAG_END_STREAM", "FLAG_ACK")},
    **{f"NG_DATA_{name}": f"NGHTTP2_DATA_FLAG_{name}" for name in ("EOF", "NO_END_STREAM", "NO_COPY")},
    **{
        f"NG_{name}": f"NGHTTP2_SETTINGS_{name}"
        for name in ("HEADER_TABLE_SIZE", "ENABLE_PUSH", "MAX_CONCURRENT_STREAMS", "INITIAL_WINDOW_SIZE")
    },
    **{f"NG_{name}": f"NGHTTP2_SETTINGS_{name}" for name in ("MAX_FRAME_SIZE", "MAX_HEADER_LIST_SIZE")},
    "NG_CANCEL_CODE": "NGHTTP2_CANCEL",
    "NG_REFUSED_STREAM_CODE": "NGHTTP2_REFUSED_STREAM",
    "NG_ERR_WOULDBLOCK": "NGHTTP2_ERR_WOULDBLOCK",
    "NG_ERR_DEFERRED": "NGHTTP2_ERR_DEFERRED",
    "NG_ERR_TEMPORAL": "NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE",
    "NG_ERR_NOMEM": "NGHTTP2_ERR_NOMEM",
    "NG_ERR_CALLBACK": "NGHTTP2_ERR_CALLBACK_FAILURE",
}


def compiled(tmp_path: Path, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    file = tmp_path / "check.c"
    file.write_text(text)
    return subprocess.run(
        ["gcc", "-std=c11", *options, str(file), "-o", str(tmp_path / "check")],
        capture_output=True,
        text=True,
        check=False,
    )


def test_layouts_and_numbers_are_the_librarys(tmp_path: Path) -> None:
    if install.nghttp2() is None:
        pytest.skip("the header of libnghttp2 is not installed (Debian: libnghttp2-dev)")
    checks = [f"_Static_assert((int){ours} == (int){theirs}, {ours!r});".replace("'", '"')
              for ours, theirs in NUMBERS.items()]  # fmt: skip
    for ours, (theirs, members) in STRUCTS.items():
        checks.append(f'_Static_assert(sizeof({ours}) == sizeof({theirs}), "{ours}");')
        checks += [f'_Static_assert(offsetof({ours}, {n}) == offsetof({theirs}, {n}), "{ours}.{n}");' for n in members]
    checks.append('_Static_assert(sizeof(ng_frame) <= sizeof(nghttp2_frame), "ng_frame");')
    text = f'#include <nghttp2/nghttp2.h>\n#include "{HERE}"\n' + "\n".join(checks) + "\nint main(void) { return 0; }\n"
    done = compiled(tmp_path, text)
    assert done.returncode == 0, done.stderr
    broken = text.replace("offsetof(ng_nv, value)", "offsetof(ng_nv, name)")
    assert compiled(tmp_path, broken).returncode != 0


def test_every_number_and_struct_is_held_against() -> None:
    text = HERE.read_text()
    named = set(re.findall(r"\b(NG_[A-Z0-9_]+) =", text))
    assert named == set(NUMBERS)
    structs = set(re.findall(r"^\} (ng_\w+);", text, re.MULTILINE)) - {"ng_frame"}
    assert structs == set(STRUCTS)


def fake(tmp_path: Path, name: str, number: int, functions: tuple[str, ...]) -> str:
    """A library that says that it is this version, and has these functions."""
    bodies = "\n".join(f"void nghttp2_{one}(void) {{}}" for one in functions)
    text = f"""
        struct info {{ int age, version_num; const char *version_str, *proto_str; }};
        struct info *nghttp2_version(int least) {{
            static struct info it = {{1, {number}, "fake", "h2"}};
            return least > {number} ? 0 : &it;
        }}
        {bodies}"""
    done = compiled(tmp_path, text, "-shared", "-fPIC")
    assert done.returncode == 0, done.stderr
    path = tmp_path / name
    (tmp_path / "check").rename(path)
    return str(path)


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    every = tuple(re.findall(r"X\([^,]+, (\w+), \(", HERE.read_text()))
    rest = tuple(one for one in every if one != "version")
    unfixed = tuple(one for one in rest if one != "option_set_max_continuations")
    assert _nghttp2.check(fake(tmp_path, "good.so", 0x013400, rest)) == "fake"
    for path, why in (
        (fake(tmp_path, "old.so", 0x012B00, rest), "must be 1.52.0 or later"),
        (
            fake(tmp_path, "unfixed.so", 0x013400, unfixed),
            "has no nghttp2_option_set_max_continuations.*CVE-2024-28182",
        ),
        (str(tmp_path / "none.so"), "cannot be loaded"),
    ):
        with pytest.raises(ImportError, match=why):
            _nghttp2.check(path)
