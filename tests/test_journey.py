"""The whole spine as `make demo` runs it, with training cut to seconds: the stages fit and leave what they promise."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def journey(tmp_path_factory, warm_path) -> tuple[Path, str]:
    """The folder that holds data/, saves/, rl_outputs/ and results/ after a quick run, and what the run printed.

    RL starts cold, by accelerate.
    """
    root = tmp_path_factory.mktemp("journey")
    run = subprocess.run(
        ["bash", "examples/tiny/run.sh"],
        cwd=ROOT,
        env={**os.environ, "PATH": warm_path, "QUICK": "1", "ROOT": str(root)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return root, run.stdout


def test_it_ends_with_a_table_of_all_methods_and_the_known_optimum(journey):
    _, printed = journey
    table = printed[printed.rindex("| method |") :]
    for method in ("popularity", "Markov", "SFT", "RL", "best possible"):
        assert f"| {method} |" in table
    assert "of the best possible HR@10" in table


def test_every_result_has_metrics_pictures_and_a_manifest(journey):
    root, _ = journey
    results = root / "results" / "tiny"
    assert (results / "curves.png").is_file() and (results / "bars.png").is_file()
    for method in ("popularity", "markov", "sft", "rl"):
        metrics = json.loads((results / method / "metrics.json").read_text())
        assert metrics["n_rows"] == json.loads((results / "sft" / "metrics.json").read_text())["n_rows"]
        for name in ("final_result.json", "metrics.tsv", "metrics.md", "metrics.png", "manifest.json"):
            assert (results / method / name).is_file(), f"{method}/{name}"


@pytest.mark.parametrize("checkpoint", ["saves/tiny/sft", "rl_outputs/tiny"])
def test_a_checkpoint_answers_alone(journey, checkpoint, monkeypatch, tmp_path):
    from mimigenrec import MIMIGenRec

    monkeypatch.chdir(tmp_path)
    recommender = MIMIGenRec.from_pretrained(journey[0] / checkpoint)
    [best] = recommender.recommend([["17", "203", "45"]], k=5, exclude_seen=True)
    assert len(best) == 5 and len({found.item for found in best}) == 5
    assert not {"17", "203", "45"} & {found.item for found in best}


def test_the_quick_start_of_the_readme_runs(journey, monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "from_pretrained" in block]
    monkeypatch.chdir(journey[0])
    exec(code, {})
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 5 and "<a_" in printed


def test_stock_llamafactory_reads_the_recipe_and_the_registry(journey):
    registry = json.loads((journey[0] / "data" / "dataset_info.json").read_text())
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    assert registry["toy_train"] == {"file_name": "toy/sft/train.json", "columns": columns}
