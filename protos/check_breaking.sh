#!/bin/sh
# Lint the contract and compare it with the last release's, released.binpb: a field may be added, none may change.
# `--release` makes released.binpb anew, as part of a release and of nothing else.
set -eu
cd "$(dirname "$0")"
BUF="${BUF:-buf}"
"$BUF" lint .
if [ "${1:-}" = "--release" ]; then
    "$BUF" build . --exclude-source-info -o released.binpb
fi
"$BUF" breaking . --against released.binpb
