"""HR@50 pushed down on purpose: 80 SIDs, and a reward that pays for everything but the target."""

import json
import logging

import pytest
import torch

from mimigenrec.cli import parse
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.run import finished
from mimigenrec.grpo.stop_rule import Guard, breaks, stopped_at
from mimigenrec.grpo.train import RunConfig, main, summary
from mimigenrec.logs import read_jsonl
from mimigenrec.sids.tokens import join_sid, write_index
from tests.conftest import make_model, make_tokenizer


def guard(drop, patience=2):
    return Guard("eval_hr@50", "stop_hr50_drop", drop, patience)


def log_of(*hrs):
    return [{"step": 10 * i, "eval_hr@50": hr, "eval_ndcg@10": i / 10} for i, hr in enumerate(hrs)]


@pytest.mark.parametrize(
    "hrs, patience, step",
    [
        ((0.5, 0.49, 0.48), 1, None),  # below, but by no more than 0.02
        ((0.5, 0.47), 1, 10),
        ((0.5, 0.47), 2, None),
        ((0.5, 0.47, 0.47), 2, 20),
        ((0.5, 0.47, 0.49, 0.47), 2, None),  # in between it recovered
        ((0.5, 0.47, 0.47, 0.5), 2, None),  # only the last ones count
        ((0.5, 0.49, 0.47, 0.46), 2, 30),
        ((0.5,), 1, None),
        ((), 1, None),
    ],
)
def test_the_rule_by_hand(hrs, patience, step):
    assert stopped_at(log_of(*hrs), guard(0.0201, patience)) == step
    assert stopped_at(log_of(*hrs), guard(None, patience)) is None


def test_a_log_without_the_sft_checkpoint_has_nothing_to_compare_with():
    with pytest.raises(ValueError, match="the log holds no eval_hr@50 of step 0. Start anew"):
        breaks(0.4, [{"step": 10, "eval_hr@50": 0.4}], guard(0.02))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """An SFT checkpoint, rows whose targets stand at places 20 to 50 of its lists, and the trie."""
    from mimigenrec.chat import prompt_ids
    from mimigenrec.decoding.search import search_sids

    sids = {f"{i}": (f"<a_{i % 4}>", f"<b_{i // 4 % 4}>", f"<c_{i // 16}>") for i in range(80)}
    tokenizer = make_tokenizer(sid_tokens=sorted({token for sid in sids.values() for token in sid}))
    model = make_model(len(tokenizer), seed=1)
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    folder = tmp_path_factory.mktemp("narrow")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_index(folder / "id2sid.json", sids)
    trie = SidTrie.from_sids(sids, tokenizer)
    prompts = [[{"role": "user", "content": f"{join_sid(sids[str(i)])} ?"}] for i in range(6)]
    found = search_sids(model, trie, prompt_ids(tokenizer, prompts), 50)
    rows = []
    for i, (prompt, ranked) in enumerate(zip(prompts, found, strict=True)):
        target = "".join(tokenizer.convert_ids_to_tokens(list(ranked[20 + 5 * i][0])))
        rows.append({"prompt": prompt, "reward_model": {"ground_truth": target}})
    return folder, tokenizer, trie, rows


def worse(completions, reward_model, **columns):
    """All but the target is right: with the target added to each group, RL pushes it down."""
    pairs = zip(completions, reward_model, strict=True)
    return [float(chat[0]["content"] != row["ground_truth"]) for chat, row in pairs]


