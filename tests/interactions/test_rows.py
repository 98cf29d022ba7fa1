"""Rows that others have split: kept as they are, or made anew from the events; never something in between."""

import json

import polars as pl
import pytest

from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import HEADER
from mimigenrec.interactions.rows import to_history
from mimigenrec.interactions.table import Columns

AMAZON = Columns(
    user_column="user_id", item_column="parent_asin", history_column="history", time_column="timestamp", time_unit="ms"
)
HOURS = 1_500_000_000_000  # ms
ROWS = {  # user, item, hours, history: by no means 8:1:1, and bob's second row is valid
    "train": [("ann", "a", 1, ""), ("ann", "b", 2, "a"), ("bob", "b", 3, ""), ("ann", "c", 4, "a b")],
    "valid": [("bob", "c", 5, "b"), ("ann", "d", 6, "a b c")],
    "test": [("bob", "a", 7, "b c"), ("ann", "e", 9, "a b c d"), ("bob", "d", 8, "b c a")],
}
KEPT = {  # a first event has no history: it is no row
    "train": [("ann", "a", "b"), ("ann", "a b", "c")],
    "valid": [("bob", "b", "c"), ("ann", "a b c", "d")],
    "test": [("bob", "b c", "a"), ("ann", "a b c d", "e"), ("bob", "b c a", "d")],
}


def amazon_2023(folder, rows=ROWS):
    paths = [folder / f"Books.{split}.csv" for split in rows]
    for path, part in zip(paths, rows.values(), strict=True):
        lines = [f"{user},{item},5.0,{HOURS + 3_600_000 * hour},{history}\n" for user, item, hour, history in part]
        path.write_text("user_id,parent_asin,rating,timestamp,history\n" + "".join(lines))
    return paths


def rows_of(out):
    user, item = ({new: raw for raw, new in ids.items()} for ids in (out.user2id, out.item2id))
    return {
        split: [(user[who], " ".join(item[one] for one in history), item[target]) for who, history, target in part]
        for split, part in out.rows.items()
    }


def test_a_published_split_is_kept_row_by_row_in_the_order_of_its_files(build, tmp_path):
    out = build(amazon_2023(tmp_path), columns=AMAZON, source="rows", split="given")
    assert rows_of(out) == KEPT
    assert [out.counts[f"rows_given_{split}"] for split in KEPT] == [4, 2, 3]
    assert out.leakage["train_rows_after_first_test"] == 0 and out.leakage["users_only_in_test"] == 1
    report = json.loads((tmp_path / "out/C/C.interactions.json").read_text())
    assert report["times"] == {"first": "2017-07-14T03:40:00.000+00:00", "last": "2017-07-14T11:40:00.000+00:00"}


def test_times_say_how_rows_go_on_where_lines_do_not(build, tmp_path):
    """A file that was shuffled has the same rows; of one instant the shorter history is the earlier row."""
    shuffled = {split: part[::-1] for split, part in ROWS.items()}
    out = build(amazon_2023(tmp_path, shuffled), columns=AMAZON, source="rows", split="given")
    assert rows_of(out) == {split: part[::-1] for split, part in KEPT.items()}
    instant = {split: [row[:2] + (1, row[3]) for row in part] for split, part in shuffled.items()}
    out = build(amazon_2023(tmp_path, instant), columns=AMAZON, source="rows", split="given")
    assert rows_of(out) == {split: part[::-1] for split, part in KEPT.items()}


def test_rules_leave_rows_out_of_a_given_split_and_move_none(build, tmp_path):
    out = build(amazon_2023(tmp_path), columns=AMAZON, source="rows", split="given", user_k=5, history=2)
    assert rows_of(out) == {
        split: [(user, " ".join(history.split()[-2:]), item) for user, history, item in part if user == "ann"]
        for split, part in KEPT.items()
    }
    assert out.counts["dropped_k_core"] == 4


def test_without_given_the_same_rows_are_split_anew_by_their_times(build, tmp_path):
    out = build(amazon_2023(tmp_path), columns=AMAZON, source="rows", ratio=[3, 2, 2])
    assert [row[2] for part in rows_of(out).values() for row in part] == ["b", "c", "c", "d", "a", "d", "e"]


def test_inter_files_keep_their_split(build, tmp_path):
    parts = {"train": ["u\t1\t2"], "valid": ["u\t1 2\t3", "v\t3\t1"], "test": ["v\t3 1\t2"]}
    for split, lines in parts.items():
        (tmp_path / f"x.{split}.inter").write_text("\n".join([HEADER, *lines, ""]))
    out = build([tmp_path / f"x.{split}.inter" for split in parts], source="rows", split="given")
    assert rows_of(out) == {split: [tuple(line.split("\t")) for line in lines] for split, lines in parts.items()}
    assert out.leakage["train_rows_after_first_test"] is None  # an order is no time


def test_a_given_split_whose_rows_do_not_go_on_from_each_other_is_refused(build, tmp_path):
    wrong = ROWS | {"test": [("bob", "a", 7, "b c"), ("ann", "e", 9, "a b x d")]}
    with pytest.raises(
        UserError, match=r"Books.test.csv, row 2: user 'ann' has the history 'a b x d', but had 'a b c d'"
    ):
        build(amazon_2023(tmp_path, wrong), columns=AMAZON, source="rows", split="given")
    out = build(amazon_2023(tmp_path, wrong), columns=AMAZON, source="rows", split="leave_one_out")
    assert out.counts["rows_that_do_not_continue"] == 1


