#!/bin/sh
# The JSON Schema of adapter specs against the reader: specs that are good are so for both, bad ones for neither.
# Needs the Python package jsonschema (python3-jsonschema).
moec=${MOEC:-build/moec}
root=${SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}
python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import jsonschema; jsonschema.Draft202012Validator' 2>/dev/null && python=$p && break
done
[ -n "$python" ] || { echo "schema: no Python with jsonschema, skipped"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() { echo "schema: $*" >&2; status=1; }
n=0
for spec in "$root"/tests/fixtures/*/*/spec.json "$root"/examples/*/*.json; do
    grep -q '"moec_adapter"' "$spec" && echo "good $spec"
done >"$work/list"
n=$(wc -l <"$work/list")
[ $n -ge 15 ] || fail "only $n specs in the fixtures and examples"

# good: for both; bad: for neither; moec: the reader refuses what a schema cannot see.
while read -r kind spec; do
    n=$((n + 1))
    printf '%s\n' "$spec" >"$work/$n.json"
    echo "$kind $work/$n.json" >>"$work/list"
done <<'END'
good { "moec_adapter": 1, "method": "ia3" }
good { "moec_adapter": 1, "method": "full" }
good { "moec_adapter": 1, "method": "lora", "rank": 64, "alpha": 0.5 }
good { "moec_adapter": 1, "method": "mov", "experts": 1024, "train": {} }
good { "moec_adapter": 1, "method": "molora", "experts": 10, "rank": 4, "alpha": 16, "router": { "input": "site", "top_k": null, "temperature": 1.0 } }
good { "moec_adapter": 1, "method": "molora", "experts": 8, "rank": 4, "router": { "top_k": 2, "renormalise": "softmax", "balance_loss": 0.01, "z_loss": 1e-3 } }
good { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "input": "sentence", "sentence_dim": 16, "bias": true, "jitter": 0.1 } }
good { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "balance_loss": 0 } }
good { "moec_adapter": 1, "method": "molora", "experts": 8, "rank": 4, "sites": [ { "match": "encoder.*.self.{q,v}" }, { "match": "decoder.*.cross.*", "experts": 2, "rank": 8 }, { "match": "*.ffn.wo", "method": "lora", "rank": 16 } ], "train": { "experts": true, "router": false } }
good { "moec_adapter": 1, "method": "ia3", "experts": 3, "sites": [ { "match": "*", "method": "mov" } ] }
good { "moec_adapter": 1, "method": "mov", "sites": [ { "match": "*", "experts": 3, "router": { "top_k": 1 } } ] }
bad [ { "moec_adapter": 1, "method": "ia3" } ]
bad "ia3"
bad { "method": "ia3" }
bad { "moec_adapter": 1 }
bad { "moec_adapter": 2, "method": "ia3" }
bad { "moec_adapter": "1", "method": "ia3" }
bad { "moec_adapter": 1, "method": "ia4" }
bad { "moec_adapter": 1, "method": 3 }
bad { "moec_adapter": 1, "method": "mov", "expert": 10 }
bad { "moec_adapter": 1, "method": "mov" }
bad { "moec_adapter": 1, "method": "mov", "experts": 0 }
bad { "moec_adapter": 1, "method": "mov", "experts": 1025 }
bad { "moec_adapter": 1, "method": "mov", "experts": 2.5 }
bad { "moec_adapter": 1, "method": "mov", "experts": "4" }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "rank": 4 }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "alpha": 4 }
bad { "moec_adapter": 1, "method": "ia3", "experts": 4 }
bad { "moec_adapter": 1, "method": "ia3", "router": {} }
bad { "moec_adapter": 1, "method": "lora" }
bad { "moec_adapter": 1, "method": "lora", "rank": 4, "experts": 2 }
bad { "moec_adapter": 1, "method": "lora", "rank": 4, "alpha": 0 }
bad { "moec_adapter": 1, "method": "lora", "rank": 4, "alpha": 1e31 }
bad { "moec_adapter": 1, "method": "molora", "experts": 4 }
bad { "moec_adapter": 1, "method": "full", "rank": 4 }
bad { "moec_adapter": 1, "method": "full", "sites": [ { "match": "*" } ] }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": null }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "topk": 2 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "top_k": 0 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "input": "token" } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "renormalise": null } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "temperature": 0 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "jitter": 1 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "bias": 1 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "z_loss": -1 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "balance_loss": 0.1 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "balance_loss": 0.1, "top_k": null } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "input": "sentence" } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "sentence_dim": 8 } }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "input": "input", "sentence_dim": 8 } }
bad { "moec_adapter": 1, "method": "ia3", "weights": "" }
bad { "moec_adapter": 1, "method": "ia3", "weights": 1 }
bad { "moec_adapter": 1, "method": "ia3", "train": true }
bad { "moec_adapter": 1, "method": "ia3", "train": { "base": true } }
bad { "moec_adapter": 1, "method": "ia3", "train": { "experts": 1 } }
bad { "moec_adapter": 1, "method": "ia3", "sites": [] }
bad { "moec_adapter": 1, "method": "ia3", "sites": {} }
bad { "moec_adapter": 1, "method": "ia3", "sites": [ "*" ] }
bad { "moec_adapter": 1, "method": "ia3", "sites": [ {} ] }
bad { "moec_adapter": 1, "method": "ia3", "sites": [ { "match": "" } ] }
bad { "moec_adapter": 1, "method": "ia3", "sites": [ { "match": "*", "weights": "x" } ] }
bad { "moec_adapter": 1, "method": "ia3", "sites": [ { "match": "*", "method": "full" } ] }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "sites": [ { "match": "*", "method": "mov", "rank": 4 } ] }
bad { "moec_adapter": 1, "method": "mov", "experts": 4, "sites": [ { "match": "*", "method": "lora", "rank": 4, "router": {} } ] }
moec { "moec_adapter": 1, "method": "mov", "experts": 4, "router": { "top_k": 5 } }
moec { "moec_adapter": 1, "method": "mov", "sites": [ { "match": "*" } ] }
moec { "moec_adapter": 1, "method": "ia3", "sites": [ { "match": "*.self.x" } ] }
END

cat >"$work/validate.py" <<'END'
import json, sys
from jsonschema import Draft202012Validator as Validator
schema = json.load(open(sys.argv[1]))
Validator.check_schema(schema)
validator = Validator(schema)
for line in open(sys.argv[2]):
    kind, file = line.rstrip("\n").split(" ", 1)
    print(kind, "valid" if validator.is_valid(json.load(open(file))) else "invalid", file)
END
"$python" "$work/validate.py" "$root/frontends/adapter-spec.schema.json" "$work/list" >"$work/verdicts" || { fail "the schema is none"; exit 1; }
[ "$(wc -l <"$work/verdicts")" -ge 70 ] || fail "too few verdicts"
while read -r kind verdict file; do
    "$moec" info "$root/examples/t5-tiny" --adapter "$file" >"$work/out" 2>&1
    case "$kind $verdict $?" in
    "good valid 0" | "bad invalid 1" | "moec valid 1") ;;
    *) fail "$file: $(cat "$file"): $verdict by the schema; moec: $(head -c 300 "$work/out")" ;;
    esac
done <"$work/verdicts"
echo "schema: $(wc -l <"$work/verdicts") specs"
exit $status
