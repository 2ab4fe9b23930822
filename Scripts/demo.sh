#!/usr/bin/env bash
# The main job on the bundled sample model, in a home of its own: demo.sh BLYAN HOME MODEL
set -euo pipefail
blyan=$1 home=$2 model=$3
rm -rf "$home"
mkdir -p "$home"
run() {
    printf '\n$ blyan %s\n' "$*"
    "$blyan" "$@" --home "$home"
}
run init
run import "$model"
run chain verify
run expert list
run chat --stats --max-tokens 40 --temperature 0 'river (noun):'
