"""What an output folder says of the run in it, and whose it is."""

import json

import pytest

from mimigenrec.errors import UserError
from mimigenrec.training.run import OVERWRITE, check_run, refuse_others, remove_run
from tests.conftest import write_checkpoint

NOW = {"command": "grpo", "config": {"lr": 1, "output_dir": "a"}, "inputs": {"data/x/rl/train.json": "abc"}}


def refusal(folder, now, overwrite=False):
    try:
        check_run(folder, now, {"output_dir"}, overwrite)
    except UserError as error:
        return str(error)


def test_a_folder_with_another_run_is_refused_and_the_difference_shown(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-1")
    (tmp_path / "manifest.json").write_text(json.dumps(NOW))
    moved = NOW | {"config": {"lr": 1, "output_dir": "b"}, "inputs": {"other/place/rl/train.json": "abc"}}
    assert refusal(tmp_path, NOW) is None and refusal(tmp_path, moved) is None
    other = NOW | {"config": {"lr": 2}, "inputs": {"data/x/rl/train.json": "xyz"}}
    assert "lr: 1 then, 2 now; rl/train.json: abc then, xyz now" in refusal(tmp_path, other)
    assert OVERWRITE in refusal(tmp_path, other) and refusal(tmp_path, other, overwrite=True) is None


def test_a_folder_of_another_command_or_of_nobody_is_never_replaced(tmp_path):
    assert refusal(tmp_path, NOW) is None
    (tmp_path / "train.log").write_text("of the shell")
    assert refusal(tmp_path, NOW) is None  # nothing that a run would take for its own
    write_checkpoint(tmp_path, state=None)
    assert "holds model.safetensors, which grpo did not write" in refusal(tmp_path, NOW, overwrite=True)
    (tmp_path / "manifest.json").write_text(json.dumps(NOW | {"command": "sft"}))
    assert "holds what sft wrote, which grpo will not overwrite" in refusal(tmp_path, NOW, overwrite=True)


def test_what_is_overwritten_leaves_nothing_that_passes_for_the_new_run(tmp_path):
    write_checkpoint(tmp_path, manifest=json.dumps(NOW), id2sid="{}")
    write_checkpoint(tmp_path / "checkpoint-3")
    remove_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "id2sid.json"}


@pytest.mark.parametrize("name", ["C.train.inter", "config.json", "model.safetensors"])
def test_a_folder_with_files_of_others_is_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"holds {name}, which sft did not write; take another folder"):
        refuse_others(tmp_path, "sft")


def test_a_folder_of_another_command_is_refused_and_ones_own_is_not(tmp_path):
    (tmp_path / "manifest.json").write_text('{"command": "preprocess"}')
    with pytest.raises(UserError, match="holds what preprocess wrote, which sft will not overwrite"):
        refuse_others(tmp_path, "sft")
    refuse_others(tmp_path, "preprocess")


def test_logs_and_hidden_files_are_in_nobodys_way(tmp_path):
    for name in (".lock", "train.log", "slurm-17.out"):
        (tmp_path / name).write_text("")
    refuse_others(tmp_path, "sft")
    refuse_others(tmp_path / "new", "sft")
    with pytest.raises(UserError, match="train.log is a file"):
        refuse_others(tmp_path / "train.log", "sft")
