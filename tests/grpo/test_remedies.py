"""What each remedy does to training, on toys where it is known beforehand."""

import itertools
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from mimigenrec.chat import prompt_ids
from mimigenrec.cli import parse
from mimigenrec.decoding.search import search_sids
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.train import RunConfig, main
from mimigenrec.logs import read_jsonl
from mimigenrec.rewarding import load_rewards
from mimigenrec.sids.tokens import split_sid
from tests.grpo.conftest import SETTINGS


def rule():
    return load_rewards(["ranking_reward.rule_reward"])


def steps(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def rank(trainer, row):
    """1-based place of the row's target among all SIDs, as the model stands."""
    tokenizer = trainer.processing_class
    target = tokenizer.convert_tokens_to_ids(split_sid(row["reward_model"]["ground_truth"]))
    trainer.model.eval()
    prompts = prompt_ids(tokenizer, [row["prompt"]])
    [ranked] = search_sids(trainer.model, trainer.trie, prompts, 7, trainer.support)
    return [list(sid) for sid, _ in ranked].index(target) + 1


@pytest.fixture
def missed(rl_data, target_that):
    """missed(kind) -> two rows whose targets two beams do not reach; see target_that."""

    def make(kind, support="vocab"):
        rows = json.loads((rl_data / "rl" / "train.json").read_text())
        with_target = (target_that(kind, row, 2, support) for row in rows)
        return list(itertools.islice(filter(None, with_target), 2))

    return make


@pytest.fixture
def two_beams(make_trainer):
    def make(rows, **options):
        plain = {"num_generations": 2, "per_device_train_batch_size": 4, "beta": 0.0, "lr_scheduler_type": "constant"}
        return make_trainer(rule(), rows=rows, **(plain | {"max_steps": 20, "learning_rate": 5e-3} | options))

    return make


def test_a_target_that_no_beam_reaches_teaches_nothing_without_a_remedy(two_beams, missed):
    rows = missed("missed")
    trainer = two_beams(rows, max_steps=5)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert [rank(trainer, row) for row in rows] == [7, 7]
    trainer.train()
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    assert all(entry["groups_without_signal_share"] == 1 for entry in steps(trainer))


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize("remedy", [{"add_target": True}, {"ce_coef": 1.0}], ids=["add_target", "ce_coef"])
def test_with_it_the_last_of_all_sids_becomes_the_first(two_beams, missed, remedy, support):
    rows = missed("missed", support)
    trainer = two_beams(rows, support=support, **remedy)
    assert [rank(trainer, row) for row in rows] == [7, 7]
    trainer.train()
    assert [rank(trainer, row) for row in rows] == [1, 1]
    first, last = steps(trainer)[0], steps(trainer)[-1]
    if "add_target" in remedy:
        assert first["added_target_share"] == 1 and last["added_target_share"] == 0
        assert first["groups_without_signal"] == 0
    else:
        assert first["ce_loss"] > 2 * last["ce_loss"]


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_hints_teach_what_lies_below_a_code_until_none_is_needed(two_beams, missed, support):
    rows = missed("one hint", support)
    trainer = two_beams(rows, support=support, hints=True, learning_rate=3e-4)
    assert min(rank(trainer, row) for row in rows) > 2
    trainer.train()
    first, last = steps(trainer)[0], steps(trainer)[-1]
    assert first["hinted_share"] == 1 and first["hint_length"] == 1 and first["groups_without_signal"] == 0
    assert all(entry["hinted_share"] == 0 for entry in steps(trainer)[10:]) and "hint_length" not in last
    assert max(rank(trainer, row) for row in rows) <= 2


def test_evaluation_never_has_hints_or_targets(two_beams, missed):
    rows = missed("missed")
    plain = two_beams(rows).evaluate()
    for remedy in ({"hints": True}, {"add_target": True}, {"ce_coef": 1.0, "dynamic_sampling_rounds": 1}):
        found = two_beams(rows * 2, **remedy).evaluate()
        keys = ("eval_hr@10", "eval_ndcg@10", "eval_hr@50", "eval_ndcg@50")
        assert [found[key] for key in keys] == pytest.approx([plain[key] for key in keys])


def even_rows_only(completions, extra_info, rank_in_group, **columns):
    """Signal in the groups of every second row."""
    return [float(row["index"] % 2 == 0 and rank == 0) for row, rank in zip(extra_info, rank_in_group, strict=True)]


def test_dynamic_sampling_leaves_no_silent_group_where_enough_others_exist(make_trainer):
    trainer = make_trainer([even_rows_only], dynamic_sampling_rounds=6, max_steps=6)
    trainer.train()
    log = steps(trainer)
    assert all(entry["groups_without_signal"] == 0 for entry in log)
    assert all(entry["dynamic_sampling_rounds"] <= 6 for entry in log)
    replaced = [entry["replaced_prompts_share"] for entry in log]
    assert sum(replaced) == 3.0  # one epoch is the 12 rows, two a step: half of them gave way


def test_dynamic_sampling_ends_after_its_rounds(make_trainer):
    calls = itertools.count()

    def silence(completions, **columns):
        next(calls)
        return [0.0] * len(completions)

    trainer = make_trainer([silence], dynamic_sampling_rounds=3, max_steps=1)
    trainer.train()
    [entry] = steps(trainer)
    assert entry["dynamic_sampling_rounds"] == 3 and entry["replaced_prompts_share"] == 0
    assert entry["groups_without_signal_share"] == 1 and next(calls) == 4  # once, and once a round; not again by TRL


def test_rewards_of_the_batch_are_those_of_the_groups_in_it(make_trainer):
    """What TRL turns into advantages after prompts were replaced is what the reward says of them."""
    trainer = make_trainer([even_rows_only], dynamic_sampling_rounds=6, scale_rewards="none")
    rows = [trainer.train_dataset[i] for i in (0, 1, 3)]
    inputs = trainer._generate_and_score_completions([row for row in rows for _ in range(4)])
    assert inputs["advantages"].view(3, 4).tolist() == [[0.75, -0.25, -0.25, -0.25]] * 3
    prompts = {tuple(ids[mask.bool()].tolist())
               for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)}  # fmt: skip
    even = prompt_ids(trainer.processing_class, [row["prompt"] for row in trainer.train_dataset][::2])
    assert prompts <= set(map(tuple, even))


