import json
from dataclasses import replace
from string import Formatter

import pytest

from mimigenrec import contract as contracts
from mimigenrec.chat import prompt_ids, row_messages, user_text
from mimigenrec.contract import Contract, check_same, check_template, proven_tokenizer, read_contract
from mimigenrec.tasks.rows import to_rl_row, to_sft_row
from mimigenrec.tasks.sample import Sample
from tests.conftest import make_tokenizer, split_as_before

SYSTEM = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
NEXT = "Can you predict the next possible item that the user may expect?"

CLASSIC_INPUTS = [  # the original files' sentences
    ("sid_history", "train", "The user has interacted with items S in chronological order. " + NEXT),
    ("sid_history", "valid", "The user has interacted with items S in chronological order. " + NEXT),
    (
        "sid_history",
        "test",
        "Can you predict the next possible item the user may expect, given the following chronological interaction "
        "history: S",
    ),
    ("sid_to_title", "train", 'What is the title of item "S"?'),
    ("title_to_sid", "train", "Which item has the title: T?"),
    (
        "next_title",
        "train",
        "The user has sequentially interacted with items S. Can you recommend the next item for him? Tell me the "
        "title of the item",
    ),
    (
        "title_history",
        "train",
        'Given the title sequence of user historical interactive items: "t1", "t2", can you recommend a suitable '
        "next item for the user?",
    ),
    ("description_to_sid", "train", 'An item can be described as follows: "D". Which item is it describing?'),
]


@pytest.mark.parametrize(("template", "split", "expected"), CLASSIC_INPUTS)
def test_classic_wording_is_the_original_sentences(template, split, expected):
    classic = Contract.of("classic")
    values = {"sids": "S", "sid": "S", "title": "T", "titles": classic.write_titles(["t1", "t2"]), "description": "D"}
    instruction, question = classic.ask(template, split, **values)
    assert question == expected
    assert classic.system == SYSTEM
    if template == "sid_history":
        assert instruction == NEXT


def test_classic_sids_are_separated_by_comma_and_space():
    assert Contract.of("classic").write_sids([("<a_1>", "<b_2>"), ("<a_3>",)]) == "<a_1><b_2>, <a_3>"


def test_a_classic_rl_prompt_is_the_input_alone_and_ours_is_what_sft_trained_on():
    sample = Sample("sid_history", {"sids": "<a_1>"}, "<a_2>", row=4)
    for wording in contracts.WORDINGS:
        contract = Contract.of(wording)
        sft = to_sft_row(sample, contract, "train")
        rl = to_rl_row(sample, contract, "train", "task1_sid_sft", "seq_rec", "toy", index=9)
        user = sft["input"] if wording == "classic" else row_messages(sft)[-1]["content"]
        system = [{"role": "system", "content": sft["system"]}] if sft["system"] else []
        assert rl == {
            "data_source": "toy",
            "prompt": [*system, {"role": "user", "content": user}],
            "ability": "seq_rec",
            "reward_model": {"style": "rule", "ground_truth": "<a_2>"},
            "extra_info": {"split": "train", "index": 4, "task": "task1_sid_sft"},
        }


@pytest.mark.parametrize("wording", ["contract", "compact"])
@pytest.mark.parametrize("template", contracts.WORDINGS["contract"]["templates"])
def test_our_wordings_are_the_same_in_train_valid_and_test(template, wording):
    contract = Contract.of(wording)
    values = dict.fromkeys(("sids", "sid", "title", "titles", "description"), "X")
    train, valid, test = (contract.ask(template, split, **values) for split in ("train", "valid", "test"))
    assert train == valid == test


def placeholders(wording):
    """Template name -> what its question is filled in with."""
    templates = contracts.WORDINGS[wording]["templates"]
    return {
        name: {field for _, field, _, _ in Formatter().parse(asked) if field} for name, (_, asked) in templates.items()
    }


@pytest.mark.parametrize("wording", contracts.WORDINGS)
def test_every_wording_has_the_same_templates_filled_in_with_the_same_values(wording):
    found, ours = placeholders(wording), placeholders("contract")
    assert {name.removesuffix("@test") for name in found} == set(ours) <= set(found)
    for name, fields in found.items():
        assert fields == ours[name.removesuffix("@test")], name


@pytest.mark.parametrize("wording", contracts.WORDINGS)
def test_braces_in_a_text_stay_as_they_are(wording):
    text = "{0} {x} }{ {title}"
    for template, name in (
        ("title_to_sid", "title"),
        ("title_history", "titles"),
        ("description_to_sid", "description"),
    ):
        asked = Contract.of(wording).ask(template, **{name: text})[1]
        empty = Contract.of(wording).ask(template, **{name: ""})[1]
        assert asked.count(text) == 1 and asked.replace(text, "") == empty


