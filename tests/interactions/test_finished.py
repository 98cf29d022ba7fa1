"""What stands in the output folder is kept, unless the same run wrote it or --overwrite is given."""

import pytest

from mimigenrec.errors import UserError
from tests.interactions.conftest import json_lines, review


@pytest.fixture
def lines(tmp_path):
    pairs = [(f"u{user}", f"i{item}", 86400 * 17000 + item) for user in range(9) for item in range(4)]
    return json_lines(tmp_path / "r.json", [review(*pair) for pair in pairs])


def contents(built) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in built.stem.parent.iterdir()}


def test_a_finished_run_says_so_and_touches_nothing(build, lines, tmp_path, capsys):
    before = contents(build([lines], split="leave_one_out"))
    capsys.readouterr()
    moved = tmp_path / "new" / tmp_path.name / "r.json"
    moved.parent.mkdir(parents=True)
    lines.rename(moved)
    assert contents(build([moved], split="leave_one_out", overwrite=False)) == before
    assert capsys.readouterr().out.endswith("C.* are finished: nothing to do; --overwrite makes them anew\n")


@pytest.mark.parametrize("changed", ["flags", "data"])
def test_a_run_of_other_flags_or_data_is_shown_and_refused(build, lines, changed):
    before = contents(build([lines], split="leave_one_out"))
    flags = {"split": "leave_one_out", "history": 2} if changed == "flags" else {"split": "leave_one_out"}
    if changed == "data":
        lines.write_text(lines.read_text().replace("i3", "i4"))
    shown = "history: 10 then, 2 now" if changed == "flags" else "r.json: .* then, .* now"
    with pytest.raises(UserError, match=f"C/C.* holds a run with other settings or data .*{shown}.* --overwrite"):
        build([lines], overwrite=False, **flags)
    assert {path.name: path.read_bytes() for path in (lines.parent / "out" / "C").iterdir()} == before


def test_a_file_that_somebody_else_wrote_is_refused(build, lines, tmp_path):
    folder = tmp_path / "out" / "C"
    folder.mkdir(parents=True)
    (folder / "C.train.inter").write_text("mine")
    with pytest.raises(UserError, match="C.train.inter is there, and no C.interactions.json beside it"):
        build([lines], split="leave_one_out", overwrite=False)
    assert [path.name for path in folder.iterdir()] == ["C.train.inter"]
    assert (folder / "C.train.inter").read_text() == "mine"


def test_a_killed_run_is_done_again(build, lines, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mimigenrec.interactions.build.write_reviews", killed)
        with pytest.raises(KeyboardInterrupt):
            build([lines], split="leave_one_out", overwrite=False)
    built = build([lines], split="leave_one_out", overwrite=False)
    assert built.counts["rows_test"] == 9 and not any("unfinished" in name for name in contents(built))


def test_files_of_other_commands_are_in_nobodys_way(build, lines, tmp_path):
    folder = tmp_path / "out" / "C"
    folder.mkdir(parents=True)
    (folder / "C.index.json").write_text("{}")
    build([lines], split="leave_one_out", overwrite=False)
    assert (folder / "C.index.json").read_text() == "{}"


def test_a_file_that_is_read_is_never_written_over(build, lines):
    folder = build([lines], split="leave_one_out").stem.parent
    own = [folder / f"C.{split}.inter" for split in ("train", "valid", "test")]
    before = [path.read_bytes() for path in own]
    with pytest.raises(UserError, match="C.*.inter is read, and would be written over"):
        build(own, source="rows", split="given")
    assert [path.read_bytes() for path in own] == before
