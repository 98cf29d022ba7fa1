"""A model whose scores are NaN or infinite stops every search, naming the prompt and the step; nothing is ranked."""

import copy

import pytest
import torch

from mimigenrec.decoding import search
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.plain import generate_sids, left_pad
from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.sampling import sample, sample_without_replacement
from mimigenrec.decoding.search import obstacle_to_tree, rank_catalog, recommend, search_sids
from mimigenrec.evaluation.quick import constrained_metrics
from tests.conftest import make_model

TEXTS = ["thing", "a useful thing number", "Which item comes next? <a_2>", "user user"]  # of four lengths


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer.encode(text) for text in TEXTS]


@pytest.fixture
def untied(tokenizer):
    model = make_model(len(tokenizer), tie=False)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


@pytest.fixture
def plain_only(monkeypatch):
    """A model that generate() has to answer for."""
    monkeypatch.setattr(search, "obstacle_to_tree", lambda model, longest: "no tree")


def engine(model, trie, prompts, support="vocab"):
    return search_sids(model, trie, prompts, 3, support, batch_size=2)


SEARCHES = {
    "vocab": engine,
    "trie": lambda *args: engine(*args, "trie"),
    "items": lambda model, trie, prompts: recommend(model, None, trie, prompts, 1, 3, support="trie"),
    "all, vocab": lambda model, trie, prompts: rank_catalog(model, trie, prompts, "vocab", batch_size=2),
    "all, trie": lambda model, trie, prompts: rank_catalog(model, trie, prompts, "trie", batch_size=2),
    "draws": lambda model, trie, prompts: sample(model, trie, prompts, 2),
    "distinct": lambda model, trie, prompts: sample_without_replacement(model, trie, prompts, 2),
    "plain": lambda model, trie, prompts: generate_sids(model, trie, prompts, 3, "vocab"),
    "plain, trie": lambda model, trie, prompts: generate_sids(model, trie, prompts, 3, "trie"),
    "greedy": lambda model, trie, prompts: generate_sids(model, trie, prompts, 1, "vocab"),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", SEARCHES)
def test_one_weight_that_is_not_finite_stops_every_search(untied, trie, prompts, kind, value):
    untied.model.layers[0].mlp.up_proj.weight.data[0, 0] = value
    with pytest.raises(NotFinite, match=r"scores are not finite \(row \d, step 1\), so nothing can be ranked"):
        SEARCHES[kind](untied, trie, prompts)


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_one_prompt_that_meets_it_is_named_by_its_place(untied, trie, prompts, tokenizer, kind):
    word = tokenizer.convert_tokens_to_ids("<a_2>")  # stands in prompt 2 alone
    untied.get_input_embeddings().weight.data[word] = torch.nan
    with pytest.raises(NotFinite) as error:
        SEARCHES[kind](untied, trie, prompts)
    assert (error.value.row, error.value.step) == (2, 1)


def test_generate_names_the_prompt_as_the_engine_does(untied, trie, prompts, tokenizer, plain_only):
    untied.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("<a_2>")] = torch.nan
    with pytest.raises(NotFinite, match="row 2, step 1"):
        engine(untied, trie, prompts)


@pytest.mark.parametrize("kind", ["vocab", "trie", "all, vocab", "plain"])
def test_the_step_is_that_of_the_first_token_of_which_the_model_makes_nan(untied, trie, prompts, tokenizer, kind):
    untied.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("<a_0>")] = torch.nan
    with pytest.raises(NotFinite) as error:
        SEARCHES[kind](untied, trie, prompts[:2])  # <a_0> is in none of them: it is read once it is chosen
    assert error.value.step == 2


@pytest.mark.parametrize("kind", ["vocab", "trie", "plain", "plain, trie"])
def test_a_float16_overflow_of_one_row_alone_is_found(untied, trie, prompts, kind):
    with torch.no_grad():
        ids, mask = left_pad(prompts, trie.pad_id, "cpu")
        logits = untied(input_ids=ids, attention_mask=mask).logits[:, -1].abs()
        legal = trie.level_tokens(0)[:-1] if kind == "trie" else slice(None)
        (first, second), (row, _) = logits[:, legal].amax(dim=1).topk(2)
        untied.get_output_embeddings().weight *= 65504 / (first * second).sqrt()
    with pytest.raises(NotFinite) as error:
        SEARCHES[kind](untied.half(), trie, prompts)
    assert (error.value.row, error.value.step) == (int(row), 1)


def test_what_the_trie_forbids_may_be_anything_where_it_is_not_scored(untied, trie, prompts):
    expected = engine(untied, trie, prompts, "trie")
    untied.get_output_embeddings().weight.data[5] = torch.nan  # no token of a SID
    assert engine(untied, trie, prompts, "trie") == expected


def test_a_processor_before_the_tries_may_forbid_legal_tokens(tiny_model, trie, prompts, tokenizer):
    processor = TrieLogitsProcessor(trie, prompt_length=0)
    scores = torch.zeros(1, len(tokenizer))
    scores[0, tokenizer.convert_tokens_to_ids("<a_0>")] = -torch.inf
    assert processor(torch.zeros(1, 0, dtype=torch.long), scores).isfinite().sum() == 2  # <a_1>, <a_2>
    with pytest.raises(NotFinite):
        processor(torch.zeros(1, 0, dtype=torch.long), scores.fill_(torch.nan))


def test_ranking_metrics_of_a_training_stop_and_leave_the_model_as_it_was(untied, trie, prompts, tokenizer):
    untied.train().model.norm.weight.data[0] = torch.nan
    with pytest.raises(NotFinite):
        constrained_metrics(untied, tokenizer, trie, prompts, ["<a_0><b_0><c_0>"] * len(prompts))
    assert untied.training


def test_a_broken_model_leaves_its_class_its_fast_search(family):
    broken = family("Mistral")
    search._known.pop(type(broken), None)
    good = copy.deepcopy(broken)
    broken.model.norm.weight.data[0] = torch.nan
    assert obstacle_to_tree(broken, 10) is None and obstacle_to_tree(good, 10) is None
