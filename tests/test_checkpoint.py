"""Which checkpoint of a run is whole and the newest, and what goes along with one."""

import pytest

from mimigenrec.checkpoint import (
    COMPANIONS,
    copy_companions,
    has_weights,
    is_over,
    last_checkpoint,
    remove_unfinished,
    state_of,
)
from mimigenrec.contract import FILE, read_contract
from tests.conftest import write_checkpoint


def test_the_last_whole_checkpoint_is_taken_and_those_that_are_not_are_removed(tmp_path, caplog):
    write_checkpoint(tmp_path / "checkpoint-9")
    write_checkpoint(tmp_path / "checkpoint-10")
    write_checkpoint(tmp_path / "checkpoint-11", state=None)
    write_checkpoint(tmp_path / "checkpoint-12", state='{"log_history": [')
    write_checkpoint(tmp_path / "checkpoint-13", weights=None)
    write_checkpoint(tmp_path / "checkpoint-of-mine")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    remove_unfinished(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"checkpoint-9", "checkpoint-10", "checkpoint-of-mine"}
    assert "checkpoint-13 is half-written or half-deleted; removing it" in caplog.text
    assert last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("weights", ["model.safetensors.index.json", "adapter_model.safetensors", "global_step7"])
def test_a_checkpoint_of_shards_of_an_adapter_or_of_deepspeed_has_weights(tmp_path, weights):
    assert has_weights(write_checkpoint(tmp_path, weights=weights))


def test_a_run_is_over_when_all_steps_are_done():
    assert is_over({"global_step": 4, "max_steps": 4}) and is_over({"global_step": 5, "max_steps": 4})
    assert not is_over({"global_step": 3, "max_steps": 4}) and not is_over({})


@pytest.mark.parametrize("text", ["", "[]", '{"global_step"', "null"])
def test_a_state_that_was_not_written_to_its_end_is_none(tmp_path, text):
    assert state_of(write_checkpoint(tmp_path, state=text)) is None


def test_companions_are_copied_as_they_are_those_present(tmp_path):
    checkpoint = write_checkpoint(
        tmp_path / "old", **{name.removesuffix(".json"): f'["{name}"]' for name in COMPANIONS}
    )
    assert copy_companions(checkpoint, tmp_path / "new") == list(COMPANIONS)
    assert all((tmp_path / "new" / n).read_bytes() == (checkpoint / n).read_bytes() for n in COMPANIONS)
    assert copy_companions(tmp_path / "new", tmp_path / "new") == list(COMPANIONS)  # onto itself changes nothing
    (tmp_path / "new" / FILE).unlink()
    assert copy_companions(tmp_path / "new", tmp_path / "other") == ["id2sid.json", "items.json"]
    assert read_contract(tmp_path / "other") is None
