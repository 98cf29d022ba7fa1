"""The search against one forward per prefix (tests/decoding/reference.py)."""

import random

import pytest
import torch

from mimigenrec.catalog import Catalog
from mimigenrec.decoding.search import recommend, search_sids
from mimigenrec.decoding.trie import SidTrie
from tests.conftest import make_model, make_tokenizer
from tests.decoding.reference import beam_search, known_sids, score_all

TEXTS = ["user", "Which item comes next? <a_0><b_1><c_0><a_1><b_2>", "a useful thing <a_1>", "thing number 7"]


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer.encode(text) for text in TEXTS]


def assert_same(found, expected):
    assert [sid for sid, _ in found] == [sid for sid, _ in expected]
    assert [logp for _, logp in found] == pytest.approx([logp for _, logp in expected], abs=1e-4)


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_as_many_beams_as_sids_ranks_the_whole_catalogue_exactly(tiny_model, tokenizer, trie, prompts, support):
    found = search_sids(tiny_model, trie, prompts, beams=7, support=support)
    for prompt, ranked in zip(prompts, found, strict=True):
        assert_same(ranked, score_all(tiny_model, prompt, known_sids(trie), trie.eos_id, support))


def test_probabilities_among_legal_tokens_sum_to_one_over_the_catalogue(tiny_model, tokenizer, trie, prompts):
    for ranked in search_sids(tiny_model, trie, prompts, beams=7, support="trie"):
        assert torch.tensor([logp for _, logp in ranked]).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize("seed", range(4))
def test_random_catalogues_and_few_beams_equal_a_beam_search_in_plain_python(seed, support):
    rng = random.Random(seed)
    names = [[f"<{letter}_{i}>" for i in range(4)] for letter in "abcd"]
    drawn = [[rng.choice(level) for level in names[: rng.randint(1, 4)]] for _ in range(25)]
    tokenizer = make_tokenizer(sid_tokens=[name for level in names for name in level])
    model = make_model(len(tokenizer), seed=seed)
    trie = SidTrie.from_sids({str(i): tuple(sid) for i, sid in enumerate(drawn)}, tokenizer)
    prompts = [tokenizer.encode(text) for text in ("user thing", "a")]
    for beams in (1, 2, 5, 60):
        found = search_sids(model, trie, prompts, beams, support)
        for prompt, ranked in zip(prompts, found, strict=True):
            assert_same(ranked, beam_search(model, prompt, known_sids(trie), trie.eos_id, beams, support))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_batch_of_mixed_prompts_equals_one_by_one(tiny_model, tokenizer, trie, prompts, batch_size):
    together = search_sids(tiny_model, trie, prompts, 3, batch_size=batch_size)
    for prompt, ranked in zip(prompts, together, strict=True):
        assert_same(ranked, search_sids(tiny_model, trie, [prompt], 3)[0])


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_more_beams_than_sids_give_each_sid_once_and_nothing_else(tiny_model, tokenizer, trie, prompts, support):
    for ranked in search_sids(tiny_model, trie, prompts, beams=50, support=support):
        assert sorted(sid for sid, _ in ranked) == sorted(known_sids(trie))
        assert all(logp > -1000 for _, logp in ranked)


def test_k_larger_than_the_catalogue_returns_every_item_once(tiny_model, tokenizer, toy, trie, prompts):
    for items in recommend(tiny_model, tokenizer, trie, prompts, k=50, beams=50):
        assert sorted(r.item for r in items) == sorted(toy.sids)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_generation_config_the_model_carries_changes_nothing(tokenizer, trie, prompts, beams):
    model = make_model(len(tokenizer))
    plain = search_sids(model, trie, prompts, beams)
    config = model.generation_config
    config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1)
    config.update(length_penalty=2.0, early_stopping=True, no_repeat_ngram_size=1, max_length=3, min_new_tokens=9)
    config.update(eos_token_id=[trie.eos_id, trie.largest_token], bad_words_ids=[[trie.largest_token]])
    config.transformers_version = "4.57.6"
    before = config.to_dict()
    assert search_sids(model, trie, prompts, beams) == plain
    assert model.generation_config.to_dict() == before


def test_items_of_one_sid_follow_each_other_and_k_counts_items(tiny_model, tokenizer, trie, prompts):
    items = recommend(tiny_model, tokenizer, trie, prompts, k=8, beams=8)
    for ranked in items:
        order = [r.item for r in ranked]
        assert order.index("2") == order.index("3") + 1  # "3" is the more popular
        by_item = {r.item: r for r in ranked}
        assert by_item["2"].sid == by_item["3"].sid == ("<a_0>", "<b_1>", "<c_0>")
        assert by_item["2"].logp == by_item["3"].logp
    for k in range(1, 8):
        cut = recommend(tiny_model, tokenizer, trie, prompts, k=k, beams=8)
        assert cut == [ranked[:k] for ranked in items]


