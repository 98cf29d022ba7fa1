import json
from pathlib import Path

import pytest

from mimigenrec.cli import parse
from mimigenrec.errors import UsageError, UserError
from mimigenrec.interactions import build
from mimigenrec.interactions.table import Columns
from mimigenrec.prepare import PrepareConfig, argv_of, main, plan
from mimigenrec.sids.training import Training
from tests.conftest import ROOT

THINGS = ["red lamp", "blue lamp", "green lamp", "oak chair", "pine chair", "old chair", "big desk", "small desk"]


@pytest.fixture
def config(tmp_path) -> PrepareConfig:
    reviews = [
        {
            "reviewerID": f"U{user}",
            "asin": f"B{(user + place) % 8}",
            "unixReviewTime": 1_500_000_000 + 100 * place + user,
        }
        for user in range(8)
        for place in range(6)
    ]
    metas = [{"asin": f"B{i}", "title": title, "category": ["Home", title[-5:]]} for i, title in enumerate(THINGS)]
    for name, records in (("reviews", reviews), ("metas", metas)):
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    return PrepareConfig(
        category="toy",
        output_dir=tmp_path / "out",
        interactions={
            "source": "amazon",
            "interactions": str(tmp_path / "reviews.json"),
            "items": [str(tmp_path / "metas.json")],
        },
        quantise={"sizes": [2, 2, 2], "collisions": "reassign"},
        sid_report={"neighbours": 3},
    )


def files(config):
    return {path.name: path.read_bytes() for path in (config.output_dir / config.category).iterdir() if path.is_file()}


def test_from_raw_lines_to_everything_that_preprocessing_reads(config, tmp_path, capsys):
    from mimigenrec.tasks.build import BuildConfig
    from mimigenrec.tasks.build import main as preprocess

    main(config)
    wanted = (
        "item.json item2id user2id review.json inter.json train.inter valid.inter test.inter emb-tfidf.npy index.json"
    )
    assert {f"toy.{kind}" for kind in wanted.split()} <= set(files(config))
    assert (config.output_dir / "toy" / "sid_report" / "sid_report.html").is_file()
    preprocess(BuildConfig(raw=config.output_dir, category="toy", output_dir=tmp_path / "data"))
    assert len(json.loads((tmp_path / "data" / "id2sid.json").read_text())) == len(THINGS)


def test_a_second_run_passes_over_what_has_not_changed(config, capsys, monkeypatch):
    main(config)
    before = files(config)

    def fail(config: build.InteractionsConfig, columns: Columns):
        pytest.fail("was run again")

    monkeypatch.setattr(build, "main", fail)
    main(config)
    assert capsys.readouterr().out.count("nothing has changed") == 4
    assert files(config) == before


def test_a_change_stops_with_what_differs_and_runs_the_stages_that_it_touches_when_told_to(config, capsys):
    main(config)
    before = files(config)
    config.quantise["seed"] = 7
    capsys.readouterr()
    with pytest.raises(ValueError, match="stage quantise, holds a run with other settings.*seed: nothing then, 7 now"):
        main(config)
    assert files(config) == before
    capsys.readouterr()
    config.overwrite = True
    main(config)
    out = capsys.readouterr().out
    assert [stage for stage in ("interactions", "embed", "quantise") if f"{stage}: nothing has changed" in out] == [
        "interactions",
        "embed",
    ]
    assert files(config)["toy.index.manifest.json"] != before["toy.index.manifest.json"]


def test_a_report_with_other_flags_is_written_anew(config, capsys):
    main(config)
    config.sid_report["neighbours"] = 2
    main(config)
    report = json.loads((config.output_dir / "toy" / "sid_report" / "sid_report.json").read_text())
    assert report["about"]["config"]["neighbours"] == 2


def test_a_run_that_was_killed_behind_a_stage_goes_on_with_the_next(config, capsys):
    main(config)
    before = files(config)
    (config.output_dir / "toy" / "toy.prepare.json").unlink()  # written behind each stage
    capsys.readouterr()
    main(config)
    out = capsys.readouterr().out
    assert out.count("is finished: nothing to do") >= 2 and files(config) == before


