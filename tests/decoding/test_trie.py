"""The trie against a dictionary of prefixes, on random catalogues."""

import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mimigenrec.catalog import Catalog
from mimigenrec.decoding.search import search_sids
from mimigenrec.decoding.trie import OFF, SidTrie
from mimigenrec.errors import UserError
from mimigenrec.sids.tokens import distinct_tokens, read_index
from tests.conftest import make_tokenizer, shared
from tests.decoding.reference import assert_same_lists, score_all

EOS, PAD, VOCABULARY = 3, 0, 60


def random_codes(seed: int) -> list[tuple[int, ...]]:
    """Some shared, some of other lengths, some that begin others; a token may return at another level."""
    rng = random.Random(seed)
    levels = rng.randint(1, 5)
    sids = [tuple(rng.randrange(10, 16) for _ in range(rng.randint(1, levels))) for _ in range(rng.randint(1, 60))]
    return sids + [sid[: rng.randint(1, len(sid))] for sid in sids[::5]]


def build(sids: list[tuple[int, ...]]) -> SidTrie:
    codes = np.full((len(sids), max(map(len, sids))), -1)
    for row, sid in enumerate(sids):
        codes[row, : len(sid)] = sid
    return SidTrie.from_codes(codes, EOS, PAD, [str(row) for row in range(len(sids))])


def continuations(sids, written) -> set[int]:
    """Legal next tokens after `written`, the slow way."""
    if written and written[-1] == EOS:
        return {EOS}
    following = {sid[len(written)] for sid in sids if len(sid) > len(written) and sid[: len(written)] == written}
    return following | ({EOS} if written in sids else set())


def every_state(sids) -> list[tuple[int, ...]]:
    """Every prefix, every finished SID, and one step off each."""
    prefixes = {sid[:n] for sid in sids for n in range(len(sid) + 1)}
    return sorted(prefixes | {(*sid, EOS) for sid in sids})


@pytest.mark.parametrize("seed", range(15))
def test_walk_allowed_and_children_agree_with_a_dictionary_of_prefixes(seed):
    sids = random_codes(seed)
    trie = build(sids)
    for written in every_state(sids):
        node = trie.walk(torch.tensor([written], dtype=torch.long))
        expected = continuations(sids, written)
        mask = trie.allowed(node, VOCABULARY)[0]
        assert set(mask.nonzero().flatten().tolist()) == expected
        tokens, nodes, valid = (x[0] for x in trie.children(node))
        assert sorted(tokens[valid].tolist()) == sorted(expected)  # each once
        assert set(tokens.tolist()) == expected  # what is not valid repeats something legal
        assert trie.choices(node).item() == len(expected)
        for token, child in zip(tokens[valid].tolist(), nodes[valid].tolist(), strict=True):
            assert trie.walk(torch.tensor([[*written, token]])).item() == child
        assert (nodes[~valid] == OFF).all()
        for token in set(range(10, 17)) - expected:
            assert trie.walk(torch.tensor([[*written, token]])).item() == OFF


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_batch_of_mixed_states_equals_one_row_at_a_time(seed):
    sids = random_codes(seed)
    trie = build(sids)
    states = every_state(sids)
    longest = max(map(len, states))
    padded = torch.tensor([[*state, *[PAD] * (longest - len(state))] for state in states])
    together = trie.walk(padded)
    alone = [trie.walk(row[None]).item() for row in padded]
    assert together.tolist() == alone
    masks = trie.allowed(together, VOCABULARY)
    assert all(torch.equal(masks[i], trie.allowed(together[i : i + 1], VOCABULARY)[0]) for i in range(len(states)))


@pytest.mark.parametrize("seed", range(10))
def test_knowing_the_level_narrows_the_gather_and_changes_nothing_else(seed):
    sids = random_codes(seed)
    trie = build(sids)
    for written in every_state(sids):
        node = trie.walk(torch.tensor([written], dtype=torch.long))
        tokens, nodes, valid = trie.children(node, level=len(written))
        same = trie.children(node)
        assert tokens.shape[1] <= same[0].shape[1]
        assert tokens[valid].tolist() == same[0][same[2]].tolist()
        assert nodes[valid].tolist() == same[1][same[2]].tolist()


@pytest.mark.parametrize("seed", range(10))
def test_items_of_a_sid_are_found_at_its_node(seed):
    sids = random_codes(seed)
    trie = build(sids)
    assert trie.n_items == len(sids) and trie.n_sids == len(set(sids))
    for sid in set(sids):
        number = trie.find([sid])[0]
        assert trie.items[number] == tuple(str(row) for row, own in enumerate(sids) if own == sid)
        tokens = trie.sid_tokens(torch.tensor([number]))[0].tolist()
        assert tokens == [*sid, *[-1] * (trie.depth - len(sid))]
        assert trie.items_at(number) == trie.items[number]
    assert trie.find([(10, 16)]) == [-1]


