#!/usr/bin/env bash
# Installs the Debian packages that Blyan builds and is tested with and that are missing here; says so if Swift is missing.
set -euo pipefail
wanted=(build-essential git pkg-config libleveldb-dev libopenblas0-pthread libsecp256k1-dev libssl-dev libyaml-dev python3-venv)
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
    echo "installing: ${missing[*]}" >&2
    as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! command -v swift >/dev/null; then
    echo "error: swift is not installed" >&2
    echo "hint: install Swift 6.3 or later from swift.org and put it on PATH" >&2
    exit 1
fi
