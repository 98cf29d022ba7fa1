import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from mimigenrec.sid_report import structure
from tests.conftest import TOY_SIDS

SIDS = list(TOY_SIDS.values())


@pytest.fixture(scope="module")
def codes():
    return structure.code_table(SIDS)


def perplexity(labels):
    shares = [count / len(labels) for count in Counter(labels).values()]
    return math.prod(share**-share for share in shares)


def test_prefixes_are_the_beginnings_of_the_sids_and_missing_levels_have_none(codes):
    prefixes = structure.prefix_table(codes)
    for (i, a), (j, b) in combinations(enumerate(SIDS), 2):
        for level in range(3):
            there = level < len(a) and level < len(b)
            assert (prefixes[i, level] == prefixes[j, level] >= 0) == (there and a[: level + 1] == b[: level + 1])
    assert prefixes[5].tolist()[2] == codes[5].tolist()[2] == -1


def test_level_figures_are_those_of_a_dictionary_of_prefixes(codes):
    for level, found in enumerate(structure.level_figures(codes, sizes=[4, 4, 8])):
        deep = [sid for sid in SIDS if len(sid) > level]
        tokens = Counter(sid[level] for sid in deep)
        children = {}
        for sid in deep:
            children.setdefault(sid[:level], set()).add(sid[level])
        ways = [len(those) for those in children.values()]
        choices = math.prod(
            perplexity([sid[level] for sid in deep if sid[:level] == above])
            ** (sum(sid[:level] == above for sid in deep) / len(deep))
            for above in children
        )
        assert found["items"] == len(deep)
        assert found["codes"] == len(tokens) and found["counts"] == sorted(tokens.values(), reverse=True)
        assert found["perplexity"] == pytest.approx(perplexity([sid[level] for sid in deep]))
        assert found["largest"] == max(tokens.values()) / len(deep)
        assert found["choices"] == pytest.approx(choices)
        assert found["bits"] == pytest.approx(math.log2(choices))
        assert found["prefixes"] == sum(ways)
        assert found["children_mean"] == pytest.approx(sum(ways) / len(ways))
        assert found["children_max"] == max(ways)
        assert found["single_child"] == sum(way == 1 for way in ways) / len(ways)
        assert found["used"] == len(tokens) / found["size"]


def test_bits_of_all_levels_add_up_to_the_choice_of_a_sid():
    sids = [(f"<a_{i % 4}>", f"<b_{i // 4 % 4}>", f"<c_{i // 16}>") for i in range(64)]
    levels = structure.level_figures(structure.code_table(sids))
    assert [level["bits"] for level in levels] == pytest.approx([2, 2, 2])
    assert sum(level["bits"] for level in levels) == pytest.approx(6)


@pytest.mark.parametrize(("counts", "expected"), [([3, 3, 3], 0.0), ([1, 3], 0.25), ([5], 0.0)])
def test_gini_by_hand(counts, expected):
    assert structure.gini(counts) == pytest.approx(expected)


def test_gini_is_the_mean_difference_of_all_pairs():
    counts = np.random.default_rng(0).integers(1, 50, 40)
    difference = np.abs(counts[:, None] - counts[None]).mean()
    assert structure.gini(counts) == pytest.approx(difference / (2 * counts.mean()))


def test_collisions_of_the_toy():
    found = structure.collision_figures(TOY_SIDS)
    assert found == {
        "items": 8,
        "distinct_sids": 7,
        "collisions": 0.25,
        "colliding_items": 2,
        "collision_groups": 1,
        "largest_group": 2,
        "begins_another": 1,
    }
    assert structure.groups_of(TOY_SIDS) == {TOY_SIDS["2"]: ["2", "3"]}
    assert structure.depth_counts(TOY_SIDS) == {2: 1, 3: 7}


def test_the_ceiling_counts_a_shared_target_by_half_and_a_missing_one_as_a_miss():
    found = structure.target_figures(TOY_SIDS, ["0", "2", "2", "elsewhere"])
    assert found["test_rows"] == 4
    assert found["targets_without_sid"] == 0.25
    assert found["targets_hit"] == pytest.approx(2 / 3)
    assert found["hr1_ceiling"] == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)


def test_targets_of_another_data_set_are_refused():
    with pytest.raises(ValueError, match="none of the 2 test targets"):
        structure.target_figures(TOY_SIDS, ["x", "y"])


