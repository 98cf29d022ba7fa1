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
from mimigenrec.benchmark.stage import Stage
from mimigenrec.errors import UserError
from mimigenrec.evaluation.config import EvaluateConfig
from mimigenrec.hub import is_folder
from mimigenrec.report.build import ReportConfig
from mimigenrec.report.methods import cut_off
from mimigenrec.tasks.build import find_raw

MODELS = ("sft", "grpo")
RESULT = "metrics.json"  # what a stage leaves that brings figures


def plan(config: BenchmarkConfig) -> list[Stage]:
    """Raises UserError or FileNotFoundError naming the key that cannot be meant."""
    check(config)
    return [
        preprocess_stage(config),
        *(stage for name in config.baselines for stage in baseline_stages(config, name)),
        *(stage for seed in config.seeds if config.sft is not None for stage in model_stages(config, seed)),
    ]


def check(config: BenchmarkConfig) -> None:
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
    ours = raw_of(config) | {"output_dir": data_of(config)}
    reads = tuple(find_raw(config.raw, config.category).values())
    return make("preprocess", "preprocess", "mimigenrec.tasks.build", config.preprocess, ours, data_of(config),
                "manifest.json", after=(), reads=reads)  # fmt: skip


def baseline_stages(config: BenchmarkConfig, name: str) -> Iterator[Stage]:
    key, user, evaluate = f"baselines: {name}", config.baselines[name], given("evaluate", config.evaluate)
    method = given(key, user).get("method", name)
    reads = (find_raw(config.raw, config.category)["train.inter"],)
    for seed in [None] if method in COUNTING else config.seeds:
        path = "/".join(str(part) for part in (config.split, name, seed) if part is not None)
        folder = config.output_dir / "results" / path
        ours = raw_of(config) | {"data": data_of(config), "output": folder}
        ours |= {"split": config.split, "k": evaluate.get("k"), "limit": evaluate.get("limit")}
        ours |= {"seed": seed, "sids": None}
        stage = make(f"baseline/{path}", key, "mimigenrec.baselines.train", user, ours, folder, RESULT,
                     ("preprocess",), reads, name, seed)  # fmt: skip
        yield stage._replace(options={"method": method} | stage.options)


def model_stages(config: BenchmarkConfig, seed: int) -> Iterator[Stage]:
    """Base, SFT and RL of one seed, each checkpoint with its evaluation."""
    out, data, category = config.output_dir, data_of(config), config.category
    *base, prepared = base_stages(config, seed)
    yield from base
    if prepared.seed is not None or seed == config.seeds[0]:
        yield prepared

    ours = {"model_name_or_path": prepared.folder, "add_tokens_list": None, "dataset_dir": out}
    ours |= {"dataset": f"{category}_train", "eval_dataset": f"{category}_valid"}
    ours |= {"output_dir": out / "sft" / str(seed), "overwrite_output_dir": False, "seed": seed}
    sft = make(f"sft/{seed}", "sft", "mimigenrec.sft.train", config.sft, ours, ours["output_dir"],
               "trainer_state.json", ("preprocess", prepared.name), (), "sft", seed)  # fmt: skip
    yield sft._replace(options={"stage": "sft", "do_train": True, "report_to": "none"} | sft.options)
    yield evaluate_stage(config, sft)

    if config.grpo is not None:
        ours = {"model": sft.folder, "data": data, "index": None, "output_dir": out / "grpo" / str(seed), "seed": seed}
        ours |= {"overwrite_output_dir": None, "resume_from_checkpoint": None}
        rewards = tuple(reward_files(as_list(given("grpo", config.grpo).get("rewards", []))))
        grpo = make(f"grpo/{seed}", "grpo", "mimigenrec.grpo.train", config.grpo, ours, ours["output_dir"],
                    "trainer_state.json", ("preprocess", sft.name), rewards, "grpo", seed)  # fmt: skip
        yield grpo
        yield evaluate_stage(config, grpo)


def base_stages(config: BenchmarkConfig, seed: int) -> Iterator[Stage]:
    """A base of the seed's own from scratch, with SIDs; or a named one, given SIDs once for all seeds."""
    out, module = config.output_dir, "mimigenrec.sft.add_sids"
    ours = {"tokens": data_of(config) / "new_tokens.json"}
    if isinstance(config.base, dict):
        told = {"data": data_of(config), "output_dir": out / "base" / str(seed), "seed": seed}
        base = make(f"base/{seed}", "base", "mimigenrec.sft.make_base", config.base, told, told["output_dir"],
                    "tokenizer.json", method="sft", seed=seed)  # fmt: skip
        yield base
        ours |= {"base": base.folder, "output": out / "base_sid" / str(seed), "seed": seed}
        yield make(f"add_sids/{seed}", "add_sids", module, config.add_sids, ours, ours["output"], "manifest.json",
                   ("preprocess", base.name), method="sft", seed=seed)  # fmt: skip
    else:
        ours |= {"base": config.base, "output": out / "base_sid" / "shared"}
        reads = tuple(sorted(path for path in Path(config.base).glob("*") if path.is_file()))
        yield make("add_sids/shared", "add_sids", module, config.add_sids, ours, ours["output"], "manifest.json",
                   reads=reads, method="sft")  # fmt: skip


def evaluate_stage(config: BenchmarkConfig, trained: Stage) -> Stage:
    path = f"{config.split}/{trained.name}"
    ours = {"model": trained.folder, "data": data_of(config), "output": config.output_dir / "results" / path}
    ours |= {"split": config.split, "seed": trained.seed, "test_file": None, "index": None}
    return make(f"evaluate/{path}", "evaluate", "mimigenrec.evaluation.run", config.evaluate, ours, ours["output"],
                RESULT, ("preprocess", trained.name), (), trained.method, trained.seed)  # fmt: skip


def report_stage(config: BenchmarkConfig, found: Options) -> Stage:
    """found: what the report is told of the stages before it."""
    ours = {"data": data_of(config)} | raw_of(config)
    ours |= {"output": config.output_dir / "report" / config.split}
    ours |= {name: found.get(name, {}) for name in ("methods", "training", "failed", "costs")}
    stage = make(f"report/{config.split}", "report", "mimigenrec.report.build", config.report, ours,
                 ours["output"], "report.html", after=())  # fmt: skip
    models = [name for name in as_list(stage.options.pop("models", [*MODELS])) if name in ours["methods"]]
    return stage._replace(options={**stage.options, **({"models": models} if models else {})})


def make(
    name: str,
    key: str,
    module: str,
    user: Any,
    ours: Options,
    folder: Path,
    last: str,
    after: tuple[str, ...] = ("preprocess",),
    reads: tuple[Path, ...] = (),
    method: str | None = None,
    seed: int | None = None,
) -> Stage:
    """The stage with its options merged; files that the user's options name are read too."""
    options = merged(key, user, ours)
    named = files_in({option: value for option, value in options.items() if option not in ours})
    return Stage(name, key, module, options, folder, last, after, (*reads, *named), method, seed)


def data_of(config: BenchmarkConfig) -> Path:
    return config.output_dir / "data"


def raw_of(config: BenchmarkConfig) -> Options:
    """--raw under its older name, by which the stages of earlier benchmarks are remembered."""
    return {"data_dir": config.raw, "raw": None, "category": config.category}
