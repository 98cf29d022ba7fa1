import json

import pytest

from mimigenrec.errors import UserError
from mimigenrec.tasks.register import check_entries, register


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


@pytest.fixture
def two(tmp_path):
    """Two data folders side by side, of which the first is registered."""
    for name in ("shop", "ablation"):
        (tmp_path / name / "sft").mkdir(parents=True)
        (tmp_path / name / "sft" / "train.json").write_text("[]")
    register(tmp_path / "shop", "shop")
    return tmp_path


def test_a_name_is_not_taken_from_data_that_are_there(two):
    with pytest.raises(
        UserError, match=r"'shop_train' is the name of .*shop/sft/train.json .*ablation/sft.*--overwrite"
    ):
        check_entries(two / "ablation", "shop")
    check_entries(two / "ablation", "shop", overwrite=True)
    check_entries(two / "ablation", "other")
    check_entries(two / "shop", "shop")
    (two / "shop" / "sft" / "train.json").unlink()
    check_entries(two / "ablation", "shop")  # nothing there to train on any more


def test_a_name_of_a_data_set_on_a_hub_is_not_taken_either(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"shop_valid": {"hf_hub_url": "owner/shop"}}))
    with pytest.raises(UserError, match="'shop_valid' is the name of .*owner/shop"):
        check_entries(tmp_path / "shop", "shop")
