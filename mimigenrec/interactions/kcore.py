"""k-core: drop users and items with too few interactions until all that are left have enough."""

import numpy as np


def k_core(user: np.ndarray, item: np.ndarray, user_k: int, item_k: int) -> tuple[np.ndarray, int]:
    """Which interactions stay, and after how many rounds nothing changed any more.

    user, item   (n,) integer codes >= 0 of each interaction
    returns      (n,) bool, the largest subset in which every user has at least user_k interactions and every item at
                 least item_k; there is only one, so the order of dropping does not matter. And the number of rounds.
    source       Seidman 1983, Network structure and minimum degree, for the bipartite graph with repeated edges
    """
    kept = np.arange(len(user))
    rounds = 0
    while True:
        rounds += 1
        before = len(kept)
        for codes, k in ((user, user_k), (item, item_k)):
            if k > 1 and len(kept):
                kept = kept[np.bincount(codes[kept])[codes[kept]] >= k]
        if len(kept) == before:
            break
    stays = np.zeros(len(user), dtype=bool)
    stays[kept] = True
    return stays, rounds
