"""A toy SFT checkpoint and RL rows for it, written once for the room's tests."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mimigenrec.chat import messages, prompt_ids, row_messages, user_text
from mimigenrec.contract import Contract
from mimigenrec.sids.tokens import join_sid, write_index


@pytest.fixture(scope="session")
def sft(tmp_path_factory, tiny_model, tokenizer, toy) -> Path:
    """An untrained model in a self-contained checkpoint folder."""
    folder = tmp_path_factory.mktemp("sft")
    tiny_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_index(folder / "id2sid.json", toy.sids)
    prompt = row_messages({"input": "<a_0><b_0><c_0>"})
    golden = ((prompt, prompt_ids(tokenizer, [prompt])[0]),)
    replace(Contract.of("contract", tokenizer), golden=golden, support="vocab").write(folder)
    return folder


@pytest.fixture(scope="session")
def rl_data(tmp_path_factory, toy) -> Path:
    """A data folder: 12 rows to train on, 8 to validate; after item i comes item i + 1."""
    folder = tmp_path_factory.mktemp("data")
    contract = Contract.of("contract")
    contract.write(folder)
    write_index(folder / "id2sid.json", toy.sids)
    items = list(toy.sids)
    (folder / "rl").mkdir()
    for split, count in (("train", 12), ("valid", 8)):
        rows = []
        for i in range(count):
            history = [toy.sids[items[(i + j) % len(items)]] for j in range(1 + i % 3)]
            target = toy.sids[items[(i + 1 + i % 3) % len(items)]]
            question = contract.ask("sid_history", split, sids=contract.write_sids(history))
            rows.append(
                {
                    "data_source": "toy",
                    "prompt": messages(contract.system, user_text(*question)),
                    "ability": "seq_rec",
                    "reward_model": {"style": "rule", "ground_truth": join_sid(target)},
                    "extra_info": {"split": split, "index": i, "task": "task1_sid_sft"},
                }
            )
        (folder / "rl" / f"{split}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def datasets(rl_data):
    """{"train", "valid"} of rl_data; datasets takes a tenth of a second to name one."""
    from datasets import Dataset

    files = {split: json.loads((rl_data / "rl" / f"{split}.json").read_text()) for split in ("train", "valid")}
    return {split: Dataset.from_list(rows) for split, rows in files.items()}


@pytest.fixture
def make_trainer(sft, datasets, tokenizer, toy, tmp_path, monkeypatch):
    """make_trainer(rewards, rollout=..., any field of RLConfig) -> BeamGRPOTrainer in tmp_path, 4 beams a group.

    rows: what to train on and validate with, in place of rl_data's
    """
    from accelerate.state import AcceleratorState
    from datasets import Dataset

    from mimigenrec.decoding.trie import SidTrie
    from mimigenrec.grpo.config import RLConfig
    from mimigenrec.grpo.trainer import BeamGRPOTrainer

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # else a bf16 trainer's setting outlives it
    AcceleratorState._reset_state(True)

    def make(
        rewards, rollout="beam", support="vocab", callbacks=None, peft_config=None, model=None, rows=None, **options
    ):
        plain = {
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_steps": 2,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "gradient_checkpointing": False,
            "use_cpu": True,
            "disable_tqdm": True,
        }
        train, valid = [Dataset.from_list(rows)] * 2 if rows else datasets.values()
        return BeamGRPOTrainer(
            str(model or sft),
            rewards,
            RLConfig(str(tmp_path / "out"), **(plain | options)),
            trie=SidTrie.from_catalog(toy, tokenizer),
            rollout=rollout,
            support=support,
            processing_class=tokenizer,
            train_dataset=train,
            eval_dataset=valid,
            callbacks=callbacks,
            peft_config=peft_config,
        )

    return make


@pytest.fixture(scope="session")
def target_that(tiny_model, tokenizer, toy):
    """target_that(kind, row, beams, support) -> the row with such a target, None if there is none.

    hit        the best beam
    one hint   no beam names it, though some have its first code; a beam below that code does
    missed     the model's very last SID
    """
    from mimigenrec.decoding.rollout import roll_out
    from mimigenrec.decoding.search import search_sids
    from mimigenrec.decoding.trie import SidTrie

    trie = SidTrie.from_catalog(toy, tokenizer)

    @cache
    def ranked(prompt, beams, support):
        """Token ids of the best SIDs."""
        return [list(sid) for sid, _ in search_sids(tiny_model, trie, [list(prompt)], beams, support)[0]]

    @cache
    def target(kind, prompt, beams, support):
        if kind != "one hint":
            return ranked(prompt, beams, support)[0] if kind == "hit" else ranked(prompt, 7, support)[-1]
        hits = ranked(prompt, beams, support)
        for sid in ranked(prompt, 7, support):
            if sid not in hits and sid[0] in {hit[0] for hit in hits}:
                hint = [sid[:1]]
                [below] = roll_out(tiny_model, trie, [list(prompt)], beams, "beam", support, {}, 1, hint)
                if [*sid, trie.eos_id] in below:
                    return sid
        return None

    def find(kind, row, beams, support="vocab"):
        sid = target(kind, tuple(prompt_ids(tokenizer, [row["prompt"]])[0]), beams, support)
        return sid and row | {"reward_model": {"ground_truth": "".join(tokenizer.convert_ids_to_tokens(sid))}}

    return find


SETTINGS = """
num_generations: 4
per_device_train_batch_size: 8
learning_rate: 1.0e-3
logging_steps: 1
use_cpu: true
disable_tqdm: true
"""  # of a command on the toy, without its rewards


PLAIN = "rewards: [ranking_reward.rule_reward, ranking_reward.ndcg_rule_reward]" + SETTINGS


@pytest.fixture
def command(sft, rl_data, tmp_path):
    """command(out, "key=value", ...) -> arguments of `mimigenrec grpo` for the toy checkpoint and data."""
    (tmp_path / "run.yaml").write_text(PLAIN)

    def make(out, *options):
        folders = [f"model={sft}", f"data={rl_data}", f"output_dir={tmp_path / out}"]
        return [str(tmp_path / "run.yaml"), *folders, *options]

    return make


def run(argv):
    """`mimigenrec grpo` in this process."""
    from mimigenrec.cli import parse
    from mimigenrec.grpo.config import RLConfig
    from mimigenrec.grpo.train import RunConfig, main

    main(*parse(RunConfig, RLConfig, argv=argv))
