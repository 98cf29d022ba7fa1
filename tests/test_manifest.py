import json
from dataclasses import dataclass
from pathlib import Path

from mimigenrec.manifest import make_manifest, write_manifest


@dataclass
class Config:
    data: Path = Path("here")
    ks: tuple = (1, 2)
    rate: float = 0.5


def test_a_manifest_holds_versions_config_seed_and_the_hash_of_every_input(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    write_manifest(tmp_path, Config(), [tmp_path / "x"], seed=3, rows=7)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"] == {"data": "here", "ks": [1, 2], "rate": 0.5}
    assert manifest["seed"] == 3 and manifest["rows"] == 7
    assert manifest["inputs"][str(tmp_path / "x")].startswith("ba7816bf")
    assert {"python", "torch", "trl", "llamafactory", "mimigenrec"} <= set(manifest["versions"])


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr("mimigenrec.manifest.PACKAGES", ("no-such-package",))
    assert make_manifest({}, [], seed=None)["versions"]["no-such-package"] is None
