"""A LLaMA-Factory YAML, its base prepared for SIDs when that is missing, trained by stock LLaMA-Factory.

    mimigenrec sft x.yaml [y.yaml ...] key=value ...

Where a key is given twice, the last one counts. `llamafactory-cli train x.yaml` stops at a key of ours (SftConfig), so
x.yaml holds only LLaMA-Factory's keys, and ours stand in y.yaml or on the command line. What the plain program leaves
out are the checks, the ranking metrics and the files that make a checkpoint complete.
"""

import hashlib
import json
import logging
import os
import random
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mimigenrec.environment.chain import exit_unless_imports
from mimigenrec.errors import UserError

if __name__ == "__main__":
    exit_unless_imports("sft", "transformers")  # which the imports below need

import torch
import yaml
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from mimigenrec.cli import arg, one_message, parse
from mimigenrec.contract import load_tokenizer, prompt_ids, row_messages
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.files import sha256
from mimigenrec.manifest import make_manifest
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids, check_base
from mimigenrec.sft.callbacks import CompleteCheckpoints, EmbeddingDropout, OnlySidRows, RankingMetrics
from mimigenrec.sft.checks import (
    check_data,
    check_extras,
    check_keys,
    check_length_groups,
    check_lora,
    check_ranking,
    check_row_training,
)
from mimigenrec.sft.data import SftData, find_data, validation_sample
from mimigenrec.sft.row_order import RowOrder
from mimigenrec.sids.tokens import distinct_tokens

log = logging.getLogger(__name__)


@dataclass
class SftConfig:
    """mimigenrec sft x.yaml [y.yaml ...] key=value ...: SFT by LLaMA-Factory. The keys are LLaMA-Factory's
    (`llamafactory-cli train -h` lists them) and those below; where a key is given twice, the last one counts. Plain
    LLaMA-Factory refuses a YAML with a key from below: write these into a second YAML or as key=value. Several GPUs,
    DeepSpeed, FORCE_TORCHRUN=1 or NPROC_PER_NODE=n start torchrun; NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT are
    for several machines. To keep the best checkpoint by ranking: load_best_model_at_end=true
    metric_for_best_model=eval_ndcg@10."""

    add_tokens_list: Path | None = arg(
        "new_tokens.json: model_name_or_path is then a plain model, which gets these SIDs first", default=None
    )
    sid_init: Literal["noise", "text"] = arg("start of their rows, as in mimigenrec add-sids --init", default="noise")
    sid_untie: bool = arg("give the head its own weights, as in mimigenrec add-sids --untie", default=False)
    base_cache: Path = arg("where bases prepared here are kept, by content", default=Path("saves/base"))
    train_only: Literal["all", "sid_rows"] = arg("sid_rows freezes all but the rows of the SIDs", default="all")
    embedding_dropout: float = arg(
        "share of the embeddings' numbers that training leaves out at random, which keeps a model from scratch from "
        "learning its rows by heart",
        default=0.0,
    )
    length_groups: bool = arg(
        "batches of rows of like length, which pad little, in an order drawn anew each epoch; group_by_length takes "
        "them from long to short, over and over. Batches at random teach a model from scratch most (docs/results.md)",
        default=False,
    )
    eval_ranking: int = arg(
        "validation rows whose constrained HR@10 and NDCG@10 each evaluation reports; 0: none", default=1000
    )
    eval_support: Support = arg(
        "what their search scores by, as in mimigenrec evaluate --support; take trie with train_on_prompt, where the "
        "end of a row is no part of an answer",
        default="vocab",
    )


def main(argv: list[str]) -> None:
    config, args = read_arguments(argv)
    if "LOCAL_RANK" not in os.environ:  # not a process that torchrun started
        set_unfinished_aside(Path(args.get("output_dir", "saves")))
        if wants_torchrun(args):
            exit_unless_imports("sft", "torchvision", "torchaudio")  # quick; else every process of torchrun fails
            os.execv(sys.executable, torchrun_command(argv))
    exit_unless_imports("sft", "llamafactory")
    train(config, args)