def test_a_compact_history_is_its_sids_and_nothing_else():
    compact = Contract.of("compact")
    sids = compact.write_sids([("<a_1>", "<b_2>"), ("<a_3>",)])
    row = to_sft_row(Sample("sid_history", {"sids": sids}, "<a_2>", row=0), compact, "test")
    assert row == {"system": "", "instruction": "", "input": "<a_1><b_2><a_3>", "output": "<a_2>"}
    assert row_messages(row) == [{"role": "user", "content": "<a_1><b_2><a_3>"}]


def test_compact_questions_of_the_other_tasks_differ_by_their_beginnings():
    compact = Contract.of("compact")
    values = dict.fromkeys(("sids", "sid", "title", "titles", "description"), "X")
    asked = {user_text(*compact.ask(name, **values)) for name in compact.templates}
    assert len(asked) == len(compact.templates)


def test_a_history_is_its_latest_items():
    contract = Contract.of("contract", max_history=2)
    assert contract.write_sids([("<a>",), ("<b>",), ("<c>",)]) == "<b><c>"
    assert contract.write_titles(["x", "y", "z"]) == "y\nz"
    assert Contract.of("contract").write_titles(["x", "y", "z"]) == "x\ny\nz"
    with pytest.raises(ValueError, match="max_history is 0"):
        Contract.of("contract", max_history=0)


def test_a_contract_comes_back_as_written_and_an_edited_one_is_refused(tmp_path, tokenizer):
    contract = Contract.of("contract", tokenizer, max_history=7)
    contract.write(tmp_path)
    assert read_contract(tmp_path) == contract and contract.chat_template == tokenizer.chat_template
    path = tmp_path / contracts.FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"system": "You are a pirate."}))
    with pytest.raises(ValueError, match="edited by hand"):
        read_contract(tmp_path)
    path.write_text(json.dumps({"wording": "contract"}))
    with pytest.raises(ValueError, match="is not a prompt contract"):
        read_contract(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="must hold a map"):
        read_contract(tmp_path)
    for unhashed in ({"support": "all"}, {"golden": [{"prompt": [{"role": 1}], "ids": [1]}]}, {"golden": [5]}):
        path.write_text(json.dumps(content | unhashed))
        with pytest.raises(ValueError, match="is not a prompt contract"):
            read_contract(tmp_path)


def remembering(tokenizer, *inputs):
    prompts = [row_messages({"input": text}) for text in inputs]
    return replace(
        Contract.of("contract", tokenizer), golden=tuple(zip(prompts, prompt_ids(tokenizer, prompts), strict=True))
    )


def test_golden_prompts_come_back_and_leave_the_hash_alone(tmp_path, tokenizer):
    contract = remembering(tokenizer, "thing number", "<a_0><b_0>")
    contract.write(tmp_path)
    assert read_contract(tmp_path) == contract and len(contract.golden) == 2
    assert contract.hash == Contract.of("contract", tokenizer).hash


