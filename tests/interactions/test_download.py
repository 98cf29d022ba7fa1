"""data/download_amazon18.sh, fed from files on disk instead of the network."""

import gzip
import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="the script fetches with curl here")
NAMES = ("Toys_5.json.gz", "meta_Toys.json.gz")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for place, name in zip(("categoryFilesSmall", "metaFiles2"), NAMES, strict=True):
        (folder / place).mkdir(parents=True)
        (folder / place / name).write_bytes(gzip.compress(os.urandom(40_000), mtime=0))
    return folder


def fetch(source, output, *categories):
    env = {**os.environ, "BASE": f"file://{source}", "OUTPUT": str(output)}
    return subprocess.run(
        ["bash", ROOT / "data" / "download_amazon18.sh", *categories], env=env, capture_output=True, text=True
    )


def test_files_arrive_whole_with_their_checksums_and_are_not_fetched_twice(source, tmp_path):
    out = tmp_path / "out"
    assert fetch(source, out, "Toys").returncode == 0
    assert len((out / "SHA256SUMS").read_text().splitlines()) == 2
    for place, name in zip(("categoryFilesSmall", "metaFiles2"), NAMES, strict=True):
        assert (out / name).read_bytes() == (source / place / name).read_bytes()
    shutil.rmtree(source)
    assert fetch(source, out, "Toys").returncode == 0


def test_a_download_that_stopped_goes_on(source, tmp_path):
    out, (name, _) = tmp_path / "out", NAMES
    whole = (source / "categoryFilesSmall" / name).read_bytes()
    out.mkdir()
    (out / f"{name}.part").write_bytes(whole[:10_000])
    assert fetch(source, out, "Toys").returncode == 0
    assert (out / name).read_bytes() == whole and not (out / f"{name}.part").exists()


def test_another_file_than_the_first_time_or_a_damaged_one_stops(source, tmp_path):
    out, (name, _) = tmp_path / "out", NAMES
    fetch(source, out, "Toys")
    (out / name).write_bytes(gzip.compress(b"another"))
    assert fetch(source, out, "Toys").returncode != 0
    (out / name).unlink()
    (source / "categoryFilesSmall" / name).write_bytes(b"not packed")
    done = fetch(source, out, "Toys")
    assert done.returncode != 0 and "is damaged; delete it" in done.stderr


def test_a_category_must_be_named(source, tmp_path):
    done = fetch(source, tmp_path / "out")
    assert done.returncode == 2 and "name one or more categories" in done.stderr


def test_files_go_beside_the_script_from_any_folder(source, tmp_path):
    (tmp_path / "data").mkdir()
    script = shutil.copy(ROOT / "data" / "download_amazon18.sh", tmp_path / "data")
    env = {key: value for key, value in os.environ.items() if key != "OUTPUT"} | {"BASE": f"file://{source}"}
    subprocess.run(["bash", script, "Toys"], cwd=source, env=env, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "data" / "amazon18").iterdir()} == {*NAMES, "SHA256SUMS"}
