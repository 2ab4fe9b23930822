#!/usr/bin/env bash
# The loop of learning on the bundled sample model, in a home of its own: demo-learning.sh BLYAN HOME
#
# Chat, mine an expert on a text of a domain that is new to the model, see the verdict and the balance; swap the reward
# policy while the node runs, mine another expert, and audit both.
set -euo pipefail
blyan=$1 home=$2
rm -rf "$home"
mkdir -p "$home"
run() {
    printf '\n$ blyan %s\n' "$*"
    "$blyan" "$@" --home "$home"
}
node=
trap '[[ -z $node ]] || kill "$node"' EXIT

run init
run import Examples/models/sample-moe --name sample
run wallet new alice
run pool add Examples/held-out/shard-*.jsonl
# Verses of a book that neither training nor judging meets: the last shard is not reached here.
held=$home/held-out.txt
grep -m 12 '"slice":"scripture"' Examples/held-out/shard-4.jsonl |
    sed -E 's/.*"text":"(.*)"\}$/\1/; s/\\n/ /g; s/\\"/"/g' >"$held"

printf '\n$ blyan run   # in a terminal of its own\n'
"$blyan" run --home "$home" >"$home/run.log" 2>&1 &
node=$!
until grep -q . "$home/run.log"; do
    kill -0 "$node"
    sleep 0.2
done
cat "$home/run.log"

talk() {
    run chat --temperature 0 --max-tokens 24 'And the LORD said unto'
    run eval --prompt-file "$held"
}
talk
run mine --expert layer3.expert6 --data Examples/texts/scripture.txt --wallet alice | tee "$home/first.txt"
run wallet balance alice
talk

printf '\n$ sed -i "s/^rewards:.*/rewards: flat/" HOME/node.yaml\n'
sed -i 's/^rewards:.*/rewards: flat/' "$home/node.yaml"
run plugin reload
run mine --expert layer2.expert7 --data Examples/texts/scripture.txt --wallet alice | tee "$home/second.txt"
run wallet balance alice
talk
for mined in first second; do
    run audit "$(awk '/^candidate/ { print $2 }' "$home/$mined.txt")"
done
run chain verify
