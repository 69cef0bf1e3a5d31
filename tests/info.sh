#!/bin/sh
# moec info from a config.json alone: counts, the site table, and refusals that leave nothing behind.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "info: $*" >&2; exit 1; }

mkdir "$dir/base"
cat > "$dir/base/config.json" <<'END'
{ "model_type": "t5", "d_model": 768, "d_ff": 2048, "d_kv": 64, "num_heads": 12, "num_layers": 12, "vocab_size": 32128,
  "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false }
END
echo '{ "moec_adapter": 1, "method": "mov", "experts": 10 }' > "$dir/mov10.json"
echo '{ "moec_adapter": 1, "method": "mov", "expert": 10 }' > "$dir/bad.json"

"$MOEC" info "$dir/base" > "$dir/out" || fail "config.json alone is refused"
grep -q '247,577,856' "$dir/out" || fail "base parameters: $(cat "$dir/out")"
"$MOEC" info "$dir/base" --adapter "$dir/mov10.json" > "$dir/out"
grep -q 'trainable *1,582,080, 0.6390%' "$dir/out" || fail "trainable parameters: $(tail -3 "$dir/out")"
[ "$(grep -c '^decoder.*cross.* mov ' "$dir/out")" = 24 ] || fail "cross-attention sites"
"$MOEC" info "$dir/base" --adapter "$dir/mov10.json" --json | grep -q '"trainable":1582080' || fail "--json"

code=0
"$MOEC" info "$dir/base" --adapter "$dir/bad.json" > "$dir/out" 2> "$dir/err" || code=$?
[ $code = 1 ] && [ ! -s "$dir/out" ] || fail "exit code $code for a spec with an unknown key"
grep -q "bad.json:1: error: .*expert.*'experts'" "$dir/err" || fail "message: $(cat "$dir/err")"
echo "info: counts, sites and messages as expected"
