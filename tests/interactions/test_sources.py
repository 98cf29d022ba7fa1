"""Each kind of source, in miniature: the same four users come out of each."""

import gzip
import json
import subprocess
import sys

import polars as pl
import pytest

from mimigenrec.interactions.table import Columns
from tests.conftest import ROOT, shared
from tests.interactions.conftest import json_lines

EVENTS = [
    (user, item, 1_500_000_000 + 10 * place + user) for user in range(1, 5) for place, item in enumerate((3, 1, 2))
]
TITLES = {1: "Alien (1979)", 2: "Brazil (1985)", 3: "Casablanca (1942)"}
SEQUENCES = {str(user): [0, 1, 2] for user in range(4)}  # item ids by first occurrence
FLAGS = Columns(user_column="u", item_column="i", time_column="t")


def titles(out):
    return [item["title"] for item in out.items.values()]


def check(out, categories=None):
    assert out.sequences == SEQUENCES
    assert titles(out) == [TITLES[3], TITLES[1], TITLES[2]]
    if categories:
        assert [item["categories"] for item in out.items.values()] == categories


def test_amazon_2014(build, tmp_path):
    """Python literals, as its files have them."""
    reviews = [{"reviewerID": f"U{u}", "asin": f"B{i}", "unixReviewTime": t, "overall": 4.0} for u, i, t in EVENTS]
    items = [{"asin": f"B{i}", "title": title, "categories": [["Film", "Old's"]]} for i, title in TITLES.items()]
    for name, records in (("r.json", reviews), ("m.json", items)):
        (tmp_path / name).write_text("".join(f"{record}\n" for record in records))
    check(build([tmp_path / "r.json"], [tmp_path / "m.json"]), ["Film, Old's"] * 3)


def test_amazon_2018(build, tmp_path):
    reviews = [{"reviewerID": f"U{u}", "asin": f"B{i}", "unixReviewTime": t, "overall": 4.0} for u, i, t in EVENTS]
    items = [{"asin": f"B{i}", "title": t, "category": ["Film"], "brand": "by\nAcme"} for i, t in TITLES.items()]
    out = build([json_lines(tmp_path / "r.json", reviews)], [json_lines(tmp_path / "m.json", items)])
    check(out, ["Film"] * 3)
    assert out.items["0"]["brand"] == "Acme"


def test_amazon_2023(build, tmp_path):
    """Milliseconds; the parent is the item; store and main_category where brand and categories are empty."""
    reviews = [
        {"user_id": f"U{u}", "asin": f"X{i}", "parent_asin": f"B{i}", "timestamp": t * 1000 + u, "rating": 5.0,
         "title": "Fine", "text": "a<br />b"} for u, i, t in EVENTS
    ]  # fmt: skip
    items = [
        {"parent_asin": f"B{i}", "title": t, "categories": [], "main_category": "Film", "store": "Acme"}
        for i, t in TITLES.items()
    ]
    out = build([json_lines(tmp_path / "r.jsonl", reviews)], [json_lines(tmp_path / "m.jsonl", items)])
    check(out, ["Film"] * 3)
    assert out.items["0"]["brand"] == "Acme"
    assert out.reviews[f"(0, 0, {EVENTS[0][2]})"] == {"review": "a b", "summary": "Fine"}


def test_movielens_100k(build, tmp_path):
    (tmp_path / "u.data").write_text("".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in EVENTS))
    genres = "|".join(["0"] * 16 + ["1", "1", "0"])
    (tmp_path / "u.item").write_text("".join(f"{i}|{t}|01-Jan-1995||http|{genres}\n" for i, t in TITLES.items()))
    check(build([tmp_path / "u.data"], [tmp_path / "u.item"], source="movielens"), ["Thriller, War"] * 3)


def test_movielens_1m(build, tmp_path):
    (tmp_path / "ratings.dat").write_text("".join(f"{u}::{i}::4::{t}\n" for u, i, t in EVENTS))
    lines = "".join(f"{i}::{t}::Drama|War\n" for i, t in TITLES.items()) + "9::Misérables, Les::Drama\n"
    (tmp_path / "movies.dat").write_bytes(lines.encode("latin-1"))
    check(build([tmp_path / "ratings.dat"], [tmp_path / "movies.dat"], source="movielens"), ["Drama, War"] * 3)


