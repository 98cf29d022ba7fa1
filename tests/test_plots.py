"""Logs and results -> curves, bars and a table."""

import json

import pytest

from mimigenrec.plots import PlotConfig, main, read_results
from tests.evaluation.conftest import RL, SFT, jsonl


def metrics(folder, hr):
    folder.mkdir(parents=True)
    value = {"mean": hr, "low": hr - 0.05, "high": hr + 0.05}
    level = {f"{name}@{k}": value for name in ("hr", "ndcg", "mrr") for k in (1, 10)}
    (folder / "metrics.json").write_text(json.dumps({"n_rows": 9, "sid": level, "item": level}))
    return folder


def test_both_pictures_and_the_table_are_made(tmp_path, capsys):
    logs = [jsonl(tmp_path / "sft" / "trainer_log.jsonl", SFT), jsonl(tmp_path / "rl" / "rl_log.jsonl", RL)]
    results = [metrics(tmp_path / "one", 0.2), metrics(tmp_path / "two", 0.4) / "metrics.json"]
    (tmp_path / "best.json").write_text('{"hr@10": 0.8, "rows": 9}')
    main(PlotConfig(output=tmp_path / "out", logs=logs, results=results, optimum=tmp_path / "best.json"))
    for name in ("curves.png", "bars.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "| one | 0.2000" in table and "- two reaches 50.0 % of the best possible HR@10" in table


def test_names_replace_the_folders_and_must_be_as_many(tmp_path):
    folders = [metrics(tmp_path / "one", 0.2), metrics(tmp_path / "two", 0.4)]
    assert list(read_results(folders, ["SFT", "RL"])) == ["SFT", "RL"]
    for names in (["SFT"], ["SFT", "SFT"]):
        with pytest.raises(ValueError, match="2 results need as many different --names"):
            read_results(folders, names)


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="--logs, --results or both"):
        main(PlotConfig(output=tmp_path))
    with pytest.raises(ValueError, match="nothing to draw"):
        main(PlotConfig(output=tmp_path, logs=[jsonl(tmp_path / "lr" / "a.jsonl", [{"step": 1, "lr": 0.1}])]))
    (tmp_path / "metrics.json").write_text('{"hr": 1}')
    with pytest.raises(ValueError, match="metrics.json: n_rows is missing"):
        read_results([tmp_path], ["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must hold a map"),
        ('{"hr@10": null}', "hr@10 must be a number above 0 and at most 1, found None"),
        ('{"hr@10": NaN}', "hr@10 must be a number above 0 and at most 1, found nan"),
        ('{"hr@10": 0}', "hr@10 must be a number above 0"),
        ('{"recall": 0.5}', "names none of the metrics in the results: recall"),
        ("{}", "names none of the metrics in the results: nothing"),
    ],
)
def test_an_optimum_that_tells_nothing_is_refused(tmp_path, content, message):
    (tmp_path / "best.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        main(
            PlotConfig(output=tmp_path / "out", results=[metrics(tmp_path / "a", 0.2)], optimum=tmp_path / "best.json")
        )
    assert not (tmp_path / "out").exists()