def test_levels_are_contiguous_and_sorted():
    trie = build([(11, 12), (10,), (10, 14), (10, 12)])
    assert trie.levels == [0, 1, 3, 6]
    assert trie.token.tolist() == [-1, 10, 11, 12, 14, 12]
    assert trie.first.tolist() == [1, 3, 5, 6]
    assert trie.sid_node.tolist() == [1, 3, 4, 5]
    assert trie.branch == [2, 2, 0]
    assert trie.parent_of(torch.arange(1, 6)).tolist() == [0, 0, 1, 1, 2]


def test_done_takes_eos_and_padding_only_and_nothing_returns_to_the_trie():
    trie = build([(10, 11)])
    done = trie.walk(torch.tensor([[10, 11, EOS, EOS, PAD], [10, 11, EOS, 10, 11], [12, 10, 11, EOS, EOS]]))
    assert done.tolist() == [trie.DONE, OFF, OFF]
    only_eos = trie.allowed(torch.tensor([trie.DONE, OFF]), VOCABULARY)
    assert only_eos.nonzero().tolist() == [[0, EOS], [1, EOS]]


def test_an_item_may_not_end_inside_a_longer_sid_that_nobody_has():
    trie = build([(10, 11, 12)])
    assert trie.walk(torch.tensor([[10, 11, EOS]])).item() == OFF


