"""Denied items and given beginnings as blocked nodes, against the search in the trie without those items."""

import random

import pytest
import torch

from mimigenrec.decoding.beam import beam_search
from mimigenrec.decoding.filters import NOTHING, blocked_keys, is_blocked, prefix_keys
from mimigenrec.decoding.search import recommend, search_sids, to_lists
from mimigenrec.decoding.trie import SidTrie
from tests.decoding.reference import assert_same_lists


@pytest.fixture(scope="module")
def toy_trie(toy, tokenizer):
    return SidTrie.from_catalog(toy, tokenizer)


def test_a_node_is_blocked_when_every_sid_below_it_is_and_an_eos_when_all_its_items_are(toy_trie):
    """Nodes: 0 root; 1-3 a_0 a_1 a_2; 4-5 b_0 b_1 of a_0; 6-7 b_0 b_2 of a_1; 8 b_1 of a_2; 9-14 leaves.

    SIDs in node order: 0 is "5" (a_1 b_2, which goes on to "6"), then leaves 9 "0", 10 "1", 11 "2" and "3", 12 "4",
    13 "6", 14 "7".
    """
    end = toy_trie.n_nodes + 1
    assert toy_trie.n_nodes == 15 and toy_trie.items[0] == ("5",)
    rows = blocked_keys(toy_trie, [{"7"}, {"2"}, {"2", "3"}, {"5"}, {"5", "6"}, None, {"nobody"}]).tolist()
    keys = [[key for key in row if key != NOTHING] for row in rows]
    assert keys[0] == [3, 8, 14, end + 6]
    assert keys[1] == []  # "3" shares its SID and stays
    assert keys[2] == [5, 11, end + 3]
    assert keys[3] == [end]  # its node leads on to "6"
    assert keys[4] == [7, 13, end, end + 5]
    assert keys[5] == keys[6] == []


def test_only_the_prompts_own_keys_count(toy_trie):
    blocked = blocked_keys(toy_trie, [{"7"}, {"5"}])
    parent = torch.tensor([[0, 7], [0, 7]])
    node = torch.tensor([[[1, 3], [13, toy_trie.DONE]]] * 2)
    found = is_blocked(toy_trie, blocked, parent, node).tolist()
    assert found == [[[False, True], [False, False]], [[False, False], [False, True]]]


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("beams", [4, 60])
def test_denied_items_give_the_list_of_the_trie_without_them(
    support, share, beams, family, wide_trie, wide_prompts, wide_tokenizer
):
    rng, model = random.Random(share), family("Qwen2")
    denied = [{str(i) for i in range(60) if rng.random() < share} for _ in wide_prompts]
    found = search_sids(model, wide_trie, wide_prompts, beams, support, deny=denied)
    expected = [
        search_sids(model, wide_trie.subset(deny=items), [prompt], beams, support)[0]
        for items, prompt in zip(denied, wide_prompts, strict=True)
    ]
    assert_same_lists(found, expected)


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_all_items_denied_give_an_empty_list_and_disturb_no_neighbour(support, family, wide_trie, wide_prompts):
    model, everything = family("Qwen2"), {str(i) for i in range(60)}
    prompts = wide_prompts[:3]
    found = search_sids(model, wide_trie, prompts, 5, support, deny=[None, everything, {"0"}])
    assert found[1] == []
    assert_same_lists(found[:1], search_sids(model, wide_trie, prompts[:1], 5, support))
    assert search_sids(model, wide_trie, prompts, 5, support, deny=[everything] * 3) == [[], [], []]


def test_a_model_left_to_generate_obeys_the_same_filters(family, wide_trie, wide_prompts):
    denied = [{"3", "9"}, None, {str(i) for i in range(60)}, {str(i) for i in range(50)}, set()]
    lists = [
        search_sids(family("Mistral", sliding_window=window), wide_trie, wide_prompts, 4, deny=denied)
        for window in (8, None)
    ]
    assert [len(ranked) for ranked in lists[0]] == [len(ranked) for ranked in lists[1]]
    assert lists[0][2] == []


def test_a_shared_sid_is_recommended_with_the_items_that_are_left(tiny_model, tokenizer, toy_trie):
    prompts = [[5, 6], [7, 8]]
    found = recommend(tiny_model, tokenizer, toy_trie, prompts, k=8, beams=8, deny_each=[{"3"}, {"2", "3"}])
    assert [sorted(r.item for r in ranked) for ranked in found] == [list("0124567"), list("014567")]


def test_a_beginning_blocks_its_siblings_and_the_sids_that_end_on_the_way(toy_trie, tokenizer):
    a0, a1, b2, c1 = tokenizer.convert_tokens_to_ids(["<a_0>", "<a_1>", "<b_2>", "<c_1>"])
    end = toy_trie.n_nodes + 1
    rows = prefix_keys(toy_trie, [[a0], [a1, b2], [a1, b2, c1], []]).tolist()
    keys = [[key for key in row if key != NOTHING] for row in rows]
    assert keys == [[2, 3], [1, 3, 6], [1, 3, 6, end], []]  # "5" is a_1 b_2 and ends on the way to "6"
    with pytest.raises(ValueError, match=f"no SID begins with the token ids .{a0}, {b2}"):
        prefix_keys(toy_trie, [[a1], [a0, b2]])


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_below_a_beginning_the_search_is_that_of_the_trie_of_its_items(
    support, length, family, wide_trie, wide_prompts
):
    """Scores inside the trie are those below the beginning; over the vocabulary they hold the beginning too."""
    model, rng = family("Qwen2"), random.Random(length)
    sids = wide_trie.sid_tokens(torch.arange(wide_trie.n_sids)).tolist()
    prefixes = [[t for t in rng.choice(sids)[:length] if t >= 0] for _ in wide_prompts]
    with torch.no_grad():
        found = beam_search(model, wide_trie, wide_prompts, 6, support, None, prefix_keys(wide_trie, prefixes))
    expected = []
    for prefix, prompt in zip(prefixes, wide_prompts, strict=True):
        below = [item for sid, items in zip(sids, wide_trie.items, strict=True) for item in items
                 if sid[: len(prefix)] == prefix]  # fmt: skip
        expected += search_sids(model, wide_trie.subset(allow=below), [prompt], 6, support)
    assert_same_lists(to_lists(wide_trie, *found), expected)
