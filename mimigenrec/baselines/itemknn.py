"""ItemKNN: items that those who had the history's items had too, by cosine on co-occurrence.

    similarity(i, j) = users of both / (sqrt(users of i * users of j) + shrink)
    score(j) = sum of similarity(i, j) over the distinct items i of the history that count j among their neighbours

A user's items are those of all of their train rows. Ties, and items without a neighbour in the history, go by
popularity, then id.

source  Deshpande and Karypis 2004, "Item-based top-N recommendation algorithms"
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

from mimigenrec.baselines.popularity import Popularity
from mimigenrec.cli import check_range
from mimigenrec.interactions.inter_file import History


class ItemKNN:
    """similar: (N, N) sparse, row i the nearest neighbours of item i, never i itself; items in popularity's order."""

    def __init__(self, items: Iterable[str], train: Sequence[History], neighbours: int = 100, shrink: float = 0.0):
        """neighbours: how many of each item count, >= 1; shrink: >= 0. Raises UserError for others, which give scores
        that are no similarities."""
        check_range("neighbours", neighbours, least=1)
        check_range("shrink", shrink, least=0)
        self.popularity = Popularity(items, train)
        self.place = {item: i for i, (item, _) in enumerate(self.popularity.order)}
        had = csr_array(self._had(train), dtype=np.float64)
        both = (had.T @ had).tocsr()  # (N, N) users that had both
        users = both.diagonal()
        row = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
        both.data /= np.sqrt(users[row] * users[both.indices]) + shrink
        both.setdiag(0.0)
        self.similar = _nearest(both, neighbours)

    def rank(self, history: Sequence[str]) -> Iterator[tuple[str, float]]:
        """All items, best first; scores >= 0."""
        known = sorted({self.place[item] for item in history if item in self.place})
        scores = self.similar[known].sum(axis=0) if known else np.zeros(len(self.place))
        for place in np.argsort(-scores, kind="stable"):
            yield self.popularity.order[place][0], float(scores[place])

    def _had(self, train: Iterable[History]) -> csr_array:
        """(users, N) 1 where the user had the item."""
        users: dict[str, set[int]] = {}
        for history in train:
            own = users.setdefault(history.user, set())
            own.update(self.place[item] for item in (*history.items, history.target) if item in self.place)
        start = np.cumsum([0, *map(len, users.values())])
        columns = np.array([place for own in users.values() for place in sorted(own)], dtype=np.int64)
        return csr_array((np.ones(len(columns)), columns, start), shape=(len(users), len(self.place)))


def _nearest(similar: csr_array, neighbours: int) -> csr_array:
    """Each row's largest entries; of equal ones the more popular, which stands first."""
    columns, values, start = [], [], [0]
    for a, b in zip(similar.indptr, similar.indptr[1:], strict=False):
        column, value = similar.indices[a:b], similar.data[a:b]
        best = np.lexsort((column, -value))[:neighbours]
        best = best[value[best] > 0]
        columns.append(column[best])
        values.append(value[best])
        start.append(start[-1] + len(best))
    return csr_array((np.concatenate(values), np.concatenate(columns), start), shape=similar.shape)
