import json
from dataclasses import replace

import numpy as np
import pytest

from mimigenrec import sid_assign
from mimigenrec.catalog import Catalog, load_catalog, write_items
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import recommend
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.sid_assign import AssignConfig, main
from mimigenrec.sids import rqkmeans
from mimigenrec.sids.quantiser import assign
from mimigenrec.sids.tokens import codes_to_sids, read_index, sid_to_codes, write_index
from mimigenrec.vectors.store import write_vectors
from tests.conftest import make_model, make_tokenizer
from tests.vectors.conftest import items_file

OLD = [str(i) for i in range(100)]
NEW = [str(i) for i in range(100, 110)]
GONE = ["3", "14", "15", "92", "65"]


@pytest.fixture(scope="module")
def fitted():
    vectors = np.random.default_rng(0).normal(size=(110, 8)).astype(np.float32)
    codebooks, codes = rqkmeans.fit(vectors[:100], [8, 8, 8], seed=0)
    codebooks.about["model"] = "x"
    return codebooks, codes, vectors


@pytest.fixture
def catalogue(fitted, tmp_path):
    """Files of 100 items, 10 new ones and the ids of 5 that go: the arguments of sid-assign."""
    codebooks, codes, vectors = fitted
    codebooks.save(tmp_path / "C.codebooks-rqkmeans.safetensors")
    write_index(tmp_path / "C.index.json", codes_to_sids(OLD, codes))
    write_vectors(tmp_path / "new.emb.npy", vectors[100:], NEW, model="x", normalised=False)
    (tmp_path / "gone.txt").write_text("\n".join(GONE) + "\n")
    return {
        "index": tmp_path / "C.index.json",
        "codebooks": tmp_path / "C.codebooks-rqkmeans.safetensors",
        "output": tmp_path / "new.index.json",
        "items": items_file(tmp_path / "new.json", {item: f"new {item}" for item in NEW}),
        "vectors": tmp_path / "new.emb.npy",
        "remove": tmp_path / "gone.txt",
    }


def run(arguments, **settings):
    main(AssignConfig(**{**arguments, **settings}))
    return read_index({**arguments, **settings}["output"])


def test_ten_percent_more_and_five_percent_less_leave_all_other_sids_as_they_were(catalogue, fitted):
    old, sids = read_index(catalogue["index"]), run(catalogue, new_tokens=True)
    assert list(sids) == [item for item in OLD if item not in GONE] + NEW
    assert all(sids[item] == old[item] for item in sids if item in old)
    codebooks, _, vectors = fitted
    assert [sid_to_codes(sids[item]) for item in NEW] == list(map(tuple, assign(codebooks, vectors[100:]).tolist()))
    report = json.loads(catalogue["output"].with_suffix(".assigned.json").read_text())
    assert (report["kept"], report["removed"], report["new"]) == (95, 5, 10)


def test_new_items_are_found_by_search_and_removed_ones_are_not(catalogue):
    old = read_index(catalogue["index"])
    tokens = sorted({token for sid in old.values() for token in sid})
    tokenizer = make_tokenizer(sid_tokens=tokens)
    model = make_model(len(tokenizer))
    sids = run(catalogue, collisions="reassign")
    trie = SidTrie.from_sids(sids, tokenizer)
    prompt = tokenizer("Which item comes next?")["input_ids"]
    found = [one.item for one in recommend(model, tokenizer, trie, [prompt], k=110, beams=128)[0]]
    assert sorted(found) == sorted(sids) and set(NEW) <= set(found) and not set(GONE) & set(found)


def test_a_running_model_takes_the_new_catalogue_up(catalogue, tmp_path):
    from mimigenrec.contract import Contract

    old = read_index(catalogue["index"])
    tokenizer = make_tokenizer(sid_tokens=sorted({token for sid in old.values() for token in sid}))
    folder = tmp_path / "checkpoint"
    catalog = Catalog(dict(old), {item: f"old {item}" for item in OLD}, {}, {"7": 3})
    first = MIMIGenRec(make_model(len(tokenizer)), tokenizer, catalog, Contract.of("contract", tokenizer))
    first.save_pretrained(folder)
    running = MIMIGenRec.from_pretrained(folder, device="cpu")

    def all_items():
        return {one.item for one in running.recommend([["0"]], k=110, beams=128)[0]}

    assert all_items() == set(OLD)
    run(catalogue, index=folder / "id2sid.json", output=folder / "id2sid.json", collisions="reassign")
    assert all_items() == set(OLD)
    running.reload()
    assert all_items() == set(OLD) - set(GONE) | set(NEW)
    told = {item: f"old {item}" for item in OLD if item not in GONE} | {item: f"new {item}" for item in NEW}
    assert running.catalog.titles == told and running.catalog.popularity == {"7": 3}
    (folder / "id2sid.json").write_text("{")
    with pytest.raises(ValueError, match="id2sid.json is not JSON"):
        running.reload()
    assert all_items() == set(OLD) - set(GONE) | set(NEW)  # nothing has changed


