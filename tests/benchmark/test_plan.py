"""Which stages a YAML gives, what each is told, and what cannot be meant."""

from dataclasses import replace

import pytest
import yaml

from mimigenrec.benchmark.config import BenchmarkConfig
from mimigenrec.benchmark.plan import plan, report_stage
from mimigenrec.cli import parse
from mimigenrec.errors import UserError

SFT = {"finetuning_type": "full", "max_steps": 4}
GRPO = {"rewards": "ranking_reward.rule_reward", "max_steps": 2}


def by_name(config):
    return {stage.name: stage for stage in plan(config)}


def test_methods_without_a_seed_run_once_and_the_others_once_per_seed(toy_config):
    stages = by_name(toy_config())
    assert list(stages) == [
        "preprocess", "baseline/test/popularity", "baseline/test/first", "baseline/test/sasrec/1",
        "baseline/test/sasrec/2",
    ]  # fmt: skip
    assert stages["baseline/test/first"].options["method"] == "markov"
    assert "seed" not in stages["baseline/test/first"].options
    assert [stages[f"baseline/test/sasrec/{seed}"].options["seed"] for seed in (1, 2)] == [1, 2]


def test_every_baseline_ranks_as_many_for_the_same_rows(toy_config, tmp_path):
    evaluate = {"k": 5, "beams": 7, "limit": 3}
    for stage in plan(toy_config(evaluate=evaluate, split="valid"))[1:]:
        told = {"data": str(tmp_path / "out" / "data"), "split": "valid", "k": 5, "limit": 3}
        assert told.items() <= stage.options.items()
        assert stage.folder.is_relative_to(tmp_path / "out" / "results" / "valid") and stage.after == ("preprocess",)


def test_a_base_from_scratch_is_a_new_one_for_each_seed(toy_config, tmp_path):
    stages = by_name(toy_config(baselines={}, base={"hidden": 32}, sft=SFT, grpo=GRPO))
    names = ("base/{0}", "add_sids/{0}", "sft/{0}", "evaluate/test/sft/{0}", "grpo/{0}", "evaluate/test/grpo/{0}")
    assert list(stages) == ["preprocess", *(name.format(seed) for seed in (1, 2) for name in names)]
    out = tmp_path / "out"
    told = {"hidden": 32, "seed": 2, "data": str(out / "data"), "output_dir": str(out / "base/2")}
    assert stages["base/2"].options == told
    assert stages["add_sids/2"].options["base"] == str(out / "base/2") and stages["add_sids/2"].options["seed"] == 2
    assert stages["sft/2"].options == {
        "stage": "sft", "do_train": True, "report_to": "none", "finetuning_type": "full", "max_steps": 4,
        "model_name_or_path": str(out / "base_sid/2"), "dataset_dir": str(out), "dataset": "toy_train",
        "eval_dataset": "toy_valid", "output_dir": str(out / "sft/2"), "overwrite_output_dir": False, "seed": 2,
    }  # fmt: skip
    assert stages["sft/2"].after == ("preprocess", "add_sids/2")
    assert stages["grpo/2"].options["model"] == str(out / "sft/2") and stages["grpo/2"].options["seed"] == 2
    assert [path.name for path in stages["grpo/2"].reads] == ["ranking_reward.py"]
    assert stages["evaluate/test/grpo/2"].options["model"] == str(out / "grpo/2")
    assert stages["evaluate/test/grpo/2"].after == ("preprocess", "grpo/2")


def test_a_named_base_gets_its_sids_once_and_its_files_count(toy_config, tmp_path):
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text("{}")
    stages = by_name(toy_config(baselines={}, base=str(tmp_path / "qwen"), sft=SFT))
    assert [name for name in stages if "base" in name or "sids" in name] == ["add_sids/shared"]
    assert stages["add_sids/shared"].reads == (tmp_path / "qwen" / "config.json",)
    assert stages["sft/1"].after == stages["sft/2"].after == ("preprocess", "add_sids/shared")
    assert not any(name.startswith("grpo") for name in stages)