def test_movielens_latest_and_ratings(build, tmp_path):
    rows = "".join(f"{u},{i},{4.5 if u > 1 else 1.0},{t}\n" for u, i, t in EVENTS)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    rows = "".join(f'{i},"{t}",Drama|War\n' for i, t in TITLES.items())
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + rows)
    files = [tmp_path / "ratings.csv"], [tmp_path / "movies.csv"]
    check(build(*files, source="movielens"), ["Drama, War"] * 3)
    assert list(build(*files, source="movielens", min_rating=4.0).user2id) == ["2", "3", "4"]


def test_a_broken_movielens_line_is_bad(build, tmp_path):
    (tmp_path / "ratings.dat").write_text("1::2::4\n")
    with pytest.raises(ValueError, match=r"ratings\.dat, line 1: not user, movie, rating and time"):
        build([tmp_path / "ratings.dat"], source="movielens")


@pytest.mark.parametrize("zipped", [False, True])
def test_recbole(build, tmp_path, zipped):
    rows = "".join(f"{u}\t{i}\t4\t{t}.0\n" for u, i, t in EVENTS)
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows
    item = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
    item += "".join(f'{i}\t{t}\t"Drama War\n' for i, t in TITLES.items())  # a quote is a letter like any other here
    pack = gzip.compress if zipped else bytes
    files = [tmp_path / f"m.{kind}{'.gz' * zipped}" for kind in ("inter", "item")]
    for path, text in zip(files, (inter, item), strict=True):
        path.write_bytes(pack(text.encode()))
    check(build(files[:1], files[1:], source="recbole"), ['"Drama, War'] * 3)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "jsonl.gz"])
def test_any_two_tables(build, tmp_path, kind):
    frames = {
        "log": pl.DataFrame(EVENTS, schema=["u", "i", "t"], orient="row").with_columns(other=pl.lit("x, y")),
        "things": pl.DataFrame({"i": list(TITLES), "name": list(TITLES.values()), "tags": ["a|b"] * 3}),
    }
    files = []
    for name, frame in frames.items():
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            frame.write_parquet(path)
        else:
            text = (
                frame.write_ndjson() if "json" in kind else frame.write_csv(separator="\t" if kind == "tsv" else ",")
            )
            path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
        files.append([path])
    columns = Columns(
        user_column="u",
        item_column="i",
        time_column="t",
        title_column="name",
        category_column="tags",
        category_separator="|",
    )
    check(build(*files, columns=columns, source="table"), ["a, b"] * 3)


def table(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(text)
    return [path]


def build_table(build, tmp_path, text, **columns):
    return build(
        table(tmp_path, text), columns=Columns(**(vars(FLAGS) | columns)), source="table", split="leave_one_out"
    )


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        ("s", ["1", "2.5", "4"]),
        ("ms", ["1000", "2500", "4000"]),
        ("us", ["1000000", "2500000", "4000000"]),
        ("s", ["1970-01-01T00:00:01", "1970-01-01T00:00:02.500", "1970-01-01T00:00:04"]),
        ("s", ["1970-01-01 00:00:01", "1970-01-01 00:00:02.500", "1970-01-01 00:00:04"]),
    ],
)
def test_times_of_every_spelling(build, tmp_path, unit, times):
    from mimigenrec.interactions.times import to_ms

    assert to_ms(pl.Series("t", times), unit, tmp_path).to_list() == [1000, 2500, 4000]


def test_dates_of_a_parquet_are_utc(tmp_path):
    from mimigenrec.interactions.times import to_ms

    dates = pl.Series("t", ["2016-10-01"]).str.to_date()
    assert to_ms(dates, "s", tmp_path).to_list() == [1475280000000]
    zoned = pl.Series("t", ["2016-10-01T02:00:00+02:00"]).str.to_datetime(time_zone="Europe/Paris")
    assert to_ms(zoned, "s", tmp_path).to_list() == [1475280000000]


