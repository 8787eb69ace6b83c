#!/bin/sh
# Are verdicts right where the truth is known? Good texts with planted garbage (shuffled words, page furniture, other
# languages); rules that remove it must come out KEEP, one that removes good texts REJECT, random removal neither.
# Prints arms, seeds, tokens and the smallest effect it can see before it trains. Some 80 minutes on two cores.
#
#   examples/first_verdicts.sh DATA OUT
#
# DATA holds corpora/ (JSONL of textbooks, novels, news and a blog), crawl/ (WARC of pages, and of one manual in several
# languages) and benchmarks/ (cloze tasks). What an earlier call has done in OUT is not done again.
#
# It works inside OUT, for documents are known by the paths they are read from: so every OUT has the same order of them.
set -eu
mkdir -p "$2"
data=$(cd "$1" && pwd) here=$(cd "$(dirname "$0")" && pwd)
SIZE=${SIZE:-1M} TOKENS=${TOKENS:-1M} HALF=${HALF:-500k} SEEDS=${SEEDS:-4} CALIBRATION=${CALIBRATION:-4} RATES=${RATES:-1e-3}
python=${PYTHON:-python} gristmill=${GRISTMILL:-gristmill}
cd "$2"

test -d texts || "$python" "$here/first_verdicts.py" plant "$data" texts
"$gristmill" run "$here/first_verdicts.yaml" -i texts/pool --out run --annotate --runner inprocess --quiet > run.txt
"$gristmill" pool run --out pool --vocabulary 4096 --view raw --workers 1 --quiet
test -d panel || "$gristmill" panel build texts/held --out panel --size 100kB

# Tasks whose answers are sentences: by few-word answers a model is no worse for having read shuffled words. Of HellaSwag
# the first thousand items, as FineWeb's ablations took: all ten thousand would take longer to score than to train for.
mkdir -p tasks/hellaswag
for task in piqa copa; do test -d "tasks/$task" || cp -r "$data/benchmarks/$task" tasks/; done
gzip -dc "$data/benchmarks/hellaswag/validation.jsonl.gz" | head -n 1000 > tasks/hellaswag/validation.jsonl

# The noise at the learning rate that examples/proxy_sanity.sh has found best (a sweep: RATES="1e-3 2e-3 4e-3"), and what
# twice the tokens is worth: the ROPE is made of them.
rates=$(for rate in $RATES; do printf -- '--rate %s ' "$rate"; done)
"$gristmill" calibrate pool --size "$SIZE" --tokens "$TOKENS" --seeds "$CALIBRATION" --panel panel $rates --json > calibration.json
"$gristmill" train pool --out gain --mask rules --size "$SIZE" --tokens "$HALF" --tokens "$TOKENS" --seed 1 --quiet
"$gristmill" score gain --panel panel --json > gain.json
"$python" "$here/first_verdicts.py" experiment . "$SIZE" "$TOKENS" "$SEEDS"

# The plan, then the verdicts.
"$gristmill" ablate experiment.yaml --out verdicts
"$python" "$here/first_verdicts.py" report .
