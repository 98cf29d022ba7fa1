"""SIDs with an extra level that tells items apart go through preprocessing, SFT, RL and evaluation like any others."""

import json

import numpy as np
import pytest

from mimigenrec.cli import parse
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.evaluation.config import EvaluateConfig
from mimigenrec.evaluation.run import main as evaluate
from mimigenrec.files import write_json
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.train import RunConfig
from mimigenrec.grpo.train import main as reinforce
from mimigenrec.interactions.inter_file import History
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.train import SftConfig, train
from mimigenrec.sids.quantise import QuantiseConfig
from mimigenrec.sids.quantise import main as quantise
from mimigenrec.sids.tokens import read_index
from mimigenrec.sids.training import Training
from mimigenrec.tasks.build import BuildConfig
from mimigenrec.tasks.build import main as preprocess
from mimigenrec.vectors.store import write_vectors
from tests.conftest import write_histories
from tests.sft.conftest import save_base

ITEMS = [str(i) for i in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """raw/ and data/ of 24 items, every three of nearly one vector, so that three levels of codes collide; base/."""
    root = tmp_path_factory.mktemp("extra")
    raw = root / "raw" / "toy"
    write_json(raw / "toy.item.json", {item: {"title": f"thing number {item}"} for item in ITEMS})
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(8, 6)), 3, axis=0) + 1e-3 * rng.normal(size=(24, 6))
    write_vectors(raw / "toy.emb-x.npy", vectors.astype(np.float32), ITEMS, model="x", normalised=False)
    for split, count in (("train", 48), ("valid", 12), ("test", 24)):
        walks = [[ITEMS[(i + j) % 24] for j in range(3 + i % 3)] for i in range(count)]
        write_histories(
            raw / f"toy.{split}.inter", [History(i, "u", tuple(w[:-1]), w[-1]) for i, w in enumerate(walks)]
        )
    paths = {"items": raw / "toy.item.json", "vectors": raw / "toy.emb-x.npy", "output": raw / "toy.index.json"}
    quantise(QuantiseConfig(**paths, method="rqkmeans", sizes=[2, 2, 2], collisions="extra"), Training())
    save_base(root / "base")
    data = BuildConfig(root / "raw", "toy", root / "data" / "toy", tokenizer=str(root / "base"))
    preprocess(data)  # compares its rows with LLaMA-Factory's
    return root


@pytest.fixture(scope="module")
def sft(folder):
    add_sids(AddSidsConfig(str(folder / "base"), folder / "data/toy/new_tokens.json", folder / "prepared"))
    args = {
        "model_name_or_path": str(folder / "prepared"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "toy_train",
        "eval_dataset": "toy_valid",
        "dataset_dir": str(folder / "data"),
        "cutoff_len": 256,
        "output_dir": str(folder / "sft"),
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "report_to": "none",
    }
    train(SftConfig(), args)
    return folder / "sft"


@pytest.fixture(scope="module")
def rl(folder, sft):
    flags = f"--model {sft} --data {folder / 'data/toy'} --output_dir {folder / 'rl'} --max_steps 1 --use_cpu true"
    flags += " --rewards ranking_reward.rule_reward --num_generations 4 --per_device_train_batch_size 8"
    reinforce(*parse(RunConfig, RLConfig, argv=flags.split()))
    return folder / "rl"


def test_items_that_collide_get_numbers_of_their_own_and_one_depth(folder):
    sids = read_index(folder / "data/toy/id2sid.json")
    assert {len(sid) for sid in sids.values()} == {4} and len(set(sids.values())) == 24
    assert len({sid[:3] for sid in sids.values()}) <= 8 and {sid[3] for sid in sids.values()} >= {"<d_0>", "<d_2>"}
    assert json.loads((folder / "data/toy/manifest.json").read_text())["rendering"] == "as LLaMA-Factory's"


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_trained_checkpoint_ranks_all_items_and_each_alone(stage, folder, request):
    checkpoint = request.getfixturevalue(stage)
    [found] = MIMIGenRec.from_pretrained(checkpoint, device="cpu").recommend([["0", "1"]], k=24)
    assert sorted(one.item for one in found) == sorted(ITEMS)
    result = folder / "result" / stage
    evaluate(EvaluateConfig(model=checkpoint, data=folder / "data/toy", output=result, k=24, beams=24, device="cpu"))
    metrics = json.loads((result / "metrics.json").read_text())
    assert metrics["n_sids"] == metrics["n_items"] == 24 and metrics["invalid"] == 0
    by_sid, by_item = ({k: v["mean"] for k, v in metrics[level].items()} for level in ("sid", "item"))
    assert by_sid == by_item  # no SID is shared
