"""A token for every item: through quantise, the codebooks' file, sid-report and sid-assign."""

import json

import numpy as np
import pytest

from mimigenrec.cli import parse
from mimigenrec.sid_assign import AssignConfig
from mimigenrec.sid_assign import main as sid_assign
from mimigenrec.sid_report.build import SidReportConfig
from mimigenrec.sid_report.build import main as sid_report
from mimigenrec.sids import item_tokens, quantiser
from mimigenrec.sids.quantise import QuantiseConfig, main
from mimigenrec.sids.quantiser import Codebooks, assign, error_by_level, nearest
from mimigenrec.sids.tokens import read_index
from mimigenrec.sids.training import Training
from mimigenrec.vectors.store import write_vectors
from tests.vectors.conftest import items_file

ITEMS = [str(i) for i in range(24)]
OWN = {item: (f"<a_{item}>",) for item in ITEMS}


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)


@pytest.fixture
def quantise(shop, vectors, tmp_path):
    """Runs the command on the shop with method item_tokens; -> (SIDs, manifest)."""
    write_vectors(tmp_path / "C.emb-x.npy", vectors, ITEMS, model="x", normalised=False)

    def run(**settings):
        output = tmp_path / "C.index.json"
        files = {"items": shop, "vectors": tmp_path / "C.emb-x.npy", "output": output, "method": "item_tokens"}
        main(QuantiseConfig(**{**files, **settings}), Training())
        return read_index(output), json.loads(output.with_suffix(".manifest.json").read_text())

    return run


@pytest.fixture
def grow(quantise, vectors, tmp_path):
    """sid-assign on the shop's index: new items "24" near item 5 and "25" near item 7."""
    quantise()
    write_vectors(
        tmp_path / "new.emb.npy", vectors[[5, 7]] + np.float32(0.01), ["24", "25"], model="x", normalised=False
    )
    files = {
        "index": tmp_path / "C.index.json",
        "codebooks": tmp_path / "C.codebooks-item_tokens.safetensors",
        "output": tmp_path / "new.index.json",
        "items": items_file(tmp_path / "new.json", {"24": "new one", "25": "new two"}),
        "vectors": tmp_path / "new.emb.npy",
    }

    def run(**settings):
        sid_assign(AssignConfig(**{**files, **settings}))
        return read_index(files["output"])

    return run


def test_one_level_and_a_code_for_each_item_in_row_order(vectors):
    for sizes, seed in (([256, 256, 256], 0), ([1], 9)):
        codebooks, codes = item_tokens.fit(vectors, sizes, seed)
        assert codes.tolist() == [[row] for row in range(24)]
        assert codebooks.sizes == [24] and codebooks.dim == 6 and error_by_level(codebooks, vectors, codes) == [0.0]


def test_codebooks_come_back_from_their_file_and_give_the_same_codes(vectors, tmp_path):
    codebooks, codes = item_tokens.fit(vectors, [], 0)
    codebooks.save(tmp_path / "c.safetensors")
    again = Codebooks.load(tmp_path / "c.safetensors")
    assert again.method == "item_tokens" and np.array_equal(again.levels[0], vectors)
    assert np.array_equal(assign(again, vectors), codes)
    assert assign(again, np.zeros((0, 6), np.float32)).shape == (0, 1)


def test_one_item_has_a_token(tmp_path):
    codebooks, codes = item_tokens.fit(np.ones((1, 3)), [256], 0)
    assert codes.tolist() == [[0]] and assign(codebooks, np.zeros((1, 3))).tolist() == [[0]]


def test_quantise_names_items_by_their_rows_whatever_the_sizes(quantise):
    for sizes in ([256, 256, 256], [1000], [2] * 9):  # more codes than items, more levels than letters: not asked for
        sids, manifest = quantise(sizes=sizes, overwrite=True)
        assert sids == OWN and list(sids) == ITEMS
        assert manifest["error_by_level"] == [0.0] and manifest["codes_used"] == [24]
        assert manifest["same_as_assign"] == 1.0 and manifest["after"] == {"sids": 24, "sharing": 0, "largest": 1}


def test_items_of_one_vector_keep_tokens_of_their_own_and_assign_says_so(shop, vectors, tmp_path, quantise):
    vectors[3] = vectors[2]
    write_vectors(tmp_path / "C.emb-x.npy", vectors, ITEMS, model="x", normalised=False)
    sids, manifest = quantise(collisions="reassign")
    assert sids == OWN and manifest["same_as_assign"] == pytest.approx(23 / 24)


def test_items_of_one_text_share_a_token_when_merged(quantise):
    sids, manifest = quantise(merge_same_text=True)
    assert sids == OWN | {"23": ("<a_22>",)} and manifest["items_merged"] == 1


def test_vectors_of_other_items_are_refused(quantise, tmp_path):
    np.save(tmp_path / "short.npy", np.ones((23, 6)))
    with pytest.raises(ValueError, match="short.npy has 23 rows for 24 items"):
        quantise(vectors=tmp_path / "short.npy")


def test_the_command_line_knows_the_method():
    argv = "--items a --vectors b --output c --method item_tokens".split()
    assert parse(QuantiseConfig, Training, argv=argv)[0].method == "item_tokens"


def test_many_entries_are_searched_in_parts_with_the_same_result(vectors, monkeypatch):
    asked = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    wanted = ((asked[:, None] - vectors[None]) ** 2).sum(2).argmin(1)
    for scores in (1, 24 * 7, quantiser.SCORES):
        monkeypatch.setattr(quantiser, "SCORES", scores)
        assert nearest(asked, vectors).tolist() == wanted.tolist()


def test_sid_report_judges_item_tokens_without_calling_them_bad(quantise, shop, tmp_path, capsys):
    quantise()
    files = {"index": "C.index.json", "output": "report", "embeddings": "C.emb-x.npy"}
    files = {name: str(tmp_path / file) for name, file in files.items()}
    sid_report(SidReportConfig(**files, items=str(shop), fail_on=["collisions>0"]))
    told = json.loads((tmp_path / "report" / "sid_report.json").read_text())
    assert (
        told["overall"] == "watch" and told["figures"]["level1.codes"] == 24 and told["figures"]["distinct_sids"] == 24
    )
    assert "24 first codes for 24 items" in capsys.readouterr().out


def test_a_new_item_shares_the_token_of_the_nearest_item(grow):
    assert grow() == OWN | {"24": ("<a_5>",), "25": ("<a_7>",)}


def test_a_new_item_alone_is_refused_a_token_of_its_own(grow):
    for new_tokens in (False, True):  # every codebook entry is an item: there are no others to learn
        with pytest.raises(ValueError, match="'24': 24 are taken; --collisions leave would make room"):
            grow(collisions="reassign", new_tokens=new_tokens)


def test_a_new_item_takes_the_token_of_a_removed_one_if_told_to(grow, tmp_path):
    (tmp_path / "gone.txt").write_text("0\n11\n")
    sids = grow(remove=tmp_path / "gone.txt", collisions="reassign", new_tokens=True)
    assert {sids["24"], sids["25"]} == {("<a_0>",), ("<a_11>",)} and not {"0", "11"} & set(sids)
