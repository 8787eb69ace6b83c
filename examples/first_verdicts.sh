#!/bin/sh
# Are verdicts right where the truth is known? Good texts with planted garbage (shuffled words, page furniture, other
# languages); rules that remove it must come out KEEP, one that removes good texts REJECT, random removal neither.
# Prints arms, seeds, tokens and the smallest effect it can see before it trains. An hour and a half to two on two cores.
#
#   examples/first_verdicts.sh DATA OUT
#
# DATA holds corpora/ (JSONL of textbooks, novels, news and a blog), crawl/ (WARC of pages, and of one manual in several
# languages) and benchmarks/ (cloze tasks). What an earlier call has done in OUT is not done again.
set -eu
data=$1 out=$2
SIZE=${SIZE:-1M} TOKENS=${TOKENS:-1M} HALF=${HALF:-500k} SEEDS=${SEEDS:-6} RATES=${RATES:-1e-3}
here=$(dirname "$0") python=${PYTHON:-python} gristmill=${GRISTMILL:-gristmill}

mkdir -p "$out"
test -d "$out/texts" || "$python" "$here/first_verdicts.py" plant "$data" "$out/texts"
"$gristmill" run "$here/first_verdicts.yaml" -i "$out/texts/pool" --out "$out/run" --annotate --runner inprocess --quiet > "$out/run.txt"
"$gristmill" pool "$out/run" --out "$out/pool" --vocabulary 4096 --view raw --workers 1 --quiet
test -d "$out/panel" || "$gristmill" panel build "$out/texts/held" --out "$out/panel" --size 100kB
mkdir -p "$out/tasks"
for task in arc_easy openbookqa piqa; do test -e "$out/tasks/$task" || cp -r "$data/benchmarks/$task" "$out/tasks/"; done

# The noise at the learning rate that examples/proxy_sanity.sh has found best (a sweep: RATES="1e-3 2e-3 4e-3"), and what
# twice the tokens is worth: the ROPE is made of them.
rates=$(for rate in $RATES; do printf -- '--rate %s ' "$rate"; done)
"$gristmill" calibrate "$out/pool" --size "$SIZE" --tokens "$TOKENS" --seeds 3 --panel "$out/panel" $rates --json > "$out/calibration.json"
"$gristmill" train "$out/pool" --out "$out/gain" --mask rules --size "$SIZE" --tokens "$HALF" --tokens "$TOKENS" --seed 1 --quiet
"$gristmill" score "$out/gain" --panel "$out/panel" --json > "$out/gain.json"
"$python" "$here/first_verdicts.py" experiment "$out" "$SIZE" "$TOKENS" "$SEEDS"

# The plan, then the verdicts.
"$gristmill" ablate "$out/experiment.yaml" --out "$out/verdicts"
"$python" "$here/first_verdicts.py" report "$out"
