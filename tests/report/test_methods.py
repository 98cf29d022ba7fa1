"""Results as a report reads them: one at a time, averaged over seeds, their failures by name."""

from pathlib import Path

import numpy as np
import pytest

from mimigenrec.report.methods import Measures, cut_off, folders_of, read_methods, reasons

NOTHING = ("a", lambda rows: [])


def test_a_folder_or_a_list_of_folders():
    assert folders_of("methods", {"a": "x", "b": ["y", "z"], 3: Path("w")}) == {
        "a": [Path("x")],
        "b": [Path("y"), Path("z")],
        "3": [Path("w")],
    }


@pytest.mark.parametrize("value", [None, {}, [], [3], {"seed": "x"}])
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="methods: 'a' needs a folder"):
        folders_of("methods", {"a": value})


def test_columns_are_means_over_seeds_row_by_row_and_only_chosen_rows_are_kept(result_of, toy, tmp_path):
    one = result_of(tmp_path / "1", [["0"], ["1"], ["4"]], ["0", "0", "0"])
    two = result_of(tmp_path / "2", [["0"], ["0"], ["4"]], ["0", "0", "0"])
    measures = Measures(["hr@1", "ndcg@5"], 5, list(toy.sids), {"0": 3})
    (method,), rows = read_methods({"a": [one, two]}, {}, measures, "a", lambda rows: [2, 0])
    assert method.columns["hr@1"].tolist() == [1.0, 0.5, 0.0] and set(method.columns) == {"hr@1", "ndcg@5"}
    assert [list(run.kept) for run in method.runs] == [[2, 0], [2, 0]]
    assert method.runs[0].kept[0]["ranked"] and "ranked" not in rows[0] and len(rows) == 3
    np.testing.assert_array_equal(method.runs[0].first_wrong, [0, 3, 1])
    assert method.runs[0].beyond["popularity"] == 1.0  # train counts 3, 0 and 0


def test_items_of_one_sid_count_by_their_expectation(result_of, toy, tmp_path):
    folder = result_of(tmp_path / "a", [["2"]], ["2"], alone=False)
    (method,), _ = read_methods({"a": [folder]}, {}, Measures(["hr@1"], 1, list(toy.sids), {}), *NOTHING)
    assert method.columns["hr@1"].tolist() == [0.5]


def test_reasons_find_their_method():
    failed = {"rl/3": "nan", "rl/4": ["killed", "twice"], "rl": "all", "rl/x/3": "no", "r": "no"}
    assert reasons("rl", failed) == ["seed 3: nan", "seed 4: killed", "seed 4: twice", "all"]
    assert reasons("rl/x", failed) == ["seed 3: no"] and reasons("sft", failed) == []


def test_what_failed_whole_stands_after_what_did_not(result_of, toy, tmp_path):
    folder = result_of(tmp_path / "a", [["0"]], ["0"])
    measures = Measures(["hr@1"], 1, list(toy.sids), {})
    methods, _ = read_methods({"a": [folder]}, {"tiger": "memory", "a/2": "nan"}, measures, *NOTHING)
    assert [(m.name, len(m.runs), m.failed) for m in methods] == [("a", 1, ["seed 2: nan"]), ("tiger", 0, ["memory"])]


def test_cut_offs():
    assert cut_off("hr@10") == 10 and cut_off("mrr@1") == 1
    for name in ("hr", "hr@0", "hr@-1", "hr@x", "recall@3", "@3"):
        with pytest.raises(ValueError, match="no metric"):
            cut_off(name)
