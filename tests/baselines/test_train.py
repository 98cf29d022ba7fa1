"""The baseline command: known numbers on real rows, the model's candidates, the common filter."""

import json
import time

import pytest

from mimigenrec.baselines.network import Network
from mimigenrec.baselines.train import COUNTING, BaselineConfig, main, read_catalog, to_groups
from mimigenrec.cli import parse
from mimigenrec.evaluation.result import read_result
from mimigenrec.interactions.inter_file import History, write_inter
from mimigenrec.sids.tokens import write_index
from tests.conftest import shared

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
    return {"data_dir": raw, "category": "Industrial_and_Scientific", "k": 10}


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
    common = {"method": method, "data_dir": raw_toy, "category": "toy", "k": 7}
    plain, filtered = run(tmp_path / "a", **common), run(tmp_path / "b", **common, exclude_seen=True)
    for before, after in zip(plain.rows, filtered.rows, strict=True):
        assert items_of(after) == [item for item in items_of(before) if item not in before["history"]]
    assert filtered.metrics["repeat@10"]["mean"] == 0 < plain.metrics["repeat@10"]["mean"]


@pytest.mark.parametrize("method", NETWORKS)
def test_a_network_gives_whole_lists_without_seen_items_and_its_training(method, raw_toy, tmp_path, toy):
    fields = {"method": method, "data_dir": raw_toy, "category": "toy", "k": 5, "exclude_seen": True}
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
    assert run(tmp_path, method="sasrec", data_dir=raw_toy, category="toy", k=5).metrics["seconds"] < 0.5


def test_a_set_without_sids_is_ranked_item_by_item(raw_toy, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for split in ("train", "valid", "test"):
        (bare / f"toy.{split}.inter").write_text((raw_toy / "toy" / f"toy.{split}.inter").read_text())
    fields = {"data_dir": bare, "category": "toy", "k": 10}
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
    result = run(tmp_path, method="popularity", data_dir=raw_toy, category="toy", k=50)
    assert result.metrics["rows_with_fewer_than_k"] == len(result.rows) == 8
    assert "fewer than 50" in caplog.text
    assert result.metrics["sid"]["hr@50"]["mean"] == 1.0


def test_a_target_without_a_sid_stays_and_is_a_miss(raw_toy, tmp_path):
    raw = tmp_path / "raw" / "toy"
    raw.mkdir(parents=True)
    for name in ("toy.train.inter", "toy.index.json"):
        (raw / name).write_text((raw_toy / "toy" / name).read_text())
    write_inter(raw / "toy.test.inter", [History(0, "u", ("1",), "404"), History(1, "u", (), "1")])
    result = run(tmp_path / "o", method="popularity", data_dir=raw.parent, category="toy", k=10)
    assert result.metrics["n_rows"] == 2 and result.metrics["targets_without_sid"] == 1
    assert result.metrics["item"]["hr@10"]["mean"] == 0.5


@pytest.mark.parametrize("method", ["popularity", "sasrec", "tiger"])
def test_rows_of_a_data_folder_are_asked_where_it_is_given(method, raw_toy, tmp_path, toy):
    data = tmp_path / "data"
    for name, content in (
        ("id2sid.json", {item: list(sid) for item, sid in toy.sids.items()}),
        ("sft/test.json", [{"system": "", "instruction": "", "input": "", "output": "<a_0><b_0><c_1>"}]),
        ("rows/test.json", [{"user": "u9", "row": 5, "history": ["0"], "target": "1"}]),
        ("sft/valid.json", [{"system": "", "instruction": "", "input": "", "output": "<a_0><b_0><c_0>"}]),
        ("rows/valid.json", [{"user": "u8", "row": 2, "history": ["1"], "target": "0"}]),
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(json.dumps(content))
    fields = {"method": method, "data_dir": raw_toy, "category": "toy", "data": data}
    result = run(tmp_path / "o", **fields)
    row = result.rows[0]
    assert (row["user"], row["row"], row["target"], row["target_sid"]) == ("u9", 5, "1", "<a_0><b_0><c_1>")
    read = {str(data / part / "valid.json") for part in ("sft", "rows")} & set(result.manifest["inputs"])
    assert len(read) == (0 if method == "popularity" else 2)


def test_tiger_may_write_other_sids_than_its_lists_tell(raw_toy, tmp_path):
    common = {"method": "tiger", "category": "toy", "k": 5, "exclude_seen": True}
    bare = tmp_path / "raw" / "toy"
    bare.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (bare / f"toy.{split}.inter").write_text((raw_toy / "toy" / f"toy.{split}.inter").read_text())
    items = read_catalog(BaselineConfig(output=tmp_path, data_dir=bare, sids="none", **common)).sids
    written = {item: (f"<a_{i % 3}>", f"<b_{i // 3}>") for i, item in enumerate(items)}
    write_index(bare / "toy.index.json", written)
    told_so = run(tmp_path / "same", data_dir=bare, **common)
    told_by_items = run(tmp_path / "other", data_dir=bare, sids="none", index=bare / "toy.index.json", **common)
    assert told_by_items.metrics["item"] == told_so.metrics["item"]
    for row, other in zip(told_so.rows, told_by_items.rows, strict=True):
        assert [(g["items"], g["score"]) for g in other["ranked"]] == [(g["items"], g["score"]) for g in row["ranked"]]
        assert [g["sid"] for g in other["ranked"]] == [f"<item_{g['items'][0]}>" for g in row["ranked"]]
    assert str(bare / "toy.index.json") in told_by_items.manifest["inputs"]

    with pytest.raises(ValueError, match="--index .* is for --method tiger"):
        run(tmp_path / "p", data_dir=bare, index=bare / "toy.index.json", **{**common, "method": "markov"})
    with pytest.raises(ValueError, match="toy.index.json items '.' and '.' share one"):
        run(tmp_path / "p", data_dir=bare, sids="none", index=raw_toy / "toy" / "toy.index.json", **common)
    with pytest.raises(ValueError, match="in the data items '.' and '.' share one"):
        run(tmp_path / "p", data_dir=raw_toy, index=bare / "toy.index.json", **common)
    write_index(bare / "few.index.json", dict(list(written.items())[1:]))
    with pytest.raises(ValueError, match="no SID for 1 of the items"):
        run(tmp_path / "p", data_dir=bare, sids="none", index=bare / "few.index.json", **common)


def test_a_folder_that_is_the_category_itself_serves_too(raw_toy, tmp_path):
    inside = {"method": "popularity", "data_dir": raw_toy / "toy", "category": "toy", "k": 7}
    assert len(run(tmp_path / "out", **inside).rows) == 8


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(tmp_path, method="popularity", data_dir=tmp_path, category="nowhere")
