"""lora_sid_rows: LoRA and the rows of the SIDs learn, nothing else does, and a merge keeps all of it."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from mimigenrec.decoding.model import MIMIGenRec, load_model
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.sft.arguments import SftConfig
from mimigenrec.sft.lora_rows import start_adapter, zero_stage
from mimigenrec.sft.train import prepared_base, train
from mimigenrec.sids.tokens import distinct_tokens
from mimigenrec.training.merge import MergeConfig, merge

LORA = {"finetuning_type": "lora", "lora_rank": 4}


@pytest.fixture
def config(data, tmp_path):
    return SftConfig(
        add_tokens_list=data / "new_tokens.json", base_cache=tmp_path / "cache", eval_ranking=0, lora_sid_rows=True
    )


def logits(model):
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


@pytest.mark.parametrize("untie", [False, True])
def test_only_lora_and_the_rows_of_the_sids_move_and_a_merge_keeps_them(config, args, toy, tmp_path, untie):
    config.sid_untie = untie
    train(config, {**args, **LORA})
    base, out = prepared_base(config, args), Path(args["output_dir"])
    learnt = load_file(out / "adapter_model.safetensors")
    rows = {name: weight for name, weight in learnt.items() if "lora_" not in name}
    ids = sorted(AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(distinct_tokens(toy.sids)))
    assert [weight.shape for weight in rows.values()] == [(len(ids), 32)] * (2 if untie else 1)
    assert read_json(out / "base.json", "test")["base"] == str(Path(base).resolve())

    assert merge(MergeConfig(out, tmp_path / "merged"))["difference"] < 1e-3
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (base, tmp_path / "merged"))
    for name, old in before.items():
        moved = (old != after[name]).reshape(len(old), -1).any(1).nonzero().flatten().tolist()
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert moved == ids, name
        else:
            assert bool(moved) == ("_proj.weight" in name), name
    adapter, merged = (MIMIGenRec.from_pretrained(folder, device="cpu") for folder in (out, tmp_path / "merged"))
    ours, expected = (model.recommend([["0", "1"]], k=7)[0] for model in (adapter, merged))
    assert [r.item for r in ours] == [r.item for r in expected]
    assert [r.logp for r in ours] == pytest.approx([r.logp for r in expected], abs=1e-4)


def test_the_start_adapter_changes_nothing_and_is_made_once(config, args, tmp_path):
    base = prepared_base(config, args)
    keys = {**args, **LORA, "model_name_or_path": base}
    folder = start_adapter(keys, [1, 2], tmp_path / "cache")
    torch.testing.assert_close(logits(load_model(folder, base=base)), logits(load_model(base)))
    stamp = (Path(folder) / "adapter_model.safetensors").stat().st_mtime_ns
    assert start_adapter(keys, [2, 1], tmp_path / "cache") == folder
    assert (Path(folder) / "adapter_model.safetensors").stat().st_mtime_ns == stamp
    for other in ({"lora_rank": 2}, {"seed": 2}, {"lora_target": "q_proj"}):
        assert start_adapter({**keys, **other}, [1, 2], tmp_path / "cache") != folder
    assert start_adapter(keys, [1, 3], tmp_path / "cache") != folder
    config_file = read_json(Path(folder) / "adapter_config.json", "test")
    assert config_file["r"] == 4 and config_file["lora_alpha"] == 8  # LLaMA-Factory's default


def test_an_interrupted_run_goes_on_to_the_same_adapter(config, args):
    keys, out = {**args, **LORA, "eval_strategy": "no"}, Path(args["output_dir"])
    train(config, keys)
    whole = load_file(out / "adapter_model.safetensors")
    for name in ("adapter_model.safetensors", "trainer_state.json"):
        (out / name).unlink()
    manifest = read_json(out / "manifest.json", "test")
    write_json(out / "manifest.json", {**manifest, "ended": False})
    shutil.rmtree(out / "checkpoint-4")
    train(config, keys)
    again = load_file(out / "adapter_model.safetensors")
    assert whole.keys() == again.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(again[name], weight)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"finetuning_type": "full"}, "is for finetuning_type: lora, found full; .*train_only: sid_rows"),
        ({"adapter_name_or_path": "x"}, "does not go with adapter_name_or_path: x.*additional_target"),
        ({"use_unsloth": True}, "does not go with use_unsloth: True"),
        ({"resize_vocab": True}, "does not go with resize_vocab: True"),
        ({"deepspeed": "z3.json"}, "FSDP and ZeRO-3 split over processes; use ZeRO-2"),
        ({"fsdp": "full_shard"}, "FSDP and ZeRO-3 split over processes"),
        ({"additional_target": "embed_tokens,lm_head"}, "trains the SID rows of embed_tokens, lm_head, which addit"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(config, args, tmp_path, monkeypatch, keys, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mimigenrec.sft.train.check_extras", lambda args: None)  # as if these were installed
    write_json(tmp_path / "z3.json", {"zero_optimization": {"stage": 3}})
    with pytest.raises(UserError, match=message):
        train(config, {**args, **LORA, **keys})
    assert not Path(args["output_dir"]).exists()


def test_without_a_catalogue_nothing_says_which_rows(config, args, data):
    (data / "id2sid.json").unlink()
    with pytest.raises(UserError, match="lora_sid_rows: true needs a data set that lies beside an id2sid.json"):
        train(config, {**args, **LORA})


def test_the_stage_of_zero_is_read_from_a_path_or_a_map(tmp_path):
    write_json(tmp_path / "z2.json", {"zero_optimization": {"stage": 2}})
    assert zero_stage(str(tmp_path / "z2.json")) == 2 and zero_stage({"zero_optimization": {"stage": 3}}) == 3
    assert zero_stage(None) == zero_stage({}) == zero_stage({"zero_optimization": {"stage": "auto"}}) == 0
