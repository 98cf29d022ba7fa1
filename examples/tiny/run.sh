#!/usr/bin/env bash
# The whole spine on a generated toy catalogue: make demo. Rerunning goes on where it stopped; `make clean` starts anew.
# QUICK=1 shortens training to seconds, for the tests: it shows that the stages fit, not what they are worth.
set -euo pipefail
cd "$(dirname "$0")/../.."
QUICK=${QUICK:-0}
ROOT=${ROOT:-.}                      # where data/, saves/, rl_outputs/ and results/ go
RAW=$ROOT/data/toy_raw DATA=$ROOT/data/toy SFT=$ROOT/saves/tiny/sft RL=$ROOT/rl_outputs/tiny RESULTS=$ROOT/results/tiny
BASE=$ROOT/saves/tiny/base BASE_SID=$ROOT/saves/tiny/base_sid
sft_args=() rl_args=() users=1500    # ${a[@]+...} below: bash 3.2 of macOS takes an empty list for unset
if [ "$QUICK" = 1 ]; then
  users=200 sft_args=(num_train_epochs=1) rl_args=(--max_steps 4 --eval_steps 2 --save_steps 2 --eval_sample 32)
fi

say() { printf '\n== %s\n' "$*"; }

say "1/7 raw lines of a toy shop -> sequences, item vectors, SIDs, a report on them"
[ -f "$RAW/meta_toy.json.gz" ] || python examples/tiny/make_toy.py --output_dir "$RAW" --users $users
(top=$PWD && cd "$ROOT" && mimigenrec prepare "$top/examples/tiny/prepare.yaml")
[ -f "$RAW/toy/optimum.json" ] || python examples/tiny/optimum.py --data_dir "$RAW/toy"
say "2/7 preprocess: interactions and SIDs -> SFT and RL rows"
python preprocess_data_sft_rl.py --raw "$RAW" --category toy --output_dir "$DATA" --wording compact \
  --sft_rows longest    # a model from scratch learns from every item of a row, not from sentences
say "3/7 a random Qwen2 and its tokenizer, then its SID tokens"
mimigenrec make-base --data "$DATA" --output_dir "$BASE" --chat_template short
mimigenrec add-sids --base "$BASE" --tokens "$DATA/new_tokens.json" --output "$BASE_SID"
say "4/7 SFT by LLaMA-Factory"
mimigenrec sft examples/tiny/sft.yaml model_name_or_path="$BASE_SID" dataset_dir="$ROOT/data" output_dir="$SFT" \
  ${sft_args[@]+"${sft_args[@]}"}
say "5/7 GRPO by TRL inside the trie"
MODEL_PATH=$SFT DATA_DIR=$DATA OUTPUT_DIR=$RL CONFIG=examples/tiny/grpo.yaml bash trl_trainer.sh ${rl_args[@]+"${rl_args[@]}"}
say "6/7 evaluation: popularity, Markov, SFT, RL on the same test rows"
for method in popularity markov; do
  mimigenrec baseline --method $method --raw "$RAW" --category toy --data "$DATA" --output "$RESULTS/$method"
done
MODEL=$SFT DATA=$DATA OUTPUT=$RESULTS/sft bash evaluate.sh
MODEL=$RL DATA=$DATA OUTPUT=$RESULTS/rl bash evaluate.sh
say "7/7 table and pictures"
mimigenrec plot --results "$RESULTS"/{popularity,markov,sft,rl}/metrics.json --names popularity Markov SFT RL \
  --logs "$SFT/trainer_log.jsonl" "$RL/rl_log.jsonl" --output "$RESULTS" --optimum "$RAW/toy/optimum.json"
