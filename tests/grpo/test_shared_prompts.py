"""A trainer that computes each prompt once ends where TRL's own way ends, and leaves out rows that teach nothing."""

import numpy as np
import pytest
import torch


def sgd_run(make_trainer, monkeypatch, shared: bool, support: str, **options):
    """Five SGD steps on beams of the frozen start; the logged losses and gradient norms, and the weights."""
    from mimigenrec.grpo import group_trainer as module
    from mimigenrec.rewarding import load_rewards

    if not shared:
        monkeypatch.setattr(module, "obstacle_to_sharing", lambda model, longest: "asked for by the test")
    rewards = load_rewards(["ranking_reward.prefix_reward"])
    settings = {"max_steps": 5, "optim": "sgd", "learning_rate": 1e-2, "lr_scheduler_type": "constant"} | options
    trainer = make_trainer(rewards, support=support, **settings)
    start = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    found = trainer._generate_single_turn  # rollouts fixed: those of the first model, whatever the steps change
    kept: dict[str, list] = {}

    def same_rollouts(prompts, images):
        key = str(prompts)
        kept.setdefault(key, found(prompts, images))
        return kept[key]

    trainer._generate_single_turn = same_rollouts
    trainer.train()
    log = [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
    end = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return log, start, end


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.1},
        {"beta": 0.0},
        {"beta": 0.0, "loss_type": "grpo", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"beta": 0.0, "num_iterations": 2, "steps_per_generation": 1},
    ],
    ids=["kl", "no_kl", "accumulated", "iterations"],
)
def test_five_steps_end_where_trls_own_way_ends(make_trainer, monkeypatch, support, options):
    log, start, end = sgd_run(make_trainer, monkeypatch, True, support, **options)
    with monkeypatch.context() as patch:
        plain_log, plain_start, plain_end = sgd_run(make_trainer, patch, False, support, **options)
    assert torch.equal(start, plain_start) and not torch.equal(end, start)
    assert (end - plain_end).norm() <= 1e-4 * (plain_end - start).norm()
    for (loss, norm), (plain_loss, plain_norm) in zip(log, plain_log, strict=True):
        assert loss == pytest.approx(plain_loss, abs=2e-4) and norm == pytest.approx(plain_norm, rel=1e-3)


def test_micro_batches_hold_whole_groups_after_the_shuffle():
    from mimigenrec.grpo.groups import whole_groups

    prompts = torch.arange(6).repeat_interleave(4)[torch.randperm(24, generator=torch.Generator().manual_seed(0))]
    batches = [
        {
            "prompt_ids": part[:, None].expand(-1, 3),
            "prompt_mask": torch.ones(len(part), 3, dtype=torch.long),
            "advantages": part.float(),
            "num_items_in_batch": torch.tensor(96),
        }
        for part in prompts.split(8)
    ]
    regrouped = whole_groups(batches)
    seen = list(dict.fromkeys(prompts.tolist()))  # prompts in the order of the shuffle
    expected = [[float(p) for p in seen[i : i + 2] for _ in range(4)] for i in (0, 2, 4)]
    assert [batch["advantages"].tolist() for batch in regrouped] == expected
    assert all(torch.equal(b["advantages"], b["prompt_ids"][:, 0].float()) for b in regrouped)
    assert all(b["num_items_in_batch"] == 96 for b in regrouped)


def test_rows_without_advantage_are_not_computed_when_there_is_no_kl(make_trainer):
    def only_the_first_group(completions, group_index, rank_in_group, **columns):
        return [float(group == 0 and rank == 0) for group, rank in zip(group_index, rank_in_group, strict=True)]

    trainer = make_trainer([only_the_first_group], max_steps=1, beta=0.0)
    rows = []
    handle = trainer.model.get_decoder().register_forward_pre_hook(
        lambda _, args, inputs: rows.append(len(inputs["input_ids"])) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    trainer.train()
    handle.remove()
    [entry] = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert rows == [1]  # the prompt with signal, alone in its forward
    assert entry["rows_saved_share"] == 0.5 and np.isfinite(entry["entropy"]) and entry["entropy"] > 0
