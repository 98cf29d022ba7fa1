from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from mimigenrec.contract import Contract
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.checks import (
    check_data,
    check_extras,
    check_keys,
    check_lora,
    check_ranking,
    check_row_training,
    row_lengths,
)
from mimigenrec.sft.data import find_data
from mimigenrec.sids.tokens import distinct_tokens
from mimigenrec.tasks.rows import read_sft_rows
from tests.conftest import lf_ids
from tests.sft.conftest import save_base


@pytest.fixture
def known(args, tmp_path, toy):
    """args with a base that knows the SIDs, the data, and the base's tokenizer."""
    args["model_name_or_path"] = str(save_base(tmp_path / "known", sid_tokens=distinct_tokens(toy.sids)))
    return args, find_data(args), AutoTokenizer.from_pretrained(args["model_name_or_path"])


def test_sound_data_pass(known):
    args, data, tokenizer = known
    check_data(data, tokenizer, args, cutoff_len=256)


def test_a_key_of_nobody_gets_a_near_one(args):
    check_keys(args, ours=["eval_ranking"])
    with pytest.raises(ValueError, match="'learning_rat' is neither.*did you mean 'learning_rate'"):
        check_keys({**args, "learning_rat": 1}, ours=[])
    with pytest.raises(ValueError, match="did you mean 'eval_ranking'"):
        check_keys({**args, "eval_rankng": 1}, ours=["eval_ranking"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("finetuning_type", "fulll", "finetuning_type: 'fulll' is none of lora, oft, freeze, full"),
        ("pref_loss", "nonsense", "pref_loss: 'nonsense' is none of sigmoid"),
        ("eval_strategy", "sometimes", "none of no, steps, epoch"),
        ("learning_rate", "fast", r"learning_rate: 'fast' is not what LLaMA-Factory takes there \(float\)"),
        ("cutoff_len", 12.5, r"cutoff_len: 12.5 .*\(int\)"),
        ("plot_loss", "maybe", "plot_loss: 'maybe' .*true or false"),
    ],
)
def test_a_wrong_type_or_choice_of_llamafactorys_keys_is_refused(args, key, value, message):
    with pytest.raises(ValueError, match=message):
        check_keys({**args, key: value}, ours=[])


def test_values_that_llamafactory_reads_well_pass(args):
    sound = {"learning_rate": "1e-5", "warmup_steps": 20.0, "save_steps": 0.05, "report_to": ["wandb"], "bf16": False}
    check_keys({**args, **sound, "deepspeed": None, "lr_scheduler_kwargs": {"min_lr": 0.0}}, ours=[])