@pytest.mark.parametrize("content", ["[]", '{"embed": 3}', '{"embed": {"flags": []}}'])
def test_a_memory_that_is_no_memory_is_refused(config, content):
    path = config.output_dir / "toy" / "toy.prepare.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match="toy.prepare.json"):
        main(config)


def test_a_stage_that_fails_is_run_again_and_the_ones_before_are_not(config, capsys, monkeypatch):
    from mimigenrec.sids import quantise

    def fail(config: quantise.QuantiseConfig, training: Training):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(quantise, "main", fail)
        with pytest.raises(ZeroDivisionError):
            main(config)
    capsys.readouterr()
    main(config)
    out = capsys.readouterr().out
    assert out.count("nothing has changed") == 2 and "quantise: --items" in out


@pytest.mark.parametrize("stage", ["interactions", "embed", "quantise", "sid_report"])
def test_a_wrong_flag_of_any_stage_stops_before_the_first(config, stage, capsys):
    getattr(config, stage)["colour"] = "red"
    with pytest.raises(UsageError, match=rf"nothing was run; .*YAML:\n{stage}: unknown argument '--colour"):
        main(config)
    assert capsys.readouterr() == ("", "") and not config.output_dir.exists()


def test_wrong_flags_of_several_stages_are_told_at_once(config):
    config.embed["encodr"], config.quantise["sizes"] = "tfidf", ["two"]
    with pytest.raises(UsageError) as refused:
        main(config)
    first, second = str(refused.value).splitlines()[1:]
    assert first == "embed: unknown argument '--encodr=tfidf'; did you mean --encoder?"
    assert second.startswith("quantise: ") and "two" in second


def test_a_wrong_flag_is_told_with_the_yaml_that_holds_it(config, monkeypatch):
    config.embed["encodr"] = "tfidf"
    monkeypatch.setattr("sys.argv", ["mimigenrec prepare", "toys/prepare.yaml", "--overwrite"])
    with pytest.raises(UsageError, match="nothing was run; correct in toys/prepare.yaml:\nembed: "):
        main(config)


def test_a_memory_of_paths_spelled_otherwise_still_counts(config, tmp_path, capsys):
    main(config)
    memory = config.output_dir / "toy" / "toy.prepare.json"
    text = memory.read_text()
    assert f'"{tmp_path}/reviews.json": ' in text  # what is read; as a flag it has another place
    memory.write_text(text.replace(f'"{tmp_path}/reviews.json": ', f'"{tmp_path}/./reviews.json": '))
    capsys.readouterr()
    main(config)
    assert capsys.readouterr().out.count("nothing has changed") == 4


@pytest.mark.parametrize("value", ["3", "[1]", "x"])
def test_flags_of_a_stage_that_are_no_map_are_refused(value, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(PrepareConfig, argv=["category=toy", "output_dir=out", f"interactions={value}"])
    assert "--interactions" in capsys.readouterr().err


def test_vectors_of_ones_own_take_the_place_of_embed(config):
    config.quantise["vectors"] = "mine.npy"
    stages = {stage.name: stage.options for stage in plan(config)}
    assert list(stages) == ["interactions", "quantise", "sid_report"]
    assert stages["quantise"]["vectors"] == stages["sid_report"]["embeddings"] == "mine.npy"


RECIPES = sorted([*(ROOT / "examples/prepare").glob("*.yaml"), *(ROOT / "examples").glob("*/prepare.yaml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_example_names_flags_that_there_are(path):
    (config,) = parse(PrepareConfig, argv=[str(path)])
    for stage in plan(config):
        parse(*stage.configs, argv=argv_of(stage, config))


def test_a_file_that_others_changed_is_told_and_made_anew_when_asked(config, tmp_path, capsys):
    main(config)
    stem = config.output_dir / config.category / config.category
    index = Path(f"{stem}.index.json")
    right = index.read_bytes()
    index.write_bytes(right.replace(b"<a_0>", b"<a_1>"))
    with pytest.raises(UserError, match="index.json is not as stage quantise wrote it; put it back"):
        main(config)
    index.write_bytes(right)
    main(config)
    index.write_bytes(right.replace(b"<a_0>", b"<a_1>"))
    config.overwrite = True
    main(config)
    assert index.read_bytes() == right
