#!/usr/bin/env bash
# What needs other people's software: makes the committed fixtures anew and runs the round trips.
set -euo pipefail
venv=.venv-conformance
if [[ ! -x $venv/bin/python ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check torch transformers safetensors tokenizers numpy gguf rfc8785 coincurve
fi
"$venv/bin/python" Examples/vectors/make_vectors.py
for script in Tests/Conformance/*.py; do
    echo "== $script"
    "$venv/bin/python" "$script"
done
echo "== Examples/train-with-pytorch"
home=$(mktemp -d)/home
trap 'rm -rf "$(dirname "$home")"' EXIT
PYTHON=$venv/bin/python Examples/train-with-pytorch/run.sh .build/release/blyan "$home"
