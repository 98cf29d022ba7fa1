"""A merged folder answers as adapter and base do together, or is not written at all."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from mimigenrec.checkpoint import COMPANIONS
from mimigenrec.decoding.adapter import write_base
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.training.merge import COMMAND, MergeConfig, largest_difference, logits_of, merge
from tests.conftest import make_model, make_tokenizer

SIDS = [f"<a_{i}>" for i in range(8)]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(sid_tokens=SIDS)


@pytest.fixture
def folders(tmp_path, tokenizer):
    """folders(tied, dtype, **LoRA's settings) -> base, adapter and output; all that the adapter trains is moved."""

    def make(tied=True, dtype=torch.float32, **settings):
        base, adapter = tmp_path / "base", tmp_path / "lora"
        model = make_model(len(tokenizer))
        if not tied:
            model.lm_head.weight = nn.Parameter(model.get_input_embeddings().weight.detach().clone())
            model.config.tie_word_embeddings = False
        model.generation_config.max_new_tokens = 7
        model.to(dtype).save_pretrained(base)
        torch.manual_seed(0)
        config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, **settings)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), config)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "trainable_tokens_delta" in name or "modules_to_save" in name:
                    weight.add_(torch.randn_like(weight) / 20)
        adapted.save_pretrained(adapter)
        tokenizer.save_pretrained(adapter)
        for name in COMPANIONS[:2]:
            (adapter / name).write_text("{}")
        write_base(adapter, base)
        return SimpleNamespace(base=base, adapter=adapter, output=tmp_path / "merged")

    return make


def config_of(folders, **options):
    return MergeConfig(folders.adapter, folders.output, **options)


def rows_of(tokenizer, tied):
    ids = tokenizer.convert_tokens_to_ids(SIDS)
    return {"trainable_token_indices": {"embed_tokens": ids} | ({} if tied else {"lm_head": ids})}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tied, trained", [(True, "lora"), (True, "rows"), (False, "rows"), (False, "embeddings")])
def test_the_merged_folder_answers_as_the_adapter(folders, tokenizer, tied, trained, dtype):
    settings = {"rows": rows_of(tokenizer, tied), "embeddings": {"modules_to_save": ["embed_tokens", "lm_head"]}}
    made = folders(tied, dtype, **settings.get(trained, {}))
    facts = merge(config_of(made))
    merged = AutoModelForCausalLM.from_pretrained(made.output, dtype="auto")
    assert merged.dtype == dtype and merged.config.tie_word_embeddings == tied
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(made.base, dtype="auto"), made.adapter)
    rows = [tokenizer.convert_tokens_to_ids([*SIDS, "the"]), list(range(30))]
    answers = list(logits_of(adapted.eval(), rows))
    difference = largest_difference(answers, logits_of(merged.eval(), rows))
    share = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    assert difference <= share * max(float(logits.abs().max()) for logits in answers)
    assert facts["difference"] <= facts["tolerance"] < facts["adapter"]  # it would show if the adapter were left out


def test_the_folder_is_whole_and_stands_alone(folders, tokenizer):
    made = folders()
    merge(config_of(made))
    shutil.rmtree(made.base)
    names = {path.name for path in made.output.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "id2sid.json", "items.json"} <= names
    assert not [name for name in names if name.startswith(("adapter", "base", "model-", "."))]
    assert AutoTokenizer.from_pretrained(made.output).get_vocab() == tokenizer.get_vocab()
    assert AutoModelForCausalLM.from_pretrained(made.output).generation_config.max_new_tokens == 7
    manifest = read_json(made.output / "manifest.json", "test")
    assert manifest["command"] == COMMAND and manifest["logits"]["rows"] == 1
    assert "the base's weights" in manifest["inputs"] and len(manifest["inputs"]) == 3


def test_what_is_merged_is_not_merged_again(folders, capsys):
    made = folders()
    merge(config_of(made))
    before = (made.output / "model.safetensors").stat().st_mtime_ns
    assert merge(config_of(made)) is None and "nothing to do" in capsys.readouterr().out
    assert (made.output / "model.safetensors").stat().st_mtime_ns == before
    weights = load_file(made.adapter / "adapter_model.safetensors")
    save_file({key: 2 * weight for key, weight in weights.items()}, made.adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="holds a run with other settings or data.*adapter_model.safetensors"):
        merge(config_of(made))
    assert merge(config_of(made, overwrite=True))


def test_embeddings_trained_on_a_tied_base_are_refused_since_a_merge_would_lose_them(folders, tmp_path):
    made = folders(modules_to_save=["embed_tokens", "lm_head"])
    with pytest.raises(UserError, match="answers otherwise: logits differ by .* nothing was written.*lora_sid_rows"):
        merge(config_of(made))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora"]


def test_another_base_is_refused(folders, tokenizer, tmp_path):
    made = folders()
    make_model(len(tokenizer), seed=9).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="on other weights its numbers mean nothing"):
        merge(config_of(made, base=str(tmp_path / "other")))
    shutil.move(made.base, tmp_path / "moved")
    with pytest.raises(UserError, match="is missing: it was trained on .*--base"):
        merge(config_of(made))
    assert merge(config_of(made, base=str(tmp_path / "moved")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused(folders, value):
    made = folders()
    weights = load_file(made.adapter / "adapter_model.safetensors")
    weights[min(weights)][0, 0] = value
    save_file(weights, made.adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="weights hold NaN or infinity"):
        merge(config_of(made))
    assert not made.output.exists()


def test_a_whole_model_and_a_folder_of_others_are_refused(folders, tmp_path):
    made = folders()
    with pytest.raises(UserError, match="is no LoRA adapter .adapter_config.json is missing."):
        merge(MergeConfig(made.base, made.output))
    with pytest.raises(UserError, match="holds something that merge did not write"):
        merge(MergeConfig(made.adapter, made.base))
    with pytest.raises(UserError, match="is not a folder here"):
        merge(MergeConfig(tmp_path / "gone" / "lora", made.output))
