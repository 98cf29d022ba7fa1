"""A slip in any stage's options is told before the first stage runs, in the words of its own parser."""

import pytest

from mimigenrec.benchmark import check
from mimigenrec.benchmark import plan as plan_module
from mimigenrec.benchmark.config import BenchmarkConfig
from mimigenrec.benchmark.plan import plan, report_stage
from mimigenrec.cli import parse
from mimigenrec.tasks.build import find_raw
from tests.conftest import ROOT

SFT = {"finetuning_type": "full", "max_steps": 4, "learning_rate": "1e-2"}
GRPO = {
    "rewards": ["ranking_reward.rule_reward"], "max_steps": 2, "learning_rate": "1e-5", "bf16": False,
    "num_generations": 4, "per_device_train_batch_size": 8,
}  # fmt: skip


def problems(config):
    return check.problems_of([*plan(config), report_stage(config, {})])


def test_options_that_all_commands_take_give_no_problem(toy_config):
    assert problems(toy_config(base="owner/model", sft=SFT, grpo=GRPO, preprocess={"max_history": 5})) == []


def test_every_slip_is_told_at_once_and_where_it_stands(toy_config):
    config = toy_config(
        baselines={
            "sasrec": {"epoch": 3},
            "other": {"method": "marcov"},
            "caser": {"window": 9, "max_history": 5},
            "markov": {"back_off": -1},
        },
        preprocess={"tasks": ["task1_sid_stf"]},
        base="owner/model",
        add_sids={"init": "nose"},
        sft=SFT | {"learnig_rate": 1e-3},
        grpo=GRPO | {"num_generation": 4},
        evaluate={"k": 5, "beams": 7, "suport": "trie"},
        report={"metrics": ["hr@5"], "tested": ["hr@5"], "tittle": "x"},
    )
    told = problems(config)
    for start, part in [
        ("preprocess: ", "'task1_sid_stf' is not a task"),
        ("baselines: sasrec: ", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("baselines: caser: ", "--window 9 is more than --max_history 5"),
        ("baselines: markov: ", "--back_off is -1; it must be at least 0"),
        ("baselines: other: ", "'method' wants one of popularity"),
        ("add_sids: ", "'init' wants one of noise"),
        ("sft: ", "'learnig_rate' is neither a key of LLaMA-Factory"),
        ("grpo: ", "unknown key 'num_generation'; did you mean 'num_generations'?"),
        ("evaluate: ", "unknown key 'suport'; did you mean 'support'?"),
        ("report: ", "unknown key 'tittle'; did you mean 'title'?"),
    ]:
        [line] = [line for line in told if line.startswith(start)]
        assert part in line, line
    assert len(told) == 10


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_generations": 5}, "5"),
        ({"rewards": ["ranking_reward.no_such"]}, "no function 'no_such'"),
        ({"rewards": ["ranking_reward.rule_reward"], "reward_args": {"x.y": {}}}, "not among the rewards"),
    ],
)
def test_what_rl_would_refuse_later_is_told_now(toy_config, change, told):
    [line] = problems(toy_config(baselines={}, base="owner/model", sft=SFT, grpo=GRPO | change))
    assert line.startswith("grpo: ") and told in line


def test_a_missing_extra_is_told_with_what_to_install(toy_config, monkeypatch):
    from mimigenrec import extras

    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in ("wandb", "deepspeed") else found(name))
    told = problems(
        toy_config(base="owner/model", sft=SFT | {"deepspeed": "ds.json"}, grpo=GRPO | {"report_to": "wandb"})
    )
    assert told == [
        "sft: deepspeed: ds.json needs deepspeed, which is not installed: run pip install 'mimigenrec[deepspeed]'",
        "grpo: report_to: wandb needs wandb, which is not installed: run pip install 'mimigenrec[wandb]'",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "benchmark").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_hold_nothing_that_a_command_refuses(path, raw_toy, monkeypatch):
    monkeypatch.chdir(ROOT)
    (config,) = parse(BenchmarkConfig, argv=[str(path)])
    assert len(config.seeds) > 1 and config.grpo
    monkeypatch.setattr(plan_module, "find_raw", lambda *_: find_raw(raw_toy, "toy"))
    assert problems(config) == []
