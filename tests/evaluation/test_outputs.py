"""What compare, report and plot write replaces their own files and nobody else's."""

import pytest

from mimigenrec.evaluation.compare import CompareConfig
from mimigenrec.evaluation.compare import main as compare
from mimigenrec.plots import PlotConfig
from mimigenrec.plots import main as plot
from tests.evaluation.conftest import SFT, jsonl


@pytest.fixture(scope="module")
def results(result_of, tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    return [result_of(root / name, [["0", "1"], ["4"]], ["0", "1"], k=10) for name in "ab"]


@pytest.mark.parametrize("name", ["compare.json", "compare.md"])
def test_compare_replaces_its_own_files_alone(results, tmp_path, name):
    config = CompareConfig(a=results[0], b=results[1], output=tmp_path, resamples=10)
    compare(config)
    compare(config)  # its own
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} is there already and `mimigenrec compare` did not write it"):
        compare(config)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["curves.png", "bars.png", "table.md"])
def test_plot_replaces_its_own_files_alone(results, tmp_path, name):
    logs = [jsonl(tmp_path / "sft" / "trainer_log.jsonl", SFT)]
    config = PlotConfig(output=tmp_path, results=results, logs=logs)
    plot(config)
    plot(config)  # its own
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} is there already and `mimigenrec plot` did not write it"):
        plot(config)
    assert (tmp_path / name).read_text() == "mine"
