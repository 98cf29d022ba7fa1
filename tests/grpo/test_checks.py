from dataclasses import fields
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from trl import GRPOConfig

from mimigenrec.cli import parse
from mimigenrec.errors import UserError
from mimigenrec.grpo.checks import check_groups, check_save_steps, check_whole_groups
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.settings import RANGES
from mimigenrec.grpo.train import RunConfig
from tests.conftest import ROOT


def test_whole_groups_on_one_process():
    check_whole_groups(32, 16)
    with pytest.raises(ValueError, match="hold 24 rollouts.*for example 32"):
        check_whole_groups(24, 16)


def test_a_row_of_another_prompt_or_target_in_a_group_is_named():
    def row(prompt, target):
        return {"prompt": [{"role": "user", "content": prompt}], "reward_model": {"ground_truth": target}}

    a, b, other = row("?", "<a_1>"), row("!", "<a_1>"), row("?", "<a_2>")
    check_groups([a, a, a, b, b, b, a, a, a], 3)
    check_groups([], 3)
    with pytest.raises(
        ValueError, match=r"row 4 of .* its prompt is .*'\?'.*, that of row 3 is .*'!'.*num_generations=3"
    ):
        check_groups([a, a, a, b, a, b], 3)
    with pytest.raises(ValueError, match=r"row 2 of .* its reward_model is .*<a_2>.*, that of row 0 is .*<a_1>"):
        check_groups([a, a, other], 3)


def test_save_steps_by_hand():
    args = SimpleNamespace(gradient_accumulation_steps=2, steps_per_generation=4, num_iterations=1)
    check_save_steps("save_steps", 2, args)
    with pytest.raises(ValueError, match="3 steps are 6 forwards .* serves 4"):
        check_save_steps("save_steps", 3, args)


STOP = {
    "stop_hr50_drop": 0.02,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_ndcg@10",
}


