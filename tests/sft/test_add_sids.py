import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mimigenrec.files import read_json, write_json
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sids.tokens import distinct_tokens
from tests.conftest import make_model, make_tokenizer
from tests.sft.conftest import save_base


def prepare(base, data, output, **config):
    return add_sids(AddSidsConfig(str(base), data / "new_tokens.json", output, **config))


def matrices(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("spare", [0, 30, 100])
def test_old_rows_stay_and_every_sid_has_a_row_of_its_own(tmp_path, data, toy, spare, tie):
    base = save_base(tmp_path / "base", spare, tie)
    facts = prepare(base, data, tmp_path / "out")
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = [after.convert_tokens_to_ids(token) for token in distinct_tokens(toy.sids)]
    assert ids == list(range(len(before), len(after))) and facts["tied"] == tie
    for old, new in zip(matrices(base), matrices(tmp_path / "out"), strict=True):
        assert torch.equal(new[: len(before)], old[: len(before)])
        mean, spread = old[: len(before)].mean(0), old[: len(before)].std(0)
        far = (new[ids] - mean) / spread  # (SIDs, hidden), standard normal
        assert 0.7 < far.std() < 1.3 and torch.unique(new[ids], dim=0).shape == new[ids].shape
        torch.testing.assert_close(new[len(after) :], mean.expand(len(new) - len(after), -1))
    embeddings, head = matrices(tmp_path / "out")
    assert (embeddings.data_ptr() == head.data_ptr()) == tie


def test_tokens_are_ordinary_ones_that_survive_decoding(tmp_path, data):
    prepare(save_base(tmp_path / "base", 30, True), data, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("<a_1><b_2><c_1>", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3 and tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "<a_1><b_2><c_1>"


def test_text_starts_from_the_mean_row_of_the_words_of_its_titles(tmp_path, data):
    base = save_base(tmp_path / "base", 30, False)
    facts = prepare(base, data, tmp_path / "out", init="text")
    old = AutoTokenizer.from_pretrained(base)
    words = [*old("thing number 5")["input_ids"], *old("thing number 6")["input_ids"]]  # the items with <b_2>
    row = AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("<b_2>")
    for before, after in zip(matrices(base), matrices(tmp_path / "out"), strict=True):
        torch.testing.assert_close(after[row], before[words].mean(0))
    assert facts["added"] - facts["started_from_titles"] == 2  # <a_2> and <c_3> are of item 7 alone, without a title


def test_preparing_a_prepared_base_changes_nothing(tmp_path, data):
    prepare(save_base(tmp_path / "base", 30, True), data, tmp_path / "one")
    facts = prepare(tmp_path / "one", data, tmp_path / "two", seed=7)
    assert facts["added"] == 0 and facts["already_there"] == 10
    assert torch.equal(matrices(tmp_path / "one")[0], matrices(tmp_path / "two")[0])
    assert len(AutoTokenizer.from_pretrained(tmp_path / "one")) == len(AutoTokenizer.from_pretrained(tmp_path / "two"))


def test_more_tokens_keep_the_rows_of_those_already_there(tmp_path, data):
    prepare(save_base(tmp_path / "base", 0, True), data, tmp_path / "one")
    tokens = [*read_json(data / "new_tokens.json", "test"), "<d_0>"]
    write_json(data / "new_tokens.json", tokens)
    facts = prepare(tmp_path / "one", data, tmp_path / "two")
    known = facts["tokens"] - 1
    assert facts["added"] == 1
    assert torch.equal(matrices(tmp_path / "one")[0][:known], matrices(tmp_path / "two")[0][:known])


def test_same_seed_same_rows_and_an_earlier_result_is_replaced(tmp_path, data):
    base = save_base(tmp_path / "base", 30, True)
    prepare(base, data, tmp_path / "out", seed=1)
    first = matrices(tmp_path / "out")[0].clone()
    prepare(base, data, tmp_path / "out", seed=2)
    assert not torch.equal(first, matrices(tmp_path / "out")[0])
    prepare(base, data, tmp_path / "out", seed=1)
    assert torch.equal(first, matrices(tmp_path / "out")[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "data", "out"]


def test_untie_gives_the_head_a_copy(tmp_path, data):
    assert not prepare(save_base(tmp_path / "base", 30, True), data, tmp_path / "out", untie=True)["tied"]
    embeddings, head = matrices(tmp_path / "out")
    assert torch.equal(embeddings, head) and embeddings.data_ptr() != head.data_ptr()
    assert read_json(tmp_path / "out" / "config.json", "test")["tie_word_embeddings"] is False


def test_untie_works_on_a_base_that_has_all_tokens(tmp_path, data):
    prepare(save_base(tmp_path / "base", 30, True), data, tmp_path / "one")
    assert not prepare(tmp_path / "one", data, tmp_path / "two", untie=True)["tied"]


def test_dtype_is_kept(tmp_path, data):
    base = save_base(tmp_path / "base", 0, True)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    prepare(base, data, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_catalogue_items_and_contract_come_along(tmp_path, data):
    prepare(save_base(tmp_path / "base", 0, True), data, tmp_path / "out")
    for name in ("id2sid.json", "items.json", "prompt_contract.json"):
        assert (tmp_path / "out" / name).read_bytes() == (data / name).read_bytes()
    assert read_json(tmp_path / "out" / "manifest.json", "test")["added"] == 10


def test_a_foreign_output_is_refused(tmp_path, data):
    base = save_base(tmp_path / "base", 0, True)
    with pytest.raises(FileExistsError, match="base holds something"):
        prepare(base, data, base)


def test_a_missing_base_is_named(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="saves/base/none"):
        prepare("saves/base/none", data, tmp_path / "out")


def test_missing_or_broken_tokens_are_named(tmp_path, data):
    base = save_base(tmp_path / "base", 0, True)
    (data / "new_tokens.json").write_text("[1")
    with pytest.raises(ValueError, match="new_tokens.json is not JSON"):
        prepare(base, data, tmp_path / "out")
    (data / "new_tokens.json").unlink()
    with pytest.raises(FileNotFoundError, match="new_tokens.json is missing"):
        prepare(base, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_text_without_titles_says_what_to_do(tmp_path, data):
    (data / "items.json").unlink()
    with pytest.raises(FileNotFoundError, match="--init noise"):
        prepare(save_base(tmp_path / "base", 0, True), data, tmp_path / "out", init="text")


def test_a_sid_that_the_tokenizer_has_as_special_token_is_refused(tmp_path, data):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<a_0>"]})
    make_model(len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="<a_0> as special token"):
        prepare(tmp_path / "base", data, tmp_path / "out")


def test_killed_while_writing_leaves_the_earlier_result_whole(tmp_path, data, monkeypatch):
    base = save_base(tmp_path / "base", 0, True)
    prepare(base, data, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    monkeypatch.setattr("mimigenrec.sft.add_sids.write_manifest", lambda *a, **k: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError):
        prepare(base, data, tmp_path / "out", seed=9)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["seed"] == 42