@pytest.mark.parametrize(
    "asked", [{"deepspeed": "z3.json"}, {"use_unsloth": True}, {"report_to": "wandb"}, {"report_to": ["tensorboard"]}]
)
def test_a_package_that_is_missing_is_named_with_what_to_install(args, asked, monkeypatch):
    check_extras(args)
    monkeypatch.setattr("mimigenrec.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"{next(iter(asked))}: .* run pip install"):
        check_extras({**args, **asked})


def test_a_tokenizer_without_the_sids_is_refused_with_the_remedy(args):
    tokenizer = AutoTokenizer.from_pretrained(args["model_name_or_path"])
    with pytest.raises(ValueError, match="does not know 10 of the 10 SID tokens.*add_tokens_list="):
        check_data(find_data(args), tokenizer, args, cutoff_len=256)


def test_a_base_trained_with_another_wording_is_refused(known):
    args, data, tokenizer = known
    Contract.of("classic", tokenizer).write(args["model_name_or_path"])
    with pytest.raises(ValueError, match="contracts differ in their wording"):
        check_data(data, tokenizer, args, cutoff_len=256)


def test_a_base_that_add_sids_prepared_has_learnt_no_wording(known, tmp_path):
    args, data, tokenizer = known
    add_sids(AddSidsConfig(args["model_name_or_path"], data.folder / "new_tokens.json", tmp_path / "prepared"))
    Contract.of("classic", tokenizer).write(tmp_path / "prepared")
    check_data(data, tokenizer, {**args, "model_name_or_path": str(tmp_path / "prepared")}, cutoff_len=256)


def test_data_built_for_another_chat_template_are_refused_before_the_training(known):
    args, data, tokenizer = known
    other = replace(data.contract, chat_template=tokenizer.chat_template.replace("assistant", "helper"))
    with pytest.raises(ValueError, match="chat template is not that of"):
        check_data(replace(data, contract=other), tokenizer, args, cutoff_len=256)


def test_a_template_that_renders_otherwise_is_refused(known):
    args, data, tokenizer = known
    with pytest.raises(ValueError, match="template 'alpaca'"):
        check_data(data, tokenizer, {**args, "template": "alpaca"}, cutoff_len=256)


def test_a_row_longer_than_cutoff_len_is_refused_instead_of_cut(known):
    args, data, tokenizer = known
    longest = max(row_lengths(tokenizer, read_sft_rows(data.files[0])))
    check_data(data, tokenizer, args, cutoff_len=longest)
    with pytest.raises(
        ValueError, match=rf"train.json, row \d+: {longest} tokens, more than cutoff_len={longest - 1}"
    ):
        check_data(data, tokenizer, args, cutoff_len=longest - 1)


def test_lengths_are_those_of_llamafactory(known):
    _, data, tokenizer = known
    rows = read_sft_rows(data.files[0])[:5]
    assert list(row_lengths(tokenizer, rows)) == [sum(map(len, lf_ids(tokenizer, row))) for row in rows]


@pytest.mark.parametrize(
    "keys",
    [
        {"additional_target": "embed_tokens,lm_head"},
        {"additional_target": "embed_tokens"},
        {"lora_target": "q_proj,lm_head"},
        {"add_tokens": "<x_1>"},
        {"resize_vocab": True},
    ],
)
def test_lora_on_tied_embeddings_is_refused_with_the_remedy(args, keys):
    with pytest.raises(ValueError, match="add-sids --untie"):
        check_lora({**args, "finetuning_type": "lora", **keys})
    check_lora({**args, **keys})  # full fine-tuning has one copy


def test_lora_on_a_head_of_its_own_passes(args, tmp_path):
    base = save_base(tmp_path / "untied", tie=False)
    lora = {**args, "finetuning_type": "lora", "model_name_or_path": str(base)}
    check_lora({**lora, "additional_target": "embed_tokens,lm_head"})


def test_lora_that_leaves_the_sid_rows_alone_is_told(args, caplog):
    check_lora({**args, "finetuning_type": "lora"})
    assert "SID rows stay" in caplog.text


@pytest.mark.parametrize("keys", [{"weight_decay": 0.1}, {"finetuning_type": "lora"}])
def test_row_training_with_what_would_move_other_rows_is_refused(args, keys):
    check_row_training(args)
    with pytest.raises(ValueError, match="finetuning_type: full and weight_decay: 0.0"):
        check_row_training({**args, **keys})


def test_ranking_under_fsdp_is_refused(args):
    with pytest.raises(ValueError, match="use DeepSpeed, or eval_ranking=0"):
        check_ranking({**args, "fsdp": "full_shard"}, 100, None)


def test_best_by_ranking_needs_ranking(args):
    data = find_data(args)
    check_ranking({**args, "metric_for_best_model": "eval_ndcg@10"}, 100, data)
    check_ranking({**args, "metric_for_best_model": "loss"}, 0, None)
    with pytest.raises(ValueError, match="needs eval_ranking above 0"):
        check_ranking({**args, "metric_for_best_model": "eval_ndcg@10"}, 0, data)
    with pytest.raises(ValueError, match="eval_ndcg@5 is not reported"):
        check_ranking({**args, "metric_for_best_model": "eval_ndcg@5"}, 100, data)
