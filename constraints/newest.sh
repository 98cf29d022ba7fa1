#!/usr/bin/env bash
# The newest versions that pyproject.toml allows, in an environment of their own (.venv-newest): what pip took, the limits
# that it was given from outside, and whether the tests pass. `make test-newest` runs this.
#   constraints/newest.sh python3.12           the interpreter that makes the environment
#   constraints/newest.sh python3.12 --lock    then writes constraints/py312.txt, which make demo and make test install
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${1:?interpreter that makes the environment}
FOLDER=.venv-newest
rm -rf "$FOLDER"
"$PYTHON" -m venv "$FOLDER"
unset PYTHON  # evaluate.sh and its kin would run with it
BIN=$PWD/$FOLDER/bin
export PATH=$BIN:$PATH OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}

echo "== limits that pip was given from outside"
python -m pip config list | grep -E 'constraint|no-index|index-url|find-links|binary|\.pre=|prior-to' |
  sed -E 's#://[^/@]*@#://...@#' || echo "none"
python -m pip config list | sed -n "s/^[^=]*constraint='\(.*\)'$/\1/p" | sed 's/\\n/\n/g' | while IFS= read -r file; do
  [ ! -f "$file" ] || sed -n '/^[^#]/s/^/   /p' "$file"
done
python -m pip install --quiet -e '.[dev]'
echo "== what pip took"
python -m pip list --format=freeze --exclude mimigenrec | grep -E '^(torch|torchvision|torchaudio|transformers|tokenizers|trl|llamafactory|accelerate|peft|datasets|numpy|polars|scikit-learn)=='
python -m pip check
mimigenrec env
python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu" --ignore tests/test_constraints.py  # it checks the old files

[ "${2:-}" = --lock ] || exit 0
lock=constraints/$(python -c 'import sys; print("py%d%d" % sys.version_info[:2])').txt
python -m pip list --format=freeze --exclude-editable --exclude pip > "$lock.tmp"
if grep -vE '^[A-Za-z0-9._-]+==[A-Za-z0-9._]+$' "$lock.tmp"; then
  echo "these lines are no released versions; nothing was written" >&2
  exit 1
fi
mv "$lock.tmp" "$lock"
echo "$lock: $(wc -l < "$lock") versions"
