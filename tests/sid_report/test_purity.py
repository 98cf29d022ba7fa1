import numpy as np
import pytest

from mimigenrec.interactions.inter_file import History, read_inter
from mimigenrec.sid_report import purity
from mimigenrec.sid_report.structure import code_table
from mimigenrec.sids.tokens import read_index
from mimigenrec.vectors.store import read_vectors, unit_rows
from tests.conftest import TOY_SIDS, shared

SIDS = list(TOY_SIDS.values())


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_sids(count, seed):
    rng = np.random.default_rng(seed)
    return {str(i): (f"<a_{rng.integers(4)}>", f"<b_{rng.integers(3)}>") for i in range(count)}


def test_nearest_finds_the_most_alike_whatever_the_chunk(monkeypatch):
    vectors = unit(np.random.default_rng(0).normal(size=(50, 6)))
    monkeypatch.setattr(purity, "CHUNK_NUMBERS", 350)
    found = purity.nearest_rows(vectors, np.array([3, 17, 41, 42, 43, 44, 45, 46]), 5)
    for row, near in zip((3, 17, 41), found, strict=False):
        others = sorted((i for i in range(50) if i != row), key=lambda i: -(vectors[row] @ vectors[i]))
        assert sorted(near) == sorted(others[:5])


def test_neighbour_purity_is_that_of_pairs_counted_one_by_one():
    sids = random_sids(40, seed=0)
    names, vectors = list(sids), unit(np.random.default_rng(1).normal(size=(40, 5)))
    found = purity.neighbour_purity(code_table(sids.values()), vectors, 4, 100, np.random.default_rng(0))
    for level in (1, 2):
        same, pairs = [], []
        for i, a in enumerate(names):
            others = sorted((j for j in range(40) if j != i), key=lambda j: -(vectors[i] @ vectors[j]))
            same += [sids[a][:level] == sids[names[j]][:level] for j in others[:4]]
            pairs += [sids[a][:level] == sids[b][:level] for b in names if b != a]
        one = found["levels"][level - 1]
        assert one["share"] == pytest.approx(np.mean(same)) and one["chance"] == pytest.approx(np.mean(pairs))
        assert one["lift"] == pytest.approx(np.mean(same) / np.mean(pairs))


def test_a_sample_of_items_is_asked_when_there_are_more_and_the_same_for_a_seed():
    sids, vectors = random_sids(60, seed=2), unit(np.random.default_rng(3).normal(size=(60, 4)))
    asked = [
        purity.neighbour_purity(code_table(sids.values()), vectors, 3, 20, np.random.default_rng(5)) for _ in "12"
    ]
    assert asked[0] == asked[1] and asked[0]["items_asked"] == 20


def test_items_without_a_vector_take_no_part():
    vectors = unit(np.random.default_rng(0).normal(size=(8, 3)))
    vectors[[1, 4]] = 0
    vectors[7] = vectors[6]
    found = purity.neighbour_purity(code_table(SIDS), vectors, 2, 100, np.random.default_rng(0))
    assert (found["zero_vectors"], found["items_asked"], found["repeated_vectors"]) == (2, 6, 1)


def test_of_few_items_all_others_are_neighbours():
    vectors = unit(np.random.default_rng(0).normal(size=(8, 3)))
    many, all_others = (
        purity.neighbour_purity(code_table(SIDS), vectors, k, 100, np.random.default_rng(0)) for k in (50, 7)
    )
    assert many == all_others and many["k"] == 7
    assert many["levels"][0]["lift"] == pytest.approx(1)  # all pairs are asked
    with pytest.raises(ValueError, match="1 items have a vector that is not zero"):
        purity.neighbour_purity(code_table(SIDS[:1]), vectors[:1], 10, 100, np.random.default_rng(0))


def test_clusters_that_the_codes_name_are_pure_and_random_codes_are_chance():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 5, 300)
    vectors = unit(10 * np.eye(5)[cluster] + rng.normal(size=(300, 5)) * 0.1)
    pure = code_table([(f"<a_{c}>",) for c in cluster])
    found = purity.neighbour_purity(pure, vectors, 10, 1000, rng)
    assert found["levels"][0]["share"] == 1
    found = purity.neighbour_purity(rng.permutation(pure), vectors, 10, 1000, rng)
    assert found["levels"][0]["lift"] == pytest.approx(1, abs=0.15)


def test_transition_purity_counts_pairs_and_draws_them_apart():
    sids = {"1": ("<a_0>", "<b_0>"), "2": ("<a_0>", "<b_1>"), "3": ("<a_1>", "<b_0>")}
    pairs = [("1", "2"), ("1", "3"), ("2", "1"), ("3", "3"), ("9", "1"), ("3", "1")]
    rows = [History(i, "u", ("2", a), b) for i, (a, b) in enumerate(pairs)] + [History(9, "u", (), "1")]
    found = purity.transition_purity(sids, rows)
    assert (found["transitions"], found["repeats"]) == (4, 1)
    kept = [("1", "2"), ("1", "3"), ("2", "1"), ("3", "1")]
    apart = [(a, b) for a, _ in kept for _, b in kept if a != b]
    for level in (1, 2):
        one = found["levels"][level - 1]
        assert one["share"] == pytest.approx(np.mean([sids[a][:level] == sids[b][:level] for a, b in kept]))
        assert one["chance"] == pytest.approx(np.mean([sids[a][:level] == sids[b][:level] for a, b in apart]))
    assert found["levels"][1]["lift"] is None  # no two items share a whole SID


