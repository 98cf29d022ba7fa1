import json
import os
import subprocess
import sys

import pytest

from mimigenrec.errors import UserError
from mimigenrec.interactions.events import pl
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.interactions.table import Columns
from tests.conftest import ROOT, shared
from tests.interactions.conftest import json_lines, review, some_reviews

INDUSTRIAL = "amazon18-industrial-active"
NAME = "Industrial_and_Scientific"


def metas(names, **more):
    return [{"asin": name, "title": f"Thing {name}", "category": ["Toys", "Games"]} | more for name in names]


@pytest.fixture
def files(tmp_path):
    reviews = json_lines(tmp_path / "reviews.json", some_reviews())
    return [reviews], [json_lines(tmp_path / "meta.json", metas({r["asin"] for r in some_reviews()}))]


def test_every_file_agrees_with_every_other(build, files):
    out = build(*files, user_k=2, item_k=2)
    assert len(out.user2id) == 6 and len(out.item2id) == 7 == len(out.items)
    assert list(out.item2id.values()) == [str(i) for i in range(7)] == list(out.items)
    assert out.sequences["0"] == [0, 1, 2, 3, 4]  # user 0 comes first, so its items are 0, 1, ...
    assert out.items["0"] == {"title": "Thing B0", "description": "", "brand": "", "categories": "Toys, Games"}
    rows = [row for split in out.rows.values() for row in split]
    assert len(rows) == 6 * 4
    for user, history, target in rows:
        place = len(history)
        assert out.sequences[user][: place + 1] == [*map(int, history), int(target)]
    assert {split: len(part) for split, part in out.rows.items()} == {"train": 19, "valid": 2, "test": 3}
    assert out.leakage["targets_in_train_histories"] == 0


def test_the_same_input_gives_the_same_bytes(build, files):
    before = {path.name: path.read_bytes() for path in build(*files).stem.parent.iterdir()}
    after = {path.name: path.read_bytes() for path in build(*files).stem.parent.iterdir()}
    assert before == after


def test_history_is_cut_to_the_latest(build, files):
    short, whole = build(*files, history=2).rows["test"], build(*files, history=0).rows["test"]
    assert [row[1] for row in short] == [row[1][-2:] for row in whole]
    assert max(len(row[1]) for row in whole) == 4


def test_leave_one_out_keeps_the_last_of_each_user(build, files):
    out = build(*files, split="leave_one_out")
    assert [(user, int(target)) for user, _, target in out.rows["test"]] == [
        (user, items[-1]) for user, items in out.sequences.items()
    ]
    assert [int(target) for _, _, target in out.rows["valid"]] == [items[-2] for items in out.sequences.values()]


def test_items_without_metadata_or_title_are_left_out_and_counted(build, tmp_path, files):
    known = metas([f"B{i}" for i in range(7)])
    known[1] = {"asin": "B1"}  # no title at all
    known[2]["title"] = '<span id="x">'
    known[3]["title"] = "a title of very many words"
    meta = json_lines(tmp_path / "some.json", known[1:])
    out = build(files[0], [meta], max_title_words=5)
    assert out.item2id.keys() == {"B4", "B5", "B6"}
    counts = out.counts
    assert (counts["items_without_metadata"], counts["items_without_title"]) == (1, 2)
    assert counts["items_with_title_too_long"] == 1
    everything = build(files[0], [meta], require_title=False)
    assert everything.items[everything.item2id["B0"]] == {
        "title": "", "description": "", "brand": "", "categories": "",
    }  # fmt: skip


def test_a_title_that_is_too_long_goes_also_where_items_without_a_title_stay(build, tmp_path, files):
    """--no_require_title switched --max_title_words off."""
    known = metas([f"B{i}" for i in range(1, 7)])  # none of B0
    known[0]["title"] = "a title of very many words"
    known[1]["title"] = ""
    out = build(files[0], [json_lines(tmp_path / "some.json", known)], require_title=False, max_title_words=5)
    assert out.item2id.keys() == {"B0", "B2", "B3", "B4", "B5", "B6"}
    assert out.counts["items_with_title_too_long"] == 1 and out.counts["dropped_without_item_text"] == 4
    with pytest.raises(ValueError, match="--max_title_words needs titles"):
        build(files[0], max_title_words=5)


