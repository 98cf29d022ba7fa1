from dataclasses import fields
from types import SimpleNamespace

import pytest
from trl import GRPOConfig

from mimigenrec.grpo.checks import check_groups, check_save_steps, check_whole_groups
from mimigenrec.grpo.config import RLConfig
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


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ce_coef": -0.1}, "ce_coef=-0.1 must be 0 or more"),
        ({"ce_coef": float("nan")}, "ce_coef=nan must be 0 or more"),
        ({"dynamic_sampling_rounds": -1}, "dynamic_sampling_rounds=-1 must be"),
        (STOP | {"stop_hr50_drop": -0.01}, "stop_hr50_drop=-0.01 must be"),
        (STOP | {"stop_patience": 0}, "stop_patience=0 must be 1 or more"),
        (STOP | {"min_gain": -0.1}, "min_gain=-0.1 must be"),
        ({"min_gain": 0.1}, "min_gain=0.1 needs stop_hr50_drop"),
        (
            STOP | {"min_gain": 0.1, "metric_for_best_model": "eval_runtime"},
            "and eval_runtime is none that validation",
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


def test_every_option_that_is_ours_has_its_place_on_the_page():
    page = (ROOT / "docs" / "rl.md").read_text()
    ours = set(RLConfig.__annotations__) - {field.name for field in fields(GRPOConfig)}
    assert ours and all(f"`{name}`" in page for name in ours)
