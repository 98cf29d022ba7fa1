import pytest

from mimigenrec.catalog import Catalog
from mimigenrec.interactions.inter_file import History
from mimigenrec.tasks.usable import survey, usable
from tests.conftest import write_histories

CATALOG = Catalog(sids={"1": ("<a>",), "2": ("<b>",)})
ROWS = [
    History(0, "u", ("1", "x"), "2"),
    History(1, "u", ("1",), "x"),
    History(2, "u", (), "1"),
    History(3, "u", ("x", "y"), "1"),
    History(4, "u", ("2",), "y"),
]


@pytest.fixture
def inter(tmp_path):
    def write(rows):
        write_histories(tmp_path / "c.inter", rows)
        return tmp_path / "c.inter"

    return write


def test_train_and_valid_drop_what_test_keeps(inter):
    path = inter(ROWS)
    assert [row.row for row in usable(path, "train", CATALOG)] == [0]
    assert [row.row for row in usable(path, "valid", CATALOG)] == [0]
    assert list(usable(path, "test", CATALOG)) == ROWS


def test_counts_by_hand(inter):
    assert survey(inter(ROWS), CATALOG, known={"1", "2", "x"}) == {
        "rows": 5,
        "usable": 1,
        "target_without_sid": 2,
        "history_without_sid": 2,
        "items": 11,
        "items_without_sid": 5,
        "items_unknown": 2,  # "y" twice
    }


def test_interactions_of_another_catalogue_are_refused(inter):
    with pytest.raises(ValueError, match="c.inter, line 2: item 'p' and all the others are in neither item.json"):
        survey(inter([History(0, "u", ("p",), "q")]), CATALOG, known={"1"})


def test_a_split_without_a_usable_row_is_refused(inter):
    with pytest.raises(ValueError, match="none of its 2 rows can be used: 1 targets have no SID.*1 histories"):
        survey(inter(ROWS[1:3]), CATALOG, known=set())
