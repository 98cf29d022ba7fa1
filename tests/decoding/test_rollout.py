import math
from collections import Counter

import pytest
import torch

from mimigenrec.chat import prompt_ids
from mimigenrec.decoding.rollout import roll_out
from mimigenrec.decoding.search import search_sids
from mimigenrec.decoding.trie import SidTrie
from tests.conftest import make_model

PLAIN = {"temperature": 1.0, "top_p": 1.0, "top_k": None, "min_p": None, "repetition_penalty": 1.0}


@pytest.fixture
def trie(toy, tokenizer):
    return SidTrie.from_catalog(toy, tokenizer)


@pytest.fixture
def prompts(tokenizer):
    return prompt_ids(tokenizer, [[{"role": "user", "content": text}] for text in ("<a_0><b_1><c_0>", "a", "b c d")])


@pytest.fixture
def legal(toy, tokenizer):
    return {(*tokenizer.convert_tokens_to_ids(list(sid)), tokenizer.eos_token_id) for sid in toy.sids.values()}


@pytest.mark.parametrize("rollout", ["beam", "sample", "distinct", "mixed"])
def test_every_rollout_is_an_item_closed_by_eos(rollout, tiny_model, tokenizer, trie, prompts, legal):
    groups = roll_out(tiny_model, trie, prompts, 5, rollout, "vocab", PLAIN, batch_size=2)
    assert [len(group) for group in groups] == [5, 5, 5]
    assert {tuple(tokens) for group in groups for tokens in group} <= legal


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_beams_are_the_search_best_first_and_all_different(support, tiny_model, tokenizer, trie, prompts, legal):
    groups = roll_out(tiny_model, trie, prompts, 7, "beam", support, PLAIN, batch_size=2)
    found = search_sids(tiny_model, trie, prompts, 7, support)
    assert [[tuple(tokens[:-1]) for tokens in group] for group in groups] == [[sid for sid, _ in g] for g in found]
    assert all({tuple(tokens) for tokens in group} == legal for group in groups)


def test_mixed_is_the_best_half_then_draws(tiny_model, tokenizer, trie, prompts):
    mixed = roll_out(tiny_model, trie, prompts, 5, "mixed", "vocab", PLAIN, batch_size=8)
    beams = roll_out(tiny_model, trie, prompts, 3, "beam", "vocab", PLAIN, batch_size=8)
    assert [group[:3] for group in mixed] == beams


def test_draws_follow_the_policy_among_the_legal_tokens(tiny_model, tokenizer, trie, prompts):
    torch.manual_seed(0)
    n = 4000
    [group] = roll_out(tiny_model, trie, prompts[:1], n, "sample", "vocab", PLAIN, batch_size=1)
    counts = Counter(tuple(tokens[:-1]) for tokens in group)
    [ranked] = search_sids(tiny_model, trie, prompts[:1], 7, "trie")
    for sid, logp in ranked:
        p = math.exp(logp)
        assert abs(counts[sid] / n - p) < 4 * math.sqrt(p * (1 - p) / n) + 1e-9


def test_distinct_draws_of_a_group_are_all_different_and_vary_with_the_seed(tiny_model, tokenizer, trie, prompts):
    groups = []
    for seed in range(8):
        torch.manual_seed(seed)
        groups += roll_out(tiny_model, trie, prompts, 3, "distinct", "vocab", PLAIN, batch_size=2)
    assert all(len({tuple(tokens) for tokens in group}) == 3 for group in groups)
    assert len({tuple(map(tuple, group)) for group in groups[::3]}) > 1


@pytest.mark.parametrize("rollout", ["sample", "distinct", "mixed"])
def test_the_same_state_of_the_global_generator_gives_the_same_draws(rollout, tiny_model, tokenizer, trie, prompts):
    def draw():
        return roll_out(tiny_model, trie, prompts, 5, rollout, "vocab", PLAIN, batch_size=2)

    state = torch.get_rng_state()
    one, next_one = draw(), draw()
    torch.set_rng_state(state)
    assert [draw(), draw()] == [one, next_one]