@pytest.mark.parametrize("seed", range(20))
def test_a_subset_equals_a_trie_built_from_the_items_left(seed):
    sids = random_codes(seed)
    trie = build(sids)
    rng = random.Random(seed)
    allow = set(rng.sample([str(i) for i in range(len(sids))], len(sids) // 2 + 1)) if seed % 2 else None
    deny = set(rng.sample([str(i) for i in range(len(sids))], len(sids) // 3)) | {"nobody knows"}
    left = [i for i in range(len(sids)) if (allow is None or str(i) in allow) and str(i) not in deny]
    subset = trie.subset(allow, deny)
    assert sorted(name for names in subset.items for name in names) == sorted(map(str, left))
    if not left:
        assert subset.n_sids == 0
        return
    expected = build([sids[i] for i in left])
    assert subset.levels == expected.levels and subset.branch == expected.branch
    for name in ("token", "first", "sid_node"):
        assert torch.equal(getattr(subset, name), getattr(expected, name))
    assert subset.items == [tuple(str(left[int(i)]) for i in items) for items in expected.items]


def test_nothing_left_is_an_empty_trie_and_no_filter_is_the_same_trie():
    trie = build([(10, 11), (10,)])
    assert trie.subset(allow=set()).n_sids == 0
    assert trie.subset(allow=set()).items == []
    assert trie.subset().items == trie.items


def test_save_and_load_give_the_same_trie(tmp_path, toy, tokenizer):
    trie = SidTrie.from_catalog(toy, tokenizer)
    trie.save(tmp_path / "trie.safetensors")
    again = SidTrie.load(tmp_path / "trie.safetensors")
    assert again.items == trie.items and again.levels == trie.levels and again.branch == trie.branch
    assert (again.eos_id, again.pad_id) == (trie.eos_id, trie.pad_id)
    for name in ("token", "first", "sid_node"):
        assert torch.equal(getattr(again, name), getattr(trie, name))


def test_items_of_one_sid_stand_by_popularity_then_id(tokenizer):
    sids = dict.fromkeys(("10", "9", "8"), ("<a_0>", "<b_0>"))
    trie = SidTrie.from_catalog(Catalog(sids, popularity={"8": 1, "10": 1, "9": 0}), tokenizer)
    assert trie.items == [("8", "10", "9")]
    assert SidTrie.from_sids(sids, tokenizer).items == [("8", "9", "10")]


def test_a_sid_token_that_the_tokenizer_splits_is_named(toy):
    known = sorted({token for sid in toy.sids.values() for token in sid} - {"<b_2>"})
    with pytest.raises(ValueError, match=r"1 of 10 SID tokens.*<b_2>.*add-sids"):
        SidTrie.from_catalog(toy, make_tokenizer(sid_tokens=known))


def test_a_sid_token_that_is_unknown_to_the_tokenizer_is_named():
    core = Tokenizer(models.WordLevel({"<a_0>": 0, "<unk>": 1, "<eos>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")
    with pytest.raises(ValueError, match="1 of 1 SID tokens.*<a_1>"):
        SidTrie.from_sids({"0": ("<a_1>",)}, tokenizer)
    assert SidTrie.from_sids({"0": ("<a_0>",)}, tokenizer).n_sids == 1


def test_the_real_catalogue_has_a_node_for_each_prefix():
    sids = read_index(shared("data", "amazon18-industrial-active", "Industrial_and_Scientific.index.json"))
    trie = SidTrie.from_sids(sids, make_tokenizer(sid_tokens=distinct_tokens(sids)))
    prefixes = [len({sid[:level] for sid in sids.values()}) for level in range(4)]
    assert np.diff(trie.levels).tolist() == prefixes
    assert trie.n_items == len(sids) and sum(map(len, trie.items)) == len(sids)
    tokens = trie.sid_tokens(torch.arange(trie.n_sids))
    nodes = trie.walk(torch.cat([tokens, torch.full((trie.n_sids, 1), trie.eos_id)], dim=1))
    assert (nodes == trie.DONE).all()


@pytest.mark.parametrize(
    ("codes", "what"),
    [
        ([[10, -1, 12]], "then -1 up to the end"),
        ([[-1, -1]], "1 or more token ids"),
        ([[10, EOS]], "EOS"),
        ([[10, 11], [12, 13]], "one name a row"),
        (np.zeros((0, 3)), "not empty"),
    ],
)
def test_bad_codes_are_refused(codes, what):
    with pytest.raises(ValueError, match=what):
        SidTrie.from_codes(np.array(codes), EOS, PAD, ["0"])


def test_a_model_that_scores_fewer_tokens_than_the_sids_need_is_refused():
    trie = build([(10, 50)])
    with pytest.raises(ValueError, match="scores 50 tokens but the SIDs go up to token id 50"):
        trie.allowed(torch.tensor([0]), 50)


def test_a_catalogue_of_300_000_items_builds_fast_and_small():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (300_000, 3), dtype=np.int32) + 100
    trie = SidTrie.from_codes(codes, EOS, PAD, range(300_000))
    assert trie.nbytes < 10 * 300_000
    nodes = trie.walk(torch.from_numpy(codes[::7]).long())
    names = [trie.items[sid] for sid in trie.sid_at(nodes).tolist()]
    assert all(row in own for row, own in zip(range(0, 300_000, 7), names, strict=True))


def written_ways(trie: SidTrie, tokenizer) -> set[tuple[int, ...]]:
    """Every answer that the trie allows from its root to EOS, token by token."""
    finished, begun = set(), [()]
    while begun:
        written = begun.pop()
        node = trie.walk(torch.tensor([written], dtype=torch.long).reshape(1, -1))
        for token in trie.allowed(node, len(tokenizer))[0].nonzero().flatten().tolist():
            if token == tokenizer.eos_token_id:
                finished.add(written)
            else:
                begun.append((*written, token))
    return finished


@pytest.mark.parametrize("seed", range(5))
def test_every_text_can_be_written_and_names_one_item(tokenizer, seed):
    rng = random.Random(seed)
    words = ["thing", " number", " a", " (2)", " (3)"]
    texts = {str(i): ("thing" + "".join(rng.choices(words, k=rng.randint(0, 2)))) for i in range(40)}
    trie, item_of = SidTrie.from_texts(texts, tokenizer)
    assert written_ways(trie, tokenizer) == set(item_of) and sorted(item_of.values()) == sorted(texts)
    assert {trie.items_at(sid)[0] for sid in trie.find(list(item_of))} == set(texts)
    for path, item in item_of.items():
        text = tokenizer.decode(path)
        assert text == texts[item] or text.startswith(f"{texts[item]} (") and text.endswith(")")
    first = {}
    for item, text in texts.items():
        first.setdefault(text, item)
    assert all(item_of[tuple(tokenizer(text)["input_ids"])] == item for text, item in first.items())  # no number


def test_items_of_one_text_are_numbered_past_the_numbers_that_are_taken(tokenizer):
    texts = {"x": "thing", "y": " thing", "z": "thing (2)", "w": "thing", "v": "thing number"}
    trie, item_of = SidTrie.from_texts(texts, tokenizer)
    written = {tokenizer.decode(path): item for path, item in item_of.items()}
    assert written == {"thing": "x", "thing (2)": "z", "thing (3)": "y", "thing (4)": "w", "thing number": "v"}
    assert trie.n_sids == trie.n_items == 5


def test_a_text_that_no_answer_can_hold_is_refused_with_its_item(tokenizer):
    with pytest.raises(UserError, match="the text of item '1' is empty"):
        SidTrie.from_texts({"0": "thing", "1": "  "}, tokenizer)
    with pytest.raises(UserError, match="the text of item '0' holds '<.im_end.>', which ends an answer"):
        SidTrie.from_texts({"0": f"thing {tokenizer.eos_token}"}, tokenizer)


def test_a_search_over_titles_ranks_them_as_scoring_each_does(tiny_model, tokenizer):
    titles = {"0": "thing", "1": "thing number", "2": "a thing", "3": "thing", "4": "useful number a thing"}
    trie, item_of = SidTrie.from_texts(titles, tokenizer)
    prompt = tokenizer("Which item comes next?")["input_ids"]
    (found,) = search_sids(tiny_model, trie, [prompt], beams=8)
    assert_same_lists([found], [score_all(tiny_model, prompt, list(item_of), tokenizer.eos_token_id, "vocab")])
