#!/usr/bin/env bash
# RL by TRL from an SFT checkpoint. Run again after an interruption, it goes on from the last checkpoint.
#   MODEL_PATH=saves/my/sft ./trl_trainer.sh                                        one GPU, or the CPU
#   MODEL_PATH=saves/my/sft NUM_PROCESSES=8 ACCELERATE_CONFIG=examples/accelerate/zero2.yaml ./trl_trainer.sh --beta 0
# CONFIG is a YAML of `mimigenrec grpo`; what is set here and after the command wins over it.
set -euo pipefail
CATEGORY=${CATEGORY:-Industrial_and_Scientific}
MODEL_PATH=${MODEL_PATH:-}
DATA_DIR=${DATA_DIR:-data/$CATEGORY}
INDEX_PATH=${INDEX_PATH:-}
OUTPUT_DIR=${OUTPUT_DIR:-rl_outputs/$CATEGORY-$(basename "$MODEL_PATH")-grpo}
NUM_PROCESSES=${NUM_PROCESSES:-1}
NUM_BEAMS=${NUM_BEAMS:-16}
CONFIG=${CONFIG:-$(dirname "$0")/examples/grpo/Industrial_and_Scientific.yaml}
ACCELERATE_CONFIG=${ACCELERATE_CONFIG:-}
MAIN_PORT=${MAIN_PORT:-29503}
PYTHON=${PYTHON:-python}

fail() {
  echo "error: $1" >&2
  exit 2
}
[ -n "$MODEL_PATH" ] || fail "MODEL_PATH is not set; set it to the folder of an SFT checkpoint"
case $NUM_PROCESSES in '' | *[!0-9]* | 0) fail "NUM_PROCESSES is '$NUM_PROCESSES'; it must be 1 or more" ;; esac
[ -z "$ACCELERATE_CONFIG" ] || [ -f "$ACCELERATE_CONFIG" ] || fail "ACCELERATE_CONFIG $ACCELERATE_CONFIG is missing"
gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')
start=("$PYTHON" -m mimigenrec.training.launch accelerate.commands.launch) # which ends without a traceback of its own
if [ -n "$ACCELERATE_CONFIG" ]; then
  start+=(--config_file "$ACCELERATE_CONFIG" --main_process_port "$MAIN_PORT" --num_processes "$NUM_PROCESSES")
elif [ "$gpus" -eq 0 ] && [ "$NUM_PROCESSES" -gt 1 ]; then # accelerate would start one process and say nothing
  start=("$PYTHON" -m mimigenrec.training.launch torch.distributed.run --nproc_per_node "$NUM_PROCESSES" --master_port "$MAIN_PORT")
else
  [ "$gpus" -gt 0 ] || start+=(--cpu)
  [ "$NUM_PROCESSES" -eq 1 ] || start+=(--multi_gpu --main_process_port "$MAIN_PORT")
  start+=(--num_processes "$NUM_PROCESSES" --num_machines 1 --mixed_precision no --dynamo_backend no)
fi
exec "${start[@]}" -m mimigenrec.grpo.train "$CONFIG" \
  --model "$MODEL_PATH" --data "$DATA_DIR" ${INDEX_PATH:+--index "$INDEX_PATH"} \
  --output_dir "$OUTPUT_DIR" --num_generations "$NUM_BEAMS" "$@"
