"""The loss against a plain one written here: whole forwards of prompt and completion, row by row."""

import json

import pytest
import torch

from mimigenrec.chat import prompt_ids
from mimigenrec.decoding.inside_trie import legal_tokens
from mimigenrec.grpo.target_loss import appended, columns, cross_entropy, targets_of
from mimigenrec.rewarding import load_rewards
from mimigenrec.sids.tokens import split_sid

TEMPERATURE = 0.8


def loss_and_gradient(trainer, inputs):
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten().clone() for p in trainer.model.parameters()])


def plain_logps(trainer, prompt, completion):
    """(len(completion),) of one row, with nothing shared: under the trainer's support and temperature."""
    logits = trainer.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    if trainer.support == "trie":
        legal = legal_tokens(trainer.trie, torch.tensor([completion]), logits.shape[-1])[0]
        logits = logits.masked_fill(~legal, -torch.inf)
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def plain_gradient(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten().clone() for p in trainer.model.parameters()])


def assert_close(ours, theirs):
    assert theirs.norm() > 1e-3 and (ours - theirs).norm() <= 1e-4 * theirs.norm()


def batch(trainer, rows):
    """TRL's tensors of a generation batch of these rows."""
    G = trainer.num_generations
    return trainer._generate_and_score_completions([row for row in rows for _ in range(G)])


def asked(trainer, row):
    """Token ids of a row's prompt and of its target with EOS."""
    tokenizer = trainer.processing_class
    target = tokenizer.convert_tokens_to_ids(split_sid(row["reward_model"]["ground_truth"]))
    return prompt_ids(tokenizer, [row["prompt"]])[0], [*target, tokenizer.eos_token_id]


@pytest.fixture(params=["shared", "row by row"])
def way(request, monkeypatch):
    """Prompts computed once, or TRL's own way."""
    if request.param == "row by row":
        from mimigenrec.grpo import group_trainer as module

        monkeypatch.setattr(module, "obstacle_to_sharing", lambda model, longest: "asked for by the test")


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_the_cross_entropy_part_is_that_of_plain_prompts_and_targets(make_trainer, way, support, beta):
    """Gradients of the model's parameters, to 1e-4 of their norm; targets of 2 and 3 levels."""
    trainer = make_trainer(
        load_rewards(["ranking_reward.prefix_reward"]),
        support=support,
        beta=beta,
        ce_coef=0.7,
        temperature=TEMPERATURE,
    )
    rows = [trainer.train_dataset[i] for i in range(6)]
    inputs = batch(trainer, rows)
    loss, gradient = loss_and_gradient(trainer, inputs)
    ce = trainer._metrics["train"]["ce_loss"][-1]
    trainer.args.ce_coef = 0.0
    rl_loss, rl_gradient = loss_and_gradient(trainer, inputs)
    logps = [plain_logps(trainer, *asked(trainer, row)) for row in rows]
    assert {len(part) for part in logps} == {3, 4}
    plain = -torch.cat(logps).mean()
    assert ce == pytest.approx(plain.item(), abs=1e-5) and loss == pytest.approx(rl_loss + 0.7 * ce, abs=1e-5)
    assert_close(gradient - rl_gradient, plain_gradient(trainer, 0.7 * plain))


def test_at_temperature_1_over_the_vocabulary_it_is_the_models_own_loss(make_trainer):
    trainer = make_trainer(load_rewards(["ranking_reward.rule_reward"]), ce_coef=1.0, beta=0.0)
    rows = [trainer.train_dataset[i] for i in (0, 1)]
    loss_and_gradient(trainer, batch(trainer, rows))
    own = []
    for row in rows:
        prompt, target = asked(trainer, row)
        ids = torch.tensor([prompt + target])
        labels = torch.tensor([[-100] * len(prompt) + target])
        own += [trainer.model(ids, labels=labels).loss.item()] * len(target)
    assert trainer._metrics["train"]["ce_loss"][-1] == pytest.approx(sum(own) / len(own), abs=1e-5)


