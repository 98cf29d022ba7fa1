"""The same command once more: on a finished run, on an interrupted one, and with something else than before."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimigenrec.errors import UserError
from mimigenrec.files import read_json, sha256
from mimigenrec.logs import read_jsonl
from tests.grpo.conftest import run

STEPS = ("max_steps=2", "save_steps=1", "eval_strategy=steps", "eval_steps=2", "eval_sample=4")


def content(folder):
    return {path.relative_to(folder): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def ended(sft, rl_data, tmp_path_factory):
    """A finished run: its folder, and what the command was given."""
    home = tmp_path_factory.mktemp("ended")
    (home / "rewards").mkdir()
    (home / "rewards" / "mine.py").write_text(
        "def flat(completions, **columns):\n    return [0.0] * len(completions)\n"
    )
    shutil.copytree(sft, home / "sft")
    shutil.copytree(rl_data, home / "data")
    plain = "num_generations=4 per_device_train_batch_size=8 learning_rate=1e-3 use_cpu=true disable_tqdm=true"
    words = [*plain.split(), *STEPS, "logging_steps=1", "lr_scheduler_type=constant"]
    words += ["--rewards", "ranking_reward.rule_reward", "mine.flat"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run(["model=sft", "data=data", "output_dir=out", *words])
    return home, words


@pytest.fixture
def again(ended, tmp_path, monkeypatch):
    """again(*words) -> the same command once more, on a copy of everything, with these words behind."""
    home, words = ended
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def start(*more, model="sft", data="data", out="out"):
        run([f"model={model}", f"data={data}", f"output_dir={out}", *words, *more])

    return start


def no_training(monkeypatch):
    monkeypatch.setattr("mimigenrec.grpo.train.BeamGRPOTrainer", None)


def kill_at_the_end(out):
    """As a kill behind the last checkpoint leaves it."""
    for name in ("model.safetensors", "trainer_state.json"):
        (out / name).unlink()


def test_a_finished_run_says_so_and_touches_nothing_not_even_the_model(again, tmp_path, monkeypatch, capsys):
    no_training(monkeypatch)
    before = content(tmp_path)
    again()
    again()
    assert content(tmp_path) == before
    line = "out is finished at step 2: nothing to do; overwrite_output_dir=true starts anew\n"
    assert capsys.readouterr().out == 2 * line


def test_what_no_weight_depends_on_may_differ(again, tmp_path, monkeypatch, capsys):
    no_training(monkeypatch)
    for name in ("sft", "data", "out"):
        (tmp_path / "moved" / name).mkdir(parents=True)
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    moved = {"model": "moved/sft/sft", "data": "moved/data/data", "out": "moved/out/out"}
    again("logging_steps=5", "save_total_limit=3", "report_to=none", "dataloader_num_workers=1", **moved)
    assert "is finished at step 2" in capsys.readouterr().out


def other_rows(tmp_path):
    path = tmp_path / "data" / "rl" / "train.json"
    path.write_text(json.dumps(read_json(path, "test")[::-1]))


def other_reward(tmp_path):
    (tmp_path / "rewards" / "mine.py").write_text("def flat(completions, **columns):\n    return [1.0] * 8\n")


def other_base(tmp_path):
    tensors = load_file(tmp_path / "sft" / "model.safetensors")
    save_file(
        {name: value + 0.1 for name, value in tensors.items()},
        tmp_path / "sft" / "model.safetensors",
        {"format": "pt"},
    )


@pytest.mark.parametrize(
    "words, change, message",
    [
        (["learning_rate=1e-6"], None, "trl.learning_rate: 0.001 then, 1e-06 now"),
        (["seed=7", "beta=0"], None, "trl.seed: 42 then, 7 now.*trl.beta: 0.001 then, 0.0 now"),
        (
            ["--rewards", "ranking_reward.rule_reward"],
            None,
            r"rewards: \['rank.*mine.flat'\] then, \['rank.*' now|now",
        ),
        (["max_steps=4"], None, "trl.max_steps: 2 then, 4 now"),
        (["support=trie"], None, "support: vocab then, trie now"),
        ([], other_rows, "rl/train.json: .* then, .* now"),
        ([], other_reward, "rewards/mine.py: .* then, .* now"),
        ([], other_base, "weights: sha256:.* then, sha256:.* now"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_another_run_is_refused_with_the_difference_and_nothing_is_touched(
    again, tmp_path, monkeypatch, words, change, message, state
):
    no_training(monkeypatch)
    if state == "interrupted":
        kill_at_the_end(tmp_path / "out")
    if change:
        change(tmp_path)
    before = content(tmp_path / "out")
    with pytest.raises(
        UserError, match=f"out holds a run with other settings or data .*{message}.*overwrite_output_dir=true"
    ):
        again(*words)
    assert content(tmp_path / "out") == before


def test_a_run_killed_behind_its_last_checkpoint_ends_without_a_step_more(again, ended, tmp_path):
    out = tmp_path / "out"
    kill_at_the_end(out)
    (out / "checkpoint-2" / "id2sid.json").unlink()  # the kill may have come before these
    (out / "checkpoint-2" / "manifest.json").unlink()
    again()
    whole = ended[0] / "out"
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, out))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    assert (out / "checkpoint-2" / "id2sid.json").is_file()
    for folder in (out, out / "checkpoint-2"):
        assert (folder / "manifest.json").read_bytes() == (
            whole / folder.relative_to(out) / "manifest.json"
        ).read_bytes()
    assert read_json(out / "manifest.json", "test")["config"]["trl"]["eval_on_start"] is True
    events, first = read_jsonl(out / "rl_log.jsonl"), read_jsonl(whole / "rl_log.jsonl")
    assert events[:-1] == first[:-1]
    assert "train_loss" in first[-1] and not {"train_loss", "train_steps_per_second"} & events[-1].keys()
    assert read_json(out / "trainer_state.json", "test")["global_step"] == 2


def test_an_interrupted_run_takes_up_what_may_differ_and_logs_no_false_loss(again, tmp_path):
    out = tmp_path / "out"
    kill_at_the_end(out)
    shutil.rmtree(out / "checkpoint-2")
    (out / "checkpoint-3").mkdir()  # half-written
    manifest = (out / "manifest.json").read_bytes()
    again("logging_steps=5")
    assert (out / "manifest.json").read_bytes() == manifest
    events = read_jsonl(out / "rl_log.jsonl")
    assert [event["step"] for event in events if "loss" in event] == [
        1
    ]  # that of the first start; 2 is no multiple of 5
    assert "train_loss" not in events[-1] and not (out / "checkpoint-3").exists()


def test_overwriting_starts_anew_and_leaves_no_checkpoint_of_before(again, tmp_path):
    again("overwrite_output_dir=true", "max_steps=1", "save_strategy=no", "eval_strategy=no", "learning_rate=1e-2")
    out = tmp_path / "out"
    assert not list(out.glob("checkpoint-*"))
    assert read_json(out / "manifest.json", "test")["config"]["trl"]["max_steps"] == 1
    assert [event["step"] for event in read_jsonl(out / "rl_log.jsonl")] == [1, 1]


def test_a_checkpoint_that_is_named_must_be_a_whole_one_of_the_same_run(again, tmp_path, monkeypatch):
    no_training(monkeypatch)
    other = ["resume_from_checkpoint=out/checkpoint-1"]
    with pytest.raises(UserError, match="resume_from_checkpoint sft is no whole checkpoint"):
        again("resume_from_checkpoint=sft")
    with pytest.raises(UserError, match="starts anew; leave one of them out"):
        again(*other, "overwrite_output_dir=true")
    with pytest.raises(UserError, match="checkpoint-1 holds a run with other settings or data .*trl.beta"):
        again(*other, "beta=0", out="new")
    (tmp_path / "out" / "checkpoint-1" / "optimizer.pt").unlink()
    with pytest.raises(UserError, match="checkpoint-1 holds no state of the optimizer"):
        again(*other, out="new")


def test_an_adapter_knows_its_base_in_every_folder(again, tmp_path):
    again("lora_r=2", "max_steps=1", out="adapter")
    for folder in (tmp_path / "adapter", tmp_path / "adapter" / "checkpoint-1"):
        told = read_json(folder / "base.json", "test")
        assert (folder / told["relative"]).resolve() == tmp_path / "sft"
        assert told["weights"] == read_json(folder / "manifest.json", "test")["config"]["weights"]


def test_a_checkpoint_says_by_which_scores_it_was_trained_to_rank(again, tmp_path, caplog):
    again("support=trie", "max_steps=1", out="trie")
    assert "was trained to be ranked by support vocab, and is asked to rank by trie" in caplog.text
    for folder in (tmp_path / "trie", tmp_path / "trie" / "checkpoint-1"):
        assert read_json(folder / "prompt_contract.json", "test")["support"] == "trie"
    shutil.copytree(tmp_path / "trie", tmp_path / "start")
    caplog.clear()
    again("max_steps=1", model="start", out="more")
    assert read_json(tmp_path / "more" / "manifest.json", "test")["config"]["support"] == "trie"
    assert "support" not in caplog.text
