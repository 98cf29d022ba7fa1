"""First-order Markov: what followed the last item of the history in train, most often first.

Ties go by popularity, then id; where the last item leads nowhere else, popularity fills the list.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from mimigenrec.baselines.popularity import Popularity, Ranked
from mimigenrec.interactions.inter_file import History


class Markov:
    """Counts (last item of the history -> target) over the train rows, one count a row."""

    def __init__(self, items: Iterable[str], train: Sequence[History]):
        self.popularity = Popularity(items, train)
        place = {item: i for i, (item, _) in enumerate(self.popularity.order)}  # popularity, then id
        steps: dict[str, Counter[str]] = defaultdict(Counter)
        for history in train:
            if history.items and history.target in place:
                steps[history.items[-1]][history.target] += 1
        self.followers: dict[str, Ranked] = {
            last: [(item, float(n)) for item, n in sorted(counts.items(), key=lambda c: (-c[1], place[c[0]]))]
            for last, counts in steps.items()
        }

    def rank(self, history: Sequence[str]) -> Iterator[tuple[str, float]]:
        """All items, best first. Scores: transition counts >= 1, then popularity scaled below 1."""
        first = self.followers.get(history[-1], []) if history else []
        yield from first
        followed = {item for item, _ in first}
        most = 1.0 + self.popularity.order[0][1]
        for item, count in self.popularity.order:
            if item not in followed:
                yield item, count / most
