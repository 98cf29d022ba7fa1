#!/usr/bin/env bash
# Raw Amazon files of 2018 -> sequences, item vectors, SIDs: the usual three categories with the windows of MIMIGenRec,
# 5-core, titles of at most 20 words. What comes out goes into preprocess_data_sft_rl.py.
#   data/amazon18_data_process.sh                      # all three
#   data/amazon18_data_process.sh Office_Products      # one
# RAW is where data/download_amazon18.sh put the files; SINCE and UNTIL (UTC, UNTIL not included) overrule the window.
set -euo pipefail
RAW=${RAW:-data/amazon18}
OUTPUT=${OUTPUT:-data/raw}
CONFIG=${CONFIG:-examples/prepare/amazon18.yaml}
[ $# -gt 0 ] || set -- Industrial_and_Scientific Office_Products Toys_and_Games

for category in "$@"; do
  case $category in Toys_and_Games) since=2017-02 ;; *) since=2016-10 ;; esac
  interactions=$(printf '{"source": "amazon", "interactions": ["%s"], "items": ["%s"], "since": "%s", "until": "%s",
    "user_k": 5, "item_k": 5, "max_title_words": 20}' "$RAW/${category}_5.json.gz" "$RAW/meta_${category}.json.gz" \
    "${SINCE:-$since}" "${UNTIL:-2018-11}")
  mimigenrec prepare --config "$CONFIG" --category "$category" --output_dir "$OUTPUT" --interactions "$interactions"
done
