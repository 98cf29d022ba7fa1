"""A toy catalogue and its users, drawn from a process whose best possible HR@10 is known.

300 items: 12 categories x 5 brands x 5 variants. A user likes one brand, and now and then falls for another; nobody
sees which. At each step

    category   like the last item's with 0.6, the one that follows it on a ring with 0.3, any with 0.1
    brand      the liked one with 0.8, any with 0.2
    variant    a Zipf choice, 1/1 to 1/5: some items are popular
    then       the liked brand changes to any with 0.1

The best any recommender can do is to keep the exact probabilities of the liked brand given the history (the forward
algorithm of a hidden Markov model, five states) and to name the ten likeliest items. `optimum` does just that.

    python examples/tiny/make_toy.py --output_dir data/toy_raw

writes toy_raw/toy/toy.{train,valid,test}.inter, toy.item.json, toy.index.json as preprocess_data_sft_rl.py takes them,
and optimum.json. SIDs are category, brand, variant; eight pairs of items share one, as happens to learnt SIDs.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimigenrec.cli import arg, parse
from mimigenrec.files import write_json
from mimigenrec.interactions.inter_file import History, write_inter
from mimigenrec.sids.tokens import write_index

CATEGORIES = ["drill", "saw", "lamp", "glove", "ladder", "tape", "hammer", "cable", "pump", "valve", "brush", "scale"]
BRANDS = ["Acorn", "Birch", "Cedar", "Daisy", "Elder"]
VARIANTS = ["standard", "compact", "heavy duty", "quiet", "travel"]
STAY, FOLLOW, ANY_CATEGORY = 0.6, 0.3, 0.1
LIKED, DRIFT = 0.8, 0.1
C, B, V = len(CATEGORIES), len(BRANDS), len(VARIANTS)
VARIANT = np.array([1 / (v + 1) for v in range(V)]) / sum(1 / (v + 1) for v in range(V))  # (V,)
BRAND = np.full((B, B), (1 - LIKED) / B) + LIKED * np.eye(B)  # (liked, shown)
NEXT_LIKED = np.full((B, B), DRIFT / B) + (1 - DRIFT) * np.eye(B)  # (liked, liked next)
CATEGORY = np.full((C, C), ANY_CATEGORY / C) + STAY * np.eye(C) + FOLLOW * np.roll(np.eye(C), 1, axis=1)
HISTORY = 10


@dataclass
class ToyConfig:
    """Writes a toy category folder whose best possible HR@10 is known."""

    output_dir: Path = arg("folder that gets the category folder `toy`")
    users: int = arg("number of users, each with 4 to 12 interactions", default=1500)
    seed: int = arg("seed of items' SIDs and users' choices", default=42)


def item_id(category: int, brand: int, variant: int) -> int:
    return (category * B + brand) * V + variant


def next_item(history: list[int]) -> np.ndarray:
    """(C*B*V,) probability of each item coming next, given at least one item, oldest first."""
    liked = np.full(B, 1 / B)
    for item in history:
        liked = liked * BRAND[:, item // V % B]
        liked = (liked / liked.sum()) @ NEXT_LIKED
    category = CATEGORY[history[-1] // (B * V)]  # (C,)
    return np.einsum("c,b,v->cbv", category, liked @ BRAND, VARIANT).reshape(-1)


def walk(rng: np.random.Generator) -> list[int]:
    """One user's items, oldest first."""
    liked, category, items = rng.integers(B), rng.integers(C), []
    for _ in range(rng.integers(4, 13)):
        brand = rng.choice(B, p=BRAND[liked])
        items.append(item_id(category, brand, rng.choice(V, p=VARIANT)))
        liked, category = rng.choice(B, p=NEXT_LIKED[liked]), rng.choice(C, p=CATEGORY[category])
    return [int(item) for item in items]


def optimum(histories: list[History]) -> dict[str, float]:
    """HR@10 and NDCG@10 that the generating process itself would reach on these rows, in expectation over targets."""
    hits, gains = [], []
    for history in histories:
        best = np.sort(next_item([int(item) for item in history.items]))[::-1][:10]
        hits.append(best.sum())
        gains.append((best / np.log2(np.arange(2, 12))).sum())
    return {"hr@10": float(np.mean(hits)), "ndcg@10": float(np.mean(gains)), "rows": len(histories)}


def main(config: ToyConfig) -> None:
    rng = np.random.default_rng(config.seed)
    rows = []
    for user in range(config.users):
        items, start = walk(rng), rng.random()
        for i in range(1, len(items)):
            when = start + i * 0.01
            rows.append((when, f"u{user}", tuple(map(str, items[max(0, i - HISTORY) : i])), str(items[i])))
    rows.sort()
    folder, n = config.output_dir / "toy", len(rows)
    cuts = {"train": (0, n * 8 // 10), "valid": (n * 8 // 10, n * 9 // 10), "test": (n * 9 // 10, n)}
    splits = {
        split: [History(i, user, items, target) for i, (_, user, items, target) in enumerate(rows[first:last])]
        for split, (first, last) in cuts.items()
    }
    for split, histories in splits.items():
        write_inter(folder / f"toy.{split}.inter", histories)

    texts, sids = {}, {}
    for c, category in enumerate(CATEGORIES):
        for b, brand in enumerate(BRANDS):
            for v, variant in enumerate(VARIANTS):
                item = str(item_id(c, b, v))
                title = f"{brand} {variant} {category}"
                told = f"A {variant} {category} made by {brand}, number {item} in the list."
                texts[item] = {"title": title, "description": told, "categories": category}
                sids[item] = (f"<a_{c}>", f"<b_{b}>", f"<c_{v}>")
    for c, b in random.Random(config.seed).sample([(c, b) for c in range(C) for b in range(B)], 8):
        sids[str(item_id(c, b, V - 1))] = sids[str(item_id(c, b, V - 2))]
    write_json(folder / "toy.item.json", texts)
    write_index(folder / "toy.index.json", sids)
    best = optimum(splits["test"])
    write_json(folder / "optimum.json", best)
    counts = ", ".join(f"{len(histories)} {split}" for split, histories in splits.items())
    print(f"{len(texts)} items, {config.users} users, rows: {counts}; best possible HR@10 {best['hr@10']:.4f}")


if __name__ == "__main__":
    main(*parse(ToyConfig))