def test_silent_groups_still_learn_their_target_at_the_price_of_one_row(make_trainer):
    def silence(completions, **columns):
        return [0.0] * len(completions)

    trainer = make_trainer([silence], beta=0.0, ce_coef=1.0)
    rows = [trainer.train_dataset[i] for i in (0, 1)]
    inputs = batch(trainer, rows)
    seen = []
    hook = trainer.model.get_decoder().register_forward_pre_hook(
        lambda _, args, given: seen.append(given["input_ids"].shape), with_kwargs=True
    )
    _, gradient = loss_and_gradient(trainer, inputs)
    hook.remove()
    logps = [plain_logps_at_1(trainer, *asked(trainer, row)) for row in rows]
    assert_close(gradient, plain_gradient(trainer, -torch.cat(logps).mean()))
    longest = max(len(asked(trainer, row)[0]) for row in rows)
    assert seen == [(2, longest + 3)]  # two prompts, each with the three levels of its target
    assert trainer._metrics["train"]["rows_saved_share"][-1] == 1.0


def plain_logps_at_1(trainer, prompt, completion):
    logits = trainer.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def test_a_target_costs_its_own_tokens_only_behind_the_groups_prompt(make_trainer):
    """All rollouts of a group with all 7 SIDs hold the target already: the forward is not a token wider for it."""
    shapes = []
    for ce_coef in (0.0, 1.0):
        trainer = make_trainer(
            load_rewards(["ranking_reward.rule_reward"]), num_generations=7, per_device_train_batch_size=14,
            ce_coef=ce_coef,
        )  # fmt: skip
        inputs = batch(trainer, [trainer.train_dataset[i] for i in (0, 1)])
        trainer.model.get_decoder().register_forward_pre_hook(
            lambda _, args, given: shapes.append(given["input_ids"].shape), with_kwargs=True
        )
        loss_and_gradient(trainer, inputs)
    assert len(shapes) == 2 and shapes[0] == shapes[1]


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_both_parts_keep_their_weights_when_gradients_are_accumulated(make_trainer, rl_data, loss_type):
    """Two micro-batches of one group end where one of both groups ends."""
    rows = json.loads((rl_data / "rl" / "train.json").read_text())
    rows = [row for row in rows if len(split_sid(row["reward_model"]["ground_truth"])) == 3]
    plain = {"rows": rows, "loss_type": loss_type, "ce_coef": 0.5, "beta": 0.0, "optim": "sgd", "max_grad_norm": 0.0}
    plain |= {"lr_scheduler_type": "constant"}
    ends = []
    for batch_size, steps in ((8, 1), (4, 2)):
        options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": steps}
        trainer = make_trainer(load_rewards(["ranking_reward.prefix_reward"]), learning_rate=1e-2, **options, **plain)
        start = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
        trainer.train()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]) - start)
    assert_close(ends[1], ends[0])


def test_targets_of_a_micro_batch_by_hand():
    """Groups 0 and 1 of two rows, in disorder; the micro-batch holds three of the four rows."""
    whole = columns([[1, 2, 9], [3, 9]], 2, "cpu")
    assert whole["target_ids"].tolist() == [[1, 2, 9]] * 2 + [[3, 9, 0]] * 2
    assert whole["target_mask"].tolist() == [[1, 1, 1]] * 2 + [[1, 1, 0]] * 2
    part = {key: value[[3, 0, 2]] for key, value in whole.items()}
    targets = targets_of(part)
    assert targets.ids.tolist() == [[1, 2, 9], [3, 9, 0]] and targets.row.tolist() == [1, 0]
    assert targets.rows.tolist() == [1, 2]
    ids = torch.tensor([[0, 7, 4, 9], [6, 5, 4, 9], [0, 7, 3, 9]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    wide, seen, C = appended(targets, ids, mask, 2)
    assert C == 3 and wide.tolist() == [
        [0, 7, 4, 9, 0],
        [6, 5, 4, 9, 0],
        [0, 7, 3, 9, 0],
        [6, 5, 1, 2, 9],
        [0, 7, 3, 9, 0],
    ]
    assert seen.tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -100.0]])
    assert cross_entropy(targets, logps).item() == pytest.approx((6 + 2 * 9) / (3 + 2 * 2))