KEPT = {name: value for name, value in STOP.items() if name != "stop_hr50_drop"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ce_coef": -0.1}, "--ce_coef is -0.1; it must be at least 0"),
        ({"dynamic_sampling_rounds": -1}, "--dynamic_sampling_rounds is -1; it must be"),
        (STOP | {"stop_hr50_drop": -0.01}, "--stop_hr50_drop is -0.01; it must be"),
        (STOP | {"stop_patience": 0}, "--stop_patience is 0; it must be at least 1"),
        (STOP | {"min_gain": -0.1}, "--min_gain is -0.1; it must be"),
        ({"max_steps": 0}, "--max_steps is 0; give a number of steps, or -1"),
        ({"num_generations": 1}, "--num_generations is 1; it must be at least 2"),
        ({"delta": 1.0}, "--delta is 1.0; it must be above 1"),
        ({"reward_weights": [1.0, float("inf")]}, "--reward_weights is inf; it must be a finite number"),
        ({"scale_rewards": "groups"}, "--scale_rewards is 'groups'; choose one of group, batch, none"),
        ({"loss_type": "ppo"}, "--loss_type is 'ppo'; choose one of grpo, dapo, bnpo, dr_grpo"),
        (
            {"importance_sampling_level": "word"},
            "--importance_sampling_level is 'word'; choose one of token, sequence",
        ),
        ({"lr_scheduler_kwargs": '{"a"'}, """--lr_scheduler_kwargs is '{"a"'; it must be a map of keys to values"""),
        ({"model_init_kwargs": [1]}, r"--model_init_kwargs is \[1\]; it must be a map of keys to values"),
        ({"model_init_kwargs": {"dtype": "float31"}}, "--model_init_kwargs: dtype is 'float31'; choose auto"),
        ({"accelerator_config": {"split": 1}}, "--accelerator_config has the key 'split'; it takes dispatch_batches"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "cosine_with_min_lr with --lr_scheduler_kwargs .* One of min_lr",
        ),
        ({"optim_args": "fused"}, "--optim_args has 'fused'; write key=value"),
        ({"report_to": "telegram"}, "--report_to has 'telegram'; choose from none, .*tensorboard"),
        (KEPT | {"metric_for_best_model": None}, "--metric_for_best_model is 'loss', which validation does not give"),
        (KEPT | {"greater_is_better": False}, "--greater_is_better is false: of HR and NDCG the lowest is the worst"),
        (
            {"generation_batch_size": 24},
            r"generation_batch_size \(24\) must be divisible by the global batch size \(16",
        ),
        (
            {"generation_batch_size": 16, "steps_per_generation": 1},
            "'generation_batch_size' and 'steps_per_generation'",
        ),
        (KEPT | {"per_device_eval_batch_size": 3}, r"eval batch size \(3 \* 1\) must be divisible by num_generations"),
        ({"min_gain": 0.1}, "min_gain=0.1 needs stop_hr50_drop"),
        (
            STOP | {"min_gain": 0.1, "metric_for_best_model": "eval_runtime"},
            "--metric_for_best_model is 'eval_runtime', which validation",
        ),
        ({"hints": True, "add_target": True}, "two answers to the same missing target"),
        ({"ce_coef": 0.1, "use_liger_loss": True}, "ce_coef would not be used: use_liger_loss"),
        ({"hints": True, "use_liger_loss": True}, "hints would not be used: use_liger_loss"),
        ({"stop_hr50_drop": 0.02}, "set eval_strategy: steps"),
        (STOP | {"eval_on_start": False}, "leave eval_on_start on"),
        (STOP | {"load_best_model_at_end": False}, "the very model that broke the rule: set load_best_model_at_end"),
        (STOP | {"save_strategy": "best"}, "the very model that broke the rule"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        RLConfig(str(tmp_path), use_cpu=True, **options)


def test_the_options_are_off_by_default_and_may_all_be_on_but_for_one(tmp_path):
    plain = RLConfig(str(tmp_path), use_cpu=True)
    own = ("ce_coef", "add_target", "hints", "dynamic_sampling_rounds", "stop_hr50_drop", "stop_patience", "min_gain")
    assert [getattr(plain, name) for name in own] == [0.0, False, False, 0, None, 2, 0.0]
    for one in ("hints", "add_target"):
        RLConfig(str(tmp_path), use_cpu=True, ce_coef=0.1, dynamic_sampling_rounds=2, **{one: True}, **STOP)


NO_RANGE = {  # -1 or any other number of them means something, or nothing reads them here
    *("local_rank", "past_index", "_n_gpu", "tpu_num_cores", "fsdp_min_num_params", "label_smoothing_factor"),
    *("per_gpu_train_batch_size", "per_gpu_eval_batch_size"),
}


def numbers() -> dict[str, dict]:
    """Fields that hold a number -> their ranges."""
    types = get_type_hints(RLConfig)
    found = {one.name: one.metadata.get("range") or RANGES.get(one.name) for one in fields(RLConfig)}
    return {name: bounds for name, bounds in found.items() if {int, float} & {types[name], *get_args(types[name])}}


def test_every_number_has_its_range():
    without = {name for name, bounds in numbers().items() if bounds is None and not name.startswith("vllm_")}
    assert without == NO_RANGE
    assert set(RANGES) <= set(numbers())


@pytest.mark.parametrize("name", [name for name, bounds in numbers().items() if bounds])
def test_a_number_outside_of_its_range_or_not_finite_is_refused_by_name(tmp_path, name):
    bounds = numbers()[name]
    bad = [float("nan"), bounds["above"] if "above" in bounds else bounds["least"] - 1]
    bad += [bounds["below"]] if "below" in bounds else [bounds["most"] + 1] if "most" in bounds else []
    for value in bad:
        with pytest.raises(UserError, match=f"--{name} is {value}; it must be "):
            RLConfig(str(tmp_path), use_cpu=True, **{name: value})


@pytest.mark.parametrize(
    "words", [["--beta", "nan"], ["--beta=inf"], ["beta=-inf"], ["--beta", "1e999"], "nan", ".inf"]
)
def test_a_beta_that_is_no_number_stops_the_command_however_it_is_spelt(tmp_path, capsys, words):
    (tmp_path / "x.yaml").write_text("beta: " + words if isinstance(words, str) else "{}")
    flags = [] if isinstance(words, str) else words
    argv = [str(tmp_path / "x.yaml"), *"--model m --data d --rewards r --output_dir o".split(), *flags]
    with pytest.raises(SystemExit) as end:
        parse(RunConfig, RLConfig, argv=argv)
    assert end.value.code == 2 and "--beta is " in capsys.readouterr().err


def test_true_and_false_of_a_yaml_are_those_of_trl(tmp_path):
    assert RLConfig(str(tmp_path), use_cpu=True, scale_rewards="True").scale_rewards == "group"
    assert RLConfig(str(tmp_path), use_cpu=True, scale_rewards="false").scale_rewards == "none"


def test_every_option_that_is_ours_has_its_place_on_the_page():
    page = (ROOT / "docs" / "rl.md").read_text()
    ours = {field.name for field in fields(RLConfig)} - {field.name for field in fields(GRPOConfig)}
    assert ours and all(f"`{name}`" in page for name in ours)
