"""A wing of one file, tests/wing/even.py, trains on free text with what the spine has, and changes nothing of it."""

import ast

import pytest
import torch

from mimigenrec.chat import row_chat
from mimigenrec.grpo.stop_rule import Guard
from mimigenrec.rewarding import answer_chats, ask_rewards, checked, load_rewards
from tests.conftest import ROOT, make_model, make_tokenizer
from tests.wing.even import EvenTrainer, chat_rows, rl_row

REWARD = "tests.wing.even:even_share"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def trainer(tokenizer, tmp_path, monkeypatch):
    """trainer(any field of GroupConfig) -> an EvenTrainer on a random model and 8 rows, 4 answers of 6 tokens each."""
    from accelerate.state import AcceleratorState
    from datasets import Dataset

    from mimigenrec.grpo.config import GroupConfig

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.chdir(ROOT)
    AcceleratorState._reset_state(True)

    def make(guard=None, **options):
        plain = {"num_generations": 4, "per_device_train_batch_size": 16, "max_completion_length": 6, "max_steps": 12}
        plain |= {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "beta": 0.0, "logging_steps": 1}
        plain |= {"save_strategy": "no", "gradient_checkpointing": False, "use_cpu": True, "disable_tqdm": True}
        rows = Dataset.from_list([rl_row(row) for row in chat_rows(8)])
        return EvenTrainer(
            make_model(len(tokenizer)),
            load_rewards([REWARD]),
            GroupConfig(str(tmp_path / "out"), **(plain | options)),
            guard=guard,
            processing_class=tokenizer,
            train_dataset=rows,
            eval_dataset=rows,
        )

    return make


def log_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_the_wing_learns_from_free_text_and_a_reward_without_a_trie(trainer):
    training = trainer(eval_strategy="steps", eval_steps=16, max_steps=16)
    training.train()
    rewards = [entry["reward"] for entry in log_of(training)]
    epochs = [sum(rewards[i : i + 2]) / 2 for i in range(0, 16, 2)]  # at most 0.5: half of the rows never pay
    assert epochs[-1] > epochs[0] + 0.05
    measures = {entry["step"]: entry["eval_even"] for entry in training.state.log_history if "eval_even" in entry}
    assert list(measures) == [0, 16] and measures[0] < 0.35 and measures[16] > 0.45
    assert sum(entry["groups_without_signal"] for entry in log_of(training)) >= 32  # those rows, 4 in each epoch


def test_prompts_that_teach_nothing_give_way_to_others(trainer):
    training = trainer(dynamic_sampling_rounds=4, max_steps=2, learning_rate=0.0)
    training.train()
    assert [entry["groups_without_signal"] for entry in log_of(training)] == [0, 0]
    assert sum(entry["replaced_prompts_share"] for entry in log_of(training)) == 1.0  # 8 rows, half of them silent


def test_a_guard_of_the_wings_own_metric_stops_the_run(trainer, caplog):
    guard = Guard("eval_even", "stop_even_drop", drop=0.1, patience=2)
    training = trainer(guard=guard, eval_strategy="steps", eval_steps=1)
    values = iter([0.9, 0.85, 0.7, 0.85, 0.7, 0.6, 0.9])
    training.measure = lambda model, rows: {"even": next(values)}
    with caplog.at_level("WARNING"):
        training.train()
    assert training.state.global_step == 5  # of 12: twice in a row below 0.8
    assert "stopping at step 5: EVEN was below 0.9000 - stop_even_drop=0.1 in 2 evaluations in a row" in caplog.text


def test_a_shared_prompt_and_a_row_each_give_the_same_step(trainer, monkeypatch):
    from mimigenrec.grpo import group_trainer

    def weights():
        torch.manual_seed(3)
        training = trainer(max_steps=2, optim="sgd", beta=0.0)
        start = torch.cat([p.detach().flatten().clone() for p in training.model.parameters()])
        training.train()
        return start, torch.cat([p.detach().flatten() for p in training.model.parameters()])

    start, shared = weights()
    monkeypatch.setattr(group_trainer, "obstacle_to_sharing", lambda model, longest: "asked for by the test")
    _, apart = weights()
    assert not torch.equal(shared, start) and (shared - apart).norm() <= 1e-3 * (shared - start).norm()


def test_tokens_of_others_are_seen_and_have_no_loss(trainer):
    """Every second token is somebody else's: the gradient is that of the others alone, given the whole answer."""
    training = trainer()
    roll = training.roll

    def with_others(rows):
        groups = roll(rows)
        for group in groups:
            group.own = [[i % 2 == 0 for i in range(len(tokens))] for tokens in group.rollouts]
        return groups

    training.roll, training.masks = with_others, True
    rows = [row for row in training.train_dataset for _ in range(4)][:16]
    inputs = training._generate_and_score_completions(rows)
    mask, ids = inputs["completion_mask"], inputs["completion_ids"]
    assert mask[:, 1::2].sum() == 0 and mask.sum() == inputs["num_items_in_batch"] > 0
    training.current_gradient_accumulation_steps = 1
    training.model.zero_grad()
    training._compute_loss(training.model, inputs).backward()
    gradient = torch.cat([p.grad.flatten().clone() for p in training.model.parameters()])
    training.model.zero_grad()
    whole = torch.cat([inputs["prompt_ids"], ids], dim=1)
    seen = torch.cat([inputs["prompt_mask"], torch.ones_like(mask)], dim=1)  # padding behind an answer has no loss
    logps = training.model(input_ids=whole, attention_mask=seen).logits[:, -7:-1].log_softmax(-1)
    logps = logps.gather(2, ids[..., None])[..., 0]
    (-(logps * inputs["advantages"][:, None] * mask).sum() / mask.sum()).backward()
    plain = torch.cat([p.grad.flatten() for p in training.model.parameters()])
    assert plain.norm() > 1e-3 and (gradient - plain).norm() <= 1e-4 * plain.norm()


def test_outside_of_training_the_reward_scores_answers_in_the_same_words(monkeypatch):
    monkeypatch.chdir(ROOT)
    row = rl_row(chat_rows(1)[0])
    scores = ask_rewards([checked(r) for r in load_rewards([REWARD])], [row] * 2, answer_chats("ab"), [[2], [1, 2]], 2)
    assert scores == [[1.0], [0.5]]


def test_its_rows_are_chats_whose_last_answer_is_the_target():
    row = chat_rows(2)[1]
    assert rl_row(row)["wish"] == "odd" and [*rl_row(row)["prompt"], row_chat(row)[-1]] == row["messages"]


def test_the_wing_is_one_small_file_that_only_imports_the_spine():
    text = (ROOT / "tests" / "wing" / "even.py").read_text()
    imports = [node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in imports} == {"collections", "typing", "mimigenrec"}
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 50
