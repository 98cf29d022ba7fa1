import math
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "rewards"))

from ranking_reward import (  # noqa: E402
    diversity_bonus,
    hit_at_k_reward,
    ndcg_reward,
    ndcg_rule_reward,
    partial_hit_rule_reward,
    prefix_reward,
    rule_reward,
)

TARGET = "<a_1><b_2><c_3>"
LIST = ["<a_1><b_2><c_9>", TARGET, "<a_1><b_7><c_3>", "<a_5><b_2><c_3>"]  # 2, 3, 1 and 0 levels right


def ask(texts, targets=None, size=None, **more):
    """Columns as the trainer passes them, several groups of `size` one after another, and some nobody asked for."""
    size = size or len(texts)
    return {
        "prompts": [[{"role": "user", "content": "?"}]] * len(texts),
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[1, 2]] * len(texts),
        "reward_model": [{"style": "rule", "ground_truth": target} for target in targets or [TARGET] * len(texts)],
        "group_index": [i // size for i in range(len(texts))],
        "rank_in_group": [i % size for i in range(len(texts))],
        "ability": ["seq_rec"] * len(texts),
        "a_column_of_tomorrow": [None] * len(texts),
        "trainer_state": None,
        **more,
    }


def test_rule_reward_is_one_for_the_target_alone():
    assert rule_reward(**ask(LIST)) == [0, 1, 0, 0]


def test_ndcg_rule_reward_by_hand():
    d = [1.0, 1 / math.log2(3), 1 / 2, 1 / math.log2(5)]
    expected = [-d[0] / sum(d), 0.0, -d[2] / sum(d), -d[3] / sum(d)]
    assert ndcg_rule_reward(**ask(LIST)) == pytest.approx(expected)


def test_ndcg_rule_reward_says_nothing_without_a_hit():
    assert ndcg_rule_reward(**ask(["<a_0>"] * 4)) == [0, 0, 0, 0]


def test_ndcg_reward_pays_the_rank_of_the_hit():
    for rank, pay in enumerate([1.0, 0.6309, 0.5, 0.4307]):
        texts = ["<a_0><b_0><c_0>"] * 4
        texts[rank] = TARGET
        scores = ndcg_reward(**ask(texts))
        assert scores[rank] == pytest.approx(pay, abs=1e-4) and sum(scores) == scores[rank]


def test_prefix_reward_by_hand():
    assert prefix_reward(**ask(LIST)) == pytest.approx([2 / 3, 1, 1 / 3, 0])


def test_prefix_reward_counts_leading_levels_only():
    assert prefix_reward(**ask(["<a_1><b_0><c_3>", "", "no sid"])) == pytest.approx([1 / 3, 0, 0])


def test_partial_hit_by_hand():
    assert partial_hit_rule_reward(**ask(LIST)) == [10, 100, 1, 0]


def test_partial_hit_for_other_depths_and_parameters():
    four = ask(["<a_1><b_2><c_3><d_4>", "<a_1>"], targets=["<a_1><b_2><c_3><d_4>"] * 2)
    assert partial_hit_rule_reward(**four) == pytest.approx([100, 0.1])
    assert partial_hit_rule_reward(**ask(LIST), top=8, factor=2) == [4, 8, 2, 0]


def test_a_sid_that_begins_the_target_or_goes_on_after_it_is_no_hit():
    texts, targets = ["<a_1><b_2>", "<a_1><b_2><c_3>"], ["<a_1><b_2><c_3>", "<a_1><b_2>"]
    columns = ask(texts, targets)
    assert rule_reward(**columns) == [0, 0]
    assert prefix_reward(**columns) == pytest.approx([2 / 3, 2 / 3])
    assert partial_hit_rule_reward(**columns) == [10, 10]


def test_hit_at_k_by_hand():
    assert hit_at_k_reward(**ask(LIST), k=1) == [0, 0, 0, 0]
    assert hit_at_k_reward(**ask(LIST), k=2) == [0, 1, 0, 0]


def test_diversity_bonus_by_hand():
    assert diversity_bonus(**ask(LIST)) == pytest.approx([1 - 2 / 3, 1 - 2 / 3, 1 - 2 / 3, 1])
    assert diversity_bonus(**ask(LIST), levels=2) == pytest.approx([2 / 3, 2 / 3, 1, 1])
    assert diversity_bonus(**ask(["<a_1>"])) == [1]  # alone


REWARDS = [
    diversity_bonus,
    hit_at_k_reward,
    ndcg_reward,
    ndcg_rule_reward,
    partial_hit_rule_reward,
    prefix_reward,
    rule_reward,
]


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
def test_permuted_groups_get_the_same_scores(reward):
    """Grouping by position would give a shuffled batch other scores."""
    rng = random.Random(0)
    sids = [f"<a_{a}><b_{b}>" for a in range(3) for b in range(2)]
    texts = [sid for _ in range(4) for sid in rng.sample(sids, 6)]
    targets = [target for target in rng.choices(sids, k=4) for _ in range(6)]
    columns = ask(texts, targets, size=6)
    straight = reward(**columns)
    order = rng.sample(range(24), 24)
    mixed = {name: [value[i] for i in order] if value else value for name, value in columns.items()}
    assert reward(**mixed) == pytest.approx([straight[i] for i in order])


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
def test_a_partial_group_keeps_its_scores(reward):
    """Positions would give 16 scores to 24 completions with 16 beams."""
    columns = ask([TARGET, "<a_0><b_0><c_0>"] * 12, size=16)
    assert len(reward(**columns)) == 24


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
def test_columns_come_by_name(reward):
    """Columns unpacked by position would break with every new one."""
    columns = ask(LIST)
    backwards = dict(reversed(columns.items()))
    assert reward(**backwards, one_more=[0] * 4) == reward(**columns)