@pytest.mark.parametrize(
    ("sizes", "message"), [([4, 4], "gives 2 levels"), ([2, 4, 8], "level 1 uses 3 codes, --sizes says it has 2")]
)
def test_sizes_that_do_not_fit_the_index_are_refused(codes, sizes, message):
    with pytest.raises(ValueError, match=message):
        structure.level_figures(codes, sizes)


def test_nothing_has_changed_between_an_index_and_itself():
    found = structure.churn_figures(TOY_SIDS, TOY_SIDS)
    assert found["kept"] == 1 and found["taken_over"] == 0
    assert found["levels"] == [{"level": level, "kept": 1, "agreement": 1} for level in (1, 2, 3)]


def test_renamed_codes_keep_no_sid_and_agree_wholly():
    renamed = {item: tuple(token.replace("_", "_9") for token in sid) for item, sid in TOY_SIDS.items()}
    found = structure.churn_figures(TOY_SIDS, renamed)
    assert found["kept"] == 0
    assert found["levels"] == [{"level": level, "kept": 0, "agreement": 1} for level in (1, 2, 3)]
    assert found["tokens_new"] == found["tokens_gone"] == len({t for sid in TOY_SIDS.values() for t in sid})


def test_churn_by_hand():
    before = {"1": ("<a_0>", "<b_0>"), "2": ("<a_0>", "<b_1>"), "3": ("<a_1>", "<b_0>"), "4": ("<a_1>", "<b_1>")}
    after = {"1": ("<a_0>", "<b_0>"), "2": ("<a_1>", "<b_0>"), "3": ("<a_1>", "<b_2>"), "5": ("<a_0>", "<b_0>")}
    found = structure.churn_figures(before, after)
    assert (found["items_both"], found["items_new"], found["items_gone"]) == (3, 1, 1)
    assert found["kept"] == pytest.approx(1 / 3)
    assert [level["kept"] for level in found["levels"]] == pytest.approx([2 / 3, 1 / 3])
    assert found["taken_over"] == pytest.approx(1 / 3)  # item 2 now has the SID that meant item 3
    assert (found["tokens_new"], found["tokens_gone"]) == (1, 1)


def test_indexes_without_a_common_item_are_refused():
    with pytest.raises(ValueError, match="no item in common"):
        structure.churn_figures({"1": ("<a>",)}, {"2": ("<a>",)})


def test_rand_index_counts_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, 30), rng.integers(0, 3, 30)
    same_a, same_b, both = 0, 0, 0
    for i, j in combinations(range(30), 2):
        same_a, same_b = same_a + (a[i] == a[j]), same_b + (b[i] == b[j])
        both += (a[i] == a[j]) and (b[i] == b[j])
    expected = same_a * same_b / (30 * 29 / 2)
    assert structure.rand_index(a, b) == pytest.approx((both - expected) / ((same_a + same_b) / 2 - expected))
    assert structure.rand_index(np.zeros(5, int), np.zeros(5, int)) == 1


def test_a_prepared_tokenizer_has_whole_tokens(tokenizer):
    found = structure.token_figures(TOY_SIDS, tokenizer)
    assert found["tokens_split"] == found["sids_mangled"] == 0 and found["split_examples"] == {}
    assert found["ids_per_sid"] == pytest.approx((6 * 3 + 2) / 7)


def test_a_tokenizer_that_lacks_a_token_is_found_out():
    from tests.conftest import make_tokenizer

    names = {token for sid in TOY_SIDS.values() for token in sid}
    found = structure.token_figures(TOY_SIDS, make_tokenizer(sid_tokens=sorted(names - {"<a_2>"})))
    assert found["tokens"] == len(names) and found["tokens_split"] == 1
    assert "".join(found["split_examples"]["<a_2>"]) == "<a_2>"


def test_a_token_that_is_lost_beside_another_counts_as_mangled():
    from tests.conftest import make_tokenizer

    sids = {"1": ("<a_1>", "<b_1>"), "2": ("<a_1>", "<b_2>")}
    found = structure.token_figures(sids, make_tokenizer(sid_tokens=["<a_1>", "<b_1>", "<b_2>", "<a_1><b_2>"]))
    assert found["tokens_split"] == 0 and found["sids_mangled"] == 1