def train(config: SftConfig, args: dict[str, Any]) -> None:
    """One process of a run. args: LLaMA-Factory's keys."""
    from llamafactory.hparams import DataArguments
    from llamafactory.train.tuner import run_exp

    check_keys(args, ours=[field.name for field in fields(SftConfig)])
    check_extras(args)
    plain_base = args["model_name_or_path"]
    check_base(plain_base)
    if config.train_only == "sid_rows":
        check_row_training(args)
    if config.add_tokens_list:
        args["model_name_or_path"] = prepared_base(config, args)
    check_lora(args)
    data = find_data(args)
    check_ranking(args, config.eval_ranking, data)
    callbacks = [EmbeddingDropout(config.embedding_dropout)] if config.embedding_dropout else []
    if config.length_groups:
        check_length_groups(args)
    callbacks.append(RowOrder(config.length_groups))
    if data is None:
        if config.train_only == "sid_rows":
            raise UserError("train_only: sid_rows needs a data set that lies beside an id2sid.json")
        log.warning("no data set of this run lies beside an id2sid.json: nothing is checked, checkpoints stay bare")
    else:
        tokenizer = load_tokenizer(args["model_name_or_path"])
        if is_main_process():
            check_data(data, tokenizer, args, args.get("cutoff_len", DataArguments.cutoff_len))
        callbacks.append(CompleteCheckpoints(data, manifest(config, args, plain_base, data)))
        if config.eval_ranking:
            callbacks.append(ranking_metrics(config, data, tokenizer, args.get("seed", 42)))
        if config.train_only == "sid_rows":
            callbacks.append(OnlySidRows(tokenizer.convert_tokens_to_ids(distinct_tokens(data.catalog.sids))))
    run_exp(args, callbacks)


def read_arguments(argv: list[str]) -> tuple[SftConfig, dict[str, Any]]:
    """Our keys, and LLaMA-Factory's, from YAMLs and `key=value` or `--key value` behind them; later ones win.

    Exits on a wrong value of ours, a YAML that is missing or no map, an override without a value, and without a YAML.
    """
    if not argv or argv[0] in ("-h", "--help"):
        parse(SftConfig, argv=["--help"])
    files, words = split_files(argv)
    merged = OmegaConf.merge(*map(read_yaml, files), OmegaConf.from_dotlist(overrides(words)))
    args = OmegaConf.to_container(merged, resolve=True)
    ours = {name: args.pop(name, None) for name in [field.name for field in fields(SftConfig)]}
    flags = [word for name, value in ours.items() if value is not None for word in (f"--{name}", str(value))]
    (config,) = parse(SftConfig, argv=flags)
    if not args.get("model_name_or_path"):
        sys.exit(
            f"{' '.join(files)}: model_name_or_path is missing; name a base that mimigenrec add-sids prepared, or a "
            f"plain model"
        )
    return config, args


def split_files(argv: list[str]) -> tuple[list[str], list[str]]:
    """The YAML files at the front, each with or without --config, and the words behind them. Exits without a file."""
    files, words = [], list(argv)
    while words:
        bare = words[1:] if words[0] == "--config" else [words[0].removeprefix("--config="), *words[1:]]
        if not bare or not is_yaml(bare[0]):
            break
        files.append(bare[0])
        words = bare[1:]
    if not files:
        sys.exit(f"mimigenrec sft wants a YAML file first, found {argv[:1]}; see --help")
    return files, words


def is_yaml(word: str) -> bool:
    """deepspeed=x.yaml is none, unless there is a file of that name."""
    return word.endswith((".yaml", ".yml")) and ("=" not in word or Path(word).is_file())


def read_yaml(path: str) -> DictConfig:
    """Exits if the file is missing or is no map of keys to values."""
    if not Path(path).is_file():
        sys.exit(f"mimigenrec sft: {path} is missing; correct the name of the YAML file")
    try:
        content = OmegaConf.load(path)
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f"mimigenrec sft: {path} cannot be read as YAML: {error}")
    if not isinstance(content, DictConfig):
        sys.exit(f"mimigenrec sft: {path} holds a list, not a map of keys to values")
    return content


def overrides(words: list[str]) -> list[str]:
    """key=value, --key=value and --key value, all as key=value.

    Exits on a word that is none of these, and on a YAML file, whose place is before them.
    """
    found, rest = [], iter(words)
    for word in rest:
        name = word.removeprefix("--")
        if is_yaml(word) or name.partition("=")[0] == "config":
            sys.exit(f"mimigenrec sft: {word!r} comes too late; write every YAML file before the first key=value")
        if "=" in word:
            found.append(name)
        elif word != name and (value := next(rest, None)) is not None:
            found.append(f"{name}={value}")
        else:
            sys.exit(f"mimigenrec sft: {word!r} gives no value; write {name}=value")
    return found


