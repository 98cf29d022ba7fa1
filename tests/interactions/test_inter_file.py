import pytest

from mimigenrec.interactions.inter_file import HEADER, History, raw_file, read_inter
from tests.conftest import write_histories


def test_rows_come_back_as_written(tmp_path):
    rows = [History(0, "u", ("1", "2"), "3"), History(1, "v", (), "4")]
    assert write_histories(tmp_path / "a.inter", rows) == 2
    assert list(read_inter(tmp_path / "a.inter")) == rows
    assert (tmp_path / "a.inter").read_text() == f"{HEADER}\nu\t1 2\t3\nv\t\t4\n"


def test_windows_line_ends_are_read(tmp_path):
    (tmp_path / "a.inter").write_bytes(f"{HEADER}\r\nu\t1\t2\r\n".encode())
    assert list(read_inter(tmp_path / "a.inter")) == [History(0, "u", ("1",), "2")]


@pytest.mark.parametrize("line", ["u\t1 2", "u\t1\t2\t3", "u\t1\t ", "u\t1\t2 3", ""])
def test_a_row_that_is_not_three_columns_names_its_line(tmp_path, line):
    (tmp_path / "a.inter").write_text(f"{HEADER}\nu\t1\t2\n{line}\n")
    with pytest.raises(ValueError, match="a.inter, line 3"):
        list(read_inter(tmp_path / "a.inter"))


def test_another_header_is_refused(tmp_path):
    (tmp_path / "a.inter").write_text("user\titems\ttarget\nu\t1\t2\n")
    with pytest.raises(ValueError, match="line 1: expected the header"):
        list(read_inter(tmp_path / "a.inter"))


def test_an_empty_split_is_refused(tmp_path):
    (tmp_path / "a.inter").write_text(HEADER + "\n")
    with pytest.raises(ValueError, match="no row below its header"):
        list(read_inter(tmp_path / "a.inter"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.inter is missing"):
        list(read_inter(tmp_path / "gone.inter"))


def test_files_of_a_set_lie_in_its_folder_or_beside_each_other(tmp_path):
    assert raw_file(tmp_path, "C", "train.inter") == tmp_path / "C.train.inter"
    (tmp_path / "C").mkdir()
    assert raw_file(str(tmp_path), "C", "item.json") == tmp_path / "C" / "C.item.json"
