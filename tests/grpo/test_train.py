import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from mimigenrec.cli import parse
from mimigenrec.contract import Contract, read_contract
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.grpo.config import RLConfig
from mimigenrec.grpo.inputs import as_dataset, latest, read_usable_rows
from mimigenrec.grpo.train import RunConfig
from mimigenrec.logs import read_jsonl
from mimigenrec.sids.tokens import join_sid, write_index
from tests.grpo.conftest import run

ROOT = Path(__file__).resolve().parents[2]


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def test_the_command_makes_a_self_contained_checkpoint_and_its_log(command, tmp_path, sft, rl_data, capsys):
    options = ["max_steps=2", "eval_strategy=steps", "eval_steps=1", "save_steps=1", "eval_sample=5"]
    run(command("out", *options))
    out = tmp_path / "out"
    for folder in (out, out / "checkpoint-1", out / "checkpoint-2"):
        ours = MIMIGenRec.from_pretrained(folder, device="cpu")
        assert len(ours.recommend([["0", "1"]], k=3)[0]) == 3
        assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
        assert read_contract(folder).chat_template == ours.tokenizer.chat_template
        assert read_contract(folder).golden == read_contract(sft).golden != ()
    events = read_jsonl(out / "rl_log.jsonl")
    assert [event["step"] for event in events if "eval_ndcg@10" in event] == [0, 1, 2]
    assert [event["step"] for event in events if "loss" in event] == [1, 2]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["config"]["support"] == "vocab" and manifest["config"]["trl"]["num_generations"] == 4
    assert manifest["contract"] == read_contract(rl_data).hash and manifest["train_rows"] == 12
    assert json.loads((out / "checkpoint-1" / "manifest.json").read_text()) == {**manifest, "step": 1}
    assert "last  step 2" in capsys.readouterr().out


def test_defaults_are_the_documented_ones():
    args = parse(RunConfig, RLConfig, argv="--model m --data d --rewards r --output_dir o".split())[1]
    assert (args.num_generations, args.beta, args.learning_rate, args.num_train_epochs) == (16, 1e-3, 1e-5, 2)
    assert (args.per_device_train_batch_size, args.per_device_eval_batch_size) == (16, 16)
    assert args.max_completion_length is None and args.report_to == [] and args.eval_on_start is False
    assert args.bf16 is torch.cuda.is_available()