def test_new_items_have_no_tokens_the_model_does_not_know(catalogue, fitted):
    old = {item: sid for item, sid in read_index(catalogue["index"]).items() if sid[0] in ("<a_0>", "<a_1>", "<a_2>")}
    write_index(catalogue["index"], old)
    known = {token for sid in old.values() for token in sid}
    sids = run(catalogue, remove=None)
    assert {token for item in NEW for token in sids[item]} <= known
    codebooks, _, vectors = fitted
    first = codebooks.levels[0]
    allowed = sorted({sid_to_codes(sid)[0] for sid in old.values()})
    for item, vector in zip(NEW, vectors[100:], strict=True):
        assert sid_to_codes(sids[item])[0] == allowed[((first[allowed] - vector) ** 2).sum(1).argmin()]
    anew = run(catalogue, remove=None, new_tokens=True, overwrite=True)
    report = json.loads(catalogue["output"].with_suffix(".assigned.json").read_text())
    assert report["new_tokens"] and {t for i in NEW for t in anew[i]} - known == set(report["new_tokens"])


def test_tokens_of_the_model_that_the_index_does_not_use_may_be_given(catalogue, tmp_path):
    old = read_index(catalogue["index"])
    every = sorted({token for sid in old.values() for token in sid})
    (tmp_path / "new_tokens.json").write_text(json.dumps([*every, "[other]"]))
    write_index(catalogue["index"], {"0": old["0"]})
    sids = run(catalogue, remove=None, tokens=tmp_path / "new_tokens.json")
    write_index(catalogue["index"], old)
    again = run(catalogue, remove=None, overwrite=True)
    assert {item: sids[item] for item in NEW} == {item: again[item] for item in NEW}


def test_reassign_gives_new_items_sids_that_nobody_has(catalogue, fitted, tmp_path):
    _, _, vectors = fitted
    write_vectors(tmp_path / "same.npy", vectors[:10], NEW, model="x", normalised=False)  # as ten old items
    sids = run(catalogue, remove=None, vectors=tmp_path / "same.npy", collisions="reassign")
    assert len({sids[item] for item in NEW} - {sids[item] for item in OLD}) == 10
    shared = run(catalogue, remove=None, vectors=tmp_path / "same.npy", overwrite=True)
    assert [shared[item] for item in NEW] == [shared[item] for item in OLD[:10]]


def test_a_removed_item_leaves_its_sid_free(catalogue, fitted, tmp_path):
    codebooks, codes, vectors = fitted
    alone = next(row for row in range(100) if (codes == codes[row]).all(1).sum() == 1)
    write_vectors(tmp_path / "one.emb.npy", vectors[alone : alone + 1], ["200"], model="x", normalised=False)
    items = items_file(tmp_path / "one.json", {"200": "the same again"})
    (tmp_path / "gone.txt").write_text(f"{alone}\n")
    sids = run(catalogue, items=items, vectors=tmp_path / "one.emb.npy", collisions="reassign")
    assert sids["200"] == read_index(catalogue["index"])[str(alone)] and str(alone) not in sids


def test_in_an_index_with_an_extra_level_new_items_take_the_next_number(catalogue, fitted, tmp_path):
    _, codes, vectors = fitted
    numbers = np.zeros((100, 1), int)
    numbers[0] = 1
    write_index(catalogue["index"], codes_to_sids(OLD, np.hstack([codes, numbers])))
    write_vectors(tmp_path / "same.npy", np.repeat(vectors[1:2], 10, axis=0), NEW, model="x", normalised=False)
    sids = run(catalogue, remove=None, vectors=tmp_path / "same.npy")
    assert sids["100"] == (*read_index(catalogue["index"])["1"][:3], "<d_1>")
    assert len({sids[item] for item in NEW}) == 10 and {sids[item][3] for item in NEW} <= {"<d_0>", "<d_1>"}
    more = run(catalogue, remove=None, vectors=tmp_path / "same.npy", new_tokens=True, overwrite=True)
    assert [more[item][3] for item in NEW] == [f"<d_{number}>" for number in range(1, 11)]


def test_nothing_new_and_nothing_gone_changes_nothing(catalogue):
    assert run(catalogue, items=None, vectors=None, remove=None) == read_index(catalogue["index"])


