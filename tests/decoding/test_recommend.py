import json
import shutil
from dataclasses import replace

import pytest

from mimigenrec.cli import parse
from mimigenrec.contract import Contract
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.recommend import RecommendConfig, main
from mimigenrec.interactions.inter_file import History
from tests.conftest import write_histories


def run(checkpoint, *flags):
    main(*parse(RecommendConfig, argv=["--model", str(checkpoint), "--device", "cpu", *map(str, flags)]))


def test_a_history_gives_a_table_of_k_items(checkpoint, capsys, toy):
    run(checkpoint, "--history", "0, 5", "--k", 3)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["rank", "item", "sid", "logp", "title"]
    assert len(rows) == 3
    for rank, row in enumerate(rows, 1):
        place, item, sid, _, *title = row.split()
        assert int(place) == rank and sid == "".join(toy.sids[item]) and " ".join(title) == toy.titles.get(item, "")


def test_users_from_jsonl_and_from_an_inter_file_get_the_same_items(checkpoint, tmp_path):
    users = [("u1", ("0", "5")), ("u2", ("2",))]
    lines = [json.dumps({"user": user, "history": list(history)}) for user, history in users]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))  # no newline at the end: the last user counts too
    write_histories(tmp_path / "users.inter", [History(i, user, items, "7") for i, (user, items) in enumerate(users)])
    written = []
    for name in ("users.jsonl", "users.inter"):
        run(checkpoint, "--users", tmp_path / name, "--k", 8, "--exclude_seen", "--output", tmp_path / "out.jsonl")
        written.append([json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()])
    assert written[0] == written[1]
    assert [(row["user"], tuple(row["history"])) for row in written[0]] == users
    assert [len(row["items"]) for row in written[0]] == [6, 7]
    assert set(written[0][0]["items"][0]) == {"rank", "item", "sid", "title", "logp"}


def test_allow_and_deny_files_are_obeyed_and_strangers_counted(checkpoint, tmp_path, capsys, caplog):
    (tmp_path / "allow").write_text("0\n1\n7\nstranger\n")
    (tmp_path / "deny").write_text("1\n")
    run(checkpoint, "--history", "4", "--allow", tmp_path / "allow", "--deny", tmp_path / "deny")
    rows = capsys.readouterr().out.splitlines()[1:]
    assert sorted(row.split()[1] for row in rows) == ["0", "7"]
    assert "1 of 4 item ids have no SID, stranger first" in caplog.text


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 2: not JSON"),
        ('{"user": 1}', "line 2: history is missing"),
        ('["u"]', "line 2: must be a map with 'user' and 'history'"),
        ('{"user": "u", "history": "0"}', "line 2: history must be a list of texts or whole numbers"),
        ('{"user": "u", "history": [null]}', r"line 2: history\[0\] must be a text or a whole number"),
        ('{"user": null, "history": ["0"]}', "line 2: user must be a text or a whole number"),
    ],
)
def test_a_bad_line_of_the_users_file_is_named(checkpoint, tmp_path, line, what):
    (tmp_path / "users.jsonl").write_text('{"user": "u", "history": ["0"]}\n' + line)
    with pytest.raises(ValueError, match=what):
        run(checkpoint, "--users", tmp_path / "users.jsonl")


def test_one_source_of_histories_is_wanted(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="either --history or --users"):
        run(checkpoint)
    with pytest.raises(ValueError, match="either --history or --users"):
        run(checkpoint, "--history", "1", "--users", tmp_path / "users.jsonl")


def users_file(tmp_path, *histories):
    lines = [json.dumps({"user": f"u{i}", "history": history}) for i, history in enumerate(histories)]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    return tmp_path / "users.jsonl"


def answers(checkpoint, tmp_path, *flags):
    run(checkpoint, *flags, "--output", tmp_path / "out.jsonl")
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n") if line]


def test_a_new_user_gets_popular_items_and_a_delisted_item_is_left_out(checkpoint, tmp_path, caplog):
    users = users_file(tmp_path, ["0", "5"], [], ["0", "gone", "5"], ["gone"])
    known, new, shorter, gone = answers(checkpoint, tmp_path, "--users", users, "--k", 3)
    assert known["items"] == shorter["items"] and shorter["history"] == ["0", "gone", "5"]
    assert "fallback" not in known and new["fallback"] == gone["fallback"] == "popular"
    assert [(row["rank"], row["item"], row["logp"]) for row in new["items"]] == [
        (1, "3", None),
        (2, "0", None),
        (3, "2", None),
    ]
    assert new["items"] == gone["items"] and new["items"][0]["title"] == "thing number 3"
    assert "2 items of the histories are not in the catalogue" in caplog.text and "'gone' first" in caplog.text
    assert "2 of 4 users have no item of the catalogue in their history, 'u1' first" in caplog.text


def test_popular_items_obey_every_filter(checkpoint, tmp_path):
    (tmp_path / "allow").write_text("3\n0\n2\n7\n")
    (tmp_path / "deny").write_text("2\n")
    flags = ["--users", users_file(tmp_path, [], ["gone"]), "--allow", tmp_path / "allow", "--deny", tmp_path / "deny"]
    for line in answers(checkpoint, tmp_path, *flags, "--exclude_seen"):
        assert [row["item"] for row in line["items"]] == ["3", "0", "7"]