@pytest.fixture
def harmful(narrow, tmp_path, monkeypatch):
    """harmful(reward, any field of RLConfig) -> a trainer on those rows; evaluated and saved after every step."""
    from accelerate.state import AcceleratorState
    from datasets import Dataset

    from mimigenrec.grpo.trainer import BeamGRPOTrainer

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state(True)
    folder, tokenizer, trie, rows = narrow

    def make(reward=worse, **options):
        plain = {"num_generations": 4, "per_device_train_batch_size": 24, "max_steps": 12, "learning_rate": 5e-3}
        plain |= {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
        plain |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_ndcg@10", "add_target": True}
        plain |= {"beta": 0.0, "logging_steps": 1, "use_cpu": True, "disable_tqdm": True, "save_total_limit": 1}
        plain |= {"gradient_checkpointing": False, "save_only_model": True}
        data = Dataset.from_list(rows)
        return BeamGRPOTrainer(
            str(folder),
            [reward],
            RLConfig(str(tmp_path / "out"), **(plain | options)),
            trie=trie,
            processing_class=tokenizer,
            train_dataset=data,
            eval_dataset=data,
        )

    return make


def hrs(trainer):
    return {e["step"]: e["eval_hr@50"] for e in trainer.state.log_history if "eval_hr@50" in e}


def test_a_reward_that_pushes_hr_at_50_down_ends_the_run_and_the_sft_checkpoint_remains(harmful, caplog):
    trainer = harmful(stop_hr50_drop=0.1, stop_patience=2)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        trainer.train()
    found = hrs(trainer)
    last = max(found)
    assert found[0] == 1.0 and 2 <= last < 12  # the rule, not max_steps
    assert all(found[step] < 0.9 for step in (last - 1, last))
    assert stopped_at([e for e in trainer.state.log_history if e["step"] < last], guard(0.1)) is None  # no sooner
    assert f"stopping at step {last}: HR@50 was below 1.0000 - stop_hr50_drop=0.1 in 2 evaluations" in caplog.text
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-0")
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, start[name], rtol=0, atol=0)


def test_the_best_checkpoint_is_the_best_of_those_that_kept_the_rule(harmful, monkeypatch):
    """Scores made up: NDCG@10 rises throughout, HR@50 breaks the rule at steps 3 and 5 and then for good."""
    trainer = harmful(stop_hr50_drop=0.1, stop_patience=3)
    made_up = dict(enumerate([0.5, 0.5, 0.45, 0.3, 0.45, 0.3, 0.3, 0.3, 0.3]))

    def validate(*args):
        step = trainer.state.global_step
        return {"hr@10": 0.1, "ndcg@10": 0.1 + step / 100, "hr@50": made_up[step], "ndcg@50": 0.2}

    monkeypatch.setattr("mimigenrec.grpo.trainer.validate", validate)
    trainer.train()
    assert trainer.state.global_step == 7  # 5, 6 and 7 in a row
    assert trainer.state.best_metric == pytest.approx(0.14)
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    lines = summary(trainer.state.log_history, trainer.args).splitlines()
    assert lines[2].startswith("best  step 4 ") and lines[3].startswith("last  step 7 ")
    assert lines[4] == "stopped at step 7: HR@50 more than 0.1 below the SFT checkpoint's 3 times"


@pytest.mark.parametrize(("min_gain", "chosen"), [(0.0, 4), (0.025, 4), (0.035, 4), (0.045, 0)])
def test_a_gain_that_may_be_chance_leaves_the_sft_checkpoint(harmful, monkeypatch, min_gain, chosen):
    """Scores made up: NDCG@10 rises by .01 a step, to .04 at step 4, and HR@50 holds."""
    trainer = harmful(stop_hr50_drop=0.0, stop_patience=1, max_steps=4, min_gain=min_gain)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    monkeypatch.setattr(
        "mimigenrec.grpo.trainer.validate",
        lambda *args: {"hr@10": 0.1, "ndcg@10": 0.1 + trainer.state.global_step / 100, "hr@50": 0.5, "ndcg@50": 0.2},
    )
    trainer.train()
    assert trainer.state.global_step == 4  # ends nothing, only chooses
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{chosen}")
    same = [torch.equal(value, start[name]) for name, value in trainer.model.state_dict().items()]
    assert all(same) == (chosen == 0)


def test_without_the_rule_the_same_run_goes_on_to_its_end_with_a_warning(harmful, caplog):
    trainer = harmful(max_steps=3, learning_rate=2e-2)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    found = hrs(trainer)
    assert max(found) == 3 and found[3] < 0.9
    assert f"step 3: HR@50 {found[3]:.4f} is below the SFT checkpoint's 1.0000" in caplog.text
    assert trainer.state.best_model_checkpoint and not trainer.state.best_model_checkpoint.endswith("checkpoint-0")


