"""How the toy's users choose: a process whose best possible HR@10 is known.

300 items: 12 categories x 5 brands x 5 variants. A user likes one brand, and now and then falls for another; nobody
sees which. At each step

    category   like the last item's with 0.6, the one that follows it on a ring with 0.3, any with 0.1
    brand      the liked one with 0.8, any with 0.2
    variant    a Zipf choice, 1/1 to 1/5: some items are popular
    then       the liked brand changes to any with 0.1

The best any recommender can do is to keep the exact probabilities of the liked brand given the history (the forward
algorithm of a hidden Markov model, five states) and to name the ten likeliest items.
"""

import numpy as np

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


def number(category: int, brand: int, variant: int) -> int:
    """Of an item, 0 to C * B * V - 1."""
    return (category * B + brand) * V + variant


def walk(rng: np.random.Generator) -> list[int]:
    """One user's 4 to 12 items, oldest first."""
    liked, category, items = rng.integers(B), rng.integers(C), []
    for _ in range(rng.integers(4, 13)):
        brand = rng.choice(B, p=BRAND[liked])
        items.append(number(category, brand, rng.choice(V, p=VARIANT)))
        liked, category = rng.choice(B, p=NEXT_LIKED[liked]), rng.choice(C, p=CATEGORY[category])
    return [int(item) for item in items]


def next_item(history: list[int]) -> np.ndarray:
    """(C*B*V,) probability of each item coming next, given at least one item, oldest first."""
    liked = np.full(B, 1 / B)
    for item in history:
        liked = liked * BRAND[:, item // V % B]
        liked = (liked / liked.sum()) @ NEXT_LIKED
    category = CATEGORY[history[-1] // (B * V)]  # (C,)
    return np.einsum("c,b,v->cbv", category, liked @ BRAND, VARIANT).reshape(-1)
