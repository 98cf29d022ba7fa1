"""A benchmark's YAML as stages in the order they run, each with all its options; nothing runs here.

    stage                              writes, below output_dir
    preprocess                         data/
    baseline/<split>/<name>[/<seed>]   results/<split>/<name>[/<seed>]/      a seed for methods that have one
    base/<seed>, add_sids/<seed>       base/<seed>/, base_sid/<seed>/        of a named base: add_sids/shared alone
    sft/<seed>, grpo/<seed>            sft/<seed>/, grpo/<seed>/
    evaluate/<split>/sft/<seed>, ...   results/<split>/sft/<seed>/, ...

Seeds are those of the list; a split's figures lie apart, so that choosing on valid trains nothing twice.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimigenrec.baselines.train import COUNTING
from mimigenrec.benchmark.config import BenchmarkConfig
from mimigenrec.benchmark.options import Options, as_list, files_in, given, merged, reward_files
from mimigenrec.errors import UserError
from mimigenrec.evaluation.config import EvaluateConfig
from mimigenrec.hub import is_folder
from mimigenrec.report.build import ReportConfig
from mimigenrec.report.methods import cut_off
from mimigenrec.stages import Stage
from mimigenrec.tasks.build import find_raw

MODELS = ("sft", "grpo")
RESULT = "metrics.json"  # what a stage leaves that brings figures


def plan(config: BenchmarkConfig) -> list[Stage]:
    """Raises UserError or FileNotFoundError naming the key that cannot be meant."""
    check_config(config)
    return [
        preprocess_stage(config),
        *(stage for name in config.baselines for stage in baseline_stages(config, name)),
        *(stage for seed in config.seeds if config.sft is not None for stage in model_stages(config, seed)),
    ]


def check_config(config: BenchmarkConfig) -> None:
    if not isinstance(config.baselines, dict):
        raise UserError(f"baselines: found {config.baselines!r}; it takes a map of names to options")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds: {config.seeds} must hold at least one seed, and none twice")
    for name in config.baselines:
        if not re.fullmatch(r"\w[\w.+-]*", name) or name in MODELS:
            raise UserError(
                f"baselines: {name!r} cannot be the name of a baseline, which is that of a folder: letters, digits "
                f"and _.+- only, and not {' or '.join(MODELS)}"
            )
    if (config.sft is None) != (config.base is None):
        raise UserError("base and sft belong together: SFT starts from the base; only one of them is given")
    if isinstance(config.base, str):
        is_folder(config.base, "base")
    if config.grpo is not None and config.sft is None:
        raise UserError("grpo starts from the checkpoint of sft, which is not given")
    if not config.baselines and config.sft is None:
        raise UserError("neither baselines nor sft are given; there is nothing to compare")
    tuning = given("sft", config.sft).get("finetuning_type", "lora")  # LLaMA-Factory's default
    if config.grpo is not None and tuning == "lora":
        raise UserError("sft: grpo starts from a whole model, not from a LoRA adapter; write finetuning_type: full")
    evaluate = given("evaluate", config.evaluate)
    k, beams = (evaluate.get(key, getattr(EvaluateConfig, key)) for key in ("k", "beams"))
    if config.sft is not None and isinstance(k, int) and isinstance(beams, int) and k > beams:
        raise UserError(f"evaluate: {beams} beams cannot rank k={k} SIDs; ask for more beams or a smaller k")
    check_report(config, k)


def check_report(config: BenchmarkConfig, k: Any) -> None:
    """Raises UserError if the report is to show what no list of k SIDs tells, or a method that is not run."""
    report = given("report", config.report)
    known = [*config.baselines, *(name for name in MODELS if getattr(config, name) is not None)]
    for name in as_list(report.get("models", [])):
        if name not in known:
            raise UserError(f"report: models names {name!r}, which is none of the methods {', '.join(known)}")
    for key in ("metrics", "tested"):
        for metric in as_list(report.get(key, ReportConfig.__dataclass_fields__[key].default_factory())):
            if isinstance(k, int) and cut_off(metric) > k:
                raise UserError(
                    f"report: {key} asks for {metric}, but lists will hold k={k} SIDs; say evaluate: {{k: "
                    f"{cut_off(metric)}}} or more, or report: {{{key}: [...]}} without it"
                )


def preprocess_stage(config: BenchmarkConfig) -> Stage:
    folder = data_of(config)
    ours = raw_of(config) | {"output_dir": folder}
    stage = Stage("preprocess", "preprocess", "mimigenrec.tasks.build", ours, (folder / "manifest.json",))
    reads = tuple(find_raw(config.raw, config.category).values())
    return completed(stage._replace(reads=reads), config.preprocess)


def baseline_stages(config: BenchmarkConfig, name: str) -> Iterator[Stage]:
    key, user, evaluate = f"baselines: {name}", config.baselines[name], given("evaluate", config.evaluate)
    method = given(key, user).get("method", name)
    for seed in [None] if method in COUNTING else config.seeds:
        path = "/".join(str(part) for part in (config.split, name, seed) if part is not None)
        folder = config.output_dir / "results" / path
        ours = raw_of(config) | {"data": data_of(config), "output": folder}
        ours |= {"split": config.split, "k": evaluate.get("k"), "limit": evaluate.get("limit")}
        ours |= {"seed": seed, "sids": None}
        stage = Stage(f"baseline/{path}", key, "mimigenrec.baselines.train", ours, (folder / RESULT,))
        reads = (find_raw(config.raw, config.category)["train.inter"],)
        stage = stage._replace(reads=reads, after=("preprocess",), method=name, seed=seed)
        stage = completed(stage, user)
        yield stage._replace(options={"method": method} | stage.options)


def model_stages(config: BenchmarkConfig, seed: int) -> Iterator[Stage]:
    """Base, SFT and RL of one seed, each checkpoint with its evaluation."""
    *base, prepared = base_stages(config, seed)
    yield from base
    if prepared.seed is not None or seed == config.seeds[0]:
        yield prepared
    sft = sft_stage(config, prepared, seed)
    yield sft
    yield evaluate_stage(config, sft)
    if config.grpo is not None:
        grpo = grpo_stage(config, sft, seed)
        yield grpo
        yield evaluate_stage(config, grpo)


def base_stages(config: BenchmarkConfig, seed: int) -> Iterator[Stage]:
    """A base of the seed's own from scratch, with SIDs; or a named one, given SIDs once for all seeds."""
    out, data = config.output_dir, data_of(config)
    part = str(seed) if isinstance(config.base, dict) else "shared"
    prepared = out / "base_sid" / part
    ours = {"tokens": data / "new_tokens.json", "output": prepared}
    if isinstance(config.base, dict):
        folder = out / "base" / part
        options = {"data": data, "output_dir": folder, "seed": seed}
        base = Stage(f"base/{part}", "base", "mimigenrec.sft.make_base", options, (folder / "tokenizer.json",))
        yield completed(base._replace(after=("preprocess",), method="sft", seed=seed), config.base)
        ours |= {"base": folder, "seed": seed}
        reads, after = (), ("preprocess", base.name)
    else:
        ours |= {"base": config.base}
        reads, after = tuple(sorted(path for path in Path(config.base).glob("*") if path.is_file())), ("preprocess",)
    stage = Stage(f"add_sids/{part}", "add_sids", "mimigenrec.sft.add_sids", ours, (prepared / "manifest.json",))
    yield completed(stage._replace(reads=reads, after=after, method="sft", seed=ours.get("seed")), config.add_sids)


