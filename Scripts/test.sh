#!/usr/bin/env bash
# Every test, on the release build; the audit in Python first, so that the last line is the test runner's own.
set -euo pipefail
# What runs in `make conformance` alone is at least Python.
python3 -m compileall -q Examples Scripts Tests/Conformance
swift build -c release
swift build -c release --build-tests
Scripts/audit.sh .build/release/blyan "$(mktemp -d)/home"
swift test -c release --skip-build