def test_killed_and_started_again_equals_never_stopped(command, tmp_path, monkeypatch, warm):
    """Killed by SIGKILL at step 3 of 4, in the middle of a reward; the last checkpoint is that of step 2."""
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "deadly.py").write_text(
        "import os, signal\n"
        "def maybe(completions, trainer_state, **columns):\n"
        "    if os.environ.get('KILL_AT') == str(trainer_state.global_step):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return [0.0] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--rewards", "ranking_reward.rule_reward", "deadly.maybe", "--rollout", "mixed"]
    options += ["max_steps=4", "save_steps=2", "eval_strategy=steps", "eval_steps=1"]
    run(command("whole", *options))
    killed = warm(shlex.join(["grpo", *command("parts", *options)]), tmp_path, env={"KILL_AT": "3"}, limit=300)
    assert killed["status"] == -signal.SIGKILL, killed["stderr"][-2000:]
    (tmp_path / "parts" / "checkpoint-3").mkdir()  # a save that was cut short
    run(command("parts", *options))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-6)

    def numbers(out):
        drop = ("runtime", "per_second", "train_loss", "total_flos", "epoch")
        events = read_jsonl(tmp_path / out / "rl_log.jsonl")
        return [{k: v for k, v in event.items() if not any(word in k for word in drop)} for event in events]

    for ours, theirs in zip(numbers("parts"), numbers("whole"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_lora_saves_an_adapter_that_recommends(command, tmp_path):
    run(command("out", "max_steps=1", "lora_r=2"))
    assert (tmp_path / "out" / "adapter_config.json").is_file()
    assert len(MIMIGenRec.from_pretrained(tmp_path / "out", device="cpu").recommend([["0"]], k=2)[0]) == 2
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(value.any() for name, value in adapter.items() if "lora_B" in name)  # they start at 0


def test_the_rl_folder_itself_and_files_of_others_will_do(command, rl_data, tmp_path, sft, caplog):
    """A folder with nothing but rl rows of the classic kind: SIDs from --index, one warning for the contract."""
    (tmp_path / "theirs").mkdir()
    rows = (rl_data / "rl" / "train.json").read_text()
    (tmp_path / "theirs" / "train.json").write_text(rows)
    run(command("out", f"data={tmp_path / 'theirs'}", f"index={sft / 'id2sid.json'}", "max_steps=1"))
    assert sum("prompt_contract.json" in record.message for record in caplog.records) == 1
    assert read_contract(tmp_path / "out") == read_contract(sft)  # what the checkpoint knew is not lost


@pytest.fixture
def data_with(rl_data, tmp_path):
    """data_with(train rows as a value or text) -> a data folder with them."""

    def make(train, contract=None, sids=None):
        folder = tmp_path / "data"
        (folder / "rl").mkdir(parents=True)
        for name in ("id2sid.json", "prompt_contract.json", "rl/valid.json"):
            (folder / name).write_bytes((rl_data / name).read_bytes())
        if contract:
            contract.write(folder)
        if sids:
            write_index(folder / "id2sid.json", sids)
        text = train if isinstance(train, str) else json.dumps(train)
        (folder / "rl" / "train.json").write_text(text)
        return folder

    return make


GOOD = {"prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "<a_0><b_0><c_0>"}}


@pytest.mark.parametrize(
    "train, message",
    [
        ("[{", "train.json is not JSON"),
        ([], "train.json must hold at least one row"),
        (
            [GOOD, {"prompt": GOOD["prompt"]}],
            "train.json, row 1: reward_model is missing",
        ),
        ([{**GOOD, "prompt": []}], "row 0: prompt must be a list of maps with 'role' and 'content', found an empty"),
        ({"rows": [GOOD]}, "train.json must hold a list, found"),
        ([GOOD, "text"], "row 1: must be a map with 'prompt' and 'reward_model', found 'text'"),
        ([GOOD, None], "row 1: must be a map with 'prompt' and 'reward_model', found None"),
        ([{**GOOD, "prompt": [{"content": "?"}]}], r"row 0: prompt\[0\].role is missing, which must be a text"),
        (
            [{**GOOD, "reward_model": "<a_0><b_0><c_0>"}],
            "row 0: reward_model must be a map with 'ground_truth'",
        ),
        ([GOOD, {**GOOD, "weight": 1}], r"row 1: has the columns \['prompt', 'reward_model', 'weight'\], row 0 has"),
        ([{**GOOD, "rank_in_group": 1}], "the trainer fills in rank_in_group itself"),
        ([{**GOOD, "prompt": "text"}], "row 0: prompt must be a list of maps with 'role' and 'content'"),
        ([{**GOOD, "reward_model": {"ground_truth": None}}], "row 0: reward_model.ground_truth must be a text"),
        ([{**GOOD, "reward_model": {"ground_truth": "<a_0><b_0>"}}], "row 0: the target '<a_0><b_0>' is no SID of"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(command, data_with, train, message):
    with pytest.raises(ValueError, match=message):
        run(command("out", f"data={data_with(train)}"))


def test_a_column_of_several_types_is_refused_with_its_file():
    rows = [{**GOOD, "extra_info": {"index": index}} for index in (0, "one")]
    with pytest.raises(UserError, match="x.json: a column holds values of several types"):
        as_dataset(rows, "x.json")


def numbered(*indexes, task="task1_sid_sft"):
    return [{"extra_info": {"task": task, "index": index}} for index in indexes]


def test_latest_rows_are_the_last_of_each_task_in_the_order_of_the_file():
    rows = [*numbered(3, 0, 2, 1), *numbered(1, 0, task="task4")]
    assert latest(rows, 2, "x.json") == [*numbered(3, 2), *numbered(1, 0, task="task4")]
    assert latest(rows, 1, "x.json") == [*numbered(3), *numbered(1, task="task4")]
    assert latest(rows, 0, "x.json") == latest(rows, 99, "x.json") == rows


def test_latest_rows_of_rows_that_tell_no_index_are_refused():
    with pytest.raises(ValueError, match="x.json, row 1: extra_info.* is missing.*--latest_rows needs it"):
        latest([*numbered(0), {"extra_info": {"task": "task1_sid_sft"}}], 1, "x.json")
    with pytest.raises(ValueError, match="x.json, row 0: extra_info.*--latest_rows needs it"):
        latest([{"extra_info": ["task", "index"]}], 1, "x.json")


def test_latest_rows_train_on_these_alone(command, tmp_path):
    run(command("out", "max_steps=1", "latest_rows=2"))
    assert read_json(tmp_path / "out" / "manifest.json", "test")["train_rows"] == 2


def test_targets_written_with_spaces_are_still_sids(tmp_path, tokenizer):
    """Rewards and evaluation read the names in the text as well."""
    rows = [{**GOOD, "reward_model": {"ground_truth": "<a_0> <b_0> <c_0>\n"}}]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    assert read_usable_rows(tmp_path / "train.json", {"<a_0><b_0><c_0>"}, tmp_path, tokenizer, None) == rows


def test_a_missing_file_is_named(command, tmp_path, sft):
    (tmp_path / "data" / "rl").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="train.json is missing"):
        run(command("out", f"data={tmp_path / 'data'}"))
    with pytest.raises(FileNotFoundError, match="nowhere.json missing; name an id2sid.json"):
        run(command("out", f"index={tmp_path / 'nowhere.json'}"))


def test_a_prompt_that_is_too_long_is_refused_not_cut(command):
    with pytest.raises(ValueError, match="train.json: prompt .* more than the 20 allowed"):
        run(command("out", "max_prompt_length=20"))


def test_another_contract_is_refused(command, data_with):
    with pytest.raises(ValueError, match="prompt contracts differ in their wording from character"):
        run(command("out", f"data={data_with([GOOD], Contract.of('classic'))}"))


def test_a_checkpoint_of_another_catalogue_is_refused(command, data_with, toy):
    other = {**toy.sids, "0": toy.sids["1"], "1": toy.sids["0"]}
    with pytest.raises(ValueError, match=f"another catalogue.*item '0' is {join_sid(toy.sids['0'])} there"):
        run(command("out", f"data={data_with([GOOD], sids=other)}"))


def test_another_data_set_with_the_same_token_names_is_refused(command, data_with, toy):
    other = {f"book-{item}": sid for item, sid in toy.sids.items()}
    with pytest.raises(ValueError, match="another catalogue.*no item in common"):
        run(command("out", f"data={data_with([GOOD], sids=other)}"))


def test_a_checkpoint_whose_chat_template_was_changed_is_refused(command, sft, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(sft, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "helper")
    tokenizer.save_pretrained(other)
    with pytest.raises(ValueError, match="chat template is not that of.*differ from character"):
        run(command("out", f"model={other}"))


def test_a_tokenizer_without_the_sids_is_refused(command, data_with, toy):
    more = {**toy.sids, "8": ("<a_9>", "<b_0>", "<c_0>")}
    with pytest.raises(ValueError, match="<a_9>"):
        run(command("out", f"data={data_with([GOOD], sids=more)}"))


def test_an_adapter_and_a_folder_that_is_not_there_are_refused_as_start(command, tmp_path):
    with pytest.raises(UserError, match="--model 'saves/my/nowhere' is not a folder here"):
        run(command("out", "model=saves/my/nowhere"))
    with pytest.raises(UserError, match="--model owner/model is no folder here. RL starts from the folder of an SFT"):
        run(command("out", "model=owner/model"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a LoRA adapter.*mimigenrec merge --model"):
        run(command("out", f"model={tmp_path / 'adapter'}"))


def test_a_run_never_writes_over_what_it_reads(command, sft, rl_data):
    for out in (sft, sft.parent):
        with pytest.raises(UserError, match=f"output_dir {out} holds --model .*, which the run would write over"):
            run(command(out))
    with pytest.raises(UserError, match="is the data folder, which the run would write over"):
        run(command(rl_data))


def test_a_lora_target_may_be_one_name_and_must_be_one_of_the_model(command, tmp_path):
    run(command("out", "max_steps=1", "lora_r=2", "lora_target=q_proj", "save_strategy=no"))
    assert read_json(tmp_path / "out" / "adapter_config.json", "test")["target_modules"] == ["q_proj"]
    with pytest.raises(UserError, match="--lora_target 'q_prj' is no module of the model; choose from .*q_proj"):
        run(command("other", "lora_r=2", "lora_target=q_prj"))


@pytest.mark.slow
def test_two_processes_train_as_one(command, tmp_path):
    """gloo, two ranks of one group each, against one process with both groups."""
    options = ["max_steps=2", "eval_strategy=steps", "eval_steps=2", "save_strategy=no", "eval_sample=7"]
    run(command("one", *options))
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
        + ["mimigenrec.grpo.train", *command("two", *options, "per_device_train_batch_size=4")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert two.returncode == 0, two.stderr[-3000:]
    keys = (
        "reward",
        "grad_norm",
        "kl",
        "groups_without_signal",
        "eval_hr@10",
        "eval_ndcg@10",
        "rewards/rule_reward/mean",
    )
    one, two = (
        [[event.get(key) for key in keys] for event in read_jsonl(tmp_path / out / "rl_log.jsonl")]
        for out in ("one", "two")
    )
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4)
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("recipe", sorted((ROOT / "examples" / "grpo").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_understood(recipe):
    run_config, args = parse(RunConfig, RLConfig, argv=[str(recipe), "bf16=false"])
    assert run_config.rewards and args.output_dir