def test_a_tokenizer_that_gives_other_ids_than_the_golden_ones_is_refused(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    remembering(tokenizer, "thing number").write(tmp_path)
    assert proven_tokenizer(tmp_path, padding_side="right").padding_side == "right"
    path = tmp_path / "tokenizer.json"
    core = json.loads(path.read_text())
    core["model"]["merges"] = []
    path.write_text(json.dumps(core))
    with pytest.raises(ValueError, match=r"gives other token ids .* from token \d+ on, 'thing number' has "):
        proven_tokenizer(tmp_path)


def test_a_qwen2_folder_that_transformers_5_would_read_otherwise_loads_with_one_warning(tmp_path, caplog, monkeypatch):
    def warnings_of(folder, model_type):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        caplog.clear()
        proven_tokenizer(folder)
        return [record.getMessage() for record in caplog.records if record.name == "mimigenrec.chat"]

    split_as_before(make_tokenizer()).save_pretrained(tmp_path)
    [warning] = warnings_of(tmp_path, "qwen2")
    assert "Make the base again" in warning and str(tmp_path) in warning
    remembering(split_as_before(make_tokenizer()), "thing number").write(tmp_path)  # as SFT on such a base does
    assert warnings_of(tmp_path, "qwen2") == [warning]
    monkeypatch.setenv("RANK", "1")
    assert warnings_of(tmp_path, "qwen2") == []
    monkeypatch.delenv("RANK")
    assert warnings_of(tmp_path, "gpt2") == []  # which transformers 5 leaves as it is
    make_tokenizer().save_pretrained(tmp_path)
    (tmp_path / contracts.FILE).unlink()
    assert warnings_of(tmp_path, "qwen2") == []


def test_a_folder_without_a_contract_has_none(tmp_path):
    assert read_contract(tmp_path) is None


def test_another_wording_is_refused_showing_the_first_differing_characters():
    ours = Contract.of("contract")
    check_same(ours, ours, "data", "ckpt")
    with pytest.raises(ValueError, match=r"data has '[^']*You are a recommender.*ckpt has '[^']*You are a pirate"):
        check_same(ours, replace(ours, system="You are a pirate."), "data", "ckpt")
    with pytest.raises(ValueError, match="differ in their wording"):
        check_same(ours, Contract.of("classic"), "data", "ckpt")
    with pytest.raises(ValueError, match="max_history"):
        check_same(ours, Contract.of("contract", max_history=5), "data", "ckpt")


def test_chat_templates_are_compared_where_both_are_known():
    ours = Contract.of("contract")
    one, other = replace(ours, chat_template="{{ x }}"), replace(ours, chat_template="{{ y }}")
    check_same(ours, one, "data", "ckpt")
    with pytest.raises(ValueError, match="differ in their chat template from character 3"):
        check_same(one, other, "data", "ckpt")
    assert one.hash != other.hash != ours.hash


def test_a_tokenizer_with_another_chat_template_than_its_contract_is_refused(tokenizer):
    contract = Contract.of("contract", tokenizer)
    check_template(contract, tokenizer, "ckpt")
    check_template(Contract.of("contract"), tokenizer, "ckpt")  # made without a tokenizer: says nothing about it
    other = replace(contract, chat_template=contract.chat_template.replace("assistant", "helper"))
    with pytest.raises(ValueError, match="ckpt has .*helper.* has .*assistant"):
        check_template(other, tokenizer, "ckpt")


def test_an_unknown_wording_names_those_there_are():
    with pytest.raises(ValueError, match="choose one of contract, compact, classic"):
        Contract.of("modern")


WORDING = {
    "name": "shop",
    "system": "You sell.",
    "templates": {"more": ("More of this", "{category} after {sids}, {{sic}}")},
}


def test_a_wording_may_be_handed_in_as_data(tmp_path, tokenizer):
    contract = Contract.of(WORDING, tokenizer, max_history=3)
    assert contract.ask("more", category="{tools}", sids="<a_1>") == ("More of this", "{tools} after <a_1>, {sic}")
    assert contract.write_titles(["x", "y"]) == "x\ny" and contract.write_sids([("<a>",), ("<b>",)]) == "<a><b>"
    contract.write(tmp_path)
    assert read_contract(tmp_path) == contract and contract.wording == "shop"
    joined = Contract.of(WORDING | {"between_sids": ", ", "quote_titles": True})
    assert joined.write_sids([("<a>",), ("<b>",)]) == "<a>, <b>" and joined.write_titles(["x"]) == '"x"'
    assert joined.hash != Contract.of(WORDING).hash
    check_same(joined, joined, "data", "ckpt")
    with pytest.raises(ValueError, match="differ in their wording"):
        check_same(Contract.of(WORDING), joined, "data", "ckpt")


def test_a_wording_of_ours_is_the_same_as_data():
    for name, entry in contracts.WORDINGS.items():
        own, ours = Contract.of({"name": "own", **entry}), Contract.of(name)
        assert replace(own, wording=name) == ours and replace(own, wording=name).hash == ours.hash


BAD_WORDINGS = [
    ({"system": None}, "wording: system must be a text, found None"),
    ({"templates": []}, "wording: templates must be a map"),
    ({"between_sids": 5}, "wording: between_sids must be a text, found 5"),
    ({"quote_titles": "no"}, "wording: quote_titles must be true or false, found 'no'"),
    ({"name": "classic"}, "name must be one of its own, found 'classic'"),
    ({"name": ""}, "name must be one of its own, found ''"),
    ({"tempaltes": {}}, "wording 'shop': there is no key 'tempaltes'"),
    ({"templates": {"more": "one text"}}, "templates.more: must be the two texts"),
    ({"templates": {"more": ("one", 2)}}, "templates.more: must be the two texts"),
    ({"templates": {"more": ("", "{")}}, "templates.more: .*'{'"),
    ({"templates": {"more": ("", "{} and {}")}}, "templates.more: {} is no name of a value"),
    ({"templates": {"more": ("", "{sids.__class__}")}}, "templates.more: {sids.__class__} is no name"),
    ({"templates": {"more": ("", "{sids!q}")}}, "templates.more: {sids!q} is no name"),
    ({"templates": {"more": ("", "{sids:d}")}}, "templates.more: {sids:d} is no name"),
]


@pytest.mark.parametrize(("change", "message"), BAD_WORDINGS)
def test_a_wording_of_another_form_names_its_key(change, message):
    with pytest.raises(ValueError, match=message):
        Contract.of(WORDING | change)
    with pytest.raises(ValueError, match="wording: system is missing"):
        Contract.of({"name": "shop", "templates": {}})
