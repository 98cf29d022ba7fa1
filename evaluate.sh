#!/usr/bin/env bash
# Evaluates a checkpoint: MODEL=saves/... DATA=data/... [NPROC=4] ./evaluate.sh [--exclude_seen] [--limit 100] ...
set -euo pipefail

MODEL=${MODEL:?checkpoint folder}
DATA=${DATA:?folder written by preprocess_data_sft_rl.py}
OUTPUT=${OUTPUT:-results/$(basename "$MODEL")}
BEAMS=${BEAMS:-50}
NPROC=${NPROC:-1}
PYTHON=${PYTHON:-python}

start=("$PYTHON")
if [ "$NPROC" -gt 1 ]; then
  start=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$NPROC")
fi
exec "${start[@]}" -m mimigenrec.evaluation.run \
  --model "$MODEL" --data "$DATA" --output "$OUTPUT" --beams "$BEAMS" --k "${K:-$BEAMS}" "$@"
