"""Files of another form than their reader takes: one message with the file, what was found and what to do."""

import gzip
import json

import pytest

from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import HEADER

RL = {"prompt": [{"content": "items <a_0>"}], "reward_model": {"ground_truth": "<a_0>"}}
ROW = RL | {"extra_info": {"index": 0, "task": "task1_sid_sft"}}
SEQUENCES = {"source": "sequences", "split": "leave_one_out"}

DAMAGED = {  # what it is -> source, file, content, message
    "sequences that are a list": ("sequences", "x.json", [1], "must map user ids to lists.*found a list"),
    "items that are no list": ("sequences", "x.json", {"u": "1 2"}, "user 'u' needs a list of item ids, found '1 2'"),
    "an item that is null": ("sequences", "x.json", {"u": [1, None]}, "user 'u' has None among its items"),
    "an item that is a list": ("sequences", "x.json", {"u": [[1]]}, r"user 'u' has \[1\] among its items"),
    "a user twice": ("sequences", "x.json", b'{"u": [1], "u": [2]}', "holds the key 'u' twice"),
    "no JSON": ("sequences", "x.json", b"u 1 2", "is not JSON"),
    "deep JSON": ("sequences", "x.json", b"[" * 100_000, "is not JSON"),
    "a packed text cut short": ("sequences", "x.txt.gz", gzip.compress(b"u 1 2 3\n" * 99)[:-9], "cut short"),
    "a text that is no UTF-8": ("sequences", "x.txt", b"u 1 2\nv \xe9\n", "line 2: not UTF-8 text; .*iconv"),
    "rows that are a map": ("mimigenrec", "x.json", {"a": 1}, "must hold a list, found"),
    "a row that is a text": ("mimigenrec", "x.json", ["a"], "x.json, row 1: not a row of MIMIGenRec's rl"),
    "a row without extra_info": ("mimigenrec", "x.json", [ROW, RL], "x.json, row 2: not a row of MIMIGenRec's rl"),
    "a prompt that is a text": ("mimigenrec", "x.json", [ROW | {"prompt": "x"}], "x.json, row 1: not a row of MIM"),
    "an index that is a text": (
        "mimigenrec", "x.json", [ROW | {"extra_info": {"index": "0", "task": "task1_sid_sft"}}], "x.json, row 1: not",
    ),
    "rows of other tasks": (
        "mimigenrec", "x.json", [RL | {"extra_info": {"task": "other"}}], "has no row of task task1_sid_sft",
    ),
    "an .inter file that is no UTF-8": (
        "rows", "x.inter", f"{HEADER}\nu\t1\t2\nu\té\t3\n".encode("latin-1"), "line 3: not",
    ),
    "a packed .inter file": ("rows", "x.inter", gzip.compress(HEADER.encode()), "but gzip; unpack it first"),
    "a CSV with a huge field": ("rows", "x.csv", b'user_id,history_item_id,item_id\nu,"' + b"[" * 200_000 + b'",1\n',
                                "row 1: a history is not a list"),
    "a CSV header that is no UTF-8": ("rows", "x.csv", b"user_id,hist\xe9\n1,2\n", "line 1: not UTF-8"),
    "a Parquet that is none": ("table", "x.parquet", b"u,i,t\n", "cannot be read as Parquet"),
    "an Excel workbook": ("table", "x.xlsx", b"PK\x03\x04", "is an Excel workbook; save it as CSV UTF-8"),
    "JSON that is one list": ("table", "x.jsonl", [{"u": 1}], r"line 1: not a map .*jq -c '\.\[\]'"),
    "JSON over several lines": ("table", "x.json", b'{\n "u": 1\n}\n', "line 1: neither JSON nor"),
    "ids that are maps": ("table", "x.jsonl", {"u": {"a": 1}, "i": 1, "t": 1}, "column 'u' holds {'a': 1}, and an id"),
    "times that are maps": ("table", "x.jsonl", {"u": 1, "i": 1, "t": {"$date": 1}}, "column 't' holds Object, found"),
    "times that are true": ("table", "x.jsonl", {"u": 1, "i": 1, "t": True}, "'True' in column 't' is not a time"),
    "two columns of one name": ("table", "x.csv", b"u,u,i,t\n1,2,3,4\n", "has 2 columns of the name 'u'; rename"),
    "a RecBole header that is no UTF-8": ("recbole", "x.inter", b"user_id:token\titem_id:t\xe9\n", "line 1: not"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_in_words(build, tmp_path, what):
    from mimigenrec.interactions.table import Columns

    source, name, content, message = DAMAGED[what]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    flags = {"source": source, "split": "leave_one_out"}
    if source == "mimigenrec":
        (tmp_path / "id2sid.json").write_text('{"0": ["<a_0>"]}')
        flags["id2sid"] = tmp_path / "id2sid.json"
    columns = Columns(user_column="u", item_column="i", time_column="t") if source == "table" else None
    with pytest.raises(UserError, match=message) as error:
        build([tmp_path / name], columns=columns, **flags)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must hold a map, found"),
        ({"1": "title"}, "item '1' needs a map of title, description, ..., found 'title'"),
        (b'{"1": {}, "1": {}}', "holds the key '1' twice"),
        (b'{"1": {"title": "\xe9"}}', "line 1: not UTF-8"),
    ],
)
def test_damaged_item_texts_are_refused_in_words(build, tmp_path, content, message):
    (tmp_path / "C.item.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    (tmp_path / "x.txt").write_text("u 1 2 3 4\n")
    with pytest.raises(UserError, match=rf"C\.item\.json.*{message}"):
        build([tmp_path / "x.txt"], [tmp_path / "C.item.json"], **SEQUENCES)


def test_item_texts_of_other_types_become_texts(build, tmp_path):
    texts = {"1": {"title": "A", "description": ["x", None, "y"], "brand": None, "categories": ["p", ["q"]]},
             "2": {"title": "B\ud800", "brand": 5, "description": float("nan")}}  # fmt: skip
    (tmp_path / "C.item.json").write_text(json.dumps(texts))
    (tmp_path / "x.txt").write_text("u 1 2 1 2\n")
    out = build([tmp_path / "x.txt"], [tmp_path / "C.item.json"], **SEQUENCES)
    assert [tuple(item.values()) for item in out.items.values()] == [
        ("A", "x y", "", "p, q"),
        ("B\ufffd", "", "5", ""),
    ]
    assert out.counts["items_with_half_a_character"] == 1


@pytest.mark.parametrize("tokens", [None, "<a_0>", [], [1], ["<a_0>", None]])
def test_an_id2sid_of_another_form_is_refused_in_words(build, tmp_path, tokens):
    (tmp_path / "train.json").write_text(json.dumps([ROW]))
    (tmp_path / "id2sid.json").write_text(json.dumps({"0": tokens}))
    with pytest.raises(UserError, match=r"id2sid\.json: item '0' needs a list of SID tokens, found"):
        build([tmp_path / "train.json"], source="mimigenrec", id2sid=tmp_path / "id2sid.json")


def test_half_a_character_in_a_review_is_replaced_and_counted(build, tmp_path):
    lines = [{"reviewerID": "u", "asin": f"B{i}", "unixReviewTime": 1_500_000_000 + i, "reviewText": "so \ud83d good"}
             for i in range(4)]  # fmt: skip
    (tmp_path / "r.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = build([tmp_path / "r.json"], source="amazon", split="leave_one_out")
    assert {entry["review"] for entry in out.reviews.values()} == {"so \ufffd good"}
    assert out.counts["lines_with_half_a_character"] == 4
