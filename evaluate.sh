#!/usr/bin/env bash
# Evaluates a checkpoint on the test rows of a data folder, or of one file.
#   MODEL=saves/my/sft DATA=data/C [OUTPUT=results/sft] [NPROC=4] bash evaluate.sh [--exclude_seen] [--limit 100] ...
#   exp_name=saves/my/sft test_data_path=data/C/sft/test.json [output_dir=results/sft] bash evaluate.sh
# exp_name is another name of MODEL, output_dir of OUTPUT; test_data_path takes the place of DATA. index_path is the
# id2sid.json that belongs to test_data_path; its default is data/C/id2sid.json for data/C/sft/test.json.
set -euo pipefail
exp_name=${exp_name:-}
test_data_path=${test_data_path:-}
index_path=${index_path:-}
output_dir=${output_dir:-}

stop() { echo "error: $1" >&2 && exit 2; }
one_of() { # NAME OTHER: the value of either
  [ -z "${!1:-}" ] || [ -z "${!2:-}" ] || [ "${!1}" = "${!2}" ] ||
    stop "$1=${!1} and $2=${!2} are two names of one setting with two values; set one of them"
  echo "${!1:-${!2:-}}"
}
MODEL=$(one_of MODEL exp_name)
OUTPUT=$(one_of OUTPUT output_dir)
[ -n "$MODEL" ] || stop "set MODEL or exp_name to a checkpoint folder"
[ -n "${DATA:-}$test_data_path" ] || stop "set DATA to a folder of preprocess_data_sft_rl.py, or test_data_path to a file"
[ -z "${DATA:-}" ] || [ -z "$test_data_path" ] ||
  stop "DATA=$DATA and test_data_path=$test_data_path both name test rows; set one of them"
[ -z "$index_path" ] || [ -n "$test_data_path" ] ||
  stop "index_path=$index_path belongs to test_data_path, which is not set; DATA holds an id2sid.json of its own"
BEAMS=${BEAMS:-50}
NPROC=${NPROC:-1}
PYTHON=${PYTHON:-python}

start=("$PYTHON")
if [ "$NPROC" -gt 1 ]; then
  start=("$PYTHON" -m mimigenrec.training.launch torch.distributed.run --standalone --nproc_per_node "$NPROC")
fi
exec "${start[@]}" -m mimigenrec.evaluation.run --model "$MODEL" --output "${OUTPUT:-results/$(basename "$MODEL")}" \
  ${DATA:+--data "$DATA"} ${test_data_path:+--test_file "$test_data_path"} ${index_path:+--index "$index_path"} \
  --beams "$BEAMS" --k "${K:-$BEAMS}" "$@"
