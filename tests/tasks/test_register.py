import json

import pytest

from mimigenrec.errors import UserError
from mimigenrec.tasks.register import (
    check_entries,
    entry_kind,
    read_entry,
    read_info,
    read_registered,
    register,
    split_files,
)


def test_three_entries_are_added_and_those_of_others_kept(tmp_path):
    other = {"file_name": "other.json"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"other": other, "toy_train": "old"}))
    assert register(tmp_path / "t", split_files("toy")) == tmp_path / "dataset_info.json"
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == {"other", "toy_train", "toy_valid", "toy_test"} and info["other"] == other
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    assert info["toy_train"] == {"file_name": "t/sft/train.json", "columns": columns}


@pytest.mark.parametrize("content", ["[]", "{broken"])
def test_a_dataset_info_that_is_not_one_is_left_alone(tmp_path, content):
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(ValueError, match="dataset_info.json"):
        register(tmp_path / "t", split_files("toy"))
    assert (tmp_path / "dataset_info.json").read_text() == content


@pytest.fixture
def two(tmp_path):
    """Two data folders side by side, of which the first is registered."""
    for name in ("shop", "ablation"):
        (tmp_path / name / "sft").mkdir(parents=True)
        (tmp_path / name / "sft" / "train.json").write_text("[]")
    register(tmp_path / "shop", split_files("shop"))
    return tmp_path


def test_a_name_is_not_taken_from_data_that_are_there(two):
    with pytest.raises(
        UserError, match=r"'shop_train' is the name of .*shop/sft/train.json .*ablation/sft.*--overwrite"
    ):
        check_entries(two / "ablation", split_files("shop"))
    check_entries(two / "ablation", split_files("shop"), overwrite=True)
    check_entries(two / "ablation", split_files("other"))
    check_entries(two / "shop", split_files("shop"))
    (two / "shop" / "sft" / "train.json").unlink()
    check_entries(two / "ablation", split_files("shop"))  # nothing there to train on any more


def test_a_name_of_a_data_set_on_a_hub_is_not_taken_either(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"shop_valid": {"hf_hub_url": "owner/shop"}}))
    with pytest.raises(UserError, match="'shop_valid' is the name of .*owner/shop"):
        check_entries(tmp_path / "shop", split_files("shop"))


def test_chats_are_registered_as_sharegpt_reads_them_and_both_kinds_are_known_again(tmp_path):
    (tmp_path / "t" / "sft").mkdir(parents=True)
    (tmp_path / "t" / "sft" / "a.json").write_text("[]")
    register(tmp_path / "t", {"alpaca": "sft/a.json"})
    info_file = register(tmp_path / "t", {"chats": "sft/a.json"}, "messages")
    info = read_info(info_file)
    assert info["chats"] == {
        "file_name": "t/sft/a.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "observation",
            "function_tag": "function",
            "system_tag": "system",
        },
    }
    for name, kind in (("alpaca", "alpaca"), ("chats", "messages")):
        entry, path = read_entry(info_file, info, name)
        assert entry_kind(info_file, name, entry) == kind and path == tmp_path / "t" / "sft" / "a.json"
    for change in (
        {"tags": {"role_tag": "from"}},
        {"columns": {"messages": "conversations"}},
        {"formatting": "openai"},
    ):
        with pytest.raises(UserError, match="dataset_info.json: the columns of 'chats'"):
            entry_kind(info_file, "chats", info["chats"] | change)


def test_llamafactory_reads_a_registered_chat_as_it_is_written(tmp_path):
    from llamafactory.data.converter import SharegptDatasetConverter
    from llamafactory.data.parser import get_dataset_list

    register(tmp_path / "t", {"chats": "sft/a.json"}, "messages")
    [read_as] = get_dataset_list(["chats"], str(tmp_path))
    turns = [("system", "S"), ("user", "a"), ("function", "f"), ("observation", "o"), ("assistant", "b")]
    messages = [{"role": role, "content": text} for role, text in turns]
    example = SharegptDatasetConverter(read_as, None)({"messages": messages})
    assert example["_system"] == "S" and example["_prompt"] == messages[1:4] and example["_response"] == messages[4:]


REGISTERED = {  # entry, rows, what they are as ours
    "alpaca of other columns": (
        {"columns": {"prompt": "q", "response": "a"}},
        [{"q": "Which?", "a": "this", "more": 5}, {"q": None, "a": "that"}],
        [{"instruction": "Which?", "output": "this"}, {"instruction": "", "output": "that"}],
    ),
    "alpaca as LLaMA-Factory takes it unsaid": (
        {},
        [{"instruction": "I", "input": "x", "output": "y", "system": "not read"}],
        [{"instruction": "I", "input": "x", "output": "y"}],
    ),
    "sharegpt unsaid": (
        {"formatting": "sharegpt"},
        [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
    ),
}


@pytest.mark.parametrize("name", REGISTERED)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_registered_rows_of_any_columns_are_read(tmp_path, name, suffix):
    entry, rows, expected = REGISTERED[name]
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": {"file_name": f"x.{suffix}", **entry}}))
    lines = json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / f"x.{suffix}").write_text(lines)
    assert read_registered(tmp_path / "dataset_info.json", "x") == (tmp_path / f"x.{suffix}", expected)


def test_registered_rows_that_cannot_be_read_are_named(tmp_path):
    entries = {"hub": {"hf_hub_url": "a/b"}, "csv": {"file_name": "x.csv"}, "bad": {"file_name": "x.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    (tmp_path / "x.csv").write_text("a")
    (tmp_path / "x.json").write_text('[{"output": 5}]')
    for name, message in (
        ("hub", "'hub' is no .json or .jsonl file"),
        ("csv", r"'csv' is no .json or .jsonl file \(.*x.csv\)"),
        ("bad", "x.json, row 0: output must be a text or null, found 5"),
    ):
        with pytest.raises(UserError, match=message):
            read_registered(tmp_path / "dataset_info.json", name)
