"""Every YAML in examples/ goes through the real argument parser of the program that its first lines name."""

import importlib
import os
import re
import subprocess
from dataclasses import asdict, fields
from typing import get_type_hints

import pytest
import yaml

from mimigenrec.benchmark.options import given
from mimigenrec.cli import COMMANDS, parse
from mimigenrec.files import read_json
from mimigenrec.sft.checks import check_keys
from mimigenrec.sft.train import SftConfig, read_arguments
from tests.conftest import ROOT
from tests.sft.conftest import save_base, save_data

RECIPES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if path.parent.name != "accelerate")
ACCELERATE = sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))
STAGES = {"z0": 0, "z2": 2, "z2_offload": 2, "z3": 3, "z3_offload": 3}


def short(path):
    return str(path.relative_to(ROOT / "examples"))


SFT = [path for path in RECIPES if "stage" in yaml.safe_load(path.read_text())]
# second files, behind the first on the command line of their first line
SECOND = [path for path in RECIPES if path not in SFT and "mimigenrec sft " in path.read_text().splitlines()[0]]
OURS = {field.name for field in fields(SftConfig)}
RANKING = {"eval_hr@10", "eval_ndcg@10", "hr@10", "ndcg@10"}  # what RankingMetrics reports and LLaMA-Factory does not


def header(path):
    """The comment that a YAML opens with."""
    return re.match(r"(#.*\n)+", path.read_text()).group()


@pytest.mark.parametrize("path", SFT, ids=short)
def test_an_sft_recipe_holds_no_key_of_ours_and_its_header_names_both_commands(path):
    keys = yaml.safe_load(path.read_text())
    assert not OURS & set(keys) and keys.get("metric_for_best_model") not in RANKING
    assert re.search(r"mimigenrec sft|sft\.sh", header(path))
    assert re.findall(r"llamafactory-cli train (\S+)", header(path)) == [f"examples/{short(path)}"]


@pytest.mark.parametrize("path", SECOND, ids=short)
def test_a_second_file_holds_only_what_the_stock_program_does_not_know_and_wins_over_the_first(path):
    keys = yaml.safe_load(path.read_text())
    assert set(keys) - {"metric_for_best_model"} <= OURS
    assert keys.get("metric_for_best_model") in {None, *RANKING}
    [command] = re.findall(r"mimigenrec sft (.*)", path.read_text().splitlines()[0])
    files = [ROOT / name for name in command.split()]
    assert files[0] in SFT and files[1:] == [path]
    config, args = read_arguments([str(file) for file in files])
    check_keys(args, ours=[])
    assert {**args, **asdict(config)}.items() >= keys.items()


def test_benchmarks_train_with_the_keys_of_ours_that_the_single_commands_have(monkeypatch):
    monkeypatch.chdir(ROOT)
    keys = yaml.safe_load((ROOT / "examples" / "small" / "sft_mimigenrec.yaml").read_text())
    for name, expected in (("toy", {}), ("industrial", keys), ("leave_one_out", keys)):
        benchmark = yaml.safe_load((ROOT / "examples" / "benchmark" / f"{name}.yaml").read_text())
        options = given("sft", benchmark["sft"])
        assert {key: options[key] for key in {*OURS, "metric_for_best_model"} & set(options)} == expected


def test_every_stock_command_in_the_pages_names_a_recipe():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/README.md")]
    named = {name for page in pages for name in re.findall(r"llamafactory-cli train ([\w./-]+)", page.read_text())}
    assert "examples/tiny/sft.yaml" in named and {ROOT / name for name in named} <= set(SFT)


@pytest.mark.parametrize("path", SFT, ids=short)
def test_sft_recipes_pass_the_parser_of_llamafactory(path, monkeypatch, tmp_path):
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import get_train_args

    _, args = read_arguments([str(path)])
    check_keys(args, ours=[])
    assert args["overwrite_output_dir"] is False and args["dataset_dir"] == "data"  # resumes; relative to the root
    assert args.get("template") is None or args["template"] in TEMPLATES
    assert args.get("deepspeed") is None or (ROOT / args["deepspeed"]).is_file()
    # what a machine without GPU and extras cannot take; the parser checks all the rest
    args |= {"deepspeed": None, "use_unsloth": False, "bf16": False, "report_to": "none"}
    model, data, training, finetuning, _ = get_train_args({**args, "output_dir": str(tmp_path)})
    longest = 64 if data.train_on_prompt else 256  # rows of SIDs alone are short
    assert data.cutoff_len >= longest and training.learning_rate > 0 and finetuning.stage == "sft"
    assert model.model_name_or_path.startswith("saves/")


@pytest.mark.parametrize("path", [path for path in RECIPES if path not in SFT + SECOND], ids=short)
def test_other_recipes_pass_the_parser_of_their_command(path):
    (command,) = re.findall(r"mimigenrec (\S+)", path.read_text().splitlines()[0])
    module = importlib.import_module(COMMANDS[command][0])
    configs = [hint for name, hint in get_type_hints(module.main).items() if name != "return"]
    parse(*configs, argv=[str(path), *(["--use_cpu", "true", "--bf16", "false"] if command == "grpo" else [])])


@pytest.mark.parametrize("path", ACCELERATE, ids=short)
def test_launch_recipes_pass_the_parser_of_accelerate(path):
    from accelerate.commands.config.config_args import load_config_from_file

    load_config_from_file(str(path))


@pytest.mark.parametrize("path", RECIPES, ids=short)
def test_a_recipe_opens_with_its_command_and_a_training_one_names_its_hardware(path):
    lines = path.read_text().splitlines()
    assert re.match(r"# .*(mimigenrec |sft\.sh|trl_trainer\.sh)", lines[0])
    training = path in SFT or "mimigenrec grpo" in lines[0]
    assert not training or re.search("GPU|CPU", " ".join(lines[:12]))


@pytest.mark.parametrize("name", STAGES)
def test_deepspeed_configs_leave_to_the_trainer_what_it_knows(name):
    config = read_json(ROOT / "examples" / "deepspeed" / f"ds_{name}_config.json", made_by="the repository")
    assert config["zero_optimization"]["stage"] == STAGES[name]
    for key in (
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    ):
        assert config[key] == "auto"
    assert config["bf16"]["enabled"] == config["fp16"]["enabled"] == "auto"
    assert ("offload_optimizer" in config["zero_optimization"]) == name.endswith("offload")


def test_sft_sh_prepares_and_trains(tmp_path, toy, warm_path):
    save_data(tmp_path, toy)
    base = save_base(tmp_path / "base")
    env = {
        "CATEGORY": "toy",
        "ZERO": "none",
        "DATA_DIR": tmp_path / "data",
        "BASE": base,
        "OUTPUT_DIR": tmp_path / "out",
    }
    env = {**os.environ, "PATH": warm_path, **{key: str(value) for key, value in env.items()}}
    quick = ["max_steps=2", "eval_steps=2", "save_steps=2", "dataloader_num_workers=0", "preprocessing_num_workers=1"]
    command = ["bash", ROOT / "sft.sh", "bf16=false", f"base_cache={tmp_path / 'cache'}", *quick]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "eval_ndcg@10" in read_json(tmp_path / "out" / "eval_results.json", made_by="the run")
