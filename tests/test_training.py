"""What a folder says of the run in it, and what a run that diverged or goes on from its end does."""

import json
from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from mimigenrec.errors import UserError
from mimigenrec.training import (
    OVERWRITE,
    SinceResume,
    check_number,
    check_run,
    has_weights,
    is_over,
    last_checkpoint,
    refuse_others,
    remove_run,
    remove_unfinished,
    state_of,
)


def write(folder, state='{"global_step": 1}', weights="model.safetensors", **files):
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"trainer_state.json": state, weights: "x"} | {f"{name}.json": text for name, text in files.items()}
    for name, text in texts.items():
        if name and text is not None:
            (folder / name).write_text(text)
    return folder


def test_the_last_whole_checkpoint_is_taken_and_those_that_are_not_are_removed(tmp_path, caplog):
    write(tmp_path / "checkpoint-9")
    write(tmp_path / "checkpoint-10")
    write(tmp_path / "checkpoint-11", state=None)
    write(tmp_path / "checkpoint-12", state='{"log_history": [')
    write(tmp_path / "checkpoint-13", weights=None)
    write(tmp_path / "checkpoint-of-mine")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    remove_unfinished(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"checkpoint-9", "checkpoint-10", "checkpoint-of-mine"}
    assert "checkpoint-13 is half-written or half-deleted; removing it" in caplog.text
    assert last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("weights", ["model.safetensors.index.json", "adapter_model.safetensors", "global_step7"])
def test_a_checkpoint_of_shards_of_an_adapter_or_of_deepspeed_has_weights(tmp_path, weights):
    assert has_weights(write(tmp_path, weights=weights))


def test_a_run_is_over_when_all_steps_are_done():
    assert is_over({"global_step": 4, "max_steps": 4}) and is_over({"global_step": 5, "max_steps": 4})
    assert not is_over({"global_step": 3, "max_steps": 4}) and not is_over({})


@pytest.mark.parametrize("text", ["", "[]", '{"global_step"', "null"])
def test_a_state_that_was_not_written_to_its_end_is_none(tmp_path, text):
    assert state_of(write(tmp_path, state=text)) is None


NOW = {"command": "grpo", "config": {"lr": 1, "output_dir": "a"}, "inputs": {"data/x/rl/train.json": "abc"}}


def refusal(folder, now, overwrite=False):
    try:
        check_run(folder, now, {"output_dir"}, overwrite)
    except UserError as error:
        return str(error)


def test_a_folder_with_another_run_is_refused_and_the_difference_shown(tmp_path):
    write(tmp_path / "checkpoint-1")
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
    write(tmp_path, state=None)
    assert "holds model.safetensors, which grpo did not write" in refusal(tmp_path, NOW, overwrite=True)
    (tmp_path / "manifest.json").write_text(json.dumps(NOW | {"command": "sft"}))
    assert "holds what sft wrote, which grpo will not overwrite" in refusal(tmp_path, NOW, overwrite=True)


def test_what_is_overwritten_leaves_nothing_that_passes_for_the_new_run(tmp_path):
    write(tmp_path, manifest=json.dumps(NOW), id2sid="{}")
    write(tmp_path / "checkpoint-3")
    remove_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "id2sid.json"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_ends_the_run_with_its_step(value):
    args = SimpleNamespace(learning_rate=1e18, output_dir="out")
    check_number("loss", 0.5, 3, args)
    check_number("loss", None, 3, args)
    with pytest.raises(UserError, match=r"at step 3 loss is -?(nan|inf)\. .*in out. .*\(it is 1e\+18\)"):
        check_number("loss", value, 3, args)


@pytest.mark.parametrize("first", [0, 2])
def test_the_loss_of_a_part_of_a_run_is_not_logged_as_that_of_the_whole(first):
    callback, logs = SinceResume(), {"train_loss": 1.04, "train_steps_per_second": 9.0, "epoch": 1.0}
    state = SimpleNamespace(global_step=first, max_steps=4, compute_steps=lambda *_: None, log_history=[dict(logs)])
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs=logs)
    assert logs == state.log_history[0] == ({"epoch": 1.0} if first else {**logs, "train_loss": 1.04})


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


@pytest.mark.parametrize("rank", [0, 1])
def test_no_rows_are_none_for_each_of_several_processes(rank):
    """As LookFirst leaves the rows of a run that is at its end."""
    batches = BatchSamplerShard(BatchSampler([], 4, drop_last=False), num_processes=2, process_index=rank)
    assert list(batches) == [] and len(batches) == 0