def sft_stage(config: BenchmarkConfig, prepared: Stage, seed: int) -> Stage:
    folder = config.output_dir / "sft" / str(seed)
    ours = {"model_name_or_path": prepared.folder, "add_tokens_list": None, "dataset_dir": config.output_dir}
    ours |= {"dataset": f"{config.category}_train", "eval_dataset": f"{config.category}_valid"}
    ours |= {"output_dir": folder, "overwrite_output_dir": False, "seed": seed}
    stage = Stage(f"sft/{seed}", "sft", "mimigenrec.sft.train", ours, (folder / "trainer_state.json",))
    stage = stage._replace(after=("preprocess", prepared.name), method="sft", seed=seed)
    stage = completed(stage, config.sft)
    return stage._replace(options={"stage": "sft", "do_train": True, "report_to": "none"} | stage.options)


def grpo_stage(config: BenchmarkConfig, sft: Stage, seed: int) -> Stage:
    folder = config.output_dir / "grpo" / str(seed)
    ours = {"model": sft.folder, "data": data_of(config), "index": None, "output_dir": folder, "seed": seed}
    ours |= {"overwrite_output_dir": None, "resume_from_checkpoint": None}
    stage = Stage(f"grpo/{seed}", "grpo", "mimigenrec.grpo.train", ours, (folder / "trainer_state.json",))
    reads = tuple(reward_files(as_list(given("grpo", config.grpo).get("rewards", []))))
    stage = stage._replace(reads=reads, after=("preprocess", sft.name), method="grpo", seed=seed)
    return completed(stage, config.grpo)


def evaluate_stage(config: BenchmarkConfig, trained: Stage) -> Stage:
    path = f"{config.split}/{trained.name}"
    folder = config.output_dir / "results" / path
    ours = {"model": trained.folder, "data": data_of(config), "output": folder}
    ours |= {"split": config.split, "seed": trained.seed, "test_file": None, "index": None}
    stage = Stage(f"evaluate/{path}", "evaluate", "mimigenrec.evaluation.run", ours, (folder / RESULT,))
    stage = stage._replace(after=("preprocess", trained.name), method=trained.method, seed=trained.seed)
    return completed(stage, config.evaluate)


def report_stage(config: BenchmarkConfig, results: Options) -> Stage:
    """results: what the report is told of the stages before it, its options of these names."""
    folder = config.output_dir / "report" / config.split
    ours = {"data": data_of(config)} | raw_of(config) | {"output": folder}
    ours |= {name: results.get(name, {}) for name in ("methods", "training", "failed", "costs")}
    stage = Stage(f"report/{config.split}", "report", "mimigenrec.report.build", ours, (folder / "report.html",))
    stage = completed(stage, config.report)
    options = {name: value for name, value in stage.options.items() if name != "models"}
    models = [name for name in as_list(stage.options.get("models", [*MODELS])) if name in ours["methods"]]
    return stage._replace(options={**options, **({"models": models} if models else {})})


def completed(stage: Stage, user: Options | str | None) -> Stage:
    """The stage with the user's options under its own; files that the user's options name are read too."""
    options = merged(stage.key, user, stage.options)
    named = files_in({option: value for option, value in options.items() if option not in stage.options})
    return stage._replace(options=options, reads=(*stage.reads, *named))


def brings_figures(stage: Stage) -> bool:
    return stage.writes[0].name == RESULT


def data_of(config: BenchmarkConfig) -> Path:
    return config.output_dir / "data"


def raw_of(config: BenchmarkConfig) -> Options:
    """--raw under its older name, by which the stages of earlier benchmarks are remembered."""
    return {"data_dir": config.raw, "raw": None, "category": config.category}
