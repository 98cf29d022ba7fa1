"""The baseline command: known numbers on real rows, the model's candidates, the common filter."""

import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest

from mimigenrec.baselines.network import Network
from mimigenrec.baselines.train import COUNTING, DEFAULTS, BaselineConfig, main, read_catalog, to_groups
from mimigenrec.cli import parse
from mimigenrec.errors import UserError
from mimigenrec.evaluation.result import read_result
from mimigenrec.files import sha256, write_json
from mimigenrec.interactions.inter_file import History, read_inter
from mimigenrec.lock import alone
from mimigenrec.logs import read_jsonl
from mimigenrec.sids.tokens import write_index
from tests.conftest import shared, write_histories

QUICK = Network(width=8, layers=1, max_history=4, window=2, filters=4, epochs=2, device="cpu")
NETWORKS = ["sasrec", "gru4rec", "caser", "tiger"]


def run(output, network=QUICK, **fields):
    main(BaselineConfig(output=output, **fields), network)
    return read_result(output)


@pytest.fixture(scope="module")
def industrial(tmp_path_factory):
    """The real category under a raw folder, as the command wants it."""
    raw = tmp_path_factory.mktemp("raw")
    (raw / "Industrial_and_Scientific").symlink_to(shared("data", "amazon18-industrial-active"))
    return {"raw": raw, "category": "Industrial_and_Scientific", "k": 10}


@pytest.mark.parametrize(("method", "hr", "ndcg"), [("popularity", 0.0457, 0.0278), ("markov", 0.1134, 0.0813)])
def test_the_published_numbers_of_the_slice_are_met_at_item_level(industrial, tmp_path, method, hr, ndcg):
    item = run(tmp_path, method=method, **industrial).metrics["item"]
    assert round(item["hr@10"]["mean"], 4) == hr
    assert round(item["ndcg@10"]["mean"], 4) == ndcg


def test_a_list_goes_on_until_k_distinct_sids(toy):
    ranked = [("2", 5.0), ("3", 4.0), ("0", 3.0), ("1", 2.0)]
    assert [g["items"] for g in to_groups(ranked, toy, k=2)] == [["2"], ["3"], ["0"]]


def test_items_on_the_last_sid_count_though_k_is_reached(toy):
    ranked = [("2", 5.0), ("0", 4.0), ("3", 3.0), ("1", 2.0)]
    assert [g["items"] for g in to_groups(ranked, toy, k=2)] == [["2"], ["0"], ["3"]]


def items_of(row):
    return [item for group in row["ranked"] for item in group["items"]]


@pytest.mark.parametrize("method", sorted(COUNTING))
def test_exclude_seen_leaves_out_exactly_the_history(method, raw_toy, tmp_path):
    common = {"method": method, "raw": raw_toy, "category": "toy", "k": 7}
    plain, filtered = run(tmp_path / "a", **common), run(tmp_path / "b", **common, exclude_seen=True)
    for before, after in zip(plain.rows, filtered.rows, strict=True):
        assert items_of(after) == [item for item in items_of(before) if item not in before["history"]]
    assert filtered.metrics["repeat@10"]["mean"] == 0 < plain.metrics["repeat@10"]["mean"]


@pytest.mark.parametrize("method", NETWORKS)
def test_a_network_gives_whole_lists_without_seen_items_and_its_training(method, raw_toy, tmp_path, toy):
    fields = {"method": method, "raw": raw_toy, "category": "toy", "k": 5, "exclude_seen": True}
    result = run(tmp_path, **fields)
    assert {file.name for file in tmp_path.iterdir()} >= {"final_result.json", "training.jsonl", "training.pt"}
    for row in result.rows:
        assert not set(items_of(row)) & set(row["history"])
        left = {toy.sids[item] for item in toy.sids if item not in row["history"]}
        assert len({group["sid"] for group in row["ranked"]}) == min(5, len(left))
    assert result.manifest["network"]["width"] == 8 and result.manifest["seed"] == 42
    assert any(path.endswith("toy.valid.inter") for path in result.manifest["inputs"])
    assert [row["ranked"] for row in run(tmp_path, **fields).rows] == [row["ranked"] for row in result.rows]


def test_seconds_are_those_of_ranking_without_training(raw_toy, tmp_path, monkeypatch):
    def trained(config, network, catalog, train, valid, histories):
        time.sleep(0.5)
        return ([] for _ in histories)

    monkeypatch.setattr("mimigenrec.baselines.train.trained", trained)
    assert run(tmp_path, method="sasrec", raw=raw_toy, category="toy", k=5).metrics["seconds"] < 0.5


