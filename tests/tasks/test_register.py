import json

import pytest

from mimigenrec.tasks.register import register


def test_three_entries_are_added_and_those_of_others_kept(tmp_path):
    other = {"file_name": "other.json"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"other": other, "toy_train": "old"}))
    assert register(tmp_path / "t", "toy") == tmp_path / "dataset_info.json"
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == {"other", "toy_train", "toy_valid", "toy_test"} and info["other"] == other
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    assert info["toy_train"] == {"file_name": "t/sft/train.json", "columns": columns}


@pytest.mark.parametrize("content", ["[]", "{broken"])
def test_a_dataset_info_that_is_not_one_is_left_alone(tmp_path, content):
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(ValueError, match="dataset_info.json"):
        register(tmp_path / "t", "toy")
    assert (tmp_path / "dataset_info.json").read_text() == content
