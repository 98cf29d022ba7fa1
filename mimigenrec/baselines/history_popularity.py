"""History + popularity: what the user had, most often first, the latest first among equals; then what is popular."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mimigenrec.baselines.popularity import Popularity
from mimigenrec.interactions.inter_file import History


class HistoryPopularity:
    def __init__(self, items: Iterable[str], train: Iterable[History]):
        self.popularity = Popularity(items, train)
        self.items = {item for item, _ in self.popularity.order}

    def rank(self, history: Sequence[str]) -> Iterator[tuple[str, float]]:
        """All items, best first. Scores: how often in the history, then popularity scaled below 1."""
        had = Counter(item for item in reversed(history) if item in self.items)  # counted latest first
        for item, count in sorted(had.items(), key=lambda c: -c[1]):  # stable
            yield item, float(count)
        most = 1.0 + self.popularity.order[0][1]
        for item, count in self.popularity.order:
            if item not in had:
                yield item, count / most
