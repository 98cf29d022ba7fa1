"""What an index of SIDs looks like by itself: how evenly codes are used, who shares a SID, how wide the tree is, what
changed since an earlier index. Nothing here knows what an item is about; that is purity.py.

Sizes: N items, L levels of the deepest SID. A cell is the set of items that share a code of one level, a prefix the
first l codes of a SID. Formulas and how to read them: docs/sids.md.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mimigenrec.errors import UserError
from mimigenrec.sids.tokens import Sid, join_sid


def code_table(sids: Iterable[Sid]) -> np.ndarray:
    """(N, L) int64: a number per distinct token of a level, in order of appearance; -1 below an item's last level."""
    sids = list(sids)
    table = np.full((len(sids), max(map(len, sids))), -1, dtype=np.int64)
    numbers: list[dict[str, int]] = [{} for _ in range(table.shape[1])]
    for row, sid in enumerate(sids):
        for level, token in enumerate(sid):
            table[row, level] = numbers[level].setdefault(token, len(numbers[level]))
    return table


def prefix_table(codes: np.ndarray) -> np.ndarray:
    """codes (N, L) -> (N, L) int64: a number per distinct prefix of each length; -1 where the SID is shorter."""
    prefixes = np.full_like(codes, -1)
    parent = np.zeros(len(codes), dtype=np.int64)
    for level in range(codes.shape[1]):
        there = codes[:, level] >= 0
        joined = parent[there] * (codes[:, level].max() + 1) + codes[there, level]
        prefixes[there, level] = np.unique(joined, return_inverse=True)[1]
        parent = prefixes[:, level]
    return prefixes


def level_figures(codes: np.ndarray, sizes: Sequence[int] = ()) -> list[dict[str, Any]]:
    """One dict per level, first level first.

    sizes    how many codes the codebooks hold, if known; gives `used`, the share that any item has
    returns  items that reach the level; codes: distinct ones; perplexity = exp(entropy) of the codes' share of items;
             gini of the items per used code; largest: share of items in the biggest cell; choices = exp(entropy given
             the prefix above), how many ways are open on average once the levels above are known; bits: log2 of it;
             prefixes: the tree's width here; children_mean and children_max per prefix above; single_child: share of
             prefixes above that leave one way only; counts: items per code, biggest first
    raises   UserError if a level has more codes than its size, or sizes are not one per level
    """
    if sizes and len(sizes) != codes.shape[1]:
        raise UserError(f"--sizes gives {len(sizes)} levels ({list(sizes)}), the index has {codes.shape[1]}")
    prefixes = prefix_table(codes)
    levels = []
    for level in range(codes.shape[1]):
        there = codes[:, level] >= 0
        counts = np.sort(np.bincount(codes[there, level]))[::-1]
        above = prefixes[there, level - 1] if level else np.zeros(there.sum(), dtype=np.int64)
        edges = np.unique(np.stack([above, prefixes[there, level]]), axis=1)
        children = np.unique(edges[0], return_counts=True)[1]
        entropy = _entropy(prefixes[there, level]) - _entropy(above)
        figures = {
            "level": level + 1,
            "items": int(there.sum()),
            "codes": len(counts),
            "perplexity": float(np.exp(_entropy(codes[there, level]))),
            "gini": gini(counts),
            "largest": float(counts[0] / there.sum()),
            "choices": float(np.exp(entropy)),
            "bits": max(0.0, float(entropy / np.log(2))),
            "prefixes": edges.shape[1],
            "children_mean": float(children.mean()),
            "children_max": int(children.max()),
            "single_child": float((children == 1).mean()),
            "counts": counts.tolist(),
        }
        if sizes:
            if len(counts) > sizes[level]:
                raise UserError(f"level {level + 1} uses {len(counts)} codes, --sizes says it has {sizes[level]}")
            figures |= {"size": sizes[level], "used": len(counts) / sizes[level]}
        levels.append(figures)
    return levels


def gini(counts: Sequence[int] | np.ndarray) -> float:
    """(I,) counts >= 0, not all 0 -> sum over pairs |x_i - x_j| / (2 I^2 mean), in [0, 1 - 1/I]; 0: all are equal."""
    counts = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def _entropy(labels: np.ndarray) -> float:
    """Nats, of the shares that labels (N,) have."""
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(share * np.log(share)).sum())


def depth_counts(sids: Mapping[str, Sid]) -> dict[int, int]:
    """Number of levels -> items with so many, shallow first."""
    return dict(sorted(Counter(map(len, sids.values())).items()))


def groups_of(sids: Mapping[str, Sid]) -> dict[Sid, list[str]]:
    """SID -> its items, for SIDs that several items share, the biggest group first."""
    groups: dict[Sid, list[str]] = {}
    for item, sid in sids.items():
        groups.setdefault(sid, []).append(item)
    shared = [(sid, items) for sid, items in groups.items() if len(items) > 1]
    return dict(sorted(shared, key=lambda group: -len(group[1])))