def test_two_items_with_one_id_are_counted(build, tmp_path, files):
    names = [f"B{i}" for i in range(7)]
    meta = json_lines(tmp_path / "twice.json", [*metas(names), *metas(["B1"], title="Another")])
    out = build(files[0], [meta])
    assert out.items[out.item2id["B1"]]["title"] == "Thing B1"
    assert out.counts["items_listed_again"] == out.counts["items_listed_again_with_another_title"] == 1


def test_reviews_by_user_item_and_second(build, tmp_path):
    records = some_reviews()
    records[3] |= {"reviewText": "<b>Good</b> &amp; cheap", "summary": "Five stars"}
    records.append(records[3] | {"reviewText": "the same second again"})
    out = build([json_lines(tmp_path / "r.json", records)])
    user, item = out.user2id["U0"], out.item2id["B3"]
    assert out.reviews == {f"({user}, {item}, 1000018)": {"review": "Good & cheap", "summary": "Five stars"}}


def test_bad_lines_stop_the_run_and_are_counted_when_allowed(build, tmp_path):
    records = [json.dumps(record) for record in some_reviews()]
    records.insert(4, "not json")
    records.insert(9, json.dumps({"reviewerID": "U1", "asin": "B1"}))  # no time
    path = tmp_path / "r.json"
    path.write_text("\n".join(records))
    with pytest.raises(ValueError, match=r"r\.json, line 5: neither JSON"):
        build([path])
    out = build([path], max_bad_lines=2)
    assert out.counts["bad_lines"] == 2 and out.counts["interactions_left"] == len(some_reviews())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (5, "an id must be a text, found 5"),
        ("", "an id must not be empty"),
        (" \u3000", "an id must not be empty"),
        ("a\tb", "control character '\\\\t'"),
        ("a\u2028b", "control character"),
        ("a\ud800", "half a character"),
    ],
)
def test_a_line_whose_id_cannot_stand_in_item2id_is_bad(build, tmp_path, name, message):
    path = json_lines(tmp_path / "r.json", [*some_reviews(), review(name, "B", 1)])
    with pytest.raises(ValueError, match=f"line 31: not a review: .*{message}"):
        build([path])
    assert build([path], max_bad_lines=1).counts["bad_lines"] == 1


def test_ids_given_must_have_no_gap(build, tmp_path):
    rows = [review(str(u), str(i), 10 * i + u) for u in range(4) for i in (0, 1, 2, 4)]
    path = json_lines(tmp_path / "r.json", rows)
    with pytest.raises(ValueError, match="item ids 0 to 3, all of them; found gaps"):
        build([path], ids="given")
    rows = [review(str(u), f"B{i}", 10 * i + u) for u in range(4) for i in range(4)]
    with pytest.raises(ValueError, match="found 'B0'"):
        build([json_lines(tmp_path / "r.json", rows)], ids="given")


