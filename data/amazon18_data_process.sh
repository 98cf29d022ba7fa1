#!/usr/bin/env bash
# Raw Amazon files of 2018 -> sequences, item vectors, SIDs: the windows of MIMIGenRec, 5-core, titles of at most 20
# words. The script runs from any folder, and preprocess_data_sft_rl.sh reads what it writes.
#   bash data/amazon18_data_process.sh Industrial_and_Scientific Office_Products
#   cd data && bash amazon18_data_process.sh                  # every category whose reviews are there
# A category C needs the files C_5 and meta_C, each as .json.gz or .json. The script looks in data/, then in
# data/amazon18/ of the repository; if RAW is set, it looks in that folder alone. If a folder holds both forms, the
# script takes .json.gz, because a packed file that was cut short is noticed.
# OUTPUT is the folder to write; its default is data/Amazon18 of the repository. SINCE and UNTIL (UTC, UNTIL not
# included) replace the window. Categories other than MIMIGenRec's three get October 2016 to October 2018. OVERWRITE=1
# replaces what other files, windows or settings made; without it the script stops there and shows what differs.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/.."
from_caller() { case $1 in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac }
RAW=${RAW:+$(from_caller "$RAW")}
OUTPUT=${OUTPUT:+$(from_caller "$OUTPUT")}
CONFIG=${CONFIG:+$(from_caller "$CONFIG")}
places=(data data/amazon18)
[ -z "$RAW" ] || places=("$RAW")

categories() { # those whose reviews are there
  local place path
  for place in "${places[@]}"; do
    for path in "$place"/*_5.json.gz "$place"/*_5.json; do
      [ ! -f "$path" ] || basename "${path%_5.json*}"
    done
  done | sort -u
}

raw_file() { # NAME CATEGORY: prints the path of NAME.json.gz or NAME.json
  local place path
  for place in "${places[@]}"; do
    for path in "$place/$1.json.gz" "$place/$1.json"; do
      if [ -f "$path" ]; then echo "$path" && return; fi
    done
  done
  {
    echo "error: there is no $1.json.gz and no $1.json in"
    printf '  %s\n' "${places[@]/#data/$PWD/data}"
    echo "Set RAW to the folder that holds them, or fetch them: ${RAW:+OUTPUT=$RAW }bash $PWD/data/download_amazon18.sh $2"
  } >&2
  exit 1
}

# shellcheck disable=SC2046 # no category holds a space
[ $# -gt 0 ] || set -- $(categories)
[ $# -gt 0 ] || set -- Industrial_and_Scientific # the document's; raw_file says that it is missing
for category in "$@"; do # before the first of them is processed
  raw_file "${category}_5" "$category" >/dev/null
  raw_file "meta_$category" "$category" >/dev/null
done
for category in "$@"; do
  case $category in Toys_and_Games) since=2017-02 ;; *) since=2016-10 ;; esac
  interactions=$(printf '{"source": "amazon", "interactions": ["%s"], "items": ["%s"], "since": "%s", "until": "%s",
    "user_k": 5, "item_k": 5, "max_title_words": 20}' "$(raw_file "${category}_5" "$category")" \
    "$(raw_file "meta_$category" "$category")" "${SINCE:-$since}" "${UNTIL:-2018-11}")
  mimigenrec prepare --config "${CONFIG:-examples/prepare/amazon18.yaml}" --category "$category" \
    --output_dir "${OUTPUT:-data/Amazon18}" --interactions "$interactions" ${OVERWRITE:+--overwrite true}
done