def test_ids_stay_as_they_are_written(build, tmp_path):
    text = "u,i,t\n" + "".join(f"007,{item},{t}\n" for t, item in enumerate(["1.0", "01", "1", "x"]))
    out = build_table(build, tmp_path, text)
    assert list(out.user2id) == ["007"] and list(out.item2id) == ["1.0", "01", "1", "x"]


def test_a_file_without_header(build, tmp_path):
    text = "".join(f"{i},{u},5.0,{t}\n" for u, i, t in EVENTS)  # Amazon's ratings-only files
    names = {"user_column": "column_2", "item_column": "column_1", "time_column": "column_4"}
    out = build(table(tmp_path, text), columns=Columns(header=False, **names), source="table")
    assert out.sequences == SEQUENCES and out.reviews == {}


def test_review_texts_of_a_table(build, tmp_path):
    text = "u,i,t,words\n1,1,1,good\n1,2,2,\n1,3,3,bad\n1,4,4,so so\n"
    out = build_table(build, tmp_path, text, review_column="words")
    assert [entry["review"] for entry in out.reviews.values()] == ["good", "bad", "so so"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u,item,t\n1,2,3\n", "has no column 'i'; it has u, item, t"),
        ("u,i,t\n1,2,3\n1,,3\n", "column 'i' is empty in 1 rows, the first of them row 2"),
        ('u,i,t\n1,,3\n1,"",3\n', "column 'i' is empty"),
        ('u,i,t\n1,a,3\n1,"",3\n', "row 2, column 'i': an id must not be empty"),
        ('u,i,t\n1,"a\tb",3\n', r"holds the control character '\\t'"),
        ("u,i,t\n1,2,then\n", "row 1: 'then' in column 't' is not a time"),
        ("u,i,t\n1,2,nan\n", "not a finite number"),
        ("u,i,t\n1,2,3,4\n", "cannot be read as CSV"),
        ("u,i,t\n", "holds no row below its header"),
        ("", "log.csv holds no row"),
    ],
)
def test_bad_tables_say_what_is_wrong(build, tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        build_table(build, tmp_path, text)


def test_a_table_needs_its_columns_named(build, tmp_path):
    with pytest.raises(ValueError, match="--item_column is needed, the name of a column in .*log.csv"):
        build(table(tmp_path, "u,i,t\n"), columns=Columns(user_column="u"), source="table")


def test_a_truncated_table_is_named(build, tmp_path):
    text = "u,i,t\n" + "".join(f"{n},{n * n},{n}\n" for n in range(5000))
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:9000])
    with pytest.raises(ValueError, match=r"log\.csv\.gz"):
        build([path], columns=FLAGS, source="table")


CSV = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n"


def test_minionerec_csv_gives_its_rows_back(build, tmp_path):
    names = ["train", "valid", "test"]
    rows = [("A", [0], 1), ("B", [1], 2), ("A", [0, 1], 2), ("B", [1, 2], 0)] + [
        ("A", [0, 1, 2], 0),
        ("B", [1, 2, 0], 3),
    ]
    parts = {"train": rows[:4], "valid": rows[4:5], "test": rows[5:]}
    for name, part in parts.items():
        lines = [f"""{u},"{[f"T{i}" for i in h]}",T{t},"{h}",{t},x,y\n""" for u, h, t in part]
        (tmp_path / f"{name}.csv").write_text(CSV + "".join(lines))
    out = build([tmp_path / f"{name}.csv" for name in names], source="rows", ratio=[4, 1, 1])
    by_id = {new: int(old) for old, new in out.item2id.items()}
    users = {new: old for old, new in out.user2id.items()}
    assert {
        split: [(users[u], [by_id[i] for i in h], by_id[t]) for u, h, t in part] for split, part in out.rows.items()
    } == parts
    assert titles(out) == [f"T{old}" for old in out.item2id]