def test_arguments_that_do_not_fit_are_refused(catalogue, fitted, tmp_path):
    _, _, vectors = fitted
    with pytest.raises(ValueError, match="go together"):
        run(catalogue, vectors=None)
    (tmp_path / "gone.txt").write_text("3\n777\n")
    with pytest.raises(ValueError, match="gone.txt, line 2: item '777' is not in the index"):
        run(catalogue)
    (tmp_path / "gone.txt").write_text("\n".join(OLD))
    with pytest.raises(ValueError, match="nothing is left"):
        run(catalogue, items=None, vectors=None)
    catalogue["remove"] = None
    twice = items_file(tmp_path / "twice.json", {**dict.fromkeys(NEW[1:], "x"), "7": "x"})
    with pytest.raises(ValueError, match="1 items are in .* already, '7' first"):
        run(catalogue, items=twice)
    write_vectors(tmp_path / "y.npy", vectors[100:], NEW, model="y", normalised=False)
    with pytest.raises(ValueError, match="is by 'y', the codebooks were made from vectors by 'x'"):
        run(catalogue, vectors=tmp_path / "y.npy")
    write_index(catalogue["index"], {"0": ("<a_1>", "<b_1>")})
    with pytest.raises(ValueError, match="SIDs of 2 tokens and these codebooks give 3"):
        run(catalogue)
    write_index(catalogue["index"], {"0": ("<a_1>", "<b_1>", "<c_99>")})
    with pytest.raises(ValueError, match="not made of codebooks"):
        run(catalogue)
    write_index(catalogue["index"], {"0": ("[shoes]", "<b_1>", "<c_9>")})
    with pytest.raises(ValueError, match="has no code"):
        run(catalogue)


def test_a_full_catalogue_says_what_would_make_room(catalogue, fitted, tmp_path):
    write_index(catalogue["index"], {"0": ("<a_0>", "<b_0>", "<c_0>")})
    with pytest.raises(ValueError, match="no SID is free for new item '100'"):
        run(catalogue, remove=None, collisions="reassign")


