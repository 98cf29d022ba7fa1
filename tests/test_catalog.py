import json
import shutil

import numpy as np
import pytest

from mimigenrec.catalog import (
    Catalog,
    add_fields,
    check_same_catalogue,
    item_vectors,
    load_catalog,
    texts_of_one_sid,
    write_items,
)
from mimigenrec.errors import UserError
from mimigenrec.items import id_order, read_item_texts
from mimigenrec.sids.tokens import write_index
from mimigenrec.vectors.store import read_vectors, write_vectors


def test_items_of_a_sid_come_by_popularity_then_by_id(toy):
    assert toy.items_of[toy.sids["2"]] == ["3", "2"]  # 5 against 1
    even = Catalog(sids={"10": ("<a>",), "9": ("<a>",), "b": ("<a>",)})
    assert even.items_of[("<a>",)] == ["9", "10", "b"]


def test_a_catalogue_comes_back_as_written(tmp_path, toy):
    write_index(tmp_path / "id2sid.json", toy.sids)
    write_items(tmp_path / "items.json", toy)
    again = load_catalog(tmp_path)
    assert (again.sids, again.titles, again.descriptions) == (toy.sids, toy.titles, toy.descriptions)
    assert again.popularity == toy.popularity


def test_every_item_is_listed_and_comes_back_those_without_text_and_sid_too(tmp_path):
    catalog = Catalog(
        {"5": ("<a>",), "0": ("<b>",)}, {"7": "title"}, {"2": "description"}, known={"10", "9", "x", "5"}
    )
    write_index(tmp_path / "id2sid.json", catalog.sids)
    write_items(tmp_path / "items.json", catalog)
    again = load_catalog(tmp_path)
    assert catalog.items == again.items == ["5", "0", "7", "2", "9", "10", "x"]
    assert (again.titles, again.descriptions) == (catalog.titles, catalog.descriptions)


def test_vectors_of_all_items_fit_the_items_of_a_data_folder(tmp_path, raw_toy):
    """item.json has one item of which nothing is known and that no SID names."""
    from mimigenrec.tasks.build import BuildConfig, main

    folder = tmp_path / "raw" / "toy"
    shutil.copytree(raw_toy / "toy", folder)
    items = json.loads((folder / "toy.item.json").read_text()) | {"99": {"title": "", "description": ""}}
    (folder / "toy.item.json").write_text(json.dumps(items))
    main(BuildConfig(raw=tmp_path / "raw", category="toy", output_dir=tmp_path / "data"))
    np.save(tmp_path / "v.npy", np.ones((len(items), 2)))
    known = sorted(load_catalog(tmp_path / "data").items, key=id_order)
    assert known == list(read_item_texts(folder / "toy.item.json", "{title}")) and "99" in known
    assert len(read_vectors(tmp_path / "v.npy", known)) == len(items)


def test_brand_categories_and_columns_come_back_where_item_json_has_them(tmp_path):
    items = {
        "0": {"brand": " Acme ", "categories": "Tools, Lamps", "price": 3.5, "sale": False, "tags": ["a", 2]},
        "1": {"brand": "", "categories": None, "price": float("nan"), "sale": True, "tags": []},
    }
    catalog = Catalog({"0": ("<a>",)}, known=list(items))
    add_fields(catalog, items, ["price", "sale", "tags"], "C.item.json")
    again = written_and_read(catalog, tmp_path)
    assert (again.brands, again.categories) == ({"0": "Acme"}, {"0": ["Tools", "Lamps"]})
    assert again.fields == {"price": {"0": 3.5}, "sale": {"0": False, "1": True}, "tags": {"0": ["a", 2]}}
    bare = {"title": "", "description": "", "popularity": 0}
    assert json.loads((tmp_path / "items.json").read_text())["1"] == {**bare, "sale": True}
    assert written_and_read(again, tmp_path) == again


def written_and_read(catalog, folder):
    write_index(folder / "id2sid.json", catalog.sids)
    write_items(folder / "items.json", catalog)
    return load_catalog(folder)


@pytest.mark.parametrize("value", [{"a": 1}, [["a"]], float("inf"), [None]])
def test_a_column_of_another_kind_is_refused_with_its_item(value):
    with pytest.raises(UserError, match="C.item.json: price of item '0' is .*texts, numbers"):
        add_fields(Catalog({}), {"0": {"price": value}}, ["price"], "C.item.json")