def test_rows_that_do_not_continue_are_counted(build, tmp_path):
    lines = ['A,"[]",x,"[0]",1,x,y\n', 'A,"[]",x,"[7]",2,x,y\n', 'A,"[]",x,"[2]",3,x,y\n']
    (tmp_path / "train.csv").write_text(CSV + "".join(lines))
    out = build([tmp_path / "train.csv"], source="rows", split="leave_one_out")
    assert out.counts["rows_that_do_not_continue"] == 1 and out.sequences == {"0": [0, 1, 2, 3]}


def test_code_in_a_csv_is_not_run(build, tmp_path):
    (tmp_path / "train.csv").write_text(CSV + "A,[],x,__import__('os').abort(),1,x,y\n")
    with pytest.raises(ValueError, match=r"train\.csv, row 1: a history is not a list"):
        build([tmp_path / "train.csv"], source="rows")


def test_inter_json_of_mimigenrec_and_lcrec(build, tmp_path):
    (tmp_path / "x.inter.json").write_text(json.dumps({"a": [5, 6, 7], "b": [6, 5, 5, 7]}))
    (tmp_path / "x.item.json").write_text(json.dumps({str(i): {"title": f"T{i}"} for i in (5, 6, 7)}))
    files = [tmp_path / "x.inter.json"], [tmp_path / "x.item.json"]
    out = build(*files, source="sequences", split="leave_one_out")
    assert out.sequences == {"0": [0, 1, 2], "1": [1, 0, 0, 2]} and titles(out) == ["T5", "T6", "T7"]
    (tmp_path / "x.inter.json").write_text("[1]")
    with pytest.raises(ValueError, match="must map user ids to lists"):
        build(*files, source="sequences", split="leave_one_out")


def test_txt_of_s3rec_plain_and_packed(build, tmp_path):
    (tmp_path / "x.txt").write_text("a 5 6 7\nb 6 5 5 7\n")
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress((tmp_path / "x.txt").read_bytes()))
    for name in ("x.txt", "x.txt.gz"):
        out = build([tmp_path / name], source="sequences", split="leave_one_out")
        assert out.sequences == {"0": [0, 1, 2], "1": [1, 0, 0, 2]}
    (tmp_path / "x.txt").write_text("a 5 6 7\nb\n")
    with pytest.raises(ValueError, match=r"x\.txt, line 2: expected a user and items separated by spaces, found 'b'"):
        build([tmp_path / "x.txt"], source="sequences", split="leave_one_out")
    with pytest.raises(FileNotFoundError, match=r"y\.txt is missing"):
        build([tmp_path / "y.txt"], source="sequences", split="leave_one_out")


def test_movielens_as_atomic_files_has_the_counts_of_its_card(build):
    folder = shared("data", "movielens-small-2018")
    files = [folder / "movielens-small-2018.inter.gz"], [folder / "movielens-small-2018.item"]
    out = build(*files, source="recbole", user_k=5, item_k=5)
    counts = out.counts
    assert [counts[f"{what}_left"] for what in ("interactions", "users", "items")] == [90_274, 610, 3_650]
    known = json.loads(gzip.decompress((folder / "sequential.json.gz").read_bytes()))
    by_id = {int(new): old for old, new in out.item2id.items()}
    assert {user: [by_id[item] for item in out.sequences[new]] for user, new in out.user2id.items()} == known


def test_a_real_inter_json_comes_back_and_its_last_items_are_the_test(build, tmp_path):
    known = json.loads(gzip.decompress(shared("data", "games-2018-loo", "Games.inter.json.gz").read_bytes()))
    (tmp_path / "Games.inter.json").write_text(json.dumps(known))
    files = [tmp_path / "Games.inter.json"]
    out = build(files, source="sequences", split="leave_one_out", ids="given", history=0)
    assert out.sequences == known
    assert out.rows["test"] == [(user, tuple(map(str, items[:-1])), str(items[-1])) for user, items in known.items()]


def test_without_polars_the_error_names_the_extra_and_histories_can_still_be_read():
    code = "import sys; sys.modules['polars'] = None; import mimigenrec.interactions.inter_file\n"
    code += "import mimigenrec.interactions.build"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "inter_file" not in done.stderr and "pip install 'mimigenrec[raw]'" in done.stderr
