"""A data folder as preprocessing writes it, and bases to train from."""

import pytest

from mimigenrec.catalog import write_items
from mimigenrec.contract import Contract
from mimigenrec.files import write_json
from mimigenrec.sids.tokens import write_index, write_new_tokens
from mimigenrec.tasks.register import register, split_files
from mimigenrec.tasks.rows import to_sft_row
from mimigenrec.tasks.sample import Sample
from tests.conftest import make_model, make_tokenizer


def save_data(folder, toy, rows: int = 48, wording: str = "contract"):
    """data/toy in `folder`; what follows an item is always the next one, so a few steps teach something."""
    data, contract, items = folder / "data" / "toy", Contract.of(wording), list(toy.sids)
    for split, count in (("train", rows), ("valid", 12), ("test", 12)):
        samples = []
        for i in range(count):
            history = [toy.sids[items[(i + j) % len(items)]] for j in range(1 + i % 3)]
            target = "".join(toy.sids[items[(i + 1 + i % 3) % len(items)]])
            samples.append(Sample("sid_history", {"sids": contract.write_sids(history)}, target))
        write_json(data / "sft" / f"{split}.json", [to_sft_row(sample, contract, split) for sample in samples])
    write_new_tokens(data / "new_tokens.json", toy.sids)
    write_index(data / "id2sid.json", toy.sids)
    write_items(data / "items.json", toy)
    contract.write(data)
    register(data, split_files("toy"))
    return data


def save_base(folder, spare: int = 30, tie: bool = True, sid_tokens=(), **config):
    tokenizer = make_tokenizer(sid_tokens=sid_tokens)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    make_model(len(tokenizer) + spare, tie=tie, **{**special, **config}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path, toy):
    return save_data(tmp_path, toy)


@pytest.fixture
def args(tmp_path, data):
    """LLaMA-Factory's keys of a run of a few steps on the CPU."""
    return {
        "model_name_or_path": str(save_base(tmp_path / "base")),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "toy_train",
        "eval_dataset": "toy_valid",
        "dataset_dir": str(tmp_path / "data"),
        "cutoff_len": 256,
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 16,
        "learning_rate": 1e-2,
        "max_steps": 4,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "report_to": "none",
        "seed": 1,
    }