def test_a_filter_never_shortens_the_list(tiny_model, tokenizer, trie, prompts):
    best = [r.item for r in recommend(tiny_model, tokenizer, trie, prompts[:1], k=4, beams=4)[0]]
    items = recommend(tiny_model, tokenizer, trie, prompts[:1], k=4, beams=4, deny=set(best))[0]
    assert sorted([*best, *(r.item for r in items)]) == [str(i) for i in range(8)]
    assert recommend(tiny_model, tokenizer, trie, prompts[:1], k=4, beams=4, deny=iter(best))[0] == items


def test_each_prompt_may_have_its_own_filters(tiny_model, tokenizer, toy, trie, prompts):
    allow = [None, {"0", "7", "2"}, {"1"}, set()]
    deny = [{"5", "3"}, {"7"}, None, None]
    found = recommend(tiny_model, tokenizer, trie, prompts, k=8, beams=8, allow_each=allow, deny_each=deny)
    assert [{r.item for r in ranked} for ranked in found] == [set("012467"), {"0", "2"}, {"1"}, set()]
    same = recommend(tiny_model, tokenizer, trie, prompts[:1], k=8, beams=8, deny={"5", "3"})
    assert [r.item for r in same[0]] == [r.item for r in found[0]]


def test_a_filtered_score_under_the_vocabulary_is_the_unfiltered_one(tiny_model, tokenizer, trie, prompts):
    everything = recommend(tiny_model, tokenizer, trie, prompts, k=8, beams=8)
    filtered = recommend(tiny_model, tokenizer, trie, prompts, k=8, beams=8, deny=["0", "6"])
    assert isinstance(everything, list)
    for all_items, left in zip(everything, filtered, strict=True):
        expected = [(r.item, r.logp) for r in all_items if r.item not in ("0", "6")]
        assert [r.item for r in left] == [item for item, _ in expected]
        assert [r.logp for r in left] == pytest.approx([logp for _, logp in expected], abs=1e-4)


def test_a_catalogue_of_one_item(tiny_model, tokenizer, prompts):
    trie = SidTrie.from_sids({"x": ("<a_1>", "<b_2>")}, tokenizer)
    for ranked in recommend(tiny_model, tokenizer, trie, prompts, k=3, beams=3, support="trie"):
        assert [(r.item, r.logp) for r in ranked] == [("x", pytest.approx(0.0, abs=1e-6))]


def test_ids_of_items_come_from_the_catalogue_whatever_they_look_like(tiny_model, tokenizer, prompts):
    trie = SidTrie.from_catalog(Catalog({"B00 /x": ("<a_0>",), "é": ("<a_1>",)}), tokenizer)
    found = recommend(tiny_model, tokenizer, trie, prompts[:1], k=2, beams=2)[0]
    assert {r.item for r in found} == {"B00 /x", "é"}


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"k": 0}, "k=0"),
        ({"k": 5, "beams": 4}, "beams=4 cannot give k=5"),
        ({"support": "sid"}, "support 'sid'"),
        ({"deny": [{"1"}, {"2"}]}, "a filter for each prompt is deny_each"),
        ({"allow_each": [{"1"}]}, "allow_each needs item ids, or None, for each of the 3 prompts"),
        ({"deny_each": ["1", "2", "3"]}, "deny_each needs item ids"),
        ({"deny": {"1"}, "deny_each": [None] * 3}, "deny and deny_each are given"),
        ({"prompts": [[5], []]}, "prompt 1 is empty"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(tiny_model, tokenizer, trie, wrong, what):
    arguments = {"prompts": [[5], [6], [7]], "k": 2, "beams": 4} | wrong
    with pytest.raises(ValueError, match=what):
        recommend(tiny_model, tokenizer, trie, **arguments)


def test_no_prompt_gives_no_answer(tiny_model, tokenizer, trie):
    assert recommend(tiny_model, tokenizer, trie, [], k=1, beams=1) == []


def test_prompts_share_a_forward_only_as_far_as_memory_is_meant_to_go(tiny_model, trie, prompts, monkeypatch):
    from mimigenrec.decoding import search
    from mimigenrec.decoding.tree import tree_bytes

    expected, seen = search_sids(tiny_model, trie, prompts, 4, batch_size=len(prompts)), []
    whole = search.beam_search
    monkeypatch.setattr(search, "beam_search", lambda *args: seen.append(len(args[2])) or whole(*args))
    monkeypatch.setattr(search, "BUDGET", 2 * tree_bytes(tiny_model, max(map(len, prompts)), 4, 4 * trie.depth))
    found = search_sids(tiny_model, trie, prompts, 4, batch_size=len(prompts))
    assert max(seen) == 2 and sum(seen) == len(prompts)
    assert [[sid for sid, _ in ranked] for ranked in found] == [[sid for sid, _ in ranked] for ranked in expected]
