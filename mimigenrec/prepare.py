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

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mimigenrec.cli import arg, parse, start, yaml_file
from mimigenrec.errors import UsageError, UserError
from mimigenrec.files import sha256, write_json
from mimigenrec.interactions.names import check_category
from mimigenrec.manifest import check_same_run
from mimigenrec.schema import read_map
from mimigenrec.stages import Facts, Stage, refusals, standing


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


def main(config: PrepareConfig) -> None:
    check_category(config.category)
    stages = plan(config)
    if problems := refusals(stages, lambda stage: parse(*stage.configs, argv=argv_of(stage, config))):
        raise UsageError("\n".join([f"nothing was run; correct in {yaml_file() or 'the YAML'}:", *problems]))
    memory = config.output_dir / config.category / f"{config.category}.prepare.json"
    done = read_memory(memory)
    for stage in stages:
        facts, before = facts_of(stage), done.get(stage.name)
        touched = [path for path, hashed in (before or {}).get("wrote", {}).items() if is_other(path, hashed)]
        if standing(stage, facts, before).word == "done" and not touched:
            print(f"{stage.name}: nothing has changed since it was run")
            continue
        if stage.name != "sid_report" and not config.overwrite:  # with a new report nothing is lost
            check_kept(stage, facts, before, touched, memory)
        print(f"{stage.name}: {' '.join(to_argv(stage.options))}")
        done.pop(stage.name, None)
        stage.command.main(*parse(*stage.configs, argv=argv_of(stage, config)))
        done[stage.name] = facts | {"wrote": {str(path): sha256(path) for path in stage.writes}}
        write_json(memory, done)


def facts_of(stage: Stage) -> Facts:
    """What the stage's result depends on, once the stages before it have written what it reads."""
    return {"flags": stage.options, "reads": {str(path): sha256(path) for path in stage.reads if path.is_file()}}


def is_other(path: str, hashed: str) -> bool:
    return Path(path).is_file() and sha256(path) != hashed


def check_kept(stage: Stage, facts: Facts, before: Facts | None, touched: list[str], memory: Path) -> None:
    """Raises UserError if something would be lost: a file that others have changed, or what other flags or files gave.

    A stage of which a file is missing has no result.
    """
    if touched:
        raise UserError(
            f"{touched[0]} is not as stage {stage.name} wrote it; put it back, choose another output_dir, or "
            f"--overwrite to make it anew"
        )
    if before and all(path.is_file() for path in stage.writes):
        then, now = ({"config": run["flags"], "inputs": run["reads"]} for run in (before, facts))
        check_same_run(f"{memory}, stage {stage.name},", then, now, (), "--overwrite")


def read_memory(path: Path) -> dict[str, dict[str, dict]]:
    """Stage -> {"flags", "reads", "wrote"}; {} where nothing was run yet."""
    made_by = "mimigenrec prepare; delete it to run all stages anew"
    runs = read_map(path, {str: {"flags": dict, "reads": dict}}, made_by) if path.is_file() else {}
    for run in runs.values():  # earlier versions kept ./x where a Path says x
        run["reads"] = {str(Path(name)): hashed for name, hashed in run["reads"].items()}
    return runs


def plan(config: PrepareConfig) -> list[Stage]:
    """The stages with all their flags. Paths that a stage has from the one before can be overruled by its flags."""
    folder = config.output_dir / config.category
    stem = f"{folder}/{config.category}"
    items, index, train, test = (f"{stem}.{end}" for end in ("item.json", "index.json", "train.inter", "test.inter"))

    flags = config.interactions | {"category": config.category, "output_dir": config.output_dir}
    raw = [path for key in ("interactions", "items") for path in as_list(as_text(flags).get(key, []))]
    outputs = ["item2id", "user2id", "item.json", "review.json", "inter.json", "interactions.json"]
    outputs += [f"{split}.inter" for split in ("train", "valid", "test")]
    stages = [stage_of("interactions", "interactions.build", flags, raw, [f"{stem}.{end}" for end in outputs])]

    vectors = f"{stem}.emb-{config.embed.get('encoder', 'tfidf')}.npy"
    if "vectors" not in config.quantise:
        flags = {"items": items, "output": vectors} | config.embed
        vectors = as_text(flags)["output"]
        stages.append(stage_of("embed", "vectors.embed", flags, [items], [vectors]))

    flags = {"items": items, "vectors": vectors, "output": index} | config.quantise
    vectors, index = (as_text(flags)[key] for key in ("vectors", "output"))
    stages.append(stage_of("quantise", "sids.quantise", flags, [items, vectors], [index]))

    seen = {"index": index, "items": items, "embeddings": vectors, "train": train, "test": test}
    flags = seen | {"output": f"{folder}/sid_report"} | config.sid_report
    pages = [f"{as_text(flags)['output']}/sid_report.{end}" for end in ("json", "md", "html")]
    stages.append(stage_of("sid_report", "sid_report.build", flags, [*seen.values()], pages))
    return stages


def stage_of(name: str, module: str, flags: Mapping[str, Any], reads: list[str], writes: list[str]) -> Stage:
    return Stage(name, name, f"mimigenrec.{module}", as_text(flags), tuple(map(Path, writes)), tuple(map(Path, reads)))


def argv_of(stage: Stage, config: PrepareConfig) -> list[str]:
    """The stage's flags, and --overwrite where its command has it and it is given."""
    takes = any(field.name == "overwrite" for options in stage.configs for field in fields(options))
    return to_argv(stage.options | ({"overwrite": "true"} if takes and config.overwrite else {}))


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
