"""A world in which item i is always followed by item i + 1: the right answer is known for every history."""

import pytest

from mimigenrec.baselines.network import Network
from mimigenrec.interactions.inter_file import History

N = 12
ITEMS = [str(i) for i in range(N)]
SMALL = Network(
    width=16, max_history=5, window=2, filters=4, dropout=0.1, learning_rate=0.01, batch_size=16, epochs=40,
    patience=5, device="cpu",
)  # fmt: skip


def walk(user: int, start: int, length: int) -> list[History]:
    """The rows of one user, as in a .inter file."""
    path = [str((start + i) % N) for i in range(length + 1)]
    return [History(i, f"u{user}", tuple(path[: i + 1]), path[i + 1]) for i in range(length)]


@pytest.fixture(scope="package")
def circle():
    """(train, valid): 48 users of 3 to 8 items, and 12 others."""
    train = [row for user in range(48) for row in walk(user, user % N, 2 + user % 6)]
    valid = [walk(100 + i, i, 3)[-1] for i in range(N)]
    return train, valid
