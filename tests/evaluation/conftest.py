"""A checkpoint that belongs to the toy data, and logs as trainings write them."""

import json

import pytest

from mimigenrec.checkpoint import copy_companions


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model, tokenizer, toy_data):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    copy_companions(toy_data, folder)
    return folder


def jsonl(path, events):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


SFT = [
    {"current_steps": 1, "total_steps": 2, "loss": 2.0, "lr": 0.1},
    {"current_steps": 2, "total_steps": 2, "loss": 1.0, "percentage": 100.0, "elapsed_time": "0:00:01"},
    {"current_steps": 2, "eval_loss": 1.5},
    {"current_steps": 2, "eval_hr@10": 0.2, "eval_ndcg@10": 0.1},
]
RL = [{"step": s, "loss": 0.0, "reward": 0.1 * s, "rewards/rule_reward/mean": 0.1 * s, "kl": 0.0} for s in range(60)]
