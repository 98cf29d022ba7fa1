#!/usr/bin/env bash
# SFT by LLaMA-Factory of a plain model, which gets the SIDs of data/$CATEGORY first (kept in saves/base).
#   ./sft.sh                                                 0.5B, one GPU
#   SIZE=1.5b ZERO=2 GPUS=8 ./sft.sh learning_rate=1e-4      any key of LLaMA-Factory or of `mimigenrec sft --help`
# ZERO: 0, 2, 3, 2_offload, 3_offload; none leaves DeepSpeed out. Run again after an interruption, it goes on.
set -euo pipefail
CATEGORY=${CATEGORY:-Industrial_and_Scientific}
SIZE=${SIZE:-0.5b}
ZERO=${ZERO:-0}
REPORT_TO=${REPORT_TO:-none}
DATA_DIR=${DATA_DIR:-data}
BASE=${BASE:-Qwen/Qwen2.5-$(tr a-z A-Z <<< "$SIZE")-Instruct}
EXAMPLES=$(dirname "$0")/examples
CONFIG=${CONFIG:-$(ls "$EXAMPLES"/train_full/Industrial_and_Scientific/industry_rec_full_sft_"$SIZE"_dsz*.yaml)}
OUTPUT_DIR=${OUTPUT_DIR:-saves/$(basename "$BASE")/$(basename "$CONFIG" .yaml)/$CATEGORY}
DEEPSPEED=$EXAMPLES/deepspeed/ds_z${ZERO}_config.json
[ "$ZERO" != none ] || DEEPSPEED=null
[ -z "${GPUS:-}" ] || export NPROC_PER_NODE=$GPUS

exec mimigenrec sft "$CONFIG" model_name_or_path="$BASE" \
  add_tokens_list="$DATA_DIR/$CATEGORY/new_tokens.json" dataset_dir="$DATA_DIR" \
  dataset="${CATEGORY}_train" eval_dataset="${CATEGORY}_valid" output_dir="$OUTPUT_DIR" \
  deepspeed="$DEEPSPEED" report_to="$REPORT_TO" run_name="$CATEGORY-$SIZE-sft" "$@"
