#!/usr/bin/env bash
# Exports the chains of a fresh home in which an expert was replaced, and lets Python check them alone: audit.sh BLYAN HOME
set -euo pipefail
blyan=$1 home=$2
venv=.venv-audit
if [[ ! -x $venv/bin/python ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check rfc8785==0.1.4 coincurve==21.0.0
fi
rm -rf "$home"
"$blyan" init --home "$home" >/dev/null
"$blyan" import Examples/models/sample-moe --home "$home" >/dev/null
# One gate, and a version that is no better: what counts is that blocks of each chain depend on blocks of the other.
sed -i '/^gates:/,/^$/{/^  - /d;s/^gates:/gates: [structure]/}' "$home/node.yaml"
"$blyan" mine --expert layer3.expert6 --data README.md --steps 1 --batch 1 --rehearse 0 --force --home "$home" >/dev/null
for chain in A B C; do
    "$blyan" block export --chain "$chain" --jsonl --home "$home" >"$home/$chain.jsonl"
done
"$venv/bin/python" Examples/audit/check_vectors.py
"$venv/bin/python" Examples/audit/verify_chain.py "$home/A.jsonl" "$home/B.jsonl" "$home/C.jsonl"
