from mimigenrec.catalog import Catalog, id_order, load_catalog, texts_of_one_sid, write_items
from mimigenrec.sids.tokens import write_index


def test_items_of_a_sid_come_by_popularity_then_by_id(toy):
    assert toy.items_of[toy.sids["2"]] == ["3", "2"]  # 5 against 1
    even = Catalog(sids={"10": ("<a>",), "9": ("<a>",), "b": ("<a>",)})
    assert even.items_of[("<a>",)] == ["9", "10", "b"]


def test_numbers_sort_by_value_and_before_names():
    assert sorted(["b", "10", "9", "a"], key=id_order) == ["9", "10", "a", "b"]


def test_a_catalogue_comes_back_as_written(tmp_path, toy):
    write_index(tmp_path / "id2sid.json", toy.sids)
    write_items(tmp_path / "items.json", toy)
    again = load_catalog(tmp_path)
    assert (again.sids, again.titles, again.descriptions) == (toy.sids, toy.titles, toy.descriptions)
    assert again.popularity == toy.popularity


def test_a_folder_without_items_json_gives_sids_alone(tmp_path, toy):
    write_index(tmp_path / "id2sid.json", toy.sids)
    assert load_catalog(tmp_path) == Catalog(sids=toy.sids)


def test_a_text_of_several_sids_names_none_of_them():
    sids = {"1": ("<a>",), "2": ("<b>",), "3": ("<c>",), "4": ("<c>",)}
    texts = {"1": "tape", "2": "tape", "3": "glue", "4": "glue", "5": "tape"}  # "5" has no SID
    assert texts_of_one_sid(texts, sids) == {"glue": ("<c>",)}