def test_train_rows_behind_valid_rows_of_the_same_user_are_said(build, tmp_path, caplog):
    late = ROWS | {"train": [*ROWS["train"], ("ann", "f", 7, "a b c d")], "test": [("ann", "e", 9, "a b c d f")]}
    out = build(amazon_2023(tmp_path, late), columns=AMAZON, source="rows", split="given")
    assert out.leakage["targets_in_train_histories"] == 1
    assert "1 targets of valid and test stand in train histories, as the files are split" in caplog.text


def test_rows_most_of_which_do_not_go_on_are_refused_however_they_are_split(build, tmp_path):
    newest_first = {
        split: [(*row[:3], " ".join(row[3].split()[::-1])) for row in part] for split, part in ROWS.items()
    }
    with pytest.raises(UserError, match="5 of 7 rows have a history that is not what their user had.*oldest first"):
        build(amazon_2023(tmp_path, newest_first), columns=AMAZON, source="rows")


def test_histories_with_commas_are_refused_and_not_read_as_one_item(build, tmp_path):
    commas = {split: [(*row[:3], f'"{row[3].replace(" ", ",")}"') for row in part] for split, part in ROWS.items()}
    with pytest.raises(UserError, match=r"row 4: the history 'a,b' is one id; write spaces for its commas"):
        build(amazon_2023(tmp_path, commas), columns=AMAZON, source="rows")
    for line in ("u 1,2,3", "u,1,2,3"):
        (tmp_path / "x.txt").write_text(line + "\n")
        with pytest.raises(UserError, match=r"x\.txt, line 1: .*write spaces for the commas"):
            build([tmp_path / "x.txt"], source="sequences", split="leave_one_out")
    (tmp_path / "x.inter").write_text(f"{HEADER}\nu\t1,2\t3\n")
    with pytest.raises(UserError, match=r"x\.inter, line 2: the history '1,2' is one id; write spaces"):
        build([tmp_path / "x.inter"], source="rows", split="leave_one_out")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("a b  c", ("a", "b", "c")),
        ("['a', \"b\"]", ("a", "b")),
        ("[1, 2]", ("1", "2")),
        (["a", 2], ("a", "2")),
        ("[]", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_spellings_of_a_history(value, items):
    assert to_history(value, "t", only_lists=False) == items


@pytest.mark.parametrize(
    "value", ["['a' 'b']", "[1 2]", "['a'\n 'b']", "[a]", "[1, 2", "['a', None]", "[[1]]", "[" * 5000]
)
def test_a_history_that_is_no_list_is_refused(value):
    """NumPy prints ['a' 'b'], which Python reads as the one item 'ab'."""
    with pytest.raises(UserError, match="a history"):
        to_history(value, "t", only_lists=False)


def test_other_column_names_are_asked_for(build, tmp_path):
    with pytest.raises(UserError, match=r"no column 'history_item_id', 'item_id'; it has user_id.*--history_column"):
        build(amazon_2023(tmp_path), source="rows")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"split": "given", "interactions": 2}, "three files, train valid test in this order"),
        (
            {"split": "given", "source": "table", "columns": Columns()},
            "--split given keeps .* of --source rows or mimigenrec",
        ),
        ({"split": "given", "ties": "shuffle"}, "--split given keeps the order of the files, and --ties shuffle"),
        ({"ties": "shuffle", "columns": Columns()}, "--ties shuffle needs times, and --source rows has none"),
        ({"ties": "shuffle", "source": "mimigenrec", "columns": Columns()}, "--ties shuffle needs times"),
        (
            {"ties": "shuffle", "source": "sequences", "split": "leave_one_out", "columns": Columns()},
            "--ties shuffle needs times, and --source sequences has none",
        ),
        ({"duplicates": "exact", "columns": Columns()}, "--duplicates exact needs times.*or name --time_column"),
        ({"since": "2016", "columns": Columns()}, "--since needs times"),
        ({"source": "amazon"}, "--source amazon does not read --user_column; .*take --source table"),
        ({"source": "table", "columns": Columns(history_column="h")}, "--source table does not read --history_column"),
        ({"id2sid": "x"}, "--source rows does not read --id2sid"),
    ],
)
def test_flags_that_mean_nothing_for_a_source_are_refused(build, tmp_path, flags, message):
    flags = {"source": "rows", "columns": AMAZON, "interactions": 3} | flags
    files = amazon_2023(tmp_path)[: flags.pop("interactions")]
    with pytest.raises(UserError, match=message):
        build(files, **flags)


def test_the_future_is_not_counted_where_there_are_no_times(build, tmp_path, capsys):
    (tmp_path / "x.txt").write_text("a 5 6 7 8\nb 6 5 5 7\n")
    out = build([tmp_path / "x.txt"], source="sequences", split="leave_one_out")
    assert out.leakage["train_rows_after_first_test"] is None
    assert "train rows after first test              not known, the source has no times" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_histories_that_are_lists_in_other_files(build, tmp_path, kind):
    paths = []
    for split, part in ROWS.items():
        names = ("user_id", "parent_asin", "timestamp", "history")
        rows = [(user, item, HOURS + 3_600_000 * hour, history.split()) for user, item, hour, history in part]
        paths.append(tmp_path / f"{split}.{kind}")
        frame = pl.DataFrame(rows, schema=names, orient="row")
        frame.write_parquet(paths[-1]) if kind == "parquet" else frame.write_ndjson(paths[-1])
    assert rows_of(build(paths, columns=AMAZON, source="rows", split="given")) == KEPT


def test_histories_that_are_cut_are_said(build, tmp_path, caplog):
    files = amazon_2023(tmp_path)
    build(files, columns=AMAZON, source="rows", split="given", history=1)
    assert "rows have a longer history than the --history 1 that is written" in caplog.text
    caplog.clear()
    build(files, columns=AMAZON, source="rows", split="given", history=0)
    assert "longer history" not in caplog.text
