import random

import pytest

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.sft.data import data_sets, find_data, hashes, names, validation_sample
from mimigenrec.tasks.rows import read_sft_rows
from tests.sft.conftest import save_data


def test_the_data_folder_is_found_through_dataset_info(tmp_path, data):
    found = find_data({"dataset_dir": str(tmp_path / "data"), "dataset": "toy_train", "eval_dataset": "toy_valid"})
    assert found.folder == data and found.files == (data / "sft" / "train.json", data / "sft" / "valid.json")
    assert found.contract.wording == "contract" and len(found.catalog.sids) == 8


def edit_info(folder, change):
    info = read_json(folder / "dataset_info.json", "test")
    change(info)
    write_json(folder / "dataset_info.json", info)


def test_data_of_others_pass_through(tmp_path, data):
    edit_info(tmp_path / "data", lambda info: info.update(chat={"hf_hub_url": "someone/chat"}))
    where = {"dataset_dir": str(tmp_path / "data")}
    assert find_data({**where, "dataset": "chat"}) is None
    assert find_data({**where, "dataset": "chat,toy_train"}).folder == data


def test_a_name_that_is_not_there_gets_a_near_one(tmp_path, data):
    with pytest.raises(ValueError, match="did you mean 'toy_train'"):
        find_data({"dataset_dir": str(tmp_path / "data"), "dataset": "toy_trian"})


def test_missing_dataset_info_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset_info.json is missing"):
        find_data({"dataset_dir": str(tmp_path), "dataset": "toy_train"})


def test_missing_rows_are_named(tmp_path, data):
    (data / "sft" / "train.json").unlink()
    with pytest.raises(FileNotFoundError, match="train.json, data set 'toy_train'"):
        find_data({"dataset_dir": str(tmp_path / "data"), "dataset": "toy_train"})


def test_columns_that_would_drop_the_system_text_are_refused(tmp_path, data):
    edit_info(tmp_path / "data", lambda info: info["toy_train"]["columns"].pop("system"))
    with pytest.raises(ValueError, match="columns of 'toy_train'.*'system': 'system'"):
        find_data({"dataset_dir": str(tmp_path / "data"), "dataset": "toy_train"})


def test_two_catalogues_in_one_run_are_refused(tmp_path, data, toy):
    other = save_data(tmp_path / "more", toy)
    path = str(other / "sft" / "train.json")
    edit_info(tmp_path / "data", lambda info: info.update(other={**info["toy_train"], "file_name": path}))
    with pytest.raises(ValueError, match="come from 2 folders"):
        find_data({"dataset_dir": str(tmp_path / "data"), "dataset": "toy_train,other"})


def test_an_empty_split_is_refused(data):
    write_json(data / "sft" / "valid.json", [])
    with pytest.raises(ValueError, match="valid.json must hold at least one row"):
        read_sft_rows(data / "sft" / "valid.json")


def test_a_row_without_output_is_named(data):
    write_json(data / "sft" / "valid.json", [{"output": "a"}, {"input": "b"}])
    with pytest.raises(ValueError, match="row 1: output is missing, which must be a text"):
        read_sft_rows(data / "sft" / "valid.json")


def test_the_validation_sample_holds_only_questions_for_a_sid(tmp_path, data):
    rows = read_json(data / "sft" / "valid.json", "test")
    write_json(data / "sft" / "valid.json", [{**rows[0], "output": "a title"}, *rows[1:]])
    found = find_data({"dataset_dir": str(tmp_path / "data"), "dataset": "toy_train"})
    assert validation_sample(found, 100, random.Random(0)) == rows[1:]
    five = validation_sample(found, 5, random.Random(0))
    assert len(five) == 5 and five == validation_sample(found, 5, random.Random(0))


def test_names_are_read_as_llamafactory_does():
    assert names("a, b") == ["a", "b"] and names(None) == [] and names(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("toy/sft/train.json", "must be a map with 'file_name'"),
        ({"file_name": 5}, "file_name must be a text, found 5"),
        ({"file_name": ""}, "file_name is empty"),
        ({"columns": {}}, "file_name is missing, which must be a text"),
    ],
)
def test_an_entry_of_another_form_is_named(args, data, entry, told):
    write_json(data.parent / "dataset_info.json", {"toy_train": entry})
    with pytest.raises(UserError, match=f"dataset_info.json, 'toy_train': {told}"):
        find_data({**args, "eval_dataset": None})


def test_data_from_elsewhere_pass_through(args, data):
    write_json(data.parent / "dataset_info.json", {"toy_train": {"hf_hub_url": "owner/name"}})
    assert find_data({**args, "eval_dataset": None}) is None
    assert list(hashes({**args, "eval_dataset": None})) == ["toy_train in dataset_info.json"]
    assert data_sets({**args, "dataset_dir": "ONLINE"}) == {}
    write_json(data.parent / "dataset_info.json", [])
    with pytest.raises(UserError, match="dataset_info.json must hold a map"):
        find_data(args)


def test_the_hashes_are_of_every_file_and_of_how_it_is_read(args, data):
    assert {path.rpartition("/")[2] for path in hashes(args)} == {"train.json", "valid.json"}
    info = read_json(data.parent / "dataset_info.json", "test")
    info["toy_train"]["formatting"] = "sharegpt"
    write_json(data.parent / "dataset_info.json", info)
    before = hashes(args)
    assert "toy_train in dataset_info.json" in before
    (data / "sft" / "train.json").write_text("[1]")
    assert {path for path in before if before[path] != hashes(args)[path]} == {str(data / "sft" / "train.json")}