def test_too_few_rows_to_draw_from_are_refused(make_trainer):
    with pytest.raises(ValueError, match="already holds 12 of 12 training rows"):
        make_trainer(rule(), dynamic_sampling_rounds=1, per_device_train_batch_size=48)


def test_every_step_says_how_wide_its_rollouts_are(make_trainer, toy):
    seen = []

    def spy(completions, **columns):
        seen.append([chat[0]["content"] for chat in completions])
        return [0.0] * len(completions)

    trainer = make_trainer([spy], max_steps=2, rollout="sample", add_target=True)
    trainer.roll, made = lambda rows, hint=0: [made_alike(group) for group in made(rows, hint)], trainer.roll

    def made_alike(group):
        group.rollouts = [group.rollouts[0]] * 4
        return group

    trainer.train()
    for entry, texts in zip(steps(trainer), seen, strict=True):
        first = [texts[0], texts[4]]  # the two rollouts of the batch; the targets came in later
        assert entry["distinct_sids_share"] == len(set(first)) / 8
        codes = {split_sid(text)[0] for text in first}
        assert entry["level1_entropy"] == pytest.approx(0.0 if len(codes) == 1 else 0.6931, abs=1e-4)


PLAIN = f"""
rewards: [ranking_reward.rule_reward]{SETTINGS}rollout: mixed
ce_coef: 0.1
max_steps: 4
save_steps: 2
"""


@pytest.mark.parametrize(
    "remedy, used",
    [("dynamic_sampling_rounds=2", "replaced_prompts_share"), ("hints=true", "hinted_share")],
)
def test_a_resumed_run_is_one_that_never_stopped(sft, rl_data, tmp_path, remedy, used):
    (tmp_path / "run.yaml").write_text(PLAIN)

    def run(out):
        folders = [f"model={sft}", f"data={rl_data}", f"output_dir={tmp_path / out}"]
        main(*parse(RunConfig, RLConfig, argv=[str(tmp_path / "run.yaml"), *folders, remedy]))
        drop = ("runtime", "per_second", "train_loss", "total_flos")
        events = read_jsonl(tmp_path / out / "rl_log.jsonl")
        return [{k: v for k, v in event.items() if not any(word in k for word in drop)} for event in events]

    whole = run("whole")
    (tmp_path / "parts").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "parts" / "checkpoint-2")
    for name in ("rl_log.jsonl", "manifest.json"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "parts")
    parts = run("parts")
    assert any(event.get(used) for event in whole[2:])
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    ends = [load_file(tmp_path / out / "model.safetensors") for out in ("whole", "parts")]
    assert all(torch.allclose(value, ends[1][name], atol=1e-6) for name, value in ends[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("remedies", ["hints=true", "dynamic_sampling_rounds=3", "add_target=true ce_coef=0.5"])
def test_two_processes_of_one_group_each_wait_for_each_other(sft, rl_data, tmp_path, remedies):
    """One of them has a silent group where the other has none; metrics are of both, weights the same."""
    (tmp_path / "run.yaml").write_text(PLAIN)
    flags = [f"model={sft}", f"data={rl_data}", f"output_dir={tmp_path / 'out'}", "rollout=beam", "save_steps=4"]
    flags += ["num_generations=2", "per_device_train_batch_size=2", "beta=0.1", *remedies.split()]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
        + ["mimigenrec.grpo.train", str(tmp_path / "run.yaml"), *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = [event for event in read_jsonl(tmp_path / "out" / "rl_log.jsonl") if "loss" in event]
    [name] = {"hinted_share", "replaced_prompts_share", "added_target_share"} & set(log[0])
    shares = [event[name] for event in log]
    assert len(log) == 4 and set(shares) <= {0.0, 0.5, 1.0} and any(shares)