def test_item_vectors_are_known_by_id_whatever_gaps_the_ids_have(tmp_path):
    """Ids 0, 2, 5, 7, of which the index names 7 and 2, and nothing is known of 5: row i is the i-th id."""
    catalog = Catalog({"7": ("<a>",), "2": ("<b>",)}, {"0": "title"}, known=["0", "2", "5", "7"])
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    write_vectors(tmp_path / "v.npy", vectors, ["0", "2", "5", "7"], model="m", normalised=False)
    for known in (catalog, written_and_read(catalog, tmp_path)):
        rows = item_vectors(known, tmp_path / "v.npy")
        assert [(item, *row) for item, row in rows.items()] == [("0", 0, 1), ("2", 2, 3), ("5", 4, 5), ("7", 6, 7)]


def test_rows_that_nobody_can_name_are_refused(tmp_path):
    write_vectors(tmp_path / "v.npy", np.ones((1, 2)), ["0"], model="m", normalised=False)
    with pytest.raises(FileNotFoundError, match="items.json is missing beside id2sid.json"):
        item_vectors(Catalog({"0": ("<a>",)}), tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold a map"),
        ('{"0": "a title"}', "item '0' needs a map"),
        ('{"0": {"title": ["a"]}}', "title of item '0' is"),
        ('{"0": {"description": 3}}', "description of item '0' is 3"),
        ('{"0": {"popularity": "many"}}', "popularity of item '0' is 'many'"),
        ('{"0": {"brand": ["a"]}}', "brand of item '0' is"),
        ('{"0": {"categories": "A, B"}}', "categories of item '0' is 'A, B'"),
        ('{"0": {"categories": [3]}}', "categories of item '0' is"),
        ('{"0": {"price": {"eur": 3}}}', "price of item '0' is"),
        ('{"0": {}, "0": {}}', "holds the key '0' twice"),
        ('{"0": {}', "is not JSON"),
    ],
)
def test_items_json_of_another_shape_is_one_message(tmp_path, toy, content, message):
    write_index(tmp_path / "id2sid.json", toy.sids)
    (tmp_path / "items.json").write_text(content)
    with pytest.raises(UserError, match=f"items.json.*{message}"):
        load_catalog(tmp_path)


def test_a_folder_without_items_json_gives_sids_alone(tmp_path, toy):
    write_index(tmp_path / "id2sid.json", toy.sids)
    assert load_catalog(tmp_path) == Catalog(sids=toy.sids)


def test_a_text_of_several_sids_names_none_of_them():
    sids = {"1": ("<a>",), "2": ("<b>",), "3": ("<c>",), "4": ("<c>",)}
    texts = {"1": "tape", "2": "tape", "3": "glue", "4": "glue", "5": "tape"}  # "5" has no SID
    assert texts_of_one_sid(texts, sids) == {"glue": ("<c>",)}


def test_another_catalogue_with_the_same_token_names_is_refused(tmp_path, toy, caplog):
    write_index(tmp_path / "id2sid.json", toy.sids)
    check_same_catalogue(toy.sids, "data", tmp_path)
    assert not caplog.text
    with pytest.raises(ValueError, match="another catalogue than data.*'4' is <a_1><b_0><c_2> there and <a_0> in"):
        check_same_catalogue({**toy.sids, "4": ("<a_0>",)}, "data", tmp_path)
    with pytest.raises(ValueError, match="no item in common"):
        check_same_catalogue({f"book-{item}": sid for item, sid in toy.sids.items()}, "data", tmp_path)


def test_items_that_came_or_went_are_no_other_catalogue_and_are_told(tmp_path, toy, caplog):
    write_index(tmp_path / "id2sid.json", toy.sids)
    now = {item: sid for item, sid in toy.sids.items() if item != "7"} | {"8": ("<a_0>",), "9": ("<a_0>",)}
    check_same_catalogue(now, "data", tmp_path)
    assert "data knows 2 items" in caplog.text and "lacks 1" in caplog.text


def test_a_checkpoint_without_a_catalogue_is_taken_on_trust_with_a_warning(tmp_path, toy, caplog):
    check_same_catalogue(toy.sids, "data", tmp_path)
    assert "on trust" in caplog.text