def test_a_set_without_sids_is_ranked_item_by_item(raw_toy, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for split in ("train", "valid", "test"):
        (bare / f"toy.{split}.inter").write_text((raw_toy / "toy" / f"toy.{split}.inter").read_text())
    fields = {"raw": bare, "category": "toy", "k": 10}
    result = run(tmp_path / "o", method="markov", sids="none", **fields)
    assert result.metrics["n_items"] == result.metrics["n_sids"] == 8
    assert result.metrics["sid"] != {} and result.metrics["rows_with_fewer_than_k"] == 8
    with pytest.raises(FileNotFoundError, match=r"toy\.index\.json"):
        run(tmp_path / "p", method="markov", **fields)
    with pytest.raises(ValueError, match="leave out --sids none"):
        run(tmp_path / "p", method="markov", sids="none", data=bare, **fields)


def test_an_unknown_key_stops_the_command(capsys):
    known = ["--method", "sasrec", "--data_dir", "d", "--category", "c", "--output", "o", "--loss", "bce"]
    config, network = parse(BaselineConfig, Network, argv=known)
    assert (config.method, network.loss) == ("sasrec", "bce")
    for wrong in (["--drop_out", "0.1"], ["--loss", "softmax"], ["--method", "bert4rec"]):
        with pytest.raises(SystemExit):
            parse(BaselineConfig, Network, argv=[*known, *wrong])
    assert "did you mean --dropout?" in capsys.readouterr().err


def test_k_beyond_the_catalogue_returns_fewer_and_says_so(raw_toy, tmp_path, caplog):
    result = run(tmp_path, method="popularity", raw=raw_toy, category="toy", k=50)
    assert result.metrics["rows_with_fewer_than_k"] == len(result.rows) == 8
    assert "fewer than 50" in caplog.text
    assert result.metrics["sid"]["hr@50"]["mean"] == 1.0


def test_a_target_without_a_sid_stays_and_is_a_miss(raw_toy, tmp_path):
    raw = tmp_path / "raw" / "toy"
    raw.mkdir(parents=True)
    for name in ("toy.train.inter", "toy.index.json"):
        (raw / name).write_text((raw_toy / "toy" / name).read_text())
    write_histories(raw / "toy.test.inter", [History(0, "u", ("1",), "404"), History(1, "u", (), "1")])
    result = run(tmp_path / "o", method="popularity", raw=raw.parent, category="toy", k=10)
    assert result.metrics["n_rows"] == 2 and result.metrics["targets_without_sid"] == 1
    assert result.metrics["item"]["hr@10"]["mean"] == 0.5


@pytest.mark.parametrize("method", ["popularity", "sasrec", "tiger"])
def test_rows_of_a_data_folder_are_asked_where_it_is_given(method, raw_toy, tmp_path, toy):
    data = data_folder(tmp_path / "data", toy)
    fields = {"method": method, "raw": raw_toy, "category": "toy", "data": data}
    result = run(tmp_path / "o", **fields)
    row = result.rows[0]
    assert (row["user"], row["row"], row["target"], row["target_sid"]) == ("u9", 5, "1", "<a_0><b_0><c_1>")
    read = {str(data / part / "valid.json") for part in ("sft", "rows")} & set(result.manifest["inputs"])
    assert len(read) == (0 if method == "popularity" else 2)


def data_folder(data, toy):
    """What preprocessing writes, one row a split."""
    for name, content in (
        ("id2sid.json", {item: list(sid) for item, sid in toy.sids.items()}),
        ("sft/test.json", [{"system": "", "instruction": "", "input": "", "output": "<a_0><b_0><c_1>"}]),
        ("rows/test.json", [{"user": "u9", "row": 5, "history": ["0"], "target": "1"}]),
        ("sft/valid.json", [{"system": "", "instruction": "", "input": "", "output": "<a_0><b_0><c_0>"}]),
        ("rows/valid.json", [{"user": "u8", "row": 2, "history": ["1"], "target": "0"}]),
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(json.dumps(content))
    return data


def test_tiger_may_write_other_sids_than_its_lists_tell(raw_toy, tmp_path):
    common = {"method": "tiger", "category": "toy", "k": 5, "exclude_seen": True}
    bare = tmp_path / "raw" / "toy"
    bare.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (bare / f"toy.{split}.inter").write_text((raw_toy / "toy" / f"toy.{split}.inter").read_text())
    items = read_catalog(BaselineConfig(output=tmp_path, raw=bare, sids="none", **common)).sids
    written = {item: (f"<a_{i % 3}>", f"<b_{i // 3}>") for i, item in enumerate(items)}
    write_index(bare / "toy.index.json", written)
    told_so = run(tmp_path / "same", raw=bare, **common)
    told_by_items = run(tmp_path / "other", raw=bare, sids="none", index=bare / "toy.index.json", **common)
    assert told_by_items.metrics["item"] == told_so.metrics["item"]
    for row, other in zip(told_so.rows, told_by_items.rows, strict=True):
        assert [(g["items"], g["score"]) for g in other["ranked"]] == [(g["items"], g["score"]) for g in row["ranked"]]
        assert [g["sid"] for g in other["ranked"]] == [f"<item_{g['items'][0]}>" for g in row["ranked"]]
    assert str(bare / "toy.index.json") in told_by_items.manifest["inputs"]

    with pytest.raises(ValueError, match="--index .* is for --method tiger"):
        run(tmp_path / "p", raw=bare, index=bare / "toy.index.json", **{**common, "method": "markov"})
    with pytest.raises(ValueError, match="toy.index.json items '.' and '.' share one"):
        run(tmp_path / "p", raw=bare, sids="none", index=raw_toy / "toy" / "toy.index.json", **common)
    with pytest.raises(ValueError, match="in the data items '.' and '.' share one"):
        run(tmp_path / "p", raw=raw_toy, index=bare / "toy.index.json", **common)
    write_index(bare / "few.index.json", dict(list(written.items())[1:]))
    with pytest.raises(ValueError, match="no SID for 1 of the items"):
        run(tmp_path / "p", raw=bare, sids="none", index=bare / "few.index.json", **common)


def test_a_folder_that_is_the_category_itself_serves_too(raw_toy, tmp_path):
    inside = {"method": "popularity", "raw": raw_toy / "toy", "category": "toy", "k": 7}
    assert len(run(tmp_path / "out", **inside).rows) == 8


def test_the_number_of_rows_is_never_counted_from_the_end(capsys):
    known = ["--method", "sasrec", "--data_dir", "d", "--category", "c", "--output", "o"]
    for flag, value in (("limit", "-3"), ("valid_rows", "-1"), ("k", "0"), ("seed", "-1"), ("back_off", "-1")):
        with pytest.raises(SystemExit) as stopped:
            parse(BaselineConfig, Network, argv=[*known, f"--{flag}", value])
        assert stopped.value.code == 2 and f"--{flag} is {value}; it must be at least" in capsys.readouterr().err


def test_train_rows_of_another_set_are_refused_and_mostly_unknown_ones_are_told(raw_toy, tmp_path, caplog):
    raw = tmp_path / "toy"
    shutil.copytree(raw_toy / "toy", raw)
    fields = {"method": "popularity", "raw": tmp_path, "category": "toy", "k": 5}
    strange = [History(i, "u", ("x",), f"y{i}") for i in range(9)]
    write_histories(raw / "toy.train.inter", strange)
    with pytest.raises(
        UserError, match="none of the 10 items of .*toy.train.inter is among the 8 of .*toy.index.json"
    ):
        run(tmp_path / "o", **fields)
    assert not (tmp_path / "o").exists()
    write_histories(raw / "toy.train.inter", [*strange, History(9, "u", ("0",), "1")])
    run(tmp_path / "o", **fields)
    assert "only 2 of the 12 items" in caplog.text


def test_data_built_from_other_train_rows_are_refused(raw_toy, tmp_path, toy):
    data = data_folder(tmp_path / "data", toy)
    train = raw_toy / "toy" / "toy.train.inter"
    for hashed, refused in ((sha256(train), False), ("0" * 64, True)):
        write_json(data / "manifest.json", {"inputs": {"raw/toy/toy.train.inter": hashed}})
        fields = {"method": "popularity", "raw": raw_toy, "category": "toy", "data": data}
        with pytest.raises(UserError, match="was built from raw/toy/toy.train.inter") if refused else nullcontext():
            run(tmp_path / "o", **fields)


def test_a_setting_that_the_method_does_not_read_is_told(raw_toy, tmp_path, caplog):
    fields = {"raw": raw_toy, "category": "toy", "k": 5}
    run(tmp_path / "a", DEFAULTS, method="itemknn", shrink=3.0, **fields)
    assert "no effect" not in caplog.text
    run(tmp_path / "b", Network(width=8), method="markov", shrink=3.0, **fields)
    assert "--shrink 3.0 has no effect: markov" in caplog.text and "--width 8 has no effect: markov" in caplog.text


def content_of(folder):
    """{name: (bytes, when they were written)}"""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.name[0] != "."
    }


@pytest.mark.parametrize("method", ["popularity", "sasrec", "tiger"])
def test_a_finished_run_is_left_as_it_is(method, raw_toy, tmp_path, capsys):
    fields = {"method": method, "category": "toy", "k": 5}
    run(tmp_path / "o", raw=raw_toy, **fields)
    before = content_of(tmp_path / "o")
    shutil.copytree(raw_toy, tmp_path / "moved")
    run(tmp_path / "o", raw=tmp_path / "moved", **fields)
    assert content_of(tmp_path / "o") == before
    assert "o is finished: nothing to do; --overwrite" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["popularity", "sasrec", "tiger"])
