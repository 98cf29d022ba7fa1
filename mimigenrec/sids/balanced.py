"""Items to codes so that every code gets the same number of items and the total cost is close to the least possible.

The task is optimal transport between the items and codes of equal capacity. Every code has a price; an item goes
where cost minus price is least. Prices come from entropic transport (Sinkhorn scaling of the codes' side, Cuturi 2013,
arXiv:1306.0895) at falling temperatures. They leave the codes nearly, not exactly, full. The rest is settled in
rounds: each item asks for its best code with room, and a code keeps those that would lose most by going elsewhere. A
pass takes N * K steps, no flow network is built, and nothing is random.
"""

import numpy as np

TEMPERATURES = (0.1, 0.03, 0.01)  # in standard deviations of the cost; the last is near the hard assignment
PASSES = 10  # price updates at each temperature
CHUNK = 16_384  # rows of the cost looked at together


def balanced_codes(cost: np.ndarray, prices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """cost (N, K) float32 -> codes (N,) int32 with N // K or N // K + 1 items each, prices (K,).

    prices  those of a similar cost, which save the warm temperatures
    """
    temperatures = TEMPERATURES if prices is None else TEMPERATURES[-1:]
    prices = np.zeros(cost.shape[1]) if prices is None else prices.astype(np.float64)
    spread = float(cost[:: max(1, len(cost) // CHUNK)].std()) or 1.0
    for temperature in temperatures:
        for _ in range(PASSES):
            prices = _update(cost, prices, temperature * spread)
    return _settle(cost, prices.astype(np.float32)), prices


def _update(cost: np.ndarray, prices: np.ndarray, temperature: float) -> np.ndarray:
    """One scaling: a code that more than its share of items lean to becomes dearer. Rows are exact at every moment."""
    import torch

    demand = np.zeros(cost.shape[1])
    offer = torch.from_numpy((prices / temperature).astype(np.float32))
    for start in range(0, len(cost), CHUNK):
        lean = torch.from_numpy(cost[start : start + CHUNK]).mul(-1 / temperature).add_(offer).softmax(dim=1)
        demand += lean.sum(0).numpy()
    share = len(cost) / cost.shape[1]
    prices = prices - temperature * np.log(np.maximum(demand, 1e-6 * share) / share)
    return prices - prices.mean()


def _settle(cost: np.ndarray, prices: np.ndarray) -> np.ndarray:
    items, size = cost.shape
    first = np.concatenate([(cost[i : i + CHUNK] - prices).argmin(1) for i in range(0, items, CHUNK)])
    demand = np.bincount(first, minlength=size)
    room = np.full(size, items // size)
    room[np.argsort(-demand, kind="stable")[: items % size]] += 1  # one more for those most asked for
    codes = np.full(items, -1, np.int32)
    waiting = np.arange(items)
    while len(waiting):
        best, loss = _best_with_room(cost, prices, waiting, room)
        order = np.lexsort((waiting, -loss, best))
        place = np.arange(len(order)) - np.searchsorted(best[order], best[order])  # among those who ask the same code
        taken = order[place < room[best[order]]]
        codes[waiting[taken]] = best[taken]
        room -= np.bincount(best[taken], minlength=size)
        waiting = np.delete(waiting, taken)
    return codes


def _best_with_room(
    cost: np.ndarray, prices: np.ndarray, rows: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) best code with room for each row, (n,) what its second best would cost more."""
    open_codes = np.flatnonzero(room)
    best, loss = [], []
    for start in range(0, len(rows), CHUNK):
        offers = cost[rows[start : start + CHUNK]][:, open_codes] - prices[open_codes]
        best.append(open_codes[offers.argmin(1)])
        two = np.partition(offers, 1, axis=1)[:, :2] if len(open_codes) > 1 else np.zeros((len(offers), 2))
        loss.append(two[:, 1] - two[:, 0])
    return np.concatenate(best), np.concatenate(loss)