def test_a_parquet_file_without_a_row_is_told(build, tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"u": [], "i": [], "t": []}).write_parquet(path)  # all three of type Null
    with pytest.raises(UserError, match="log.parquet: there is no row"):
        build([path], source="table", columns=Columns("u", "i", "t"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ratio": [8, 1]}, "three numbers"),
        ({"since": "2018", "until": "2017"}, "--since 2018 is not before --until 2017"),
        ({"source": "sequences"}, "use --split leave_one_out"),
        ({"since": "soon"}, "'soon' is not a time"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(build, files, flags, message):
    with pytest.raises(ValueError, match=message):
        build(*files, **flags)


def test_a_killed_run_leaves_no_report_not_even_that_of_the_run_before(build, files, monkeypatch):
    build(*files)
    monkeypatch.setattr("mimigenrec.interactions.build.check_leakage", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(*files)
    assert not list(files[0][0].parent.glob("out/C/*.interactions.json"))


GIFT_CARDS = """
import sys
from pathlib import Path
from mimigenrec.interactions.build import InteractionsConfig, main
from mimigenrec.interactions.table import Columns
raw = Path(sys.argv[1])
main(InteractionsConfig(
    source="amazon", interactions=[raw / "Gift_Cards_5.json.gz"], items=[raw / "meta_Gift_Cards.json.gz"],
    category="G", output_dir=Path(sys.argv[2]), max_title_words=20, since="2016-10", until="2018-11"), Columns())
"""


def test_the_window_does_not_depend_on_the_time_zone_of_the_machine(tmp_path):
    """Naive local times made counts depend on the machine."""
    raw = shared("data", "amazon-gift-cards-raw")
    written = []
    for zone in ("UTC", "Asia/Shanghai", "America/Los_Angeles"):
        out = tmp_path / zone
        command = [sys.executable, "-c", GIFT_CARDS, str(raw), str(out)]
        subprocess.run(command, env=os.environ | {"TZ": zone}, cwd=ROOT, check=True, capture_output=True)
        written.append({p.name: p.read_bytes() for p in (out / "G").iterdir() if "interactions" not in p.name})
        counts = json.loads((out / "G" / "G.interactions.json").read_text())["counts"]
        assert [counts[f"{what}_left"] for what in ("interactions", "users", "items")] == [779, 134, 51]
    assert written[0] == written[1] == written[2]


def test_gift_cards_have_the_counts_of_their_card_and_categories(build):
    raw = shared("data", "amazon-gift-cards-raw")
    flags = {"user_k": 5, "item_k": 5, "max_title_words": 20}
    out = build([raw / "Gift_Cards_5.json.gz"], [raw / "meta_Gift_Cards.json.gz"], **flags)
    counts = out.counts
    assert [counts[f"{what}_read"] for what in ("interactions", "users", "items")] == [2972, 458, 148]
    assert [counts[f"{what}_left"] for what in ("interactions", "users", "items")] == [2960, 456, 147]
    assert sum(counts[f"rows_{split}"] for split in out.rows) == 2960 - 456
    filled = [item for item in out.items.values() if item["categories"] == "Gift Cards"]
    assert len(filled) == 145  # `category` is read; 2 items have none in the file
    assert not any("<" in item["title"] or "&quot;" in item["title"] for item in out.items.values())
    assert len(out.reviews) == counts["reviews"] == 2957  # 3 lines repeat user, item and time


def industrial_rows():
    folder = shared("data", INDUSTRIAL)
    return {split: list(read_inter(folder / f"{NAME}.{split}.inter")) for split in ("train", "valid", "test")}


def test_a_real_set_written_as_raw_lines_gives_its_rows_back(build, tmp_path):
    rows = industrial_rows()
    last, lines = set(), []
    for second, row in enumerate((row for part in rows.values() for row in part), 1):
        if row.user not in last:
            lines += [review(row.user, item, second - 1) for item in row.items]
            last.add(row.user)
        lines.append(review(row.user, row.target, second))
    catalogue = json.loads((shared("data", INDUSTRIAL) / f"{NAME}.item.json").read_text())
    items = json_lines(tmp_path / "meta.json", ({"asin": item, **texts} for item, texts in catalogue.items()))
    out = build([json_lines(tmp_path / "r.json", lines)], [items], ids="given", history=50, require_title=False)
    assert out.rows == {split: [(r.user, r.items, r.target) for r in part] for split, part in rows.items()}
    assert list(out.items) == list(catalogue)  # items that nobody had are kept: row i of the vectors is item i


def test_a_real_set_of_rows_gives_its_rows_back(build):
    folder, rows = shared("data", INDUSTRIAL), industrial_rows()
    files = [folder / f"{NAME}.{split}.inter" for split in rows]
    out = build(files, [folder / f"{NAME}.item.json"], source="rows", ids="given", history=50)
    assert out.rows == {split: [(r.user, r.items, r.target) for r in part] for split, part in rows.items()}
    assert "rows_that_do_not_continue" not in out.counts
