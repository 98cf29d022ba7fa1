"""Popularity: the same list for everyone, items by how often they were the target of a train row, then by id."""

from collections import Counter
from collections.abc import Iterable, Sequence

from mimigenrec.interactions.inter_file import History
from mimigenrec.items import id_order

Ranked = list[tuple[str, float]]


class Popularity:
    """Knows every item it may rank; an item never bought in train comes last, with count 0."""

    def __init__(self, items: Iterable[str], train: Iterable[History]):
        counts = Counter(history.target for history in train)
        self.order = [(item, float(counts[item])) for item in sorted(items, key=lambda i: (-counts[i], id_order(i)))]

    def rank(self, history: Sequence[str]) -> Ranked:
        """All items with their counts, best first."""
        return self.order
