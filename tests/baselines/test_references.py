"""Published numbers: Toys of S3-Rec, leave-one-out, all items ranked, seen ones left out (README of the data)."""

import gzip

import pytest

from mimigenrec.baselines.markov import Markov
from mimigenrec.evaluation.metrics import expected_hr, expected_ndcg, places_from_ranks
from mimigenrec.interactions.inter_file import History
from tests.conftest import shared


@pytest.fixture(scope="module")
def toys():
    packed = shared("data", "s3rec-toys", "Toys_and_Games.txt.gz").read_bytes()
    return [tuple(line.split()[1:]) for line in gzip.decompress(packed).decode().splitlines()]


def measure(rank, users):
    """(HR@10, NDCG@10) of each user's last item."""
    ranks = []
    for items in users:
        seen, found, place = set(items[:-1]), 0, 0
        for item, _ in rank(items[:-1]):
            if item not in seen:
                place += 1
                if item == items[-1]:
                    found = place
            if found or place == 10:
                break
        ranks.append(found)
    places = places_from_ranks(ranks)
    return tuple(round(float(metric(places, 10).mean()), 4) for metric in (expected_hr, expected_ndcg))


@pytest.mark.parametrize(
    ("first", "markov", "popularity"),
    [(0, (0.0706, 0.0479), (0.0090, 0.0049)), (1, (0.0711, 0.0481), (0.0095, 0.0054))],
    ids=["a user's first item counts as a target", "rows as in .inter files, whose targets begin with the second"],
)
def test_markov_and_popularity_of_toys(toys, first, markov, popularity):
    catalogue = {item for items in toys for item in items}
    train = [History(0, "u", items[:i], items[i]) for items in toys for i in range(first, len(items) - 2)]
    method = Markov(catalogue, train)
    assert len(catalogue) == 11_924 and len(toys) == 19_412
    assert measure(method.rank, toys) == markov
    assert measure(method.popularity.rank, toys) == popularity
