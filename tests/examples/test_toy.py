"""The toy shop of `make demo`: its process against a sum over all that users may secretly like, and its raw lines."""

import gzip
import itertools
import json

import numpy as np
import pytest

from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.sids.tokens import read_index
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "tiny")


def test_the_next_item_is_as_likely_as_a_sum_over_all_liked_brands_says():
    import process as p

    history = [p.number(3, 1, 0), p.number(3, 4, 2), p.number(4, 1, 1)]
    brand = np.zeros(p.B)
    for liked in itertools.product(range(p.B), repeat=4):  # at the three items and at the next
        chance = 1 / p.B
        for step, item in enumerate(history):
            chance *= p.BRAND[liked[step], item // p.V % p.B] * p.NEXT_LIKED[liked[step], liked[step + 1]]
        brand += chance * p.BRAND[liked[3]]
    expected = np.einsum("c,b,v->cbv", p.CATEGORY[4], brand / brand.sum(), p.VARIANT).reshape(-1)
    np.testing.assert_allclose(p.next_item(history), expected)
    assert expected.sum() == pytest.approx(1)


def test_walks_follow_the_process():
    import process as p

    rng = np.random.default_rng(0)
    walks = [p.walk(rng) for _ in range(3000)]
    assert {len(items) for items in walks} == set(range(4, 13))
    pairs = np.array([pair for items in walks for pair in itertools.pairwise(items)])
    category, brand = pairs // (p.B * p.V), pairs // p.V % p.B
    step = (category[:, 1] - category[:, 0]) % p.C
    assert np.mean(step == 0) == pytest.approx(p.CATEGORY[0, 0], abs=0.01)
    assert np.mean(step == 1) == pytest.approx(p.CATEGORY[0, 1], abs=0.01)
    same = (p.BRAND.T / p.B @ p.NEXT_LIKED @ p.BRAND).trace()  # the same brand twice, whatever is liked
    assert np.mean(brand[:, 0] == brand[:, 1]) == pytest.approx(same, abs=0.01)


def test_raw_lines_become_rows_whose_optimum_is_that_of_the_process(tmp_path, monkeypatch):
    import make_toy
    import optimum
    import process as p

    from mimigenrec.cli import parse
    from mimigenrec.prepare import PrepareConfig
    from mimigenrec.prepare import main as prepare

    raw = tmp_path / "data" / "toy_raw"
    make_toy.main(make_toy.ToyConfig(raw, users=150))
    lines = gzip.decompress((raw / "toy_5.json.gz").read_bytes())
    make_toy.main(make_toy.ToyConfig(raw, users=150))
    assert gzip.decompress((raw / "toy_5.json.gz").read_bytes()) == lines  # one seed, one file
    monkeypatch.chdir(tmp_path)
    prepare(*parse(PrepareConfig, argv=[str(ROOT / "examples/tiny/prepare.yaml")]))
    sids = read_index(raw / "toy" / "toy.index.json")
    assert len(set(sids.values())) == len(sids) > 250 and set(map(len, sids.values())) == {3}
    rows = [row for split in ("train", "valid", "test") for row in read_inter(raw / "toy" / f"toy.{split}.inter")]
    assert len(rows) == len(lines.splitlines()) - 150  # all but each user's first

    optimum.main(optimum.OptimumConfig(raw / "toy"))
    best = json.loads((raw / "toy" / "optimum.json").read_text())
    number = optimum.number_of(raw / "toy")
    title = json.loads((raw / "toy" / "toy.item.json").read_text())["7"]["title"]
    c, b, v = number["7"] // (p.B * p.V), number["7"] // p.V % p.B, number["7"] % p.V
    assert title == f"{p.BRANDS[b]} {p.VARIANTS[v]} {p.CATEGORIES[c]}"
    chances = [p.next_item([number[item] for item in row.items]) for row in rows[-best["rows"] :]]
    assert best["hr@10"] == pytest.approx(np.mean([sum(sorted(chance)[-10:]) for chance in chances]))
    assert 0.6 < best["hr@10"] < 0.7 and best["ndcg@10"] < best["hr@10"]
