#!/bin/sh
# Remake guard/wire/*_pb2* from protos/. `--check` compares instead and fails on a difference.
# The virtual path guard/wire makes the generated imports land inside the package.
set -eu
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python}"
out=.
if [ "${1:-}" = "--check" ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
"$PYTHON" -m grpc_tools.protoc -Iguard/wire=protos \
    --python_out="$out" --pyi_out="$out" \
    guard/wire/open_inference.proto
"$PYTHON" -m grpc_tools.protoc -Iguard/wire=protos \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
    guard/wire/guard/v1/guard.proto
if [ "$out" != . ]; then
    status=0
    for f in $(cd "$out" && find . -type f); do
        cmp -s "$out/$f" "$f" || { echo "generated code is stale: $f (run protos/generate.sh)" >&2; status=1; }
    done
    exit $status
fi