def test_the_other_split_trains_the_model_no_second_time(toy_config):
    config = toy_config(base={}, sft=SFT)
    first, second = by_name(config), by_name(replace(config, split="valid"))
    both = first.keys() & second.keys()
    assert {"preprocess", "base/1", "add_sids/1", "sft/1"} <= both
    assert all(first[name] == second[name] for name in both)
    assert not {stage.folder for name, stage in first.items() if name not in both} & {
        stage.folder for name, stage in second.items() if name not in both
    }


def test_a_yaml_gives_the_same_as_the_fields(toy_config, tmp_path):
    config = toy_config(base={"hidden": 32}, sft=SFT)
    fields = {name: value for name, value in vars(config).items() if value is not None}
    fields |= {"raw": str(config.raw), "output_dir": str(config.output_dir)}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(fields))
    assert parse(BenchmarkConfig, argv=[str(tmp_path / "x.yaml")]) == (config,)


@pytest.mark.parametrize("name", ["raw", "data_dir"])
def test_the_raw_folder_of_a_methods_file_gives_way_under_either_name(name, toy_config, tmp_path):
    (tmp_path / "markov.yaml").write_text(f"{name}: elsewhere\n")
    config = toy_config(baselines={"markov": str(tmp_path / "markov.yaml")})
    options = next(stage.options for stage in plan(config) if stage.method == "markov")
    assert {key: options.get(key) for key in ("raw", "data_dir")} == {"raw": None, "data_dir": str(config.raw)}
    with pytest.raises(UserError, match=f"'{name}' is set by the benchmark .it is given once"):
        plan(toy_config(baselines={"markov": {name: "elsewhere"}}))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"baselines": {}}, "nothing to compare"),
        ({"baselines": {"../x": None}}, "'../x' cannot be the name"),
        ({"baselines": {"sft": {"method": "markov"}}}, "'sft' cannot be the name"),
        ({"baselines": {"markov": {"k": 10}}}, r"baselines: markov: 'k' is set .*evaluate: \{k: ...\} holds for all"),
        ({"sft": SFT}, "base and sft belong together"),
        ({"base": {}}, "base and sft belong together"),
        ({"grpo": GRPO}, "grpo starts from the checkpoint of sft"),
        ({"base": {}, "sft": {"max_steps": 4}, "grpo": GRPO}, "not from a LoRA adapter"),
        ({"base": {}, "sft": SFT | {"output_dir": "x"}}, "sft: 'output_dir' is set by the benchmark"),
        ({"base": {}, "sft": SFT, "grpo": GRPO | {"model": "x"}}, "grpo: 'model' is set by the benchmark"),
        ({"base": {}, "sft": SFT, "evaluate": {"k": 5, "beams": 4}}, "4 beams cannot rank k=5 SIDs"),
        ({"report": {"models": "frist"}}, "models names 'frist', which is none of the methods popularity, first"),
        ({"report": {"metrics": ["hr@5"]}}, r"tested asks for ndcg@10, but lists will hold k=5 SIDs"),
        ({"report": {"metrics": ["hr@50"], "tested": ["hr@5"]}}, "metrics asks for hr@50, but lists will hold k=5"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(toy_config, fields, told):
    with pytest.raises(ValueError, match=told):
        plan(toy_config(**fields))


def test_missing_raw_files_are_told_before_anything_runs(toy_config, tmp_path):
    with pytest.raises(FileNotFoundError, match="toy.train.inter"):
        plan(toy_config(raw=tmp_path))


def test_the_report_may_be_told_which_methods_are_models(toy_config):
    found = {"methods": {"sft": ["a"], "first": ["b"]}}
    assert report_stage(toy_config(), found).options["models"] == ["sft"]  # grpo did not come to an end
    config = toy_config(report={"models": ["first", "sasrec"], "metrics": ["hr@5"], "tested": ["hr@5"]})
    assert report_stage(config, found).options["models"] == ["first"]
    assert "models" not in report_stage(toy_config(), {"methods": {"first": ["b"]}}).options
    assert report_stage(config, found).options["methods"] == found["methods"]


def test_the_item_vectors_of_the_report_are_a_file_that_it_reads(toy_config, tmp_path):
    (tmp_path / "v.npy").write_bytes(b"x")
    stage = report_stage(toy_config(report={"vectors": str(tmp_path / "v.npy")}), {})
    assert stage.options["vectors"] == str(tmp_path / "v.npy") and stage.reads == (tmp_path / "v.npy",)
