import json
import random
from collections import Counter

from mimigenrec.tasks.shuffle import subsample, write_shuffled


def test_shuffling_keeps_every_row_once_and_the_seed_gives_the_order(tmp_path):
    rows = [{"row": i, "text": "é\n" * (i % 3)} for i in range(200)]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert write_shuffled(tmp_path / name, iter(rows), random.Random(seed)) == 200
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    assert json.loads(a) != rows
    assert sorted(json.loads(a), key=lambda row: row["row"]) == rows


def test_no_row_gives_an_empty_list(tmp_path):
    assert write_shuffled(tmp_path / "a", [], random.Random(0)) == 0
    assert json.loads((tmp_path / "a").read_text()) == []


def test_a_sample_is_in_order_without_repeats_and_all_if_it_may_be():
    chosen = subsample(iter(range(100)), 10, random.Random(0))
    assert len(set(chosen)) == 10 and chosen == sorted(chosen)
    assert subsample(range(5), 10, random.Random(0)) == [0, 1, 2, 3, 4]
    assert subsample(range(5), 0, random.Random(0)) == []


def test_every_element_is_as_likely_to_be_chosen():
    rng = random.Random(0)
    times = Counter(x for _ in range(4000) for x in subsample(range(10), 3, rng))
    assert all(abs(times[x] - 1200) < 150 for x in range(10))  # 5 standard deviations
