"""The report from end to end on a test set whose numbers are known: three forms, one truth; bad inputs by name."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from mimigenrec.cli import COMMANDS, parse
from mimigenrec.files import sha256
from mimigenrec.report.build import POINTS, ReportConfig, build, curves_of, main
from mimigenrec.sids.tokens import write_index
from mimigenrec.vectors.store import write_vectors

ITEMS = ["0", "1", "4", "5", "6", "7"]
TARGETS = [ITEMS[i % 6] for i in range(24)]
ROWS = range(24)


def lists(hits):
    """Per row five items, the target first where the row is in `hits` and left out elsewhere."""
    found = []
    for i, target in enumerate(TARGETS):
        others = [item for item in ITEMS if item != target]
        found.append([target, *others[:4]] if i in hits else others)
    return found


@pytest.fixture(scope="module")
def case(result_of, tmp_path_factory):
    """Two baselines, an SFT model of two seeds, an RL model of three that started from it: methods and training."""
    root = tmp_path_factory.mktemp("case")

    def folder(name, hits, **settings):
        return str(result_of(root / name, lists(hits), TARGETS, **settings))

    def trained(name, log, lines, **settings):
        (root / "training" / name).mkdir(parents=True)
        (root / "training" / name / log).write_text("".join(json.dumps(line) + "\n" for line in lines))
        (root / "training" / name / "manifest.json").write_text(json.dumps({"config": settings, "seed": 1}))
        return str(root / "training" / name)

    sft_log = [{"current_steps": s, "loss": 5 - s, "total_steps": 3} for s in range(3)]
    rl_log = [{"step": s, "reward": 0.1 * s, "kl": 0.0, "eval_ndcg@10": 0.2} for s in range(100)]
    sft = trained("sft", "trainer_log.jsonl", [*sft_log, {"current_steps": 2, "eval_hr@10": 0.5}])
    rl = trained("rl", "rl_log.jsonl", [*rl_log, {"step": 100, "train_runtime": 7.0}], model=sft)
    methods = {
        "popularity": folder("popularity", range(2)),
        "markov": folder("markov", range(6), exclude_seen=False),
        "sft": [folder("sft-1", range(8), seed=1), folder("sft-2", range(12), seed=2)],
        "rl": [folder(f"rl-{s}", range(20 + s), seed=s) for s in (1, 2, 3)],
    }
    return methods, {"sft": sft, "rl": [rl]}


@pytest.fixture
def config(case, toy_data, raw_toy, tmp_path):
    return ReportConfig(
        methods={name: value if isinstance(value, str) else list(value) for name, value in case[0].items()},
        models=["sft", "rl"],
        training=dict(case[1]),
        data=toy_data,
        raw=raw_toy,
        category="toy",
        output=tmp_path / "report",
        metrics=["ndcg@3", "hr@3", "hr@5"],
        tested=["ndcg@3", "hr@5"],
        resamples=2000,
    )


def test_the_numbers_of_a_known_case(config):
    report = build(config)
    table = report["table"]
    assert table["markov"]["hr@3"]["mean"] == pytest.approx(6 / 24)
    assert table["sft"]["hr@3"]["mean"] == pytest.approx(10 / 24)  # of 8 and 12
    assert table["sft"]["hr@3"]["seeds"] == pytest.approx([8 / 24, 12 / 24])
    assert table["sft"]["hr@3"]["sd"] == pytest.approx(math.sqrt(2) * 2 / 24)
    assert table["rl"]["ndcg@3"]["mean"] == pytest.approx(22 / 24)
    assert [name for name in table if table[name]["ndcg@3"]["best"]] == ["rl"]
    assert table["rl"]["ndcg@3"]["mark"] == "better" and table["markov"]["ndcg@3"]["mark"] == ""
    assert {(pair["model"], pair["against"], pair["kind"]) for pair in report["tests"]} == {
        ("sft", "popularity", "baseline"),
        ("sft", "markov", "baseline"),
        ("rl", "popularity", "baseline"),
        ("rl", "markov", "baseline"),
        ("rl", "sft", "start"),
    }
    assert report["tests"][2]["metrics"]["ndcg@3"]["mean"] == pytest.approx(16 / 24)
    assert report["verdict"][0]["text"].startswith("rl has the highest NDCG@3 of 4 methods: 0.9167 [")
    assert report["methods"][1]["training_seconds"] == 7 and report["methods"][1]["ranking_seconds"] == 4.5
    assert report["methods"][0]["seeds"] == [1, 2]
    assert len(report["examples"]["users"]) == 10 and report["examples"]["model"] == "rl"


def test_three_forms_of_one_truth_and_nothing_from_outside(config, capsys):
    main(config)
    report = json.loads((config.output / "report.json").read_text())
    page, text = ((config.output / f"report.{kind}").read_text() for kind in ("html", "md"))
    for said in ("0.9167", "Paired tests", "rl: reward", "User u", "Beyond accuracy", "thing number 4"):
        assert said in page and said in text, said
    test = report["tests"][0]["metrics"]["ndcg@3"]
    both = " / ".join(f"{test[key]:.3f}".replace("0.000", "< 0.001") for key in ("p", "p_bootstrap"))
    assert both in text and both.replace("<", "&lt;") in page and "permutation test, 2,000 resamples / paired" in text
    for statement in report["verdict"]:
        assert statement["text"] in capsys.readouterr().out + text
    assert "http" not in page and page.count("<html") == 1
    linked = {line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert linked == {path.name for path in config.output.glob("*.svg")} and "levels.svg" in linked
    assert len(linked) == page.count("<svg")


def test_the_same_seed_gives_the_same_bytes_and_another_other_resamples(config):
    main(config)
    first = {path.name: path.read_bytes() for path in config.output.iterdir()}
    main(config)
    assert {path.name: path.read_bytes() for path in config.output.iterdir()} == first
    config.seed = 7
    other = build(config)
    assert other["tests"] != json.loads(first["report.json"])["tests"]


def test_a_failed_seed_and_a_failed_method_are_shown_and_the_rest_is_measured(config):
    config.methods["rl"] = config.methods["rl"][:2]
    config.failed = {"rl/3": "loss is nan", "tiger": "out of memory"}
    main(config)
    report = json.loads((config.output / "report.json").read_text())
    lost = next(v for v in report["verdict"] if v["state"] == "bad" and v["text"].startswith("Failed"))
    assert lost["text"] == "Failed: tiger. Incomplete, numbers are of the remaining seeds alone: rl."
    assert lost["points"] == ["rl: seed 3: loss is nan", "tiger: out of memory"]
    assert report["table"]["rl"]["hr@3"]["mean"] == pytest.approx(21.5 / 24) and "tiger" not in report["table"]
    start = report["tests"][-1]
    assert (start["against"], start["seeds"]) == ("sft", None)  # both have the seeds 1 and 2
    text = (config.output / "report.md").read_text()
    assert "| rl **incomplete: 2 seeds** | " in text and "| tiger | **failed** | " in text


def test_rl_without_a_seed_that_sft_has_meets_it_in_the_others(config):
    config.methods["rl"] = config.methods["rl"][1:]
    config.failed = {"rl/1": "loss is nan"}
    main(config)
    start = json.loads((config.output / "report.json").read_text())["tests"][-1]
    assert (start["kind"], start["seeds"]) == ("start", [2])
    assert start["metrics"]["ndcg@3"]["mean"] == pytest.approx((22 - 12) / 24)
    text = (config.output / "report.md").read_text()
    assert "| rl − sft (seed 2) | " in text and "of the seeds that both have: 2" in text


def test_a_model_of_which_no_seed_came_to_an_end_does_not_stop_the_report(config):
    del config.methods["rl"], config.training["rl"]
    config.failed = {"rl": ["seed 1: killed", "seed 2: killed"]}
    report = build(config)
    assert report["models"] == ["sft"] and report["examples"]["model"] == "sft"
    assert report["methods"][-1] | {"failed": 0} == {
        "name": "rl",
        "kind": "model",
        "folders": [],
        "seeds": [],
        "failed": 0,
        "device": None,
        "training_seconds": None,
        "ranking_seconds": None,
        "cost": None,
    }


def test_one_method_without_models_training_or_shared_rows_is_a_report_too(config):
    config.methods, config.models, config.training = {"markov": config.methods["markov"]}, [], {}
    main(config)
    text = (config.output / "report.md").read_text()
    assert "markov has the highest NDCG@3 of 1 methods" in text and "Paired tests" not in text


def test_rows_that_tell_only_sids_are_reported_by_them(config):
    for name, value in config.methods.items():
        folders = [value] if isinstance(value, str) else value
        config.methods[name] = [str(config.output.parent / Path(folder).name) for folder in folders]
        for folder, copy in zip(folders, config.methods[name], strict=True):
            shutil.copytree(folder, copy)
            rows = json.loads((Path(copy) / "final_result.json").read_text())
            told = [row | {"user": None, "history": None, "target": None} for row in rows]
            (Path(copy) / "final_result.json").write_text(json.dumps(told))
    main(config)
    report = json.loads((config.output / "report.json").read_text())
    assert report["slices"] == [] and report["about"]["users"] is None
    assert report["table"]["rl"]["hr@3"]["mean"] == pytest.approx(22 / 24)
    assert report["examples"]["users"][0]["methods"]["rl"]["rank"] == [1, 1]
    assert "#### Row " in (config.output / "report.md").read_text()


def told_of_diversity(config):
    """What the two pages say of diversity; they must say the same."""
    main(config)
    page, text = ((config.output / f"report.{kind}").read_text() for kind in ("html", "md"))
    said = text.partition("diversity: ")[2].partition("\n")[0]
    assert said in page
    return json.loads((config.output / "report.json").read_text()), said


def one_level(config):
    """The same case on a token per item: data and results of their own."""
    data = config.output.parent / "data"
    shutil.copytree(config.data, data)
    write_index(
        data / "id2sid.json", {item: (f"<a_{item}>",) for item in json.loads((data / "id2sid.json").read_text())}
    )
    config.data = data
    for name, value in config.methods.items():
        copies = []
        for folder in [value] if isinstance(value, str) else value:
            copies.append(str(config.output.parent / Path(folder).name))
            shutil.copytree(folder, copies[-1])
            rows = json.loads((Path(folder) / "final_result.json").read_text())
            for row in rows:
                row["target_sid"] = f"<a_{row['target']}>"
                row["ranked"] = [group | {"sid": f"<a_{group['items'][0]}>"} for group in row["ranked"]]
            (Path(copies[-1]) / "final_result.json").write_text(json.dumps(rows))
        config.methods[name] = copies


def test_diversity_by_sid_levels_where_no_vectors_are_given(config):
    report, said = told_of_diversity(config)
    assert said == "share of SID levels that two items of a list do not have in common."
    assert report["vectors"] is None
    # markov, first three items. Its six hits: 0 1 4, 1 0 4, 4 0 1, 5 0 1, 6 0 1, 7 0 1; else the first three others:
    # 1 4 5 for target 0, 0 4 5 for 1, 0 1 5 for 4, 0 1 4 for 5, 6 and 7. Apart: 0-1 1/3, 4-5 2/3, all others 1.
    near, mixed = (1 / 3 + 1 + 1) / 3, (2 / 3 + 1 + 1) / 3
    rows = [near] * 6 + [mixed, mixed, near, near, near, near] * 3
    assert report["beyond"]["markov"]["diversity"] == pytest.approx(np.mean(rows))


@pytest.mark.parametrize("prepare", [lambda config: None, one_level], ids=["several levels", "one level"])
def test_diversity_by_vectors_is_told_and_its_file_is_an_input(config, prepare, tmp_path):
    prepare(config)
    items = ["0", "1", "2", "3", "4", "5", "6", "7"]
    vectors = np.ones((8, 2))
    vectors[[4, 5, 6, 7]] = [1, -1]  # at a right angle to those of 0 to 3
    config.vectors = tmp_path / "toy.emb-x.npy"
    write_vectors(config.vectors, vectors, items, model="m", normalised=False)
    report, said = told_of_diversity(config)
    assert said == "1 - cosine of the vectors of two items of a list (toy.emb-x.npy)."
    assert report["manifest"]["inputs"][str(config.vectors)] == sha256(config.vectors)
    # markov's first three items always hold two of one side and one of the other
    assert report["beyond"]["markov"]["diversity"] == pytest.approx(2 / 3)


def test_one_level_and_no_vectors_leave_diversity_empty_and_the_page_says_why(config):
    one_level(config)
    report, said = told_of_diversity(config)
    assert {of["diversity"] for of in report["beyond"].values()} == {None}
    assert "empty where no list has two items or all SIDs have one level" in said and "vectors" in said
    assert all(of["novelty"] is not None for of in report["beyond"].values())
    last = (config.output / "report.md").read_text().partition("diversity: ")[2]
    assert next(line for line in last.splitlines() if line.startswith("| markov")).endswith("|  |")


def test_vectors_are_matched_by_item_id_order_with_items_that_have_no_sid(config, toy_data, tmp_path):
    """Ten comes after nine, and an item of items.json without a SID has its row."""
    config.data = tmp_path / "data"
    shutil.copytree(toy_data, config.data)
    known = json.loads((config.data / "items.json").read_text())
    (config.data / "items.json").write_text(json.dumps({"10": known["0"], "3x": known["0"], "9": known["0"]} | known))
    vectors = np.eye(11)
    vectors[4] = vectors[0]  # item 4 is as 0; by any other order it would be another that is
    config.vectors = tmp_path / "toy.emb-x.npy"
    write_vectors(config.vectors, vectors, [*"01234567", "9", "10", "3x"], model="m", normalised=True)
    config.methods, config.models, config.training = {"markov": config.methods["markov"]}, [], {}
    # of markov's first three items (above) those with 0 and 4: 0 1 4, 1 0 4, 4 0 1; 0 4 5; 0 1 4 thrice
    with_both = [0, 1, 2] + [7, 13, 19] + [9, 10, 11, 15, 16, 17, 21, 22, 23]
    expected = (len(with_both) * 2 / 3 + (24 - len(with_both))) / 24
    assert build(config)["beyond"]["markov"]["diversity"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([*"1234567", "8"], "toy.emb-x.npy was made for 8 items in another order or with other ids than the 8"),
        ([*"0123456"], "toy.emb-x.npy has 7 rows for 8 items"),
    ],
)
def test_vectors_of_other_items_are_refused(config, tmp_path, items, message):
    config.vectors = tmp_path / "toy.emb-x.npy"
    write_vectors(config.vectors, np.ones((len(items), 2)), items, model="m", normalised=False)
    with pytest.raises(ValueError, match=message):
        build(config)


def test_vectors_that_are_missing_are_named(config, tmp_path):
    config.vectors = tmp_path / "toy.emb-x.npy"
    with pytest.raises(FileNotFoundError, match="toy.emb-x.npy is missing; mimigenrec embed writes it"):
        build(config)


def test_results_of_different_test_sets_are_refused(config, result_of, tmp_path):
    config.methods["markov"] = str(result_of(tmp_path / "short", lists(range(6))[:20], TARGETS[:20]))
    with pytest.raises(ValueError, match="24 rows and .*short 20"):
        build(config)


def test_seeds_that_are_not_about_the_same_rows_are_refused(config, result_of, tmp_path):
    users = ["somebody else", *(f"u{i}" for i in ROWS[1:])]
    config.methods["sft"].append(str(result_of(tmp_path / "sft-3", lists(range(6)), TARGETS, users=users)))
    with pytest.raises(ValueError, match="row 0 is .*sft-3: not the same test set"):
        build(config)


@pytest.mark.parametrize("key", ["metrics", "tested"])
def test_a_metric_beyond_what_was_predicted_names_method_and_both_lengths(config, key):
    setattr(config, key, ["ndcg@3", "hr@50"])
    with pytest.raises(ValueError, match="hr@50 of 'popularity' asks for the first 50, .* lists of 5"):
        build(config)


def test_a_folder_without_a_result_is_named(config, tmp_path):
    config.methods["sft"] = [config.methods["sft"][0], str(tmp_path / "nowhere")]
    with pytest.raises(FileNotFoundError, match="nowhere/final_result.json is missing.*mimigenrec evaluate"):
        build(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["grpo"]}, "models names 'grpo', which is not among the methods popularity, markov, sft, rl"),
        ({"methods": {}}, "methods names no result"),
        ({"tested": []}, "tested names no metric"),
        ({"metrics": ["recall@5"]}, "no metric 'recall@5'; there are hr@K"),
        ({"metrics": ["hr@zero"]}, "no metric 'hr@zero'"),
        ({"methods": {"a": []}}, "methods: 'a' needs a folder or a list of folders.*found \\[\\]"),
        ({"methods": {"a": ["x", "x"]}}, "methods: 'a' names a folder twice"),
        ({"training": {"rl": 3}}, "training: 'rl' needs a folder or a list of folders.*found 3"),
    ],
)
def test_a_config_that_no_result_can_mend_is_refused(config, change, message):
    for key, value in change.items():
        setattr(config, key, value)
    with pytest.raises(ValueError, match=message):
        build(config)


def test_a_training_folder_without_a_log_and_missing_train_rows_are_named(config, tmp_path):
    config.training["sft"] = str(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no log of a training"):
        build(config)
    config.category = "Toys"
    with pytest.raises(FileNotFoundError, match="Toys.train.inter is missing"):
        build(config)


def test_a_result_of_another_catalogue_is_named(config, result_of, tmp_path):
    path = result_of(tmp_path / "other", lists(range(3)), TARGETS)
    rows = json.loads((path / "final_result.json").read_text())
    rows[4]["ranked"][0]["items"] = ["stranger"]
    (path / "final_result.json").write_text(json.dumps(rows))
    config.methods["other"] = str(path)
    with pytest.raises(ValueError, match="other: row 4 recommends item 'stranger'.*--data"):
        build(config)


def test_curves_of_two_seeds_stand_side_by_side_thinned_and_without_what_is_no_number(tmp_path):
    for seed, steps in (("1", 200), ("2", 3)):
        (tmp_path / seed).mkdir()
        lines = [{"epoch": s, "loss": float(s), "ndcg@10": 0.1} for s in range(steps)]
        text = "".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 500, "loss": NaN}\n'
        (tmp_path / seed / "training.jsonl").write_text(text)
    curves = curves_of("sasrec", [tmp_path / "1", tmp_path / "2"])
    assert curves["x"] == "epoch" and curves["lost"] == 2
    first, second = curves["panels"]["loss"]["loss"]
    assert len(first) == POINTS and second == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_the_command_takes_a_yaml(config, tmp_path):
    assert COMMANDS["report"][0] == "mimigenrec.report.build"
    lines = [f"{key}: {json.dumps(value, default=str)}" for key, value in vars(config).items()]
    (tmp_path / "r.yaml").write_text("\n".join(lines))
    (read,) = parse(ReportConfig, argv=["--config", str(tmp_path / "r.yaml")])
    assert read == config
