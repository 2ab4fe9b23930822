#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct, imports it, and talks with it: demo-smollm2.sh BLYAN HOME
set -euo pipefail
blyan=$1 home=$2
model=$(Scripts/fetch-smollm2.sh)
rm -rf "$home"
mkdir -p "$home"
run() {
    printf '\n$ blyan %s\n' "$*"
    "$blyan" "$@" --home "$home"
}
run init
run import "$model" --name smollm2
run chat --stats --temperature 0 --max-tokens 80 'What is the capital of France?' 'And what is it known for?'