def test_items_of_a_history_that_is_left_out_are_still_seen(tmp_path, tiny_model, tokenizer, toy):
    without = replace(
        toy, sids={item: sid for item, sid in toy.sids.items() if item != "4"}
    )  # known by its title alone
    MIMIGenRec(tiny_model, tokenizer, without, Contract.of("contract", tokenizer)).save_pretrained(tmp_path / "model")
    [line] = answers(tmp_path / "model", tmp_path, "--users", users_file(tmp_path, ["4"]), "--exclude_seen")
    assert line["fallback"] == "popular" and "4" not in [row["item"] for row in line["items"]]


def test_skip_gives_such_users_an_empty_list(checkpoint, tmp_path, caplog):
    _, new = answers(checkpoint, tmp_path, "--users", users_file(tmp_path, ["0"], []), "--unknown", "skip")
    assert new == {"user": "u1", "history": [], "items": [], "fallback": "none"}
    assert "they get an empty list" in caplog.text


def test_without_counts_there_are_no_popular_items_and_a_warning_says_so(checkpoint, tmp_path, caplog):
    bare = shutil.copytree(checkpoint, tmp_path / "bare")
    (bare / "items.json").unlink()
    [new] = answers(bare, tmp_path, "--users", users_file(tmp_path, []))
    assert new["items"] == [] and new["fallback"] == "none"
    assert "they get an empty list" in caplog.text and "no items.json with counts" in caplog.text


@pytest.mark.parametrize(
    ("history", "what"),
    [
        (["0", "gone"], r"users.jsonl, line 2: item 'gone' is not in the catalogue"),
        ([], r"users.jsonl, line 2: the history of user 'u1' holds no item"),
    ],
)
def test_error_stops_and_names_the_line(checkpoint, tmp_path, history, what):
    with pytest.raises(ValueError, match=what):
        run(checkpoint, "--users", users_file(tmp_path, ["0"], history), "--unknown", "error")


@pytest.mark.parametrize(("history", "what"), [("gone", "item 'gone' is not in the catalogue"), ("", "holds no item")])
def test_a_single_history_stops_as_ever(checkpoint, history, what):
    with pytest.raises(ValueError, match=what):
        run(checkpoint, "--history", history)


def test_lines_end_where_they_end_and_not_within_a_name(checkpoint, tmp_path):
    (tmp_path / "users.jsonl").write_text('{"user": "a\u2028b\u0085", "history": ["0"]}\r\n\n', encoding="utf-8")
    [line] = answers(checkpoint, tmp_path, "--users", tmp_path / "users.jsonl")
    assert line["user"] == "a\u2028b\u0085"
    (tmp_path / "allow").write_text("5\u20286\n1\n", encoding="utf-8")
    [line] = answers(checkpoint, tmp_path, "--users", tmp_path / "users.jsonl", "--allow", tmp_path / "allow")
    assert [row["item"] for row in line["items"]] == ["1"]


def test_a_title_cannot_command_the_terminal(checkpoint, tmp_path, capsys):
    evil = shutil.copytree(checkpoint, tmp_path / "evil")
    titles = {item: {"title": "a\x1b[2J\x07 b\u202e é\x9b 日本 \ud800"} for item in "01234567"}
    (evil / "items.json").write_text(json.dumps(titles))
    run(evil, "--history", "0", "--k", 1)
    assert capsys.readouterr().out.rstrip().endswith(r"a\x1b[2J\x07 b\u202e é\x9b 日本 \ud800")
    [line] = answers(evil, tmp_path, "--users", users_file(tmp_path, ["0"]), "--k", 1)
    assert line["items"][0]["title"] == titles["0"]["title"]  # files hold what the catalogue holds


def test_a_file_that_recommend_did_not_write_is_not_replaced(checkpoint, tmp_path):
    users = users_file(tmp_path, ["0"])
    before = users.read_bytes()
    with pytest.raises(ValueError, match="users.jsonl holds something that `mimigenrec recommend` did not write"):
        run(checkpoint, "--users", users, "--output", users)
    assert users.read_bytes() == before


def test_nobody_to_recommend_to_and_nothing_to_recommend_are_errors(checkpoint, tmp_path):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="holds no user"):
        run(checkpoint, "--users", tmp_path / "empty")
    with pytest.raises(ValueError, match="--allow .*empty holds no item with a SID"):
        run(checkpoint, "--history", "0", "--allow", tmp_path / "empty")


def test_a_row_that_the_model_cannot_score_is_named_by_its_place_among_the_users(checkpoint, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise NotFinite(0, 2)

    monkeypatch.setattr("mimigenrec.decoding.model.recommend", broken)
    with pytest.raises(ValueError, match=r"not finite \(row 1, step 2\)"):  # row 0 has nothing to ask with
        run(checkpoint, "--users", users_file(tmp_path, [], ["0"]))
