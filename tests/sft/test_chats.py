"""Chats from registration to a checkpoint: LLaMA-Factory trains on them, and what does not fit is named before."""

import math
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.contract import proven_tokenizer, read_contract
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.logs import read_jsonl
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.arguments import SftConfig
from mimigenrec.sft.checks import check_data
from mimigenrec.sft.data import find_data
from mimigenrec.sft.make_base import BaseConfig, texts
from mimigenrec.sft.make_base import main as make_base
from mimigenrec.sft.train import train
from mimigenrec.tasks.register import register, split_files
from mimigenrec.tasks.rows import read_sft_rows, to_chat_row


@pytest.fixture
def chats(data):
    """The data folder with every SFT row as a chat of two turns, of which the first is chatter."""
    for split in ("train", "valid", "test"):
        rows = [to_chat_row(row) for row in read_sft_rows(data / "sft" / f"{split}.json")]
        for row in rows:
            row["messages"][1:1] = to_chat_row({"input": "Hello?", "output": "Say what you had."})["messages"]
        write_json(data / "sft" / f"{split}.json", rows)
    register(data, split_files("toy"), "messages")
    return data


@pytest.fixture
def ready(args, chats, tmp_path):
    add_sids(AddSidsConfig(args["model_name_or_path"], chats / "new_tokens.json", tmp_path / "base_sid"))
    return args | {"model_name_or_path": str(tmp_path / "base_sid")}


def test_a_run_on_chats_trains_ranks_and_remembers_their_prompts(ready, chats):
    train(SftConfig(eval_ranking=4), ready | {"max_steps": 1, "eval_steps": 1, "save_steps": 1})
    out = Path(ready["output_dir"])
    [loss] = [line["loss"] for line in read_jsonl(out / "trainer_log.jsonl") if "loss" in line]
    assert math.isfinite(loss) and "eval_ndcg@10" in read_json(out / "eval_results.json", "test")
    golden, rows = read_contract(out).golden, read_sft_rows(chats / "sft" / "train.json")
    prompts = [row_messages(row) for row in rows]
    assert len(golden) == 20 and all(prompt in prompts and len(prompt) == 4 for prompt, _ in golden)
    tokenizer = proven_tokenizer(out)
    assert [ids for _, ids in golden] == prompt_ids(tokenizer, [prompt for prompt, _ in golden])


def checked(ready, **more):
    args = ready | more
    check_data(find_data(args), AutoTokenizer.from_pretrained(args["model_name_or_path"]), args, 256)


def test_the_rows_are_of_the_kind_that_they_are_registered_as(ready, chats):
    checked(ready)
    checked(ready, mask_history=True)
    register(chats, split_files("toy"), "alpaca")
    with pytest.raises(UserError, match="train.json, row 0: output is missing"):
        checked(ready)


def test_a_template_that_rewrites_earlier_turns_is_refused_before_training(ready):
    tokenizer = AutoTokenizer.from_pretrained(ready["model_name_or_path"])
    last = "message['content'] if loop.last or message['role'] != 'assistant' else 'forgotten'"
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", f"({last})")
    tokenizer.save_pretrained(ready["model_name_or_path"])
    with pytest.raises(UserError, match="write the prompt differently.*Say what you had.*would see.*forgotten"):
        checked(ready)


def test_a_tokenizer_learns_from_registered_rows_of_any_kind(chats, tmp_path):
    write_json(tmp_path / "data" / "talk.json", [{"conversations": [{"from": "human", "value": "zwiebel " * 999}]}])
    info = read_json(tmp_path / "data" / "dataset_info.json", "test")
    info["talk"] = {"file_name": "talk.json", "formatting": "sharegpt"}
    write_json(tmp_path / "data" / "dataset_info.json", info)
    tiny = {"hidden": 16, "heads": 2, "vocabulary": 300}
    for name, dataset in (("one", "toy_train"), ("two", "toy_train, talk")):
        make_base(BaseConfig(tmp_path / "data", tmp_path / name, dataset=dataset, **tiny))
    known = [AutoTokenizer.from_pretrained(tmp_path / name).get_vocab().keys() for name in ("one", "two")]
    assert any("zwie" in word for word in known[1] - known[0])
    inputs = read_json(tmp_path / "two" / "manifest.json", "test")["inputs"]
    assert [Path(path).name for path in inputs] == ["train.json", "talk.json"]
    make_base(BaseConfig(chats, tmp_path / "folder", **tiny))  # sft/train.json, whichever kind it is
    names = ("tokenizer.json", "model.safetensors")
    assert [(tmp_path / "one" / name).read_bytes() for name in names] == [
        (tmp_path / "folder" / name).read_bytes() for name in names
    ]


def test_the_texts_of_a_chat_are_those_of_all_its_turns():
    assert list(texts([to_chat_row({"system": "S", "input": "<a_1> x", "output": "y"})])) == ["S\n x\ny"]
