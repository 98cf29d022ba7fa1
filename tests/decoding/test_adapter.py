"""An adapter is loaded on the base it was trained on, wherever one stands, and on no other."""

import json
import logging
import os
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mimigenrec.decoding.adapter import base_place, identity, load_adapter, write_base
from mimigenrec.decoding.model import load_model
from mimigenrec.errors import UserError
from tests.conftest import make_model

IDS = torch.tensor([[1, 2, 3]])


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """saves/lora, trained in tmp_path on the base "base_sid", as adapter_config.json has it."""
    monkeypatch.chdir(tmp_path)
    make_model(50).save_pretrained("base_sid")
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained("base_sid"), config).save_pretrained("saves/lora")
    write_base("saves/lora", "base_sid")
    return tmp_path / "saves" / "lora"


def numbers(model):
    with torch.no_grad():
        return model(IDS).logits


def test_from_another_working_directory_it_is_the_same_model(adapter, tmp_path, monkeypatch):
    here = numbers(load_adapter(adapter))
    (tmp_path / "elsewhere").mkdir()
    make_model(50, seed=7).save_pretrained(tmp_path / "elsewhere" / "base_sid")  # of the name in adapter_config.json
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(numbers(load_adapter(adapter)), here)
    assert not torch.equal(numbers(load_model(tmp_path / "base_sid")), here)  # the adapter does something


def test_other_weights_in_its_place_are_refused(adapter, tmp_path):
    shutil.rmtree(tmp_path / "base_sid")
    make_model(50, seed=123).save_pretrained(tmp_path / "base_sid")
    with pytest.raises(UserError, match=r"trained on .*base_sid \(sha256:\w{8}\), found .*\(sha256:\w{8}\).*--base"):
        load_model(adapter)
    with pytest.raises(UserError, match="on other weights its numbers mean nothing"):
        load_model(adapter, base=tmp_path / "base_sid")


def test_a_base_that_was_moved_is_found_by_base_or_beside_the_adapter(adapter, tmp_path):
    here = numbers(load_adapter(adapter))
    (tmp_path / "base_sid").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"the base of the LoRA adapter .* is missing: it was trained on .*--base"):
        load_model(adapter)
    assert torch.equal(numbers(load_model(adapter, base=tmp_path / "kept")), here)
    (tmp_path / "new").mkdir()
    (tmp_path / "kept").rename(tmp_path / "new" / "base_sid")
    (tmp_path / "saves").rename(tmp_path / "new" / "saves")
    assert torch.equal(numbers(load_adapter(tmp_path / "new" / "saves" / "lora")), here)


def test_an_adapter_of_an_earlier_version_is_loaded_with_a_warning(adapter, tmp_path, monkeypatch, caplog):
    (adapter / "base.json").unlink()
    with caplog.at_level(logging.WARNING):
        load_adapter(adapter)
    assert "nothing proves that base_sid is the base it was trained on" in caplog.text
    (tmp_path / "saves" / "elsewhere").mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "saves/base_sid"}))
    with pytest.raises(UserError, match="'saves/base_sid' is not a folder here"):  # and not a name on the hub
        load_adapter(adapter)
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="base_model_name_or_path is missing; give --base"):
        load_adapter(adapter)


def test_base_belongs_to_adapters_alone(tmp_path, adapter):
    with pytest.raises(UserError, match="is a whole model; leave it out"):
        load_model(tmp_path / "base_sid", base=tmp_path / "base_sid")


def test_the_identity_is_that_of_the_weights_whatever_their_folder_is_called(adapter, tmp_path):
    one = identity(tmp_path / "base_sid")
    shutil.copytree(tmp_path / "base_sid", tmp_path / "other")
    (tmp_path / "other" / "config.json").touch()
    assert identity(tmp_path / "other") == one and one.startswith("sha256:")
    make_model(50).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1 and identity(tmp_path / "parts") != one
    os.remove(tmp_path / "other" / "model.safetensors")
    with pytest.raises(UserError, match="--base '.*other' holds no weights"):
        identity(tmp_path / "other", "--base")


def test_a_base_on_the_hub_is_known_by_its_commit_and_is_not_asked_for_here(adapter):
    write_base(adapter, "owner/name", "revision:abc")
    assert base_place(adapter) == "owner/name"


def test_an_adapter_that_is_not_whole_is_refused(adapter, tmp_path):
    weights = adapter / "adapter_model.safetensors"
    whole = load_file(weights)
    save_file(dict(list(whole.items())[:-1]), weights)
    with pytest.raises(UserError, match="lacks weights that adapter_config.json asks for"):
        load_adapter(adapter)
    save_file({name: value[:, :-1].contiguous() for name, value in whole.items()}, weights)
    with pytest.raises(UserError, match="does not fit the shape of"):
        load_adapter(adapter)
    save_file({name: value * float("nan") for name, value in whole.items()}, weights)
    with pytest.raises(UserError, match="NaN"):
        load_adapter(adapter)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="adapter_model.safetensors cannot be read"):
        load_adapter(adapter)
    weights.unlink()
    with pytest.raises(UserError, match="no adapter_model.safetensors"):
        load_adapter(adapter)
    (adapter / "base.json").write_text("{}")
    with pytest.raises(UserError, match="base.json: .* is missing, which must be a text"):
        load_adapter(adapter)
