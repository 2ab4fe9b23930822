#!/usr/bin/env bash
# The whole way in a fresh home, once per format: run.sh BLYAN HOME. PYTHON names a Python that has requirements.txt;
# otherwise one is made in .venv-torch.
set -euo pipefail
blyan=$1 home=$2
here=$(dirname "$0")
examples=$here/..
python=${PYTHON:-.venv-torch/bin/python}
if [[ ! -x $python ]]; then
    python3 -m venv .venv-torch
    .venv-torch/bin/pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi
for format in safetensors pickle; do
    rm -rf "$home"
    "$blyan" init --home "$home" >/dev/null
    "$blyan" import "$examples/models/sample-moe" --home "$home"
    "$blyan" pool add "$examples"/held-out/shard-*.jsonl --home "$home"
    "$python" "$here/train.py" --blyan "$blyan" --home "$home" --format "$format" --text "$examples/texts/scripture.txt"
    "$blyan" chain verify --home "$home"
done