@pytest.fixture
def hinted(make_trainer, target_that):
    """hinted(options) -> a trainer of two beams, a batch of two groups whose second was given one token, its rows."""

    def make(support="vocab", **options):
        rule = load_rewards(["ranking_reward.rule_reward"])
        sizes = {"num_generations": 2, "per_device_train_batch_size": 4, "temperature": TEMPERATURE}
        trainer = make_trainer(rule, support=support, hints=True, **sizes, **options)
        first, *others = trainer.train_dataset
        one_hint = (target_that("one hint", row, 2, support) for row in others)
        rows = [target_that("hit", first, 2, support), next(filter(None, one_hint))]
        return trainer, batch(trainer, rows), rows

    return make


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize("loss_type, ce_coef", [("dapo", 0.0), ("grpo", 0.5)])
def test_a_hinted_groups_loss_is_that_of_the_tokens_behind_the_hint(hinted, way, support, ce_coef, loss_type):
    """loss = -(mean over tokens, or over rows of means over their tokens, of advantage * ratio 1) + ce_coef * CE."""
    trainer, inputs, rows = hinted(support=support, beta=0.0, ce_coef=ce_coef, loss_type=loss_type)
    assert inputs["completion_mask"].sum(1).tolist() == [len(c) for c in completions(inputs, skip=[0, 0, 1, 1])]
    assert inputs["num_items_in_batch"] == inputs["completion_mask"].sum()
    _, gradient = loss_and_gradient(trainer, inputs)
    parts = []
    for i, hint in enumerate([0, 0, 1, 1]):
        prompt = asked(trainer, rows[i // 2])[0]
        logps = plain_logps(trainer, prompt, completions(inputs, skip=[0] * 4)[i])[hint:]
        parts.append(-inputs["advantages"][i] * (logps - logps.detach()).exp())
    plain = torch.cat(parts).mean() if loss_type == "dapo" else torch.stack([part.mean() for part in parts]).mean()
    if ce_coef:
        plain = plain - ce_coef * torch.cat([plain_logps(trainer, *asked(trainer, row)) for row in rows]).mean()
    assert_close(gradient, plain_gradient(trainer, plain))


def completions(inputs, skip):
    """The token ids of each row, without padding and the first skip[i]."""
    real = (inputs["completion_mask"].flip(1).cummax(dim=1).values.flip(1)).bool()
    rows = zip(inputs["completion_ids"], real, skip, strict=True)
    return [ids[mask].tolist()[first:] for ids, mask, first in rows]


@pytest.mark.parametrize("options", [{"beta": 0.1}, {"beta": 0.0, "num_iterations": 2}], ids=["kl", "old policy"])
def test_given_tokens_get_exactly_no_gradient(hinted, monkeypatch, options):
    trainer, inputs, _ = hinted(**options)
    for key in ("old_per_token_logps", "ref_per_token_logps"):
        assert key not in inputs or (inputs[key][2:, 0] == 0).all()
    leaf = inputs.get("old_per_token_logps", torch.full(inputs["completion_ids"].shape, -6.0)).clone()
    leaf[2:, 0] = -20.0  # were it to count, it would show
    leaf.requires_grad_()
    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *a, **k: (leaf, leaf.detach().abs()))
    trainer._compute_loss(trainer.model, inputs).backward()
    assert (leaf.grad[2:, 0] == 0).all() and torch.isfinite(leaf.grad).all()
    assert (leaf.grad[2:, 1] != 0).all() and (leaf.grad[:2, 0] != 0).all()