def test_a_run_of_other_settings_or_data_is_shown_and_replaced_only_on_demand(method, raw_toy, tmp_path):
    fields = {"method": method, "raw": tmp_path, "category": "toy", "k": 5}
    shutil.copytree(raw_toy / "toy", tmp_path / "toy")
    run(tmp_path / "o", **fields)
    before = content_of(tmp_path / "o")
    with pytest.raises(
        UserError, match=r"o holds a run with other settings or data \(k: 5 then, 3 now\).*--overwrite"
    ):
        run(tmp_path / "o", **{**fields, "k": 3})
    rows = list(read_inter(tmp_path / "toy" / "toy.train.inter"))
    write_histories(tmp_path / "toy" / "toy.train.inter", rows[:-1])
    with pytest.raises(UserError, match="toy/toy.train.inter: .* then, .* now"):
        run(tmp_path / "o", **fields)
    assert content_of(tmp_path / "o") == before
    replaced = run(tmp_path / "o", overwrite=True, **fields)
    assert replaced.rows == run(tmp_path / "anew", **fields).rows


def test_overwriting_keeps_a_training_that_is_the_same_and_leaves_nothing_of_another(raw_toy, tmp_path, monkeypatch):
    fields = {"raw": raw_toy, "category": "toy", "k": 5, "overwrite": True}
    run(tmp_path, method="sasrec", **fields)
    monkeypatch.setattr("mimigenrec.fit.epoch_losses", None)
    run(tmp_path, method="sasrec", **{**fields, "k": 3})
    monkeypatch.undo()
    run(tmp_path, method="gru4rec", **fields)
    assert [line["epoch"] for line in read_jsonl(tmp_path / "training.jsonl")] == [1, 2]
    run(tmp_path, method="tiger", **fields)
    assert not (tmp_path / "network.json").exists() and (tmp_path / "model.safetensors").exists()
    run(tmp_path, method="popularity", **fields)
    left = {path.name for path in tmp_path.iterdir() if path.name[0] != "."}
    assert left == {
        "manifest.json",
        "final_result.json",
        *(f"metrics.{kind}" for kind in ("json", "tsv", "md", "png")),
    }


