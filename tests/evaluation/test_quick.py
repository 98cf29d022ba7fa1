"""The validation metric against ranks taken from the search by hand."""

import math

import pytest

from mimigenrec.decoding.search import search_sids
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.evaluation.quick import constrained_metrics

PROMPTS = [[5, 6, 7], [9, 8], [5, 5, 5, 5]]


@pytest.fixture(scope="module")
def trie(toy, tokenizer):
    return SidTrie.from_catalog(toy, tokenizer)


def sid_at(tiny_model, tokenizer, trie, prompt, place):
    (ranked,) = search_sids(tiny_model, trie, [prompt], beams=7)
    return "".join(tokenizer.convert_ids_to_tokens(list(ranked[place][0])))


def test_targets_put_at_ranks_1_and_3_and_a_miss_by_hand(tiny_model, tokenizer, trie):
    places = [(PROMPTS[0], 0), (PROMPTS[1], 2)]
    targets = [*(sid_at(tiny_model, tokenizer, trie, *place) for place in places), ""]
    found = constrained_metrics(tiny_model, tokenizer, trie, PROMPTS, targets, ks=(2, 7), batch_size=2)
    assert found == {
        "hr@2": pytest.approx(1 / 3),
        "ndcg@2": pytest.approx(1 / 3),
        "hr@7": pytest.approx(2 / 3),
        "ndcg@7": pytest.approx((1 + 1 / math.log2(4)) / 3),
    }


def test_the_catalogue_may_be_smaller_than_k(tiny_model, tokenizer, trie, toy):
    targets = ["".join(toy.sids[item]) for item in ("0", "5", "6")]
    assert constrained_metrics(tiny_model, tokenizer, trie, PROMPTS, targets)["hr@10"] == 1.0


def test_a_model_in_training_is_measured_without_dropout_and_left_in_training(tiny_model, tokenizer, trie):
    targets = [sid_at(tiny_model, tokenizer, trie, prompt, 0) for prompt in PROMPTS]
    tiny_model.train()
    try:
        assert constrained_metrics(tiny_model, tokenizer, trie, PROMPTS, targets, ks=(1, 7))["hr@1"] == 1.0
        assert tiny_model.training
    finally:
        tiny_model.eval()


def test_no_prompt_and_a_missing_target_are_refused(tiny_model, tokenizer, trie):
    for prompts, targets in (([], []), (PROMPTS, ["", ""])):
        with pytest.raises(ValueError, match="each prompt needs its target"):
            constrained_metrics(tiny_model, tokenizer, trie, prompts, targets)
