"""First-order Markov: what followed the last item of the history in train, most often first.

Ties go by popularity, then id; where the last item leads nowhere else, popularity fills the list. With back-off the
items before the last are asked first, one after the other, the latest first.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from mimigenrec.baselines.popularity import Popularity, Ranked
from mimigenrec.cli import check_range
from mimigenrec.interactions.inter_file import History


class Markov:
    """Counts (last item of the history -> target) over the train rows, one count a row."""

    def __init__(self, items: Iterable[str], train: Sequence[History], back_off: int = 0):
        """back_off: how many items before the last are asked, before popularity; >= 0."""
        check_range("back_off", back_off, least=0)
        self.popularity = Popularity(items, train)
        self.asked = 1 + back_off
        place = {item: i for i, (item, _) in enumerate(self.popularity.order)}  # popularity, then id
        steps: dict[str, Counter[str]] = defaultdict(Counter)
        for history in train:
            if history.items and history.target in place:
                steps[history.items[-1]][history.target] += 1
        self.followers: dict[str, Ranked] = {
            last: [(item, float(n)) for item, n in sorted(counts.items(), key=lambda c: (-c[1], place[c[0]]))]
            for last, counts in steps.items()
        }
        self.most = 1.0 + max((ranked[0][1] for ranked in self.followers.values()), default=0.0)

    def rank(self, history: Sequence[str]) -> Iterator[tuple[str, float]]:
        """All items, best first. Scores: transition counts >= 1 after the last item; then, each step of back-off in
        a band of its own below that, counts and at the end popularity, scaled."""
        named: set[str] = set()
        for step, last in enumerate(reversed(history[-self.asked :])):
            for item, count in self.followers.get(last, []):
                if item not in named:
                    named.add(item)
                    yield item, count if step == 0 else 1.0 - (step - count / self.most) / self.asked
        most = (1.0 + self.popularity.order[0][1]) * self.asked
        for item, count in self.popularity.order:
            if item not in named:
                yield item, count / most
