"""`mimigenrec sft x.yaml [y.yaml ...] key=value ...` -> our keys and LLaMA-Factory's. Where a key is given twice, the
last one counts. What cannot be meant raises UsageError, with which the command ends with status 2."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mimigenrec.cli import arg, parse
from mimigenrec.decoding.search import Support
from mimigenrec.errors import UsageError, UserError
from mimigenrec.files import read_text
from mimigenrec.flags import names_of


@dataclass
class SftConfig:
    """SFT by LLaMA-Factory. Its keys (`llamafactory-cli train -h` lists them) are taken, and those below; where a key
    is given twice, the last one counts. Plain LLaMA-Factory refuses a YAML with a key from below: write these into a
    second YAML or as key=value. Several GPUs, DeepSpeed, FORCE_TORCHRUN=1 or NPROC_PER_NODE=n start torchrun; NNODES,
    NODE_RANK, MASTER_ADDR and MASTER_PORT are for several machines. To keep the best checkpoint by ranking:
    load_best_model_at_end=true metric_for_best_model=eval_ndcg@10. Started again, a finished run is left alone, an
    interrupted one goes on, and one with other settings or data stops; overwrite_output_dir=true starts anew."""

    add_tokens_list: Path | None = arg(
        "new_tokens.json: model_name_or_path is then a plain model, which gets these SIDs first", default=None
    )
    sid_init: Literal["noise", "text"] = arg("start of their rows, as in mimigenrec add-sids --init", default="noise")
    sid_untie: bool = arg("give the head its own weights, as in mimigenrec add-sids --untie", default=False)
    base_cache: Path = arg("where bases prepared here are kept, by content", default=Path("saves/base"))
    train_only: Literal["all", "sid_rows"] = arg("sid_rows freezes all but the rows of the SIDs", default="all")
    lora_sid_rows: bool = arg(
        "with finetuning_type lora, train the rows of the SIDs too, and no other row; the base may be tied or untied",
        default=False,
    )
    embedding_dropout: float = arg(
        "share of the embeddings' numbers that training leaves out at random, which keeps a model from scratch from "
        "learning its rows by heart",
        default=0.0,
        least=0,
        below=1,
    )
    length_groups: bool = arg(
        "batches of rows of like length, which pad little, in an order drawn anew each epoch; group_by_length takes "
        "them from long to short, over and over. Batches at random teach a model from scratch most (docs/results.md)",
        default=False,
    )
    eval_ranking: int = arg(
        "validation rows whose constrained HR@10 and NDCG@10 each evaluation reports; 0: none", default=1000, least=0
    )
    eval_support: Support | None = arg(
        "what their search scores by, as in mimigenrec evaluate --support, which takes it from the checkpoint. "
        "Default: trie with train_on_prompt, where the end of a row is no part of an answer, and where the chat "
        "template writes no end; else vocab",
        default=None,
    )


def read_arguments(argv: list[str]) -> tuple[SftConfig, dict[str, Any]]:
    """Our keys, and LLaMA-Factory's, from YAMLs and `key=value` or `--key value` behind them; later ones win.

    Raises UsageError for a YAML that is missing or no map, an override without a value, and a run without a YAML, a
    model or an output folder. Exits with status 2 on a wrong value of ours.
    """
    if not argv or argv[0] in ("-h", "--help"):
        parse(SftConfig, argv=["--help"], usage="x.yaml [y.yaml ...] [key=value ...]")
    files, words = split_files(argv)
    merged = OmegaConf.create({})
    for source in [*map(read_yaml, files), read_overrides(words)]:
        merged = OmegaConf.merge(merged, source)
    args = OmegaConf.to_container(merged, resolve=False)
    check_interpolations(args)
    ours = {name: args.pop(name, None) for field in fields(SftConfig) for name in names_of(field)}
    flags = [word for name, value in ours.items() if value is not None for word in (f"--{name}", str(value))]
    (config,) = parse(SftConfig, argv=flags)
    told = ", ".join(files)
    if not args.get("model_name_or_path"):
        raise UsageError(
            f"{told}: model_name_or_path is missing; name a base that mimigenrec add-sids prepared, or a plain model"
        )
    if not args.get("output_dir"):
        raise UsageError(f"{told}: output_dir is missing; name the folder that the trained model goes to")
    return config, args


def split_files(argv: list[str]) -> tuple[list[str], list[str]]:
    """The YAML files at the front, each with or without --config, and the words behind them."""
    files, words = [], list(argv)
    while words:
        bare = words[1:] if words[0] == "--config" else [words[0].removeprefix("--config="), *words[1:]]
        if not bare or not is_yaml(bare[0]):
            break
        files.append(bare[0])
        words = bare[1:]
    if not files:
        raise UsageError(
            f"mimigenrec sft expects a YAML file as its first argument, found {argv[0]!r}; mimigenrec sft --help says "
            f"what goes into it"
        )
    return files, words


def is_yaml(word: str) -> bool:
    """deepspeed=x.yaml is none, unless there is a file of that name."""
    return word.endswith((".yaml", ".yml")) and ("=" not in word or Path(word).is_file())


def read_yaml(path: str) -> DictConfig:
    if not Path(path).is_file():
        raise UsageError(f"{path} is missing; correct the name of the YAML file")
    try:
        content = OmegaConf.create(read_text(path))  # read as YAML, in which a key that is given twice is an error
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    except UserError as error:
        raise UsageError(str(error)) from error
    if not isinstance(content, DictConfig):
        raise UsageError(f"{path} holds a list, not a map of keys to values")
    if not all(isinstance(key, str) for key in content):
        key = next(key for key in content if not isinstance(key, str))
        raise UsageError(f"{path}: the key {key!r} is no name; write 'key: value' with a key of LLaMA-Factory")
    return content


def read_overrides(words: list[str]) -> DictConfig:
    found = overrides(words)
    try:
        return OmegaConf.from_dotlist(found)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UsageError(f"{' '.join(found)[:200]} cannot be read as YAML values: {error}") from error


def overrides(words: list[str]) -> list[str]:
    """key=value, --key=value and --key value, all as key=value.

    Raises UsageError for a word that is none of these, and for a YAML file, whose place is before them.
    """
    found, rest = [], iter(words)
    for word in rest:
        name = word.removeprefix("--")
        if is_yaml(word) or name.partition("=")[0] == "config":
            raise UsageError(f"{word!r} comes too late; write every YAML file before the first key=value")
        if "=" in word:
            found.append(name)
        elif word != name and (value := next(rest, None)) is not None:
            found.append(f"{name}={value}")
        else:
            raise UsageError(f"{word!r} has no value; write {name}=value")
    return found


def check_interpolations(value: Any, key: str = "") -> None:
    """Raises UsageError for ${...}. LLaMA-Factory does not resolve it either, and ${oc.env:NAME} in somebody's YAML
    would put a variable of the environment, maybe a password, into manifest.json."""
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        check_interpolations(inner, f"{key}.{name}" if key else str(name))
    if isinstance(value, str) and re.search(r"\$\{.*\}", value):
        raise UsageError(f"{key}: {value!r} would not be filled in; write the value itself")
