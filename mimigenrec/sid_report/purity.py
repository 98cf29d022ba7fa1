"""Do items that belong together get SIDs that begin alike? Asked of embeddings, categories, texts and train rows.

Each answer is a share with what chance would give beside it, for every length of prefix: a share of 0.3 is a lot with
200 cells and nothing with 3. Sizes: N items, L levels, D dimensions, K neighbours. Formulas: docs/sids.md.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History
from mimigenrec.sid_report.structure import code_table, prefix_table
from mimigenrec.sids.tokens import Sid
from mimigenrec.vectors.terms import MARKS, RUN, terms

CHUNK_NUMBERS = 32 * 2**20  # similarities held at a time: 128 MiB
WORD = re.compile(f"(?:[^\\W\\d_]|[{MARKS}]){{3,}}")


def nearest_rows(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """The k rows of highest cosine to each query row, itself left out, in no order: (queries, k) row numbers. Exact.

    vectors (N, D) of unit length; queries (Q,) row numbers. Needs k < N.
    """
    near = np.empty((len(queries), k), dtype=np.int64)
    step = max(1, CHUNK_NUMBERS // len(vectors))
    for start in tqdm(range(0, len(queries), step), desc="neighbours", unit="chunk", disable=None):
        rows = queries[start : start + step]
        likeness = vectors[rows] @ vectors.T  # (rows, N)
        likeness[np.arange(len(rows)), rows] = -np.inf
        near[start : start + step] = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
    return near


def neighbour_purity(codes: np.ndarray, vectors: np.ndarray, k: int, queries: int, rng: np.random.Generator) -> dict:
    """Share of an item's k nearest others that share its first l codes, level by level.

    codes (N, L), vectors (N, D) unit length; `queries` items are drawn by rng if there are more. Rows of zeros and an
    item's own row take no part; fewer others than k are all asked, and "k" says how many that was. chance is the share
    of all pairs of these items that share the prefix. Raises UserError if fewer than two rows are not zero. Needs
    k and queries >= 1.
    """
    there = np.flatnonzero((vectors != 0).any(axis=1))
    if len(there) < 2:
        raise UserError(
            f"{len(there)} items have a vector that is not zero; neighbours need two, leave --embeddings out"
        )
    k = min(k, len(there) - 1)
    vectors, prefixes = vectors[there], prefix_table(codes[there])
    asked = np.arange(len(there))
    if len(asked) > queries:
        asked = np.sort(rng.choice(len(there), queries, replace=False))
    near = nearest_rows(vectors, asked, k)
    levels = []
    for level, labels in enumerate(prefixes.T, 1):
        counts = np.bincount(labels[labels >= 0]).astype(np.float64)
        chance = float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))
        same = (labels[near] == labels[asked, None]) & (labels[asked, None] >= 0)
        levels.append(_against_chance(level, float(same.mean()), chance))
    twins = len(vectors) - len({hash(row.tobytes()) for row in vectors})
    return {
        "levels": levels,
        "k": k,
        "items_asked": len(asked),
        "zero_vectors": len(codes) - len(there),
        "repeated_vectors": twins,
    }


def transition_purity(sids: Mapping[str, Sid], train: Iterable[History]) -> dict[str, Any]:
    """Share of train transitions (last item of the history -> target) that stay in the first l codes, level by level.

    An item that follows itself says nothing about SIDs and is left out (counted as `repeats`), as is a transition with
    an item that has no SID. chance: the same share if first and second items were drawn apart from each other, each
    as often as it occurs, and equal draws thrown away.
    """
    pairs, repeats = [], 0
    for history in train:
        if history.items and history.items[-1] in sids and history.target in sids:
            if history.items[-1] == history.target:
                repeats += 1
            else:
                pairs.append((history.items[-1], history.target))
    if not pairs:
        raise UserError("no train row leads from one item with a SID to another; index and rows do not match")
    place = {item: row for row, item in enumerate(sids)}
    prefixes = prefix_table(code_table(sids.values()))
    first, second = np.array([[place[a], place[b]] for a, b in pairs]).T
    same_item = _meet(first, second)
    levels = []
    for level, labels in enumerate(prefixes.T, 1):
        a, b = labels[first], labels[second]
        same = float(((a == b) & (a >= 0)).mean())
        itself = _meet(np.where(a >= 0, first, -1), np.where(b >= 0, second, -1))
        chance = max(0.0, _meet(a, b) - itself) / (1 - same_item) if same_item < 1 else 0.0
        levels.append(_against_chance(level, same, chance if chance > 1e-12 else 0.0))
    return {"levels": levels, "transitions": len(pairs), "repeats": repeats}


def _meet(a: np.ndarray, b: np.ndarray) -> float:
    """Chance that a label of a (M,) and one of b (M,), drawn apart, are the same; -1 is no label."""
    width = int(max(a.max(), b.max())) + 1
    counts = [np.bincount(side[side >= 0], minlength=width).astype(np.float64) for side in (a, b)]
    return float(counts[0] @ counts[1]) / len(a) ** 2


def _against_chance(level: int, share: float, chance: float) -> dict[str, float]:
    return {"level": level, "share": share, "chance": chance, "lift": share / chance if chance else None}


def category_purity(codes: np.ndarray, paths: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """Of the other items in an item's level-1 cell, how many have its category; the mean over items.

    paths     N category paths, broad to narrow, () for none; the first depth at which no category holds more than
              half of the items is compared (the deepest one if there is none such), as shops put all under one root
    returns   depth, categories, items that count, share, chance (all others instead of those of the cell), lift;
              None if there are not two categories or no item shares its cell: nothing can then be pure or mixed
    """
    deepest = max(map(len, paths), default=0)
    for depth in range(1, deepest + 1):
        rows = [row for row, path in enumerate(paths) if len(path) >= depth]
        names = [tuple(paths[row][:depth]) for row in rows]
        if max(Counter(names).values()) <= len(names) / 2:
            break
    else:
        if not deepest:
            return None
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(numbers) < 2:
        return None
    cells = codes[rows, 0]
    labels = np.array([numbers[name] for name in names])
    in_cell, in_category = np.bincount(cells)[cells], np.bincount(labels)[labels]
    joint = np.unique(cells * len(numbers) + labels, return_inverse=True, return_counts=True)
    in_both = joint[2][joint[1]]
    company = in_cell > 1
    if not company.any():
        return None
    share = float(((in_both - 1)[company] / (in_cell - 1)[company]).mean())
    chance = float(((in_category - 1)[company] / (len(rows) - 1)).mean())
    return {
        "depth": depth,
        "categories": len(numbers),
        "items": int(company.sum()),
    } | _against_chance(1, share, chance)


def text_figures(sids: Mapping[str, Sid], texts: Mapping[str, str]) -> dict[str, float]:
    """How many items share their text, and what that explains. Case and white space make no difference.

    items_without_text   items of the index that have none
    identical_texts      items whose text another item has too
    identical_apart      those of them that differ in SID from every item of the same text
    collisions_by_text   share of colliding items that share their SID with an item of the same text, so that no
                         quantiser could have told them apart by it
    """
    plain = {item: " ".join(texts[item].split()).casefold() for item in sids if texts.get(item, "").strip()}
    of_text = Counter(plain.values())
    of_both = Counter((text, sids[item]) for item, text in plain.items())
    of_sid = Counter(sids.values())
    identical = [item for item, text in plain.items() if of_text[text] > 1]
    together = [item for item in identical if of_both[plain[item], sids[item]] > 1]
    colliding = sum(count for count in of_sid.values() if count > 1)
    return {
        "items_without_text": len(sids) - len(plain),
        "identical_texts": len(identical),
        "identical_apart": len(identical) - len(together),
        "collisions_by_text": len(together) / colliding if colliding else 0.0,
    }


def describe_cells(sids: Mapping[str, Sid], titles: Mapping[str, str], cells: int, words: int) -> list[dict[str, Any]]:
    """The biggest level-1 cells with the title words that set them apart.

    A word's weight in a cell is p log(p / q), p and q the shares of titles that hold it in the cell and in all: its
    part of the Kullback-Leibler divergence between the two. Words that are not twice as common there are left out.
    """
    of_cell: dict[str, list[str]] = {}
    for item, sid in sids.items():
        of_cell.setdefault(sid[0], []).append(item)
    held = {item: title_words(titles[item]) for item in sids if titles.get(item)}
    overall = Counter(word for found in held.values() for word in found)
    described = []
    for token, members in sorted(of_cell.items(), key=lambda cell: -len(cell[1]))[:cells]:
        inside = [held[item] for item in members if item in held]
        counts = Counter(word for found in inside for word in found)
        weight = {
            word: count / len(inside) * np.log(count / len(inside) * len(held) / overall[word])
            for word, count in counts.items()
            if count > 1 and count * len(held) > 2 * overall[word] * len(inside)
        }
        best = sorted(weight, key=lambda word: (-weight[word], word))[:words]
        described.append({"token": token, "items": len(members), "share": len(members) / len(sids), "words": best})
    return described


def title_words(title: str) -> set[str]:
    """Words of 3 letters or more and, of scripts without spaces, the pieces that vectors/terms.py makes, from 2 on."""
    pieces = {piece for run in RUN.findall(title) for piece in terms(run) if len(piece) > 1}
    return pieces | set(WORD.findall(RUN.sub(" ", title).casefold()))
