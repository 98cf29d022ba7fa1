"""A result that is not as evaluate writes it, or that holds NaN, is named by file, row and key, and never tabled."""

import json
import shutil

import pytest

from mimigenrec.evaluation.result import read_metrics, read_result, write_result
from mimigenrec.manifest import make_manifest


@pytest.fixture(scope="module")
def good(result_of, tmp_path_factory):
    return result_of(tmp_path_factory.mktemp("result") / "good", [["0", "1"], ["4"]], ["0", "1"], k=3)


@pytest.fixture
def changed(good, tmp_path):
    """changed("metrics.json", lambda content: ...) -> a copy of the result with the file changed."""

    def change(name, edit):
        folder = shutil.copytree(good, tmp_path / "bad")
        content = json.loads((folder / name).read_text())
        content = edit(content) or content
        (folder / name).write_text(json.dumps(content))
        return folder

    return change


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda rows: rows[1]["ranked"][0].pop("sid") and None,
            "row 1: ranked.0..sid is missing",
        ),
        (
            lambda rows: rows[1]["ranked"][0].update(items=None),
            "row 1: ranked.0..items must be a list of texts",
        ),
        (lambda rows: rows[1]["ranked"][0].update(items=[4]), "row 1: ranked.0..items.0. must be a text, found 4"),
        (
            lambda rows: rows[1]["ranked"].append(5),
            "row 1: ranked.* must be a map with 'sid', .*, found 5",
        ),
        (lambda rows: rows[1].update(ranked=None), "row 1: ranked must be a list"),
        (lambda rows: rows[1].update(history="4 6"), "row 1: history must be a list of texts or null, found '4 6'"),
        (lambda rows: rows[1].update(target=1), "row 1: target must be a text or null, found 1"),
        (
            lambda rows: rows[1]["ranked"][0].update(score=float("nan")),
            "score must be a finite number, found nan",
        ),
        (
            lambda rows: rows[1]["ranked"][0].update(score=None),
            "score must be a finite number, found None",
        ),
        (lambda rows: {"rows": rows}, "must hold a list"),
    ],
)
def test_a_row_of_another_form_or_a_score_like_nan_is_named(changed, edit, message):
    with pytest.raises(ValueError, match=f"final_result.json.*{message}"):
        read_result(changed("final_result.json", edit))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m["item"]["hr@1"].update(mean=float("nan")),
            "item: hr@1.mean must be a finite number, found nan",
        ),
        (lambda m: m["sid"].update({"hr@1": 0.5}), "sid.hr@1 must be a map, found 0.5"),
        (lambda m: m["sid"].pop("ndcg@3") and None, "has k=3 and no ndcg@3"),
        (lambda m: m.pop("k") and None, "k must be a whole number from 1, found None"),
        (lambda m: m.update(sid=[]), "sid must be a map"),
        (lambda m: m.update(n_rows="8"), "n_rows must be a whole number"),
        (lambda m: [m], "must hold a map"),
    ],
)
def test_a_metric_that_is_missing_or_no_number_is_named(changed, edit, message):
    with pytest.raises(ValueError, match=f"metrics.json.*{message}"):
        read_result(changed("metrics.json", edit))


@pytest.mark.parametrize(("edit", "message"), [(lambda m: [m], "a map"), (lambda m: m.pop("config"), "")])
def test_a_manifest_of_another_form_is_named(changed, edit, message):
    if not message:
        edit, message = (
            (lambda m: {k: v for k, v in m.items() if k != "config"}),
            "config is missing",
        )
    with pytest.raises(ValueError, match=f"manifest.json.*{message}"):
        read_result(changed("manifest.json", edit))


def test_a_score_like_nan_is_not_written_either(toy, tmp_path):
    groups = [{"sid": "<a_0><b_0><c_0>", "items": ["0"], "score": float("nan")}]
    row = {"user": "u", "row": 0, "history": [], "target": "0", "target_sid": "<a_0><b_0><c_0>", "ranked": groups}
    with pytest.raises(ValueError, match=r"row 0: ranked\[0\].score must be a finite number, found nan"):
        write_result(tmp_path / "out", [row], toy, 1, make_manifest({}, [], 1))
    assert not (tmp_path / "out").exists()


def test_a_row_without_a_list_is_fine(good, changed):
    folder = changed("final_result.json", lambda rows: rows[1].update(ranked=[]))
    assert read_result(folder).rows[1]["ranked"] == []
    assert read_metrics(good) == read_result(good).metrics
