#!/usr/bin/env bash
# What each way of making SIDs is worth to a model: the same vectors, rows, tiny model, seed and number of steps.
#   DATA=data/raw/C CATEGORY=C VECTORS=data/raw/C/C.emb-minilm.npy bash examples/sid_compare/run.sh
# DATA holds C.item.json and C.{train,valid,test}.inter. METHODS: names that `mimigenrec quantise` knows, or index.json
# files made elsewhere. Writes $OUT/table.md and for each method a SID report and a result. On 2 CPU cores 4 to 6
# minutes a method; one that is done is passed over.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:?folder with C.item.json and C.*.inter} CATEGORY=${CATEGORY:?C} VECTORS=${VECTORS:?C.emb-NAME.npy}
METHODS=${METHODS:-rqkmeans rqkmeans_constrained rqkmeans_plus rqvae}
SIZES=${SIZES:-256 256 256} STEPS=${STEPS:-600} HIDDEN=${HIDDEN:-96} SEED=${SEED:-42}
OUT=${OUT:-results/sid_compare}

results=() names=()
for method in $METHODS; do
  name=$(basename "$method" .json) here=$OUT/$(basename "$method" .json)
  raw=$here/raw/$CATEGORY index=$here/raw/$CATEGORY/$CATEGORY.index.json
  results+=("$here/result") names+=("$name")
  [ ! -f "$here/result/metrics.json" ] || continue
  printf '\n== %s\n' "$name"
  mkdir -p "$raw"
  for file in item.json train.inter valid.inter test.inter; do
    ln -sf "$(realpath "$DATA/$CATEGORY.$file")" "$raw/"
  done
  if [ -f "$method" ]; then
    cp "$method" "$index"
  elif [ ! -f "$index" ]; then
    # shellcheck disable=SC2086
    mimigenrec quantise --items "$raw/$CATEGORY.item.json" --vectors "$VECTORS" --output "$index" --method "$method" \
      --sizes $SIZES --collisions reassign --seed "$SEED"
  fi
  mimigenrec sid-report --index "$index" --items "$raw/$CATEGORY.item.json" --embeddings "$VECTORS" \
    --train "$raw/$CATEGORY.train.inter" --test "$raw/$CATEGORY.test.inter" --output "$here/report"
  mimigenrec preprocess --raw "$here/raw" --category "$CATEGORY" --output_dir "$here/data/$CATEGORY" \
    --tasks task1_sid_sft
  mimigenrec make-base --data "$here/data/$CATEGORY" --output_dir "$here/base" --hidden "$HIDDEN" \
    --seed "$SEED"
  mimigenrec add-sids --base "$here/base" --tokens "$here/data/$CATEGORY/new_tokens.json" --output "$here/base_sid"
  mimigenrec sft examples/sid_compare/sft.yaml model_name_or_path="$here/base_sid" dataset_dir="$here/data" \
    dataset="${CATEGORY}_train" output_dir="$here/sft" max_steps="$STEPS" seed="$SEED" \
    eval_ranking=0
  MODEL=$here/sft DATA=$here/data/$CATEGORY OUTPUT=$here/result bash evaluate.sh
done
mimigenrec plot --results "${results[@]}" --names "${names[@]}" --output "$OUT"
