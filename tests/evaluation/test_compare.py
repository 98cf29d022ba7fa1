"""Two results side by side: known differences, refused pairs, what their manifests do not share."""

import json

import numpy as np
import pytest

from mimigenrec.cli import parse
from mimigenrec.evaluation.compare import CompareConfig, compare, differing, main, paths_as_flags
from mimigenrec.evaluation.result import read_result, row_metrics, write_result
from mimigenrec.evaluation.stats import paired_bootstrap
from mimigenrec.manifest import make_manifest

SID = {"0": "<a_0><b_0><c_0>", "1": "<a_0><b_0><c_1>", "4": "<a_1><b_0><c_2>"}


def written(folder, toy, hits, k=3, **config):
    """Rows whose target "0" stands first where hits says so, and is missing elsewhere."""
    right, wrong = ({"sid": SID[item], "items": [item], "score": -1.0} for item in ("0", "1"))
    rows = [
        {
            "user": f"u{i}",
            "row": i,
            "history": ["4"],
            "target": "0",
            "target_sid": SID["0"],
            "ranked": [right if hit else wrong],
        }
        for i, hit in enumerate(hits)
    ]
    write_result(folder, rows, toy, k, make_manifest({"k": k, **config}, [], seed=1), method=folder.name)
    return read_result(folder)


def test_a_gain_of_two_rows_in_ten_by_hand(toy, tmp_path):
    a = written(tmp_path / "a", toy, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    b = written(tmp_path / "b", toy, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = compare(a, b, np.random.default_rng(0), resamples=1000)
    for level in ("sid", "item"):
        assert found[level]["hr@1"].mean == pytest.approx(0.2)
        assert found[level]["hr@1"].low >= 0 and found[level]["hr@1"].p > 0.05
    assert "hr@5" not in found["sid"]


def test_two_gains_in_ten_rows_come_up_in_every_second_swap(toy, tmp_path):
    a = written(tmp_path / "a", toy, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    b = written(tmp_path / "b", toy, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = compare(a, b, np.random.default_rng(0), resamples=20000)
    for level in ("sid", "item"):
        assert found[level]["hr@1"].p_permutation == pytest.approx(0.5, abs=0.02)  # ++ and --, of ++ +- -+ --


def test_the_bootstrap_draws_what_it_draws_without_the_permutation_test(toy, tmp_path):
    a = written(tmp_path / "a", toy, [1, 1, 0, 0, 1, 0])
    b = written(tmp_path / "b", toy, [1, 0, 1, 1, 0, 0])
    found, rng = compare(a, b, np.random.default_rng(3), resamples=200), np.random.default_rng(3)
    for level in ("sid", "item"):
        alone = paired_bootstrap(row_metrics(a.rows, level, [1, 3]), row_metrics(b.rows, level, [1, 3]), rng, 200)
        assert {name: compared[:4] for name, compared in found[level].items()} == alone


def test_no_resamples_are_refused(toy, tmp_path):
    a = written(tmp_path / "a", toy, [1, 0])
    with pytest.raises(ValueError, match="resamples=0"):
        compare(a, a, np.random.default_rng(0), resamples=0)


def test_the_smaller_k_of_the_two_limits_the_metrics(toy, tmp_path):
    a, b = written(tmp_path / "a", toy, [1, 0], k=10), written(tmp_path / "b", toy, [1, 0], k=3)
    assert set(compare(a, b, np.random.default_rng(0), 10)["item"]) == {
        f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in (1, 3)
    }


def test_results_of_different_length_or_users_are_refused(toy, tmp_path):
    a = written(tmp_path / "a", toy, [1, 0, 1])
    with pytest.raises(ValueError, match="3 rows and .* 2"):
        compare(a, written(tmp_path / "b", toy, [1, 0]), np.random.default_rng(0), 10)
    b = written(tmp_path / "c", toy, [1, 0, 1])
    b.rows[1]["user"] = "somebody"
    with pytest.raises(ValueError, match="row 1 .*somebody.*not the same test set"):
        compare(a, b, np.random.default_rng(0), 10)


def test_other_sids_for_the_same_targets_leave_the_item_level(toy, tmp_path):
    a, b = written(tmp_path / "a", toy, [1, 0]), written(tmp_path / "b", toy, [1, 0])
    for row in b.rows:
        row["target_sid"] = "<x_1>"
    assert set(compare(a, b, np.random.default_rng(0), 10)) == {"item"}


def test_a_file_that_tells_only_sids_is_compared_by_them(toy, tmp_path):
    a, b = written(tmp_path / "a", toy, [1, 0]), written(tmp_path / "b", toy, [1, 0])
    for row in b.rows:
        row |= {"user": None, "history": None, "target": None}
    assert compare(a, b, np.random.default_rng(0), 10)["sid"]["hr@1"].mean == 0
    b.rows[1]["target_sid"] = SID["4"]
    with pytest.raises(ValueError, match="not the same test set"):
        compare(a, b, np.random.default_rng(0), 10)


def test_every_leaf_that_differs_is_shown_and_no_other():
    a = {"seed": 1, "config": {"beams": 50, "k": 50}, "inputs": {"x": "1"}}
    b = {"seed": 1, "config": {"beams": 20, "k": 50}, "inputs": {"y": "2"}}
    assert differing(a, b) == {"config.beams": [50, 20], "inputs.x": ["1", None], "inputs.y": [None, "2"]}


def test_nothing_is_written_unless_asked(toy, tmp_path, capsys):
    for name in "ab":
        written(tmp_path / name, toy, [1, 0], beams=ord(name))
    before = {path.name for path in tmp_path.iterdir()}
    main(CompareConfig(a=tmp_path / "a", b=tmp_path / "b" / "final_result.json"))
    assert "config.beams: 97 | 98" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == before
    main(CompareConfig(a=tmp_path / "a", b=tmp_path / "b", output=tmp_path / "out"))
    stored = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert stored["sid"]["hr@1"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "p_permutation": 1.0}
    assert stored["differing"] == {"config.beams": [97, 98]}
    assert stored["manifest"]["seed"] == 42 and len(stored["manifest"]["inputs"]) == 2


def test_a_missing_result_and_a_file_that_is_none_are_named(toy, tmp_path):
    with pytest.raises(FileNotFoundError, match="final_result.json is missing.*mimigenrec evaluate"):
        read_result(tmp_path)
    (tmp_path / "final_result.json").write_text('[{"user": "u"}]')
    with pytest.raises(ValueError, match="row 0: row is missing"):
        read_result(tmp_path)
    (tmp_path / "final_result.json").write_text("[]")
    with pytest.raises(ValueError, match="at least one row"):
        read_result(tmp_path)


def test_two_bare_paths_are_a_and_b(toy, tmp_path, capsys):
    assert paths_as_flags(["x", "y", "--seed", "1"]) == ["--a", "x", "--b", "y", "--seed", "1"]
    assert paths_as_flags(["--a", "x", "--b", "y"]) == ["--a", "x", "--b", "y"]
    assert paths_as_flags(["a=x", "b=y"]) == ["a=x", "b=y"]
    for name in "ab":
        written(tmp_path / name, toy, [1, 0])
    main(*parse(CompareConfig, argv=paths_as_flags([str(tmp_path / "a"), str(tmp_path / "b"), "--resamples", "10"])))
    assert "| hr@1 | 0.5000 | 0.5000 |" in capsys.readouterr().out