def test_rows_of_another_data_set_are_refused():
    with pytest.raises(ValueError, match="no train row leads from one item with a SID"):
        purity.transition_purity(TOY_SIDS, [History(0, "u", ("x",), "y")])


def test_category_purity_skips_the_root_and_counts_pairs():
    paths = [("R", "A"), ("R", "A"), ("R", "B"), ("R", "B"), ("R", "A"), ("R",), ("R", "C"), ()]
    codes = code_table([(f"<a_{c}>",) for c in (0, 0, 0, 1, 1, 0, 2, 0)])
    found = purity.category_purity(codes, paths)
    rows = [0, 1, 2, 3, 4, 6]
    cell = codes[:, 0]
    shares, chances = [], []
    for i in rows:
        others = [j for j in rows if j != i]
        near = [j for j in others if cell[j] == cell[i]]
        if near:
            shares.append(np.mean([paths[j] == paths[i] for j in near]))
            chances.append(np.mean([paths[j] == paths[i] for j in others]))
    assert (found["depth"], found["categories"], found["items"]) == (2, 3, 5)
    assert found["share"] == pytest.approx(np.mean(shares)) and found["chance"] == pytest.approx(np.mean(chances))


def test_without_two_categories_there_is_no_category_purity():
    codes = code_table([("<a_0>",), ("<a_0>",), ("<a_1>",)])
    assert purity.category_purity(codes, [("R",)] * 3) is None
    assert purity.category_purity(codes, [()] * 3) is None
    assert purity.category_purity(codes, [("R",), ("R",), ("S",)])["share"] == 1  # no depth below; the deepest counts


def test_texts_that_are_alike_and_what_they_explain():
    texts = {"2": "A  Glove", "3": "a glove", "0": "a glove ", "4": "saw", "5": " "}
    found = purity.text_figures(TOY_SIDS, texts)  # 2 and 3 share a SID, 0 has its own
    assert found == {
        "items_without_text": 4,
        "identical_texts": 3,
        "identical_apart": 1,
        "collisions_by_text": 1.0,
    }


def test_words_of_a_cell_are_those_that_set_it_apart():
    sids = {str(i): (f"<a_{i // 4}>", "<b_0>") for i in range(12)}
    names = ["blue glove", "red glove", "glove", "blue nitrile glove"] + ["blue saw"] * 4 + ["red paint"] * 4
    cells = purity.describe_cells(sids, dict(enumerate_str(names)), cells=2, words=2)
    assert [cell["token"] for cell in cells] == ["<a_0>", "<a_1>"] and cells[0]["share"] == pytest.approx(1 / 3)
    assert cells[0]["words"] == ["glove"] and cells[1]["words"] == ["saw"]


def enumerate_str(names):
    return ((str(i), name) for i, name in enumerate(names))


def test_words_of_titles_without_spaces_are_pieces_of_them():
    titles = [f"新款{kind}{i}" for kind in ("蓝牙耳机", "保温杯", "棉短袖") for i in range(4)]
    sids = {str(i): (f"<a_{i // 4}>",) for i in range(12)}
    cells = purity.describe_cells(sids, dict(enumerate_str(titles)), cells=2, words=9)
    assert set(cells[0]["words"]) >= {"蓝牙", "耳机"} and set(cells[1]["words"]) >= {"保温", "温杯"}
    assert not {"新款"} & {word for cell in cells for word in cell["words"]}


def test_published_sids_keep_alike_and_bought_together_items_together():
    folder = shared("data", "amazon18-industrial-active")
    sids = read_index(folder / "Industrial_and_Scientific.index.json")
    items = sorted(sids, key=int)
    rows = unit_rows(read_vectors(folder / "Industrial_and_Scientific.emb-minilm-td.npy", items))
    vectors = rows[[int(item) for item in sids]]
    codes = code_table(sids.values())
    near = purity.neighbour_purity(codes, vectors, 10, 500, np.random.default_rng(0))["levels"][0]
    bought = purity.transition_purity(sids, read_inter(folder / "Industrial_and_Scientific.train.inter"))["levels"][0]
    assert near["share"] > 0.5 and near["lift"] > 15 and bought["lift"] > 5
    shuffled = np.random.default_rng(0).permutation(codes)
    near = purity.neighbour_purity(shuffled, vectors, 10, 500, np.random.default_rng(0))["levels"][0]
    assert near["lift"] == pytest.approx(1, abs=0.2)
