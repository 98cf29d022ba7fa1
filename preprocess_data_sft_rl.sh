#!/usr/bin/env bash
# Interactions and SIDs -> SFT and RL rows: the settings of preprocess_data_sft_rl.py that people change, as variables.
#   bash preprocess_data_sft_rl.sh     in the repository's folder: reads data/Amazon18/$CATEGORY, writes data/$CATEGORY
#   CATEGORY=Office_Products TASK4_SAMPLE=-1 bash preprocess_data_sft_rl.sh --wording classic       and any other key
# TASK4_SAMPLE is how many title histories RL trains on at most, -1 for all. If it or SEED is not set, the default of
# the command holds (10,000 and 42).
set -euo pipefail
DATA_DIR=${DATA_DIR:-data/Amazon18}
CATEGORY=${CATEGORY:-Industrial_and_Scientific}
OUTPUT_DIR=${OUTPUT_DIR:-data/$CATEGORY}
TASK4_SAMPLE=${TASK4_SAMPLE:-}
SEED=${SEED:-}
PYTHON=${PYTHON:-python}

exec "$PYTHON" "$(dirname "$0")/preprocess_data_sft_rl.py" \
  --raw "$DATA_DIR" --category "$CATEGORY" --output_dir "$OUTPUT_DIR" \
  ${TASK4_SAMPLE:+--seq_sample="$TASK4_SAMPLE"} ${SEED:+--seed="$SEED"} "$@"
