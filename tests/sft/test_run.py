"""A finished run is left alone, an interrupted one goes on, another one is refused. One training serves most tests."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.lock import alone
from mimigenrec.sft.arguments import SftConfig
from mimigenrec.sft.run import FREE, is_to_run
from mimigenrec.sft.train import ASKED, main, train
from tests.conftest import TOY_SIDS
from tests.sft.conftest import save_base, save_data

CONFIG = SftConfig(eval_ranking=0)
KEYS = {
    "stage": "sft", "do_train": True, "finetuning_type": "full", "dataset": "toy_train", "cutoff_len": 256,
    "per_device_train_batch_size": 8, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_steps": 5,
    "logging_steps": 1, "save_strategy": "steps", "save_steps": 5, "report_to": "none", "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def once(tmp_path_factory, toy):
    """A folder with data, base and the out/ of a run of 5 steps; an epoch has 6."""
    folder = tmp_path_factory.mktemp("once")
    save_data(folder, toy)
    save_base(folder / "base", sid_tokens=sorted({token for sid in TOY_SIDS.values() for token in sid}))
    keys = KEYS | {"model_name_or_path": str(folder / "base"), "dataset_dir": str(folder / "data")}
    train(CONFIG, keys | {"output_dir": str(folder / "out")})
    return folder


@pytest.fixture
def done(once, tmp_path):
    """The keys of a finished run that a test may spoil, in a folder of its own: where folders lie does not matter."""
    shutil.copytree(once, tmp_path / "copy")
    folder = tmp_path / "copy"
    places = {"model_name_or_path": "base", "dataset_dir": "data", "output_dir": "out"}
    return KEYS | {key: str(folder / name) for key, name in places.items()}


def files(folder):
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).rglob("*") if path.is_file()
    }


def killed(folder):
    """Takes away what is written behind the last checkpoint."""
    for path in Path(folder).iterdir():
        if path.is_file() and path.name not in ("manifest.json", "trainer_log.jsonl"):
            path.unlink()
    manifest = read_json(Path(folder) / "manifest.json", "test")
    write_json(Path(folder) / "manifest.json", {**manifest, "step": 0, "ended": False})


def test_a_finished_run_is_left_alone(done, capsys):
    before = files(done["output_dir"])
    train(CONFIG, done)
    assert "out is finished: nothing to do; overwrite_output_dir=true starts anew" in capsys.readouterr().out
    assert files(done["output_dir"]) == before
    train(CONFIG, {**done, "save_total_limit": 7, "report_to": ["none"], "dataloader_num_workers": 1})
    assert files(done["output_dir"]) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 1e-6, "seed": 7}, "learning_rate: 0.01 then, 1e-06 now; seed: 1 then, 7 now"),
        ({"max_steps": 6}, "max_steps: 5 then, 6 now"),
        ({"weight_decay": 0.1}, "weight_decay: nothing then, 0.1 now"),
    ],
)
def test_other_settings_are_refused_with_what_differs(done, change, told):
    before = files(done["output_dir"])
    with pytest.raises(UserError, match=f"{told}.*overwrite_output_dir=true"):
        train(CONFIG, {**done, **change})
    killed(done["output_dir"])
    with pytest.raises(UserError, match=told):
        train(CONFIG, {**done, **change})
    assert len(files(done["output_dir"])) < len(before)


def test_other_data_another_base_and_other_processes_are_refused(done, monkeypatch):
    train_file = Path(done["dataset_dir"]) / "toy" / "sft" / "train.json"
    rows = train_file.read_text()
    train_file.write_text(json.dumps(json.loads(rows)[1:]))
    with pytest.raises(UserError, match="sft/train.json: .* then"):
        train(CONFIG, done)
    train_file.write_text(rows)
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="processes: 1 then, 2 now"):
            train(CONFIG, done)
    save_base(Path(done["model_name_or_path"]), sid_tokens=["<x_1>"])  # any other weights
    with pytest.raises(UserError, match="weights: sha256:.* then, sha256:.* now"):
        train(CONFIG, done)


def test_killed_behind_its_last_checkpoint_it_ends_without_a_further_step(done):
    out = Path(done["output_dir"])
    whole, history = load_file(out / "model.safetensors"), read_json(out / "trainer_state.json", "test")["log_history"]
    first = read_json(out / "manifest.json", "test")
    killed(out)
    (out / "checkpoint-5" / "manifest.json").unlink()
    for name in ("id2sid.json", "items.json", "prompt_contract.json"):
        (out / "checkpoint-5" / name).unlink()  # as if killed before they came
    train(CONFIG, done)
    after = load_file(out / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in whole.items())
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-5"]
    state = read_json(out / "trainer_state.json", "test")
    assert state["global_step"] == 5 and [e["step"] for e in state["log_history"]] == [e["step"] for e in history]
    assert read_json(out / "manifest.json", "test") == first | {"versions": first["versions"]}
    assert (out / "checkpoint-5" / "prompt_contract.json").is_file()
    assert read_json(out / "checkpoint-5" / "manifest.json", "test")["config"] == first["config"]
    for told in (read_json(out / "train_results.json", "test"), state["log_history"][-1]):
        assert "train_loss" not in told and "train_runtime" in told
    assert "train_loss" in history[-1]  # of a run that was not interrupted it is right


def test_ended_early_and_killed_it_ends_there(done):
    out = Path(done["output_dir"])
    killed(out)
    state = read_json(out / "checkpoint-5" / "trainer_state.json", "test")
    state["global_step"] = 3  # stopped by early_stopping_steps, long before max_steps
    state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"] = True
    (out / "checkpoint-5").rename(out / "checkpoint-3")
    write_json(out / "checkpoint-3" / "trainer_state.json", state)
    whole = load_file(out / "checkpoint-3" / "model.safetensors")
    train(CONFIG, done)
    assert all(torch.equal(value, whole[name]) for name, value in load_file(out / "model.safetensors").items())
    assert read_json(out / "trainer_state.json", "test")["global_step"] == 3


def test_patience_is_not_renewed_when_a_run_goes_on(done):
    """With a rate of 0 no evaluation is better than the first; a patience of 2 ends the run at step 3."""
    out = Path(done["output_dir"]).with_name("patient")
    every = {"eval_dataset": "toy_valid", "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 9}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    keys = {**done, **every, **best, "early_stopping_steps": 2, "learning_rate": 0.0, "output_dir": str(out)}
    train(CONFIG, keys)
    assert read_json(out / "trainer_state.json", "test")["global_step"] == 3
    killed(out)
    shutil.rmtree(out / "checkpoint-3")
    train(CONFIG, keys)
    assert read_json(out / "trainer_state.json", "test")["global_step"] == 3


def test_a_base_that_lacks_a_weight_or_is_cut_short_is_not_trained(done):
    weights = Path(done["model_name_or_path"]) / "model.safetensors"
    whole = load_file(weights)
    new = {**done, "output_dir": f"{done['output_dir']}-new"}
    save_file({name: value for name, value in whole.items() if "layers.1.mlp.up" not in name}, weights)
    with pytest.raises(UserError, match="lack 1 of the weights.*up_proj.*they would be random"):
        train(CONFIG, new)
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="model.safetensors is cut short or damaged"):
        train(CONFIG, new)


def test_overwrite_output_dir_starts_anew_and_leaves_nothing_of_before(done):
    out = Path(done["output_dir"])
    train(CONFIG, {**done, "overwrite_output_dir": True, "max_steps": 1, "save_steps": 1})
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-1"]
    assert read_json(out / "manifest.json", "test")["config"]["max_steps"] == 1


def test_the_results_of_other_commands_are_never_trained_over(done, tmp_path):
    write_json(tmp_path / "prepared" / "manifest.json", {"command": "add-sids"})
    for overwrite in (False, True):
        keys = {**done, "output_dir": str(tmp_path / "prepared"), "overwrite_output_dir": overwrite}
        with pytest.raises(UserError, match="holds what add-sids wrote"):
            is_to_run(keys, {})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model.safetensors").write_text("")
    with pytest.raises(UserError, match="holds model.safetensors, which sft did not write"):
        is_to_run({**done, "output_dir": str(tmp_path / "foreign")}, {})


def test_two_runs_do_not_write_into_one_folder(done):
    killed(done["output_dir"])
    half = Path(done["output_dir"]) / "checkpoint-9"  # as the other one is writing it
    half.mkdir()
    (half / "config.json").touch()
    before = files(done["output_dir"])
    for more in ({}, {"overwrite_output_dir": True}):
        with alone(Path(done["output_dir"]) / ".lock", "it"), pytest.raises(UserError, match="another run is at work"):
            train(CONFIG, {**done, **more})
        assert files(done["output_dir"]) == before


def test_a_checkpoint_that_is_named_must_be_whole_and_of_this_run(done, tmp_path):
    named = {
        **done,
        "output_dir": str(tmp_path / "new"),
        "resume_from_checkpoint": f"{done['output_dir']}/checkpoint-5",
    }
    with pytest.raises(
        UserError, match="checkpoint-5 holds a run with other settings.*learning_rate: 0.01 then, 0.02"
    ):
        train(CONFIG, {**named, "learning_rate": 0.02})
    with pytest.raises(UserError, match="checkpoint-5 goes on, and overwrite_output_dir=true starts anew"):
        train(CONFIG, {**named, "output_dir": done["output_dir"], "overwrite_output_dir": True})
    assert (Path(done["output_dir"]) / "checkpoint-5" / "model.safetensors").is_file()
    (Path(done["output_dir"]) / "checkpoint-5" / "trainer_state.json").unlink()
    with pytest.raises(UserError, match="is no whole checkpoint; name a folder checkpoint-N"):
        train(CONFIG, named)


def test_checkpoints_of_which_nothing_tells_are_not_gone_on_from(done):
    killed(done["output_dir"])
    (Path(done["output_dir"]) / "manifest.json").unlink()
    with pytest.raises(UserError, match="holds checkpoints and no manifest.json"):
        train(CONFIG, done)


def test_processes_that_somebody_else_started_are_told_how(tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_text("model_name_or_path: anything\noutput_dir: out\n")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv(ASKED, raising=False)
    with pytest.raises(UserError, match="started by NPROC_PER_NODE=n mimigenrec sft"):
        main([str(tmp_path / "x.yaml")])


def test_the_same_number_written_otherwise_is_no_difference(done, capsys):
    train(CONFIG, {**done, "learning_rate": "1e-2"})
    assert "is finished: nothing to do" in capsys.readouterr().out


def test_a_training_that_diverges_ends_with_one_message_and_no_model(done):
    out = Path(done["output_dir"]).with_name("diverged")
    wild = {**done, "output_dir": str(out), "learning_rate": 1e30, "save_steps": 500}
    with pytest.raises(UserError, match=r"diverged: at step \d .* is nan.*smaller learning_rate \(it is 1e\+30\)"):
        train(CONFIG, wild)
    with pytest.raises(UserError, match="diverged: at step 2 its weights hold NaN or infinity"):  # and unlogged
        train(CONFIG, {**wild, "logging_steps": 500, "save_steps": 2})
    assert not list(out.rglob("*.safetensors")) and not (out / "trainer_state.json").exists()
    assert read_json(out / "manifest.json", "test")["ended"] is False


def test_every_key_that_is_free_is_one_of_llamafactorys_or_ours():
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments, TrainingArguments

    known = {"no_cuda", "add_tokens_list", "base_cache"}
    for part in (DataArguments, FinetuningArguments, ModelArguments, TrainingArguments):
        known |= set(part.__dataclass_fields__)
    assert not FREE - known


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cutoff_len": 10}, "tokens"),
        ({"template": "nosuch"}, "template 'nosuch' is none of LLaMA-Factory's"),
        ({"load_best_model_at_end": True, "save_steps": 3, "eval_strategy": "steps", "eval_steps": 2}, "refuses"),
    ],
)
def test_overwriting_that_is_refused_has_removed_nothing(done, change, told):
    before = files(done["output_dir"])
    with pytest.raises(UserError, match=told):
        train(CONFIG, {**done, "overwrite_output_dir": True, **change})
    assert files(done["output_dir"]) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
        ({"max_steps": -5}, "max_steps is -5; it must be at least 1"),
        ({"max_steps": -1, "num_train_epochs": 0}, "num_train_epochs is 0.0; it must be above 0"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001; it must be at least 0"),
    ],
)
def test_numbers_that_train_nothing_are_refused(done, change, told):
    with pytest.raises(UserError, match=told):
        train(CONFIG, {**done, "output_dir": f"{done['output_dir']}-new", **change})


def test_an_evaluation_does_not_write_into_a_trained_run(done):
    before = files(done["output_dir"])
    with pytest.raises(UserError, match="holds a trained run, whose results would be written over"):
        train(CONFIG, {**done, "do_train": False, "do_eval": True})
    assert files(done["output_dir"]) == before


def test_a_manifest_of_an_earlier_version_is_asked_what_it_knows(done, capsys):
    manifest = Path(done["output_dir"]) / "manifest.json"
    known = read_json(manifest, "test")
    write_json(
        manifest, {**known, "config": {k: v for k, v in known["config"].items() if k not in ("weights", "processes")}}
    )
    train(CONFIG, {**done, "deepspeed": None})
    assert "is finished: nothing to do" in capsys.readouterr().out
