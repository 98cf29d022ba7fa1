import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mimigenrec.cli import parse
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sids.tokens import distinct_tokens, write_index, write_new_tokens
from mimigenrec.vectors.store import write_vectors
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


def test_same_seed_same_rows_and_an_earlier_result_is_replaced_if_asked(tmp_path, data, capsys):
    base = save_base(tmp_path / "base", 30, True)
    prepare(base, data, tmp_path / "out", seed=1)
    first = matrices(tmp_path / "out")[0].clone()
    with pytest.raises(UserError, match="seed: 1 then, 2 now.*--overwrite"):
        prepare(base, data, tmp_path / "out", seed=2)
    prepare(base, data, tmp_path / "out", seed=2, overwrite=True)
    assert not torch.equal(first, matrices(tmp_path / "out")[0])
    prepare(base, data, tmp_path / "out", seed=1, overwrite=True)
    written = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert prepare(base, data, tmp_path / "out", seed=1)["added"] == prepare(base, data, tmp_path / "o")["added"]
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == written
    assert torch.equal(first, matrices(tmp_path / "out")[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "data", "o", "out"]
    (data / "items.json").write_text("{}")  # a companion of the result
    with pytest.raises(UserError, match="toy/items.json: .* then"):
        prepare(base, data, tmp_path / "out", seed=1)


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
    with pytest.raises(UserError, match="base holds something"):
        prepare(base, data, base)


def test_a_missing_base_is_named(tmp_path, data):
    with pytest.raises(UserError, match="--base 'saves/base/none' is not a folder here"):
        prepare("saves/base/none", data, tmp_path / "out")


def test_a_base_without_weights_or_cut_short_is_named(tmp_path, data):
    base = save_base(tmp_path / "base", 0, True)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="model.safetensors is cut short or damaged"):
        prepare(base, data, tmp_path / "out")
    weights.unlink()
    with pytest.raises(UserError, match="--base .* holds no weights"):
        prepare(base, data, tmp_path / "out")
    save_base(base, 0, True)
    (base / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer.json is not JSON"):
        prepare(base, data, tmp_path / "out")
    for path in [*base.glob("*token*"), *base.glob("vocab*"), *base.glob("merges*")]:
        path.unlink()
    with pytest.raises(UserError, match="base holds no tokenizer"):
        prepare(base, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["nan", "0", "-1", "inf"])
def test_a_vector_scale_that_is_none_is_refused(value, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(AddSidsConfig, argv=["--base", "b", "--tokens", "t", "--output", "o", "--vector_scale", value])
    assert ended.value.code == 2 and "--vector_scale is" in capsys.readouterr().err


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
    monkeypatch.setattr("mimigenrec.sft.add_sids.write_json", lambda *a, **k: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError):
        prepare(base, data, tmp_path / "out", seed=9, overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["seed"] == 42


def with_vectors(data, toy, dim=6, values=None):
    """--init vectors and the file of the toy's item vectors; values (items, dim), random if not given."""
    values = np.random.default_rng(0).normal(size=(len(toy.sids), dim)) if values is None else values
    path = data / "toy.emb-x.npy"
    write_vectors(path, values.astype(np.float32), list(toy.sids), model="x", normalised=False)
    return {"init": "vectors", "vectors": path}


def closeness(data, toy, tokens, axes):
    """(tokens, tokens) inner products of the tokens' centred mean vectors, the `axes` strongest directions of them.

    By the eigenvectors of the Gram matrix; the code under test takes the singular vectors.
    """
    vectors = dict(zip(toy.sids, np.load(data / "toy.emb-x.npy").astype(np.float64), strict=True))
    means = np.array([np.mean([vectors[i] for i, sid in toy.sids.items() if t in sid], axis=0) for t in tokens])
    centred = means - means.mean(0)
    values, directions = np.linalg.eigh(centred @ centred.T)
    strongest = directions[:, -axes:]
    return strongest * values[-axes:] @ strongest.T


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("dim", [1, 6, 48])
@pytest.mark.parametrize("shape", [{}, {"hidden_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1}])
def test_rows_from_vectors_lie_as_the_vectors_do_on_their_strongest_axes(tmp_path, data, toy, shape, dim, tie):
    """Hidden 32 holds all 7 axes of 8 items, hidden 4 the strongest of them."""
    base = save_base(tmp_path / "base", 30, tie, **shape)
    prepare(base, data, tmp_path / "out", **with_vectors(data, toy, dim), vector_scale=3.0)
    tokens = distinct_tokens(toy.sids)
    known = len(AutoTokenizer.from_pretrained(base))
    hidden = shape.get("hidden_size", 32)
    wanted = closeness(data, toy, tokens, min(hidden, dim))
    for old, new in zip(matrices(base), matrices(tmp_path / "out"), strict=True):
        assert torch.equal(new[:known], old[:known])
        rows = new[known : known + len(tokens)].double().numpy()
        assert rows.std() == pytest.approx(3.0 * old[:known].std().item(), rel=1e-5)
        assert rows.mean(0) == pytest.approx(np.zeros(hidden), abs=1e-6)
        found = rows @ rows.T
        np.testing.assert_allclose(found / np.trace(found), wanted / np.trace(wanted), atol=1e-6)


def test_rows_from_vectors_are_principal_axes_the_strongest_first(tmp_path, data, toy):
    prepare(save_base(tmp_path / "base"), data, tmp_path / "out", **with_vectors(data, toy))
    rows = matrices(tmp_path / "out")[0][len(AutoTokenizer.from_pretrained(tmp_path / "base")) :][:10].double().numpy()
    together = rows.T @ rows  # (hidden, hidden): no two columns say the same
    strengths = together.diagonal()
    np.testing.assert_allclose(together, np.diag(strengths), atol=1e-6 * strengths.max())
    assert (np.diff(strengths[:6]) < 0).all() and not strengths[6:].any()


def test_distances_between_rows_are_those_between_the_vectors_of_one_token_items(tmp_path, data, toy):
    """A token per item, as quantise --method item_tokens gives it."""
    sids = {item: (f"<a_{i}>",) for i, item in enumerate(toy.sids)}
    write_index(data / "id2sid.json", sids)
    write_new_tokens(data / "new_tokens.json", sids)
    prepare(save_base(tmp_path / "base"), data, tmp_path / "out", **with_vectors(data, toy))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    rows = matrices(tmp_path / "out")[0][[tokenizer.convert_tokens_to_ids(*sids[item]) for item in sids]]
    vectors = torch.from_numpy(np.load(data / "toy.emb-x.npy"))
    far, wanted = torch.pdist(rows), torch.pdist(vectors)
    torch.testing.assert_close(far / far.sum(), wanted / wanted.sum(), rtol=1e-4, atol=0)


def test_a_token_without_items_keeps_the_noise_that_it_would_have_had(tmp_path, data, toy):
    base = save_base(tmp_path / "base")
    write_json(data / "new_tokens.json", [*read_json(data / "new_tokens.json", "test"), "<z_0>"])
    prepare(base, data, tmp_path / "noise")
    prepare(base, data, tmp_path / "vectors", **with_vectors(data, toy))
    last = AutoTokenizer.from_pretrained(tmp_path / "noise").convert_tokens_to_ids("<z_0>")
    noise, vectors = (matrices(tmp_path / name)[0] for name in ("noise", "vectors"))
    assert torch.equal(noise[last:], vectors[last:])  # and the padding behind it
    assert (noise[last - 10 : last] != vectors[last - 10 : last]).any(1).all()


def test_rows_from_vectors_go_into_new_tokens_alone(tmp_path, data, toy):
    base = save_base(tmp_path / "base", sid_tokens=["<a_0>", "<a_1>"])
    facts = prepare(base, data, tmp_path / "out", **with_vectors(data, toy))
    known = len(AutoTokenizer.from_pretrained(base))
    assert (facts["added"], facts["already_there"]) == (8, 2)
    assert torch.equal(matrices(tmp_path / "out")[0][:known], matrices(base)[0][:known])


def test_the_same_vectors_give_the_same_file_in_any_dtype_and_with_any_seed(tmp_path, data, toy):
    base = save_base(tmp_path / "base")
    told = with_vectors(data, toy)
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        prepare(base, data, tmp_path / name, **told, seed=seed)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert files[0] == files[1] == files[2]  # all ten tokens have items: none is left to chance
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    prepare(base, data, tmp_path / "half", **told)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16
    torch.testing.assert_close(
        matrices(tmp_path / "half")[0].float(), matrices(tmp_path / "one")[0], rtol=0.03, atol=0.02
    )


def test_the_manifest_names_what_rows_started_from(tmp_path, data, toy):
    told = with_vectors(data, toy)
    prepare(save_base(tmp_path / "base"), data, tmp_path / "out", **told)
    manifest = read_json(tmp_path / "out" / "manifest.json", "test")
    assert {str(told["vectors"]), str(data / "id2sid.json"), str(data / "items.json")} <= set(manifest["inputs"])
    assert manifest["config"]["init"] == "vectors" and manifest["config"]["vector_scale"] == 1.0


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_vectors_that_are_all_alike_are_refused(tmp_path, data, toy, value):
    told = with_vectors(data, toy, values=np.full((8, 6), value))
    with pytest.raises(ValueError, match="of 10 new SID tokens 10 have a vector, and no two of these differ"):
        prepare(save_base(tmp_path / "base"), data, tmp_path / "out", **told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tokens", [["<z_0>"], ["<z_0>", "<z_1>"]])
def test_new_tokens_that_no_item_carries_are_refused_vectors(tmp_path, data, toy, tokens):
    base = save_base(tmp_path / "base", sid_tokens=distinct_tokens(toy.sids))
    write_json(data / "new_tokens.json", [*distinct_tokens(toy.sids), *tokens])
    with pytest.raises(ValueError, match=f"of {len(tokens)} new SID tokens 0 have a vector.*--init noise"):
        prepare(base, data, tmp_path / "out", **with_vectors(data, toy))


def test_vectors_and_init_vectors_go_together(tmp_path, data, toy):
    base, told = save_base(tmp_path / "base"), with_vectors(data, toy)
    with pytest.raises(ValueError, match="--init vectors with --vectors None"):
        prepare(base, data, tmp_path / "out", init="vectors")
    for init in ("noise", "text"):
        with pytest.raises(ValueError, match=f"--init {init} with --vectors .*toy.emb-x.npy"):
            prepare(base, data, tmp_path / "out", init=init, vectors=told["vectors"])
    assert not (tmp_path / "out").exists()


def test_vectors_of_other_items_are_refused(tmp_path, data, toy):
    base, told = save_base(tmp_path / "base"), with_vectors(data, toy)
    np.save(tmp_path / "short.npy", np.ones((7, 6), np.float32))
    with pytest.raises(ValueError, match="short.npy has 7 rows for 8 items"):
        prepare(base, data, tmp_path / "out", init="vectors", vectors=tmp_path / "short.npy")
    others = [str(i) for i in range(1, 9)]
    write_vectors(tmp_path / "other.npy", np.eye(8, dtype=np.float32), others, model="x", normalised=False)
    with pytest.raises(ValueError, match="other.npy was made for 8 items in another order or with other ids"):
        prepare(base, data, tmp_path / "out", init="vectors", vectors=tmp_path / "other.npy")
    (data / "items.json").unlink()
    with pytest.raises(FileNotFoundError, match="items.json is missing"):
        prepare(base, data, tmp_path / "out", **told)