def set_unfinished_aside(output_dir: Path) -> None:
    """Renames checkpoints that a kill or a full disk left half-written, so that the run goes on from a whole one.

    The trainer writes trainer_state.json last (transformers 4.57).
    """
    for folder in sorted(output_dir.glob("checkpoint-*")):
        state = folder / "trainer_state.json"
        if not state.is_file() or not state.read_text(encoding="utf-8").rstrip().endswith("}"):
            log.warning("%s is half-written; set aside as unfinished-%s", folder, folder.name)
            folder.rename(folder.with_name(f"unfinished-{folder.name}"))


def wants_torchrun(args: dict[str, Any]) -> bool:
    """As LLaMA-Factory's launcher decides, and for DeepSpeed, which wants it always."""
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true", "y")
    several = "NPROC_PER_NODE" in os.environ or torch.accelerator.device_count() > 1
    return forced or several or bool(args.get("deepspeed"))


def torchrun_command(argv: list[str]) -> list[str]:
    env = os.environ
    nodes = ["--standalone"]
    if env.get("NNODES", "1") != "1":
        if "MASTER_ADDR" not in env:
            sys.exit(f"NNODES={env['NNODES']} needs MASTER_ADDR, the address of the first machine, and NODE_RANK")
        nodes = ["--nnodes", env["NNODES"], "--node_rank", env.get("NODE_RANK", "0")]
        nodes += [
            "--master_addr",
            env.get("MASTER_ADDR", "127.0.0.1"),
            "--master_port",
            env.get("MASTER_PORT", "29500"),
        ]
    processes = env.get("NPROC_PER_NODE") or str(max(1, torch.accelerator.device_count()))
    launch = [sys.executable, "-m", "torch.distributed.run", *nodes, "--nproc_per_node", processes]
    return [*launch, "-m", "mimigenrec.sft.train", *argv]


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def prepared_base(config: SftConfig, args: dict[str, Any]) -> str:
    """Folder of the base with SIDs, made now unless one of the same content is there.

    Whichever process comes first makes it; the others, of this run or of another, wait.
    """
    base = args["model_name_or_path"]
    if args.get("model_revision", "main") != "main":
        raise UserError("add_tokens_list takes the main revision; download the other one and give its folder instead")
    read = [config.add_tokens_list]
    if config.sid_init == "text":
        read += [config.add_tokens_list.parent / name for name in ("id2sid.json", "items.json")]
    facts = [identity(base), config.sid_init, config.sid_untie, AddSidsConfig.seed, [sha256(path) for path in read]]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    folder = config.base_cache / f"{Path(base).name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / "manifest.json").is_file():
            log.warning("preparing %s with the SIDs of %s in %s", base, config.add_tokens_list, folder)
            add_sids(AddSidsConfig(base, config.add_tokens_list, folder, init=config.sid_init, untie=config.sid_untie))
    return str(folder)


def identity(base: str) -> list[list[Any]] | str:
    """A folder's files (name, size, time, and the content of small ones); a hub name stands for itself."""
    if not Path(base).is_dir():
        return base
    files = sorted(path for path in Path(base).iterdir() if path.is_file())
    small = {path: path.stat().st_size < 2**25 for path in files}
    return [[f.name, f.stat().st_size, sha256(f) if small[f] else f.stat().st_mtime_ns] for f in files]


def manifest(config: SftConfig, args: dict[str, Any], plain_base: str, data: SftData) -> dict[str, Any]:
    read = [*data.files, data.folder / "id2sid.json"]
    contract = data.contract.hash if data.contract else None
    return make_manifest(
        {**args, **asdict(config)},
        read if is_main_process() else [],
        args.get("seed", 42),
        command="sft",
        base=plain_base,
        contract=contract,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def ranking_metrics(config: SftConfig, data: SftData, tokenizer, seed: int) -> RankingMetrics:
    rows = validation_sample(data, config.eval_ranking, random.Random(seed))
    prompts = prompt_ids(tokenizer, [row_messages(row) for row in rows])
    trie = SidTrie.from_sids(data.catalog.sids, tokenizer)
    return RankingMetrics(trie, prompts, [row["output"] for row in rows], config.eval_support)


if __name__ == "__main__":
    with one_message():
        main(sys.argv[1:])
