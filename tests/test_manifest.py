import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from mimigenrec.errors import UserError
from mimigenrec.manifest import check_same_run, differences, make_manifest


@dataclass
class Config:
    data: Path = Path("here")
    ks: tuple = (1, 2)
    rate: float = 0.5


def test_a_manifest_holds_versions_config_seed_and_the_hash_of_every_input(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    manifest = json.loads(json.dumps(make_manifest(Config(), [tmp_path / "x"], seed=3, rows=7)))
    assert manifest["config"] == {"data": "here", "ks": [1, 2], "rate": 0.5}
    assert manifest["seed"] == 3 and manifest["rows"] == 7
    assert manifest["inputs"][str(tmp_path / "x")].startswith("ba7816bf")
    assert {"python", "torch", "trl", "llamafactory", "mimigenrec"} <= set(manifest["versions"])


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr("mimigenrec.manifest.PACKAGES", ("no-such-package",))
    assert make_manifest({}, [], seed=None)["versions"]["no-such-package"] is None


def test_two_runs_differ_in_what_their_result_depends_on_and_in_nothing_else(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text("1")
    before = make_manifest({"rate": 0.1, "trl": {"beta": 0.0, "out": "here"}}, [tmp_path / "a" / "x.json"], seed=1)
    (tmp_path / "moved").mkdir()
    (tmp_path / "a").rename(tmp_path / "moved" / "a")
    same = make_manifest({"rate": 0.1, "trl": {"beta": 0.0, "out": "there"}}, [tmp_path / "moved/a/x.json"], seed=1)
    assert differences(before, same, free=("out",)) == []
    assert differences(before, same, free=("trl.out",)) == []
    (tmp_path / "moved/a/x.json").write_text("2")
    other = make_manifest({"trl": {"beta": 0.1, "out": "here"}, "new": 3}, [tmp_path / "moved/a/x.json"], seed=1)
    found = differences(before, other)
    assert found[:3] == ["rate: 0.1 then, nothing now", "trl.beta: 0.0 then, 0.1 now", "new: nothing then, 3 now"]
    assert len(found) == 4 and found[3].startswith("a/x.json: 6b86b273")


def test_another_run_in_the_folder_is_shown_and_the_way_out_is_named():
    before, now = ({"config": {f"k{i}": value for i in range(7)}, "inputs": {}} for value in (0, 1))
    check_same_run("out", before, before, (), "--overwrite")
    with pytest.raises(UserError) as error:
        check_same_run("out", before, now, (), "--overwrite")
    text = str(error.value)
    assert "k0: 0 then, 1 now" in text and "k5" not in text and "and 2 more" in text
    assert text.endswith("Take another folder, or --overwrite to replace it")


def test_two_files_of_the_same_last_names_are_both_compared(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "text").mkdir(parents=True)
        (tmp_path / name / "text" / "v.npy").write_text(name)
    files = [tmp_path / name / "text" / "v.npy" for name in ("a", "b")]
    before = make_manifest({}, files, seed=1)
    files[0].write_text("c")
    assert len(differences(before, make_manifest({}, files, seed=1))) == 1
