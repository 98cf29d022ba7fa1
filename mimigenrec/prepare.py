"""Raw logs -> everything that preprocessing needs, in one command: four stages, each a command of its own.

    interactions   raw logs -> C.item.json, C.item2id, C.user2id, C.review.json, C.inter.json, C.*.inter
    embed          C.item.json -> C.emb-ENCODER.npy
    quantise       C.emb-ENCODER.npy -> C.index.json
    sid_report     C.index.json -> sid_report/: are these SIDs worth training on?

A stage takes the flags of its command, less the paths that follow from the stage before. C.prepare.json remembers with
which flags and files each stage was run. Rerun the command and it passes over stages for which nothing has changed.
Where flags or files have changed it stops and shows what; with --overwrite it runs these stages anew, and those that
read what they write.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from mimigenrec.cli import arg, parse, start
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, sha256, write_json
from mimigenrec.interactions import build as interactions
from mimigenrec.interactions.names import check_category
from mimigenrec.interactions.table import Columns
from mimigenrec.manifest import check_same_run
from mimigenrec.sid_report import build as sid_report
from mimigenrec.sids import quantise
from mimigenrec.sids.training import Training
from mimigenrec.vectors import embed


@dataclass
class PrepareConfig:
    """Raw logs -> sequences, item vectors, SIDs and a report on them."""

    category: str = arg("name of the data set, the first part of its file names")
    output_dir: Path = arg("folder to write; the data set gets a folder of its name in it")
    interactions: dict = arg("flags of `mimigenrec interactions`")
    embed: dict = arg("flags of `mimigenrec embed`; not run if quantise is given vectors", factory=dict)
    quantise: dict = arg("flags of `mimigenrec quantise`", factory=dict)
    sid_report: dict = arg("flags of `mimigenrec sid-report`", factory=dict)
    overwrite: bool = arg("run stages whose flags or files have changed anew, over what they wrote", default=False)


class Stage(NamedTuple):
    name: str
    main: Callable
    configs: tuple[type, ...]
    flags: dict[str, Any]
    reads: list[str]
    writes: list[str]


def main(config: PrepareConfig) -> None:
    check_category(config.category)
    stages = plan(config)
    parsed = [parse(*stage.configs, argv=argv_of(stage, config)) for stage in stages]  # all, before the first one runs
    memory = config.output_dir / config.category / f"{config.category}.prepare.json"
    done = read_memory(memory)
    for stage, configs in zip(stages, parsed, strict=True):
        about = {"flags": stage.flags, "reads": {path: sha256(path) for path in stage.reads if Path(path).is_file()}}
        before, written = done.get(stage.name), all(Path(path).is_file() for path in stage.writes)
        wrote = (before or {}).get("wrote", {})
        changed = [path for path, hashed in wrote.items() if Path(path).is_file() and sha256(path) != hashed]
        if changed and stage.name != "sid_report" and not config.overwrite:
            raise UserError(
                f"{changed[0]} is not as stage {stage.name} wrote it; put it back, choose another output_dir, or "
                f"--overwrite to make it anew"
            )
        same = before is not None and {part: before[part] for part in about} == about
        if same and written and not changed:
            print(f"{stage.name}: nothing has changed since it was run")
            continue
        replaces = before and written and not same and stage.name != "sid_report"  # with a new report nothing is lost
        if replaces and not config.overwrite:
            check_same_run(f"{memory}, stage {stage.name},", as_run(before), as_run(about), (), "--overwrite")
        print(f"{stage.name}: {' '.join(to_argv(stage.flags))}")
        done.pop(stage.name, None)
        stage.main(*configs)
        done[stage.name] = about | {"wrote": {path: sha256(path) for path in stage.writes}}
        write_json(memory, done)


def read_memory(path: Path) -> dict[str, dict[str, dict]]:
    """Stage -> {"flags", "reads", "wrote"}; {} where nothing was run yet."""
    done = read_json(path, made_by="mimigenrec prepare", kind=dict) if path.is_file() else {}
    for about in done.values():
        if not isinstance(about, dict) or not all(isinstance(about.get(part), dict) for part in ("flags", "reads")):
            raise UserError(
                f"{path} is not what mimigenrec prepare wrote (found {about!r:.80}); delete it to run all stages anew"
            )
    return done


def as_run(about: Mapping[str, dict]) -> dict[str, dict]:
    return {"config": about["flags"], "inputs": about["reads"]}


def argv_of(stage: Stage, config: PrepareConfig) -> list[str]:
    """The stage's flags, and --overwrite where its command has it and it is given."""
    takes = any(one.name == "overwrite" for of_stage in stage.configs for one in fields(of_stage))
    return to_argv(stage.flags | ({"overwrite": "true"} if takes and config.overwrite else {}))


def plan(config: PrepareConfig) -> list[Stage]:
    """The stages with all their flags. Paths that a stage has from the one before can be overruled by its flags."""
    folder = config.output_dir / config.category
    stem = f"{folder}/{config.category}"
    items, index, train, test = (f"{stem}.{end}" for end in ("item.json", "index.json", "train.inter", "test.inter"))

    first = as_text(config.interactions | {"category": config.category, "output_dir": config.output_dir})
    sources = [path for key in ("interactions", "items") for path in as_list(first.get(key, []))]
    outputs = ["item2id", "user2id", "item.json", "review.json", "inter.json", "interactions.json"]
    outputs += [f"{split}.inter" for split in ("train", "valid", "test")]
    stages = [
        Stage("interactions", interactions.main, (interactions.InteractionsConfig, Columns), first, sources,
              [f"{stem}.{end}" for end in outputs])
    ]  # fmt: skip

    vectors = f"{stem}.emb-{config.embed.get('encoder', 'tfidf')}.npy"
    if "vectors" not in config.quantise:
        second = as_text({"items": items, "output": vectors} | config.embed)
        vectors = second["output"]
        stages.append(Stage("embed", embed.main, (embed.EmbedConfig,), second, [items], [vectors]))

    third = as_text({"items": items, "vectors": vectors, "output": index} | config.quantise)
    vectors, index = third["vectors"], third["output"]
    stages.append(
        Stage("quantise", quantise.main, (quantise.QuantiseConfig, Training), third, [items, vectors], [index])
    )

    seen = {"index": index, "items": items, "embeddings": vectors, "train": train, "test": test}
    fourth = as_text(seen | {"output": f"{folder}/sid_report"} | config.sid_report)
    pages = [f"{fourth['output']}/sid_report.{end}" for end in ("json", "md", "html")]
    stages.append(
        Stage("sid_report", sid_report.main, (sid_report.SidReportConfig,), fourth, list(seen.values()), pages)
    )
    return stages


def to_argv(flags: Mapping[str, Any]) -> list[str]:
    argv = []
    for name, value in flags.items():
        argv += [f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value}"]
    return argv


def as_text(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they would stand on a command line; null keeps the default."""
    return {
        name: [str(part) for part in value] if isinstance(value, list) else str(value)
        for name, value in flags.items()
        if value is not None
    }


def as_list(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


if __name__ == "__main__":
    start(main, PrepareConfig)
