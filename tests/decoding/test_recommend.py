import json

import pytest

from mimigenrec.cli import parse
from mimigenrec.decoding.recommend import RecommendConfig, main
from mimigenrec.interactions.inter_file import History, write_inter


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
    write_inter(tmp_path / "users.inter", [History(i, user, items, "7") for i, (user, items) in enumerate(users)])
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
    [("{", "line 2: not JSON"), ('{"user": 1}', "line 2: expected"), ('["u"]', "line 2: expected")],
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
