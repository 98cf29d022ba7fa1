"""A data folder of the toy catalogue as preprocessing writes it, and a checkpoint that belongs to it."""

import json

import pytest

from mimigenrec.decoding.model import copy_companions
from mimigenrec.evaluation.result import write_result
from mimigenrec.manifest import make_manifest
from mimigenrec.sids.tokens import join_sid
from mimigenrec.tasks import build


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory, raw_toy):
    folder = tmp_path_factory.mktemp("data") / "toy"
    build.main(build.BuildConfig(data_dir=raw_toy, category="toy", output_dir=folder))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model, tokenizer, toy_data):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    copy_companions(toy_data, folder)
    return folder


@pytest.fixture(scope="session")
def result_of(toy):
    """Writes a result as `evaluate` does and returns its folder: result_of(folder, [["0", "1"], ...], ["0", ...])."""

    def write(folder, lists, targets, k=5, users=None, histories=None, alone=True, **config):
        """lists: per row the items in order, each alone in its group, or with all the items of its SID."""
        rows = []
        for i, (items, target) in enumerate(zip(lists, targets, strict=True)):
            groups = [[item] for item in items] if alone else [toy.items_of[toy.sids[item]] for item in items]
            row = {"user": f"u{i}" if users is None else users[i], "row": i, "target": target}
            row |= {"history": ["4", "6"] if histories is None else histories[i]}
            row |= {"target_sid": join_sid(toy.sids.get(target, ()))}
            row |= {"ranked": [{"sid": join_sid(toy.sids[of[0]]), "items": of, "score": -1.0} for of in groups]}
            rows.append(row)
        manifest = make_manifest({"k": k, **config}, [], seed=config.get("seed", 1))
        write_result(folder, rows, toy, k, manifest, method=folder.name, seconds=1.5)
        return folder

    return write


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
