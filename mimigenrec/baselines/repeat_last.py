"""Repeat-last: what the user had, the latest first, and nothing else. It shows how far repeating alone goes."""

from collections.abc import Iterable, Sequence

from mimigenrec.baselines.popularity import Ranked
from mimigenrec.interactions.inter_file import History


class RepeatLast:
    """Learns nothing from train. The list is as long as the history has distinct items, empty for an empty one."""

    def __init__(self, items: Iterable[str], train: Iterable[History]):
        self.items = set(items)

    def rank(self, history: Sequence[str]) -> Ranked:
        """Distinct items of the history, the latest first, scored 1, 1/2, 1/3, ..."""
        latest = [item for item in dict.fromkeys(reversed(history)) if item in self.items]
        return [(item, 1.0 / place) for place, item in enumerate(latest, 1)]
