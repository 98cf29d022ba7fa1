"""Numbers that are not finite end RL and its preview with one sentence, and nothing of them is saved."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from trl import GRPOTrainer

from mimigenrec.cli import parse
from mimigenrec.decoding.rollout import roll_out
from mimigenrec.errors import UserError
from mimigenrec.grpo.preview import PreviewConfig
from mimigenrec.grpo.preview import main as preview
from tests.grpo.conftest import run

WEIGHT = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def broken(sft, tmp_path):
    """broken(change of the tensors) -> a copy of the SFT checkpoint with it."""

    def make(change):
        shutil.copytree(sft, tmp_path / "broken")
        tensors = load_file(sft / "model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
        return tmp_path / "broken"

    return make


def set_nan(tensors):
    tensors[WEIGHT][0, 0] = math.nan


def set_infinite(tensors):
    tensors[WEIGHT][0, 0] = -math.inf


def take_out(tensors):
    del tensors[WEIGHT]


@pytest.mark.parametrize(
    "change, message",
    [
        (set_nan, f"hold NaN or infinity, {WEIGHT} first"),
        (set_infinite, f"hold NaN or infinity, {WEIGHT} first"),
        (take_out, f"config.json asks for, {WEIGHT} first"),
    ],
)
def test_a_broken_model_is_refused_by_both_commands(command, broken, rl_data, tmp_path, change, message):
    model = broken(change)
    with pytest.raises(UserError, match=message):
        run(command("out", f"model={model}", "max_steps=2"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    words = ["--model", str(model), "--data", str(rl_data), "--num_generations", "7"]
    with pytest.raises(UserError, match=message):
        preview(*parse(PreviewConfig, argv=[*words, "--rewards", "ranking_reward.rule_reward"]))


@pytest.mark.parametrize("rollout", ["beam", "sample", "distinct", "mixed"])
@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_no_rollout_is_made_by_a_model_whose_scores_are_nan(tiny_model, tokenizer, toy, rollout, support):
    from mimigenrec.decoding.trie import SidTrie

    trie = SidTrie.from_catalog(toy, tokenizer)
    weight = tiny_model.get_parameter(WEIGHT)
    kept = weight.data.clone()
    weight.data[0, 0] = math.nan
    try:
        with pytest.raises(UserError, match=r"scores are not finite \(row 0, step 1\)"):
            roll_out(tiny_model, trie, [[1, 2, 3]], 4, rollout, support, {"temperature": 1.0}, 8)
    finally:
        weight.data.copy_(kept)


def test_a_run_that_diverges_stops_with_its_step_and_saves_no_model(command, tmp_path):
    with pytest.raises(UserError, match=r"^training diverged: at step [23] .* \(it is 1e\+30\)"):
        run(command("out", "max_steps=6", "save_steps=1", "learning_rate=1e30", "lr_scheduler_type=constant"))
    out = tmp_path / "out"
    assert not (out / "model.safetensors").exists() and not (out / "trainer_state.json").exists()
    for checkpoint in out.glob("checkpoint-*/model.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(checkpoint).values())


def poisoned(trainer, value):
    """The trainer, whose gradients hold `value` from the first step on, though its loss is finite."""
    trainer.model.get_parameter(WEIGHT).register_hook(lambda grad: torch.full_like(grad, value))
    return trainer


@pytest.mark.parametrize(
    "value, steps, message",
    [
        (math.nan, 1, "its weights hold NaN or infinity"),
        (math.inf, 2, "grad_norm is inf"),
        (1e38, 2, "grad_norm is inf"),  # whose weights would stay as they are: everything is clipped to 0
    ],
)
def test_a_gradient_that_is_not_finite_ends_a_run_that_logs_nothing(make_trainer, tmp_path, value, steps, message):
    options = {"max_steps": steps, "logging_steps": 50, "save_strategy": "steps", "save_steps": steps}
    trainer = make_trainer([lambda completions, **columns: [1.0, 0.0] * (len(completions) // 2)], **options)
    with pytest.raises(UserError, match=f"training diverged: at step 1 {message}"):
        poisoned(trainer, value).train()
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_loss_that_is_not_finite_ends_the_run_before_its_gradient(make_trainer, monkeypatch):
    trainer = make_trainer([lambda completions, **columns: [1.0, 0.0] * (len(completions) // 2)])
    monkeypatch.setattr(
        GRPOTrainer, "compute_loss", lambda *args, **kwargs: torch.tensor(math.nan, requires_grad=True)
    )
    monkeypatch.setattr(trainer.accelerator, "backward", None)
    with pytest.raises(UserError, match="training diverged: at step 1 loss is nan"):
        trainer.train()


def test_without_a_norm_to_look_at_the_weights_are_looked_at_before_they_are_saved(make_trainer, tmp_path):
    options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_grad_norm": 0.0}
    trainer = make_trainer([lambda completions, **columns: [1.0, 0.0] * (len(completions) // 2)], **options)
    with pytest.raises(UserError, match="training diverged: at step 1 its weights hold NaN or infinity"):
        poisoned(trainer, math.nan).train()
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_rewards_that_leave_float32_when_they_are_added_end_the_run(make_trainer):
    trainer = make_trainer([lambda completions, **columns: [3e38, -3e38] * (len(completions) // 2)])
    with pytest.raises(UserError, match="step 1: the rewards of a group differ by more than float32 holds"):
        trainer.train()
