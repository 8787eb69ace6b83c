#!/bin/sh
# Do proxies see what they must see? Twice the tokens is better beyond the noise of three seeds, and documents with
# shuffled tokens in the pool hurt; at which learning rate that shows most clearly. About an hour on two cores.
#
#   examples/proxy_sanity.sh CORPORA OUT
#
# CORPORA holds textbooks, novels, news and a blog as JSONL with a field `text` (any four files: name them in DOMAINS).
# What an earlier call has done in OUT is not done again.
set -eu
corpora=$1 out=$2
DOMAINS=${DOMAINS:-"openstax_textbooks english_novels_100 reuters21578 gov_blog_18f"}
TOKENS=${TOKENS:-1M} TWICE=${TWICE:-2M} RATES=${RATES:-"1e-3 2e-3 4e-3"} SEEDS=${SEEDS:-3}
here=$(dirname "$0") python=${PYTHON:-python} gristmill=${GRISTMILL:-gristmill}

mkdir -p "$out"
# 1. Each domain is cut in two by a hash of its texts: what is held out is in no pool.
test -d "$out/texts" || "$python" "$here/proxy_sanity.py" split "$corpora" "$out/texts" $DOMAINS

# 2. The pool: an annotated run of one family of rules, tokenised once. The panel: what was held out.
"$gristmill" run "$here/proxy_sanity.yaml" -i "$out/texts/pool" --out "$out/run" --annotate --runner inprocess --quiet > "$out/run.txt"
"$gristmill" pool "$out/run" --out "$out/pool" --vocabulary 4096 --workers 1 --quiet
test -d "$out/panel" || "$gristmill" panel build "$out/texts/held" --out "$out/panel" --size 100kB

# 3. A tenth of the documents shuffled, against the same without them, by learning rate and seed.
calibrate() {
    "$gristmill" calibrate "$out/pool" --size 1M --tokens "$TOKENS" --schedule cosine --seeds "$SEEDS" --panel "$out/panel" \
        $(for rate in $RATES; do printf -- '--rate %s ' "$rate"; done) "$@"
}
calibrate
calibrate --quiet --json > "$out/calibration.json"

# 4. Twice the tokens: both budgets are ends of one trunk for each seed.
"$gristmill" train "$out/pool" --out "$out/models" --size 1M --tokens "$TOKENS" --tokens "$TWICE" --learning-rate 1e-3 \
    $(for seed in $(seq "$SEEDS"); do printf -- '--seed %s ' "$seed"; done)
"$gristmill" score "$out/models" --panel "$out/panel" --json > "$out/scores.json"
"$python" "$here/proxy_sanity.py" report "$out" "$TOKENS" "$TWICE"