def collision_figures(sids: Mapping[str, Sid]) -> dict[str, float]:
    """collisions: share of items that share their SID; colliding_items, collision_groups, largest_group: counts;
    begins_another: SIDs that are the beginning of a longer one, so that a search must choose whether to stop there."""
    groups = groups_of(sids)
    distinct = set(sids.values())
    beginnings = {sid[:length] for sid in distinct for length in range(1, len(sid))}
    colliding = sum(map(len, groups.values()))
    return {
        "items": len(sids),
        "distinct_sids": len(distinct),
        "collisions": colliding / len(sids),
        "colliding_items": colliding,
        "collision_groups": len(groups),
        "largest_group": max(map(len, groups.values()), default=1),
        "begins_another": len(distinct & beginnings),
    }


def target_figures(sids: Mapping[str, Sid], targets: Iterable[str]) -> dict[str, float]:
    """What collisions do to test rows; every target counts once per row.

    targets_without_sid   share of rows that nobody can answer
    targets_hit           share of rows whose target shares its SID, among rows whose target has one
    hr1_ceiling           item HR@1 of a model that always names the right SID and draws among its items: the mean of
                          1 / (items of the SID), 0 for a target without one
    """
    sharing = Counter(sids.values())
    group = np.array([sharing[sids[item]] if item in sids else 0 for item in targets])
    known = group[group > 0]
    if not len(known):
        raise UserError(f"none of the {len(group)} test targets has a SID; index and rows are of different data sets")
    return {
        "test_rows": len(group),
        "targets_without_sid": 1 - len(known) / len(group),
        "targets_hit": float((known > 1).mean()),
        "hr1_ceiling": float((1 / known).sum() / len(group)),
    }


def churn_figures(before: Mapping[str, Sid], after: Mapping[str, Sid]) -> dict[str, Any]:
    """What a model trained on `before` would find changed in `after`, over the items of both.

    kept             share of items with the very same SID
    taken_over       share of items whose new SID meant only other items before: the old model names the wrong thing
    levels           kept: the same for the first l codes; agreement: adjusted Rand index of the groupings by the first
                     l codes, 1 if they are the same whatever the codes are called, 0 as by chance
    tokens_new, tokens_gone, items_new, items_gone   counts
    raises           UserError if no item is in both
    """
    both = [item for item in after if item in before]
    if not both:
        raise UserError("the two indexes have no item in common; they are of different catalogues")
    old, new = [before[item] for item in both], [after[item] for item in both]
    levels = min(max(map(len, old)), max(map(len, new)))
    meant: dict[Sid, set[str]] = {}
    for item, sid in before.items():
        meant.setdefault(sid, set()).add(item)
    taken = sum(sid in meant and item not in meant[sid] for item, sid in zip(both, new, strict=True))
    prefix_before, prefix_after = prefix_table(code_table(old)), prefix_table(code_table(new))
    tokens_before, tokens_after = ({token for sid in index.values() for token in sid} for index in (before, after))
    return {
        "items_both": len(both),
        "items_new": len(after) - len(both),
        "items_gone": len(before) - len(both),
        "kept": float(np.mean([a == b for a, b in zip(old, new, strict=True)])),
        "taken_over": taken / len(both),
        "tokens_new": len(tokens_after - tokens_before),
        "tokens_gone": len(tokens_before - tokens_after),
        "levels": [
            {
                "level": level,
                "kept": float(np.mean([a[:level] == b[:level] for a, b in zip(old, new, strict=True)])),
                "agreement": rand_index(prefix_before[:, level - 1], prefix_after[:, level - 1]),
            }
            for level in range(1, levels + 1)
        ],
    }


def rand_index(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985) of two groupings, labels (N,) each; 1 if both are trivial."""

    def pairs(labels: np.ndarray) -> float:
        counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
        return float((counts * (counts - 1) / 2).sum())

    a, b = np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]
    together, of_a, of_b = pairs(a * (b.max() + 1) + b), pairs(a), pairs(b)
    expected = of_a * of_b / max(1.0, len(a) * (len(a) - 1) / 2)
    most = (of_a + of_b) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def token_figures(sids: Mapping[str, Sid], tokenizer: Any) -> dict[str, Any]:
    """Does the tokenizer know each SID token as one id, alone and inside a whole SID?

    tokens          distinct SID tokens
    tokens_split    how many become several ids or the unknown id; split_examples: {token: pieces}, at most 5
    sids_mangled    distinct SIDs whose text is not one id per token although each token is whole
    ids_per_sid     mean number of ids that a distinct SID costs
    """
    names = sorted({token for sid in sids.values() for token in sid})
    ids = dict(zip(names, tokenizer(names, add_special_tokens=False)["input_ids"], strict=True))
    unknown = [tokenizer.unk_token_id] if tokenizer.unk_token_id is not None else []
    split = [name for name in names if len(ids[name]) != 1 or ids[name] == unknown]
    distinct = sorted(set(sids.values()))
    written = tokenizer([join_sid(sid) for sid in distinct], add_special_tokens=False)["input_ids"]
    whole = set(names) - set(split)
    mangled = sum(
        whole.issuperset(sid) and found != [ids[token][0] for token in sid]
        for sid, found in zip(distinct, written, strict=True)
    )
    return {
        "tokens": len(names),
        "tokens_split": len(split),
        "split_examples": {name: tokenizer.convert_ids_to_tokens(ids[name]) for name in split[:5]},
        "sids_mangled": mangled,
        "ids_per_sid": float(np.mean([len(found) for found in written])),
    }
