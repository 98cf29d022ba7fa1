import json
import logging
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from mimigenrec.chat import prompt_ids, row_messages
from mimigenrec.checkpoint import COMPANIONS
from mimigenrec.contract import FILE, Contract
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import recommend
from mimigenrec.tasks.rows import to_sft_row
from mimigenrec.tasks.sample import Sample
from tests.conftest import make_model, make_tokenizer


@pytest.fixture(scope="module")
def recommender(checkpoint):
    return MIMIGenRec.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_a_checkpoint_alone_gives_the_answers_of_the_model_that_was_saved(recommender, tiny_model, tokenizer, toy):
    contract = Contract.of("contract", tokenizer)
    row = to_sft_row(Sample("sid_history", {"sids": "<a_0><b_0><c_0><a_1><b_2>"}, answer=""), contract, "test")
    prompts = prompt_ids(tokenizer, [row_messages(row)])
    assert recommender.prompts([["0", "5"]]) == prompts
    expected = recommend(tiny_model, tokenizer, recommender.trie, prompts, k=4, beams=8)[0]
    found = recommender.recommend([["0", "5"]], k=4, beams=8)[0]
    assert [r.item for r in found] == [r.item for r in expected]
    assert recommender.catalog.sids == toy.sids and recommender.catalog.titles == toy.titles


def test_a_checkpoint_is_stock(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert type(AutoModelForCausalLM.from_pretrained(checkpoint)).__name__ == "Qwen2ForCausalLM"


def test_saving_again_writes_the_same_companions(recommender, checkpoint, tmp_path):
    recommender.save_pretrained(tmp_path)
    for name in COMPANIONS:
        assert (tmp_path / name).read_bytes() == (checkpoint / name).read_bytes()


def test_what_was_seen_is_left_out_if_asked(recommender):
    histories = [["0", "5"], ["2"]]
    found = recommender.recommend(histories, k=8, exclude_seen=True, deny={"7"})
    assert [{r.item for r in items} for items in found] == [set("12346"), set("013456")]
    assert all(len(items) == 8 for items in recommender.recommend(histories, k=8))


def test_items_without_a_sid_are_left_out_of_the_history(copy):
    items = json.loads((copy / "items.json").read_text())
    items["no sid"] = {"title": "known by its title", "description": "", "popularity": 0}
    (copy / "items.json").write_text(json.dumps(items))
    recommender = MIMIGenRec.from_pretrained(copy, device="cpu")
    assert recommender.prompts([["0", "no sid", "5"]]) == recommender.prompts([["0", "5"]])
    with pytest.raises(ValueError, match=r"history 1 holds no item with a SID \(\['no sid'\]\)"):
        recommender.recommend([["0"], ["no sid"]])


@pytest.mark.parametrize(
    ("history", "what"),
    [([], "history 0 holds no item"), (["0", "99"], "history 0: item '99' is not in the catalogue")],
)
def test_an_empty_history_and_an_unknown_item_are_refused(recommender, history, what):
    with pytest.raises(ValueError, match=what):
        recommender.recommend([history])


def test_a_checkpoint_without_its_catalogue_says_what_to_copy(copy):
    (copy / "id2sid.json").unlink()
    with pytest.raises(FileNotFoundError, match="id2sid.json is missing.*copy"):
        MIMIGenRec.from_pretrained(copy)


def test_a_checkpoint_without_a_contract_warns_once(copy, caplog, recommender):
    (copy / FILE).unlink()
    with caplog.at_level(logging.WARNING, logger="mimigenrec"):
        found = MIMIGenRec.from_pretrained(copy, device="cpu")
    warnings = [r for r in caplog.records if r.name.startswith("mimigenrec")]
    assert len(warnings) == 1 and FILE in warnings[0].getMessage()
    assert found.prompts([["0"]]) == recommender.prompts([["0"]])


def test_the_wording_of_the_checkpoint_is_the_one_asked_in(copy, tokenizer):
    Contract.of("classic", tokenizer).write(copy)
    recommender = MIMIGenRec.from_pretrained(copy, device="cpu")
    text = recommender.tokenizer.decode(recommender.prompts([["0", "5"]])[0])
    assert "interaction history: <a_0><b_0><c_0>, <a_1><b_2>" in text


def test_a_tokenizer_of_another_catalogue_is_refused(copy):
    make_tokenizer(sid_tokens=["<a_0>", "<x_1>"]).save_pretrained(copy)
    with pytest.raises(ValueError, match="SID tokens as one token each, <a_1> among them"):
        MIMIGenRec.from_pretrained(copy)


def test_a_model_smaller_than_its_tokenizer_is_refused(copy):
    make_model(310).save_pretrained(copy)
    with pytest.raises(ValueError, match="scores 310 tokens but the SIDs go up to token id 314"):
        MIMIGenRec.from_pretrained(copy)


def test_a_lora_adapter_answers_as_its_merged_model(copy, checkpoint, tiny_model, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter)
    shutil.copytree(checkpoint, adapter, ignore=shutil.ignore_patterns("model*", "config.json"), dirs_exist_ok=True)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(copy)
    ours, expected = (
        MIMIGenRec.from_pretrained(folder, device="cpu").recommend([["0", "5"]], k=8) for folder in (adapter, copy)
    )
    assert [r.item for r in ours[0]] == [r.item for r in expected[0]]
    assert [r.logp for r in ours[0]] == pytest.approx([r.logp for r in expected[0]], abs=1e-3)
    plain = MIMIGenRec.from_pretrained(checkpoint, device="cpu").recommend([["0", "5"]], k=8)
    assert [r.logp for r in plain[0]] != pytest.approx([r.logp for r in expected[0]], abs=1e-2)


def test_the_dtype_asked_for_is_the_one_loaded(checkpoint):
    assert MIMIGenRec.from_pretrained(checkpoint, device="cpu", dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_a_chat_template_changed_after_training_is_refused(checkpoint, tmp_path):
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(checkpoint, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_end|>"))
    with pytest.raises(ValueError, match="the chat template is not that of prompt_contract.json"):
        MIMIGenRec.from_pretrained(folder)


def logps(folder, **how):
    return [r.logp for r in MIMIGenRec.from_pretrained(folder, device="cpu").recommend([["0"]], k=3, **how)[0]]


def test_items_are_ranked_by_the_scores_that_the_checkpoint_was_trained_with(copy, tokenizer, caplog):
    replace(Contract.of("contract", tokenizer), support="trie").write(copy)
    found = logps(copy)
    assert not [r for r in caplog.records if r.name == "mimigenrec.contract"]
    assert found == logps(copy, support="trie") != logps(copy, support="vocab")
    assert "was trained to be ranked by support trie, and is asked to rank by vocab" in caplog.text


def test_a_checkpoint_that_does_not_say_is_ranked_by_vocab_and_warns_once(copy, caplog):
    recommender = MIMIGenRec.from_pretrained(copy, device="cpu")
    found = [[r.logp for r in recommender.recommend([["0"]], k=3)[0]] for _ in range(2)]
    assert found == [logps(copy, support="vocab")] * 2
    assert caplog.text.count("does not say by which scores") == 1


def test_weights_that_hold_nan_are_named_when_they_are_loaded(copy):
    model = AutoModelForCausalLM.from_pretrained(copy)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(copy)
    with pytest.raises(ValueError, match=r"copy: 1 of \d+ weights hold NaN or infinity, model.layers.0.mlp.up_proj"):
        MIMIGenRec.from_pretrained(copy, device="cpu")