def test_temperature_reaches_the_draws(tiny_model, tokenizer, trie, prompts):
    cold = PLAIN | {"temperature": 1e-3}
    greedy = roll_out(tiny_model, trie, prompts, 1, "beam", "trie", PLAIN, batch_size=8)
    drawn = roll_out(tiny_model, trie, prompts, 6, "sample", "vocab", cold, batch_size=8)
    assert drawn == [group * 6 for group in greedy]


def test_draws_do_not_look_at_the_checkpoints_own_settings(tiny_model, tokenizer, trie, prompts):
    """Qwen's generation_config holds top_k 20, top_p 0.8, temperature 0.7 and a repetition penalty."""

    def draw():
        torch.manual_seed(1)
        return roll_out(tiny_model, trie, prompts, 8, "sample", "vocab", PLAIN, batch_size=8)

    expected = draw()
    own = tiny_model.generation_config
    tiny_model.generation_config = type(own)(
        **{**own.to_dict(), "do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "repetition_penalty": 3.0}
    )
    try:
        assert draw() == expected
    finally:
        tiny_model.generation_config = own


@pytest.mark.parametrize("rollout", ["sample", "distinct", "mixed"])
@pytest.mark.parametrize(
    "setting", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.1}], ids=str
)
def test_settings_that_draws_would_not_follow_are_refused(rollout, setting, tiny_model, tokenizer, trie, prompts):
    [(name, value)] = setting.items()
    with pytest.raises(ValueError, match=f"{name}={value}: rollout {rollout}"):
        roll_out(tiny_model, trie, prompts, 4, rollout, "vocab", PLAIN | setting, batch_size=8)
    roll_out(tiny_model, trie, prompts, 4, "beam", "vocab", PLAIN | setting, batch_size=8)


@pytest.mark.parametrize("rollout", ["beam", "sample", "distinct", "mixed"])
def test_hinted_rollouts_begin_with_the_hint_and_fill_the_group(rollout, tiny_model, tokenizer, trie, prompts, legal):
    """Below <a_1> are three SIDs, below <a_0><b_1> one, below nothing all seven."""
    a0, a1, b1 = tokenizer.convert_tokens_to_ids(["<a_0>", "<a_1>", "<b_1>"])
    hints = [[a1], [a0, b1], []]
    groups = roll_out(tiny_model, trie, prompts, 6, rollout, "vocab", PLAIN, batch_size=2, hints=hints)
    assert [len(group) for group in groups] == [6, 6, 6]
    for group, hint in zip(groups, hints, strict=True):
        assert all(tuple(tokens) in legal and tokens[: len(hint)] == hint for tokens in group)
    if rollout in ("beam", "distinct"):
        assert len(set(map(tuple, groups[0]))) == 3 and groups[0][:3] == groups[0][3:]
        assert len(set(map(tuple, groups[1]))) == 1 and len(set(map(tuple, groups[2]))) == 6


@pytest.mark.parametrize("support", ["vocab", "trie"])
def test_hinted_beams_are_the_search_among_the_items_below_the_hint(support, tiny_model, tokenizer, trie, prompts):
    [a0] = tokenizer.convert_tokens_to_ids(["<a_0>"])
    groups = roll_out(tiny_model, trie, prompts, 3, "beam", support, PLAIN, 2, hints=[[a0]] * 3)
    below = trie.subset(allow={"0", "1", "2", "3"})
    found = search_sids(tiny_model, below, prompts, 3, support)
    assert [[tuple(tokens[:-1]) for tokens in group] for group in groups] == [[sid for sid, _ in g] for g in found]


def test_no_prompts_give_no_groups(tiny_model, tokenizer, trie):
    for rollout in ("beam", "sample", "distinct", "mixed"):
        for hints in (None, []):
            assert roll_out(tiny_model, trie, [], 4, rollout, "vocab", PLAIN, 2, hints) == []


def test_hints_for_a_model_without_the_tree_forward_are_refused(tokenizer, trie, prompts):
    model = make_model(len(tokenizer), sliding_window=4, use_sliding_window=True, max_window_layers=0)
    with pytest.raises(ValueError, match="hints need the tree forward: .* sliding window of 4"):
        roll_out(model, trie, prompts, 4, "beam", "vocab", PLAIN, 2, hints=[[]] * 3)
