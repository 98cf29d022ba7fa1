"""Did the completion name the target, and how high did it rank within its group?

A group is the G completions of one prompt. The trainer tells which completion is where: `group_index` (n numbers, the
same for all of one group) and `rank_in_group` (n numbers, 0 for the first beam), so groups may come in any order.
Every function returns one score per completion, in the order of the completions. `reward_model` is that column of the
dataset; its "ground_truth" is the target's SID.
"""

import math
from collections import Counter, defaultdict

from mimigenrec.sids.tokens import split_sid

Chats = list[list[dict]]  # n chats of one message: [{"role": "assistant", "content": "<a_14><b_221><c_27>"}]


def rule_reward(completions: Chats, reward_model: list[dict], **columns) -> list[float]:
    """1 for the target, else 0."""
    return [float(hit) for hit in hits(completions, reward_model)]


def ndcg_rule_reward(
    completions: Chats, reward_model: list[dict], group_index: list[int], rank_in_group: list[int], **columns
) -> list[float]:
    """In a group with a hit, wrong items are punished more the higher they rank. 0 for the hit and without a hit.

    score = -d(rank) / sum of d over the group's ranks, with d(rank) = 1 / log2(rank + 2)

    The hit's own rank hardly counts here; ndcg_reward pays for it.
    source: the ranking reward of MiniOneRec, arXiv:2510.24431, and of the original MIMIGenRec
    """
    hit = hits(completions, reward_model)
    total: dict[int, float] = defaultdict(float)
    for group, rank in zip(group_index, rank_in_group, strict=True):
        total[group] += discount(rank)
    with_hit = {group for group, is_hit in zip(group_index, hit, strict=True) if is_hit}
    return [
        -discount(rank) / total[group] if group in with_hit and not is_hit else 0.0
        for group, rank, is_hit in zip(group_index, rank_in_group, hit, strict=True)
    ]


def ndcg_reward(completions: Chats, reward_model: list[dict], rank_in_group: list[int], **columns) -> list[float]:
    """1 / log2(rank + 2) for the target, else 0: what the hit adds to the NDCG of its list."""
    hit = hits(completions, reward_model)
    return [discount(rank) if is_hit else 0.0 for rank, is_hit in zip(rank_in_group, hit, strict=True)]


def prefix_reward(completions: Chats, reward_model: list[dict], **columns) -> list[float]:
    """Leading levels in common / levels of the longer of the two SIDs: 1 for the target, 0 for another first level."""
    return [same / levels for same, levels in shared_levels(completions, reward_model)]


def partial_hit_rule_reward(
    completions: Chats, reward_model: list[dict], top: float = 100.0, factor: float = 10.0, **columns
) -> list[float]:
    """100 for the target, a tenth of it for each level missed, 0 for another first level.

    score = top / factor ^ (levels of the longer SID - leading levels in common); with 3 levels 100, 10, 1, 0
    """
    return [
        top / factor ** (levels - same) if same else 0.0 for same, levels in shared_levels(completions, reward_model)
    ]


def hit_at_k_reward(
    completions: Chats, reward_model: list[dict], rank_in_group: list[int], k: int = 10, **columns
) -> list[float]:
    """1 for the target if it stands among the first k of its group, else 0."""
    hit = hits(completions, reward_model)
    return [float(is_hit and rank < k) for rank, is_hit in zip(rank_in_group, hit, strict=True)]


def diversity_bonus(completions: Chats, group_index: list[int], levels: int = 1, **columns) -> list[float]:
    """1 - (others of the group that begin with the same `levels` tokens) / (others of the group).

    1 for a corner of the catalogue that nobody else of the group is in, 0 if all are there. The target does not enter,
    so give it a small weight beside a reward that knows it.
    """
    corners = [tuple(split_sid(chat[0]["content"])[:levels]) for chat in completions]
    size = Counter(group_index)
    crowd = Counter(zip(group_index, corners, strict=True))
    return [
        1.0 - (crowd[group, corner] - 1) / max(size[group] - 1, 1)
        for group, corner in zip(group_index, corners, strict=True)
    ]


def hits(completions: Chats, reward_model: list[dict]) -> list[bool]:
    """Is it the target, level for level? A completion without a SID, or with more after it, is none."""
    return [levels == same for same, levels in shared_levels(completions, reward_model)]


def shared_levels(completions: Chats, reward_model: list[dict]) -> list[tuple[int, int]]:
    """(leading levels in common, levels of the longer SID, at least 1) per completion."""
    pairs = []
    for chat, row in zip(completions, reward_model, strict=True):
        guess, target = split_sid(chat[0]["content"]), split_sid(row["ground_truth"])
        same = [g == t for g, t in zip(guess, target, strict=False)]
        pairs.append(((same + [False]).index(False), max(len(guess), len(target), 1)))
    return pairs


def discount(rank: int) -> float:
    """DCG's weight of a rank that counts from 0."""
    return 1.0 / math.log2(rank + 2)