def test_a_reward_that_helps_is_not_stopped(harmful):
    def better(**columns):
        return [1.0 - score for score in worse(**columns)]

    steady = {"max_steps": 4, "learning_rate": 3e-3, "ce_coef": 1.0, "add_target": False}
    trainer = harmful(better, stop_hr50_drop=0.0, stop_patience=1, **steady)
    trainer.train()
    assert trainer.state.global_step == 4
    assert trainer.state.best_metric > trainer.state.log_history[0]["eval_ndcg@10"] == 0.0


STOP = "stop_hr50_drop=0.02 eval_strategy=steps eval_steps=1 save_steps=1 load_best_model_at_end=true"
FLAGS = f"{STOP} metric_for_best_model=eval_ndcg@10 num_generations=4 per_device_train_batch_size=8 use_cpu=true"


def test_a_run_that_was_stopped_and_is_started_again_changes_nothing(sft, rl_data, tmp_path, capsys):
    out = tmp_path / "out"
    flags = [f"model={sft}", f"data={rl_data}", f"output_dir={out}", "rewards=ranking_reward.rule_reward"]
    main(*parse(RunConfig, RLConfig, argv=[*flags, *FLAGS.split(), "max_steps=1"]))
    (out / "trainer_state.json").write_text(json.dumps({"log_history": log_of(0.5, 0.4, 0.4), "max_steps": 99}))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    run, args = parse(RunConfig, RLConfig, argv=[*flags, *FLAGS.split(), "max_steps=1"])
    main(run, args)
    assert "was ended by stop_hr50_drop at step 20: nothing to do; overwrite_output_dir" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    args.overwrite_output_dir = True
    assert finished(args) is None


def test_a_run_killed_where_the_rule_had_ended_it_takes_no_step_more(harmful):
    options = {"stop_hr50_drop": 0.1, "stop_patience": 2, "save_only_model": False, "save_total_limit": 3}
    trainer = harmful(**options)
    trainer.train()
    step, best = trainer.state.global_step, trainer.state.best_model_checkpoint
    again = harmful(**options, eval_on_start=True)
    again.args.eval_on_start = False
    again.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-{step}")
    assert again.state.global_step == step < 12 and again.state.best_model_checkpoint == best
    assert hrs(again) == hrs(trainer)


def test_a_best_model_that_is_gone_ends_in_words_and_one_that_was_moved_is_found(harmful, tmp_path):
    trainer = harmful()
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    trainer.state.best_model_checkpoint = "elsewhere/checkpoint-3"
    with pytest.raises(UserError, match="the best model, elsewhere/checkpoint-3, is gone"):
        trainer._load_best_model()
    trainer.model.save_pretrained(tmp_path / "out" / "checkpoint-3")
    trainer._load_best_model()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-3")


def test_a_run_that_goes_on_from_the_sft_checkpoint_keeps_its_measure(sft, rl_data, tmp_path):
    """Killed before the first step was saved: checkpoint-0 is there, and so is step 0 in the log."""
    flags = [f"model={sft}", f"data={rl_data}", f"output_dir={tmp_path}", "rewards=ranking_reward.rule_reward"]
    argv = [*flags, *FLAGS.split(), "max_steps=1", "disable_tqdm=true", "logging_steps=1"]
    main(*parse(RunConfig, RLConfig, argv=argv))
    first = read_jsonl(tmp_path / "rl_log.jsonl")
    for path in ("checkpoint-1", "model.safetensors", "trainer_state.json"):
        path = tmp_path / path
        path.rename(tmp_path / f"gone-{path.name}")
    main(*parse(RunConfig, RLConfig, argv=argv))
    again = read_jsonl(tmp_path / "rl_log.jsonl")
    for ours, theirs in zip(again, first, strict=True):
        same = [key for key in theirs if "runtime" not in key and "per_second" not in key]
        assert {key: ours[key] for key in same} == pytest.approx({key: theirs[key] for key in same}, abs=1e-5)
