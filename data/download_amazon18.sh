#!/usr/bin/env bash
# Amazon reviews of 2018 (Ni, Li, McAuley, EMNLP 2019): the 5-core reviews and the metadata of each category named.
#   data/download_amazon18.sh Industrial_and_Scientific Office_Products Toys_and_Games
# They go into OUTPUT, or into amazon18/ beside this script, where data/amazon18_data_process.sh finds them.
# An interrupted download goes on where it stopped; what is whole already is not fetched again. The source publishes no
# checksums: the first whole download is written to SHA256SUMS and every later run is compared with it, so put the
# SHA256SUMS of a colleague there to be sure to have the same files.
# Mirrors for BASE: https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2 https://jmcauley.ucsd.edu/data/amazon_v2
set -euo pipefail
BASE=${BASE:-https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2}
OUTPUT=${OUTPUT:-$(dirname "$0")/amazon18}
[ $# -gt 0 ] || { echo "name one or more categories, such as Industrial_and_Scientific" >&2; exit 2; }

fetch() { # URL FILE
  if command -v curl >/dev/null; then
    curl --fail --location --retry 5 --continue-at - --output "$2" "$1"
  else
    wget --continue --tries=5 --output-document="$2" "$1"
  fi
}

mkdir -p "$OUTPUT"
cd "$OUTPUT"
touch SHA256SUMS
for category in "$@"; do
  for path in "categoryFilesSmall/${category}_5.json.gz" "metaFiles2/meta_${category}.json.gz"; do
    file=${path##*/}
    if [ ! -f "$file" ]; then
      gzip --test "$file.part" 2>/dev/null || fetch "$BASE/$path" "$file.part"
      gzip --test "$file.part" || { echo "$file.part is damaged; delete it and start again" >&2; exit 1; }
      mv "$file.part" "$file"
    fi
    if grep --quiet "  $file\$" SHA256SUMS; then
      grep "  $file\$" SHA256SUMS | sha256sum --check -
    else
      sha256sum "$file" | tee -a SHA256SUMS
    fi
  done
done