def test_more_epochs_train_a_finished_network_on_and_fewer_are_refused(raw_toy, tmp_path):
    fields = {"method": "gru4rec", "raw": raw_toy, "category": "toy", "k": 5}
    longer = replace(QUICK, epochs=4)
    whole = run(tmp_path / "whole", longer, **fields)
    run(tmp_path / "parts", QUICK, **fields)
    parts = run(tmp_path / "parts", longer, **fields)
    assert parts.rows == whole.rows and parts.manifest["network"]["epochs"] == 4
    with pytest.raises(UserError, match="epochs: 4 then, 2 now"):
        run(tmp_path / "parts", QUICK, **fields)


@pytest.mark.parametrize("method", ["markov", "caser"])
def test_an_interrupted_run_goes_on_and_one_of_other_settings_does_not(method, raw_toy, tmp_path, monkeypatch):
    fields = {"method": method, "raw": raw_toy, "category": "toy", "k": 5}
    whole = run(tmp_path / "whole", **fields)
    monkeypatch.setattr("mimigenrec.evaluation.result.draw_bars", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", **fields)
    monkeypatch.undo()
    with pytest.raises(UserError, match="seed: 42 then, 7 now"):
        run(tmp_path / "parts", seed=7, **fields)
    assert run(tmp_path / "parts", **fields).rows == whole.rows


def killed(*_):
    raise KeyboardInterrupt


def test_a_start_that_came_to_nothing_stands_in_nobodys_way(raw_toy, tmp_path):
    fields = {"raw": raw_toy, "category": "toy", "k": 5}
    with pytest.raises(UserError, match="toaster"):
        run(tmp_path, replace(QUICK, device="toaster"), method="sasrec", **fields)
    run(tmp_path, method="markov", **fields)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("manifest", [None, {"config": {"model": "saves/sft"}}, {"config": {"method": "rqvae"}}])
def test_a_folder_of_something_else_is_never_written_to(manifest, overwrite, raw_toy, tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    if manifest:
        write_json(tmp_path / "manifest.json", manifest)
    before = content_of(tmp_path)
    with pytest.raises(UserError, match=r"holds (manifest.json, )?model.safetensors.*Take another folder"):
        run(tmp_path, method="tiger", raw=raw_toy, category="toy", overwrite=overwrite)
    assert content_of(tmp_path) == before


def test_two_at_once_do_not_meet_in_one_folder(raw_toy, tmp_path):
    with alone(tmp_path / ".lock", "another"), pytest.raises(UserError, match="another baseline is at work in"):
        run(tmp_path, method="markov", raw=raw_toy, category="toy")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(tmp_path, method="popularity", raw=tmp_path, category="nowhere")