def files_of(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def test_a_finished_run_does_nothing_and_another_one_replaces_it_only_when_told_to(catalogue, tmp_path, capsys):
    run(catalogue)
    before = files_of(tmp_path)
    capsys.readouterr()
    run(catalogue)
    assert "new.index.json is finished: nothing to do; --overwrite starts anew" in capsys.readouterr().out
    with pytest.raises(ValueError, match="collisions: leave then, reassign now.*--overwrite"):
        run(catalogue, collisions="reassign")
    assert files_of(tmp_path) == before
    run(catalogue, collisions="reassign", overwrite=True)
    write_index(catalogue["output"], {"0": ("<a_0>",)})
    with pytest.raises(ValueError, match="new.index.json is not as this command wrote it"):
        run(catalogue, collisions="reassign")
    catalogue["output"].with_suffix(".assigned.json").unlink()
    with pytest.raises(ValueError, match="nothing says that this command wrote it"):
        run(catalogue)


class Killed(Exception):
    pass


@pytest.mark.parametrize("behind", ["items", "record", "index"])
def test_a_run_in_place_that_was_killed_goes_on_and_a_finished_one_does_nothing(
    behind, catalogue, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    old = read_index(catalogue["index"])
    write_index(folder / "id2sid.json", old)
    write_items(folder / "items.json", Catalog(old, {item: f"old {item}" for item in OLD}, known=[*OLD, "bare"]))
    here = {"index": folder / "id2sid.json", "output": folder / "id2sid.json", "collisions": "reassign"}
    wanted = run(catalogue, collisions="reassign")
    step = {"items": "write_texts", "record": "write_json", "index": "write_index"}[behind]
    whole = getattr(sid_assign, step)

    def killed(*args):
        whole(*args)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sid_assign, step, killed)
        run(catalogue, **here)
    assert run(catalogue, **here) == wanted
    before = files_of(folder)
    capsys.readouterr()
    assert run(catalogue, **here) == wanted and files_of(folder) == before
    assert "is finished: nothing to do" in capsys.readouterr().out
    known = load_catalog(folder)
    assert set(known.items) == {*OLD, "bare", *NEW} - set(GONE) and known.titles["100"] == "new 100"


def test_a_second_batch_in_place_goes_on_from_the_first(catalogue, fitted, tmp_path):
    here = {"output": catalogue["index"], "remove": None, "new_tokens": True}
    first = run(catalogue, **here)
    items = items_file(tmp_path / "more.json", {"500": "one more"})
    write_vectors(tmp_path / "more.emb.npy", fitted[2][:1], ["500"], model="x", normalised=False)
    assert run(catalogue, **here | {"items": items, "vectors": tmp_path / "more.emb.npy"}) == first | {
        "500": first["0"]
    }


def test_items_and_vectors_of_one_name_are_taken(catalogue, fitted, tmp_path):
    items = items_file(tmp_path / "n.json", {item: f"new {item}" for item in NEW})
    np.save(tmp_path / "n.npy", fitted[2][100:])
    wanted = run(catalogue)
    assert run(catalogue, items=items, vectors=tmp_path / "n.npy", overwrite=True) == wanted


def test_items_without_a_sid_keep_their_texts(catalogue, tmp_path):
    old = read_index(catalogue["index"])
    write_index(tmp_path / "id2sid.json", old)
    write_items(tmp_path / "items.json", Catalog(old, {"nosid": "a title"}, known=["bare"]))
    run(catalogue, index=tmp_path / "id2sid.json", output=tmp_path / "id2sid.json")
    known = load_catalog(tmp_path)
    assert known.titles["nosid"] == "a title" and "bare" in known.items and "3" not in known.items


def test_new_items_bring_brand_categories_and_the_columns_that_the_catalogue_has(catalogue, tmp_path):
    old = read_index(catalogue["index"])
    write_index(tmp_path / "id2sid.json", old)
    known = Catalog(old, known=OLD, brands={"0": "Acme", "3": "Gone"}, fields={"price": {"0": 1.5, "3": 2}})
    write_items(tmp_path / "items.json", known)
    items = {item: {"title": f"new {item}"} for item in NEW}
    items["100"] |= {"brand": "New", "categories": "A, B", "price": 9, "colour": "red"}
    catalogue["items"].write_text(json.dumps(items))
    run(catalogue, index=tmp_path / "id2sid.json", output=tmp_path / "id2sid.json")
    after = load_catalog(tmp_path)
    assert after.brands == {"0": "Acme", "100": "New"} and after.categories == {"100": ["A", "B"]}
    assert after.fields == {"price": {"0": 1.5, "100": 9}}


def test_a_line_of_removed_items_ends_at_its_end_only(catalogue, tmp_path):
    (tmp_path / "gone.txt").write_text("3\u202814\n")
    with pytest.raises(ValueError, match="gone.txt, line 1"):
        run(catalogue)
    (tmp_path / "gone.txt").write_bytes(b"\xff\xfe3\x00")
    with pytest.raises(ValueError, match="UTF-16"):
        run(catalogue)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level.1": np.full((8, 8), np.nan, np.float32)}, "64 of 64 numbers of level.1 are NaN"),
        ({"level.1": np.ones((8, 5), np.float32)}, "its arrays do not fit together"),
        ({"level.1": np.ones(8, np.float32)}, "its arrays do not fit together"),
        ({"level.1": np.ones((8, 8), np.int32)}, "numbers of level.1 are NaN, infinite or no fractions"),
        ({"level.7": np.ones((8, 8), np.float32)}, "no codebooks"),
        ({"level.x": np.ones((8, 8), np.float32)}, "no codebooks"),
        ({"mean": np.ones(8, np.float32)}, "its arrays do not fit together"),
        ({"encoder.0.weight": np.ones((8, 8), np.float32)}, "its arrays do not fit together"),
        ("{", "is not JSON"),
        ("[1]", "no codebooks"),
        ('{"method": 3}', "no codebooks"),
    ],
)
def test_codebooks_that_cannot_give_sids_are_refused(catalogue, change, message):
    from safetensors.numpy import load_file, save_file

    path = catalogue["codebooks"]
    arrays = load_file(path)
    about = change if isinstance(change, str) else '{"method": "rqkmeans"}'
    save_file(arrays | (change if isinstance(change, dict) else {}), path, {"about": about})
    with pytest.raises(ValueError, match=f"C.codebooks-rqkmeans.safetensors.*{message}"):
        run(catalogue)
    assert not catalogue["output"].exists()


def test_codebooks_that_did_not_give_the_sids_are_refused(catalogue, fitted, tmp_path):
    """A folder may hold the codebooks of several methods."""
    codebooks = replace(fitted[0], about={"model": "x", "run": {"config": {"method": "opq"}, "inputs": {}}})
    codebooks.save(tmp_path / "C.codebooks-opq.safetensors")
    made = {"config": {"method": "rqkmeans"}, "inputs": {}}
    (tmp_path / "C.index.manifest.json").write_text(json.dumps(made))
    with pytest.raises(
        UserError, match="codebooks-opq.* did not give the SIDs of .*C.index.json .method: rqkmeans then"
    ):
        run(catalogue, new_tokens=True, codebooks=tmp_path / "C.codebooks-opq.safetensors")
    (tmp_path / "C.index.manifest.json").write_text(json.dumps({"config": {"method": "opq"}, "inputs": {}}))
    assert run(catalogue, new_tokens=True, codebooks=tmp_path / "C.codebooks-opq.safetensors")
