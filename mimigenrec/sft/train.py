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
from copy import deepcopy
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mimigenrec.environment.chain import exit_unless_imports
from mimigenrec.errors import UsageError, UserError

if __name__ == "__main__":
    exit_unless_imports("sft", "transformers", "peft")  # which the imports below need

from filelock import FileLock

from mimigenrec.chat import ends_answers, prompt_ids, row_answer, row_messages
from mimigenrec.checkpoint import check_files
from mimigenrec.cli import one_message
from mimigenrec.contract import check_support, proven_tokenizer
from mimigenrec.decoding.adapter import identity
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.decoding.weights import check_complete, check_finite_files
from mimigenrec.files import read_json, sha256, write_json
from mimigenrec.hub import is_folder
from mimigenrec.lock import alone
from mimigenrec.manifest import make_manifest
from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.arguments import SftConfig, read_arguments
from mimigenrec.sft.callbacks import (
    CompleteCheckpoints,
    EmbeddingDropout,
    OnlySidRows,
    RankingMetrics,
)
from mimigenrec.sft.checks import (
    LORA,
    check_data,
    check_extras,
    check_keys,
    check_length_groups,
    check_lora,
    check_ranking,
    check_row_training,
)
from mimigenrec.sft.data import SftData, find_data, hashes, validation_sample
from mimigenrec.sft.lora_rows import check_lora_rows, check_whole_targets, start_adapter
from mimigenrec.sft.row_order import RowOrder
from mimigenrec.sft.run import COMMAND, SECRET, clear, going_on, is_to_run
from mimigenrec.sft.tokenized import StampTokenized, check_tokenized
from mimigenrec.sids.tokens import distinct_tokens
from mimigenrec.training.launch import is_main_process, processes, torchrun_command, wants_torchrun
from mimigenrec.training.log import CutLogBack, SinceResume
from mimigenrec.training.stop import LookFirst, StopIfNotFinite

ASKED = "MIMIGENREC_SFT_ASKED"  # set for the processes of torchrun: output_dir was looked at before they began

log = logging.getLogger(__name__)


def main(argv: list[str]) -> None:
    config, args = read_arguments(argv)
    if "LOCAL_RANK" not in os.environ and wants_torchrun(bool(args.get("deepspeed"))):
        exit_unless_imports("sft", "torchvision", "torchaudio")  # quick; else every process of torchrun fails
        if is_to_run(args, manifest(config, args)):
            os.environ[ASKED] = "yes"
            os.execv(sys.executable, torchrun_command("mimigenrec.sft.train", argv))
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and ASKED not in os.environ:
        raise UserError(
            "several processes are started by NPROC_PER_NODE=n mimigenrec sft ..., which asks once what output_dir "
            "holds; start it like that, and not by torchrun or accelerate"
        )
    train(config, args)


def train(config: SftConfig, args: dict[str, Any]) -> None:
    """One process of a run, or all of it. args: LLaMA-Factory's keys."""
    exit_unless_imports("sft", "llamafactory")
    from llamafactory.hparams import DataArguments
    from llamafactory.train.tuner import run_exp

    args = dict(args)
    check_keys(args, ours=[field.name for field in fields(SftConfig)])
    check_extras(args)
    if config.train_only == "sid_rows":
        check_row_training(args)
    if config.lora_sid_rows:
        check_lora_rows(args)
    facts = manifest(config, args)  # prepares the base
    if ASKED not in os.environ and not is_to_run(args, facts):
        return
    data = find_data(args)
    if is_main_process():
        check_weights(args["model_name_or_path"], whole=data is not None)
    if config.lora_sid_rows:
        check_whole_targets(args)
    else:
        check_lora(args)
    check_ranking(args, config.eval_ranking, data)
    callbacks = [EmbeddingDropout(config.embedding_dropout)] if config.embedding_dropout else []
    if config.length_groups:
        check_length_groups(args)
    callbacks += [CutLogBack(), SinceResume(), LookFirst(), StopIfNotFinite(), RowOrder(config.length_groups)]
    support = None
    if data is None:
        for key, given in (("train_only: sid_rows", config.train_only), ("lora_sid_rows: true", config.lora_sid_rows)):
            if given not in ("all", False):
                raise UserError(f"{key} needs a data set that lies beside an id2sid.json")
        log.warning("no data set of this run lies beside an id2sid.json: prompts and lengths are not checked")
    else:
        tokenizer = proven_tokenizer(args["model_name_or_path"])
        support = support_of(config, args, tokenizer)
        if is_main_process():
            check_data(data, tokenizer, args, args.get("cutoff_len", DataArguments.cutoff_len))
        if config.eval_ranking:
            callbacks.append(ranking_metrics(config, data, tokenizer, args.get("seed", 42), support))
        if config.train_only == "sid_rows":
            callbacks.append(OnlySidRows(tokenizer.convert_tokens_to_ids(distinct_tokens(data.catalog.sids))))
        if config.lora_sid_rows:
            rows = tokenizer.convert_tokens_to_ids(distinct_tokens(data.catalog.sids))
            args["adapter_name_or_path"] = start_adapter(args, rows, config.base_cache)
    if args.get("tokenized_path") and is_main_process():
        check_tokenized(args)
        callbacks.append(StampTokenized(args))
    adapter_of = args["model_name_or_path"] if args.get("finetuning_type", LORA) == LORA else None
    callbacks.append(CompleteCheckpoints(going_on(args, facts), adapter_of, data, support))
    if args.get("early_stopping_steps"):  # or it would count anew when a run goes on
        args.setdefault("restore_callback_states_from_checkpoint", True)
    check_arguments(args)
    with alone(Path(args["output_dir"]) / ".lock", "another run", is_main_process()):
        if is_main_process():
            clear(args)
        run_exp(args, callbacks)
        if args.get("do_train") and is_main_process():
            finish(Path(args["output_dir"]))


def check_weights(base: str, whole: bool) -> None:
    """Raises UserError for a base whose files are missing or damaged, or lack a weight, which would be random numbers.

    whole   whether to ask for every weight of a causal language model; other data may want other kinds of models
    """
    if whole:
        check_complete(base)
        check_finite_files(base)
    elif Path(base).is_dir():
        check_files(Path(base))


def check_arguments(args: dict[str, Any]) -> None:
    """Raises UsageError with what LLaMA-Factory or transformers say of settings that do not go together."""
    from llamafactory.hparams import get_train_args

    try:
        get_train_args(deepcopy(args))
    except (ValueError, ImportError) as error:
        raise UsageError(f"LLaMA-Factory refuses these settings: {error}") from error


def finish(output_dir: Path) -> None:
    """Notes that all is done."""
    known = read_json(output_dir / "manifest.json", made_by="mimigenrec sft", kind=dict)
    write_json(output_dir / "manifest.json", {**known, "ended": True})


def support_of(config: SftConfig, args: dict[str, Any], tokenizer) -> Support:
    """By which scores the checkpoints' items are ranked: those that training gives a meaning.

    Raises UserError for vocab where the chat template writes no end.
    """
    ends = ends_answers(tokenizer)
    support = config.eval_support or ("trie" if args.get("train_on_prompt") or not ends else "vocab")
    check_support(tokenizer, support)
    return support


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
    facts = [content_of(base), config.sid_init, config.sid_untie, AddSidsConfig.seed, [sha256(path) for path in read]]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    folder = config.base_cache / f"{Path(base).name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / "manifest.json").is_file():
            log.warning("preparing %s with the SIDs of %s in %s", base, config.add_tokens_list, folder)
            add_sids(AddSidsConfig(base, config.add_tokens_list, folder, init=config.sid_init, untie=config.sid_untie))
    return str(folder)


def content_of(base: str) -> list[list[Any]] | str:
    """A folder's files (name, size, time, and the content of small ones); a hub name stands for itself."""
    if not Path(base).is_dir():
        return base
    files = sorted(path for path in Path(base).iterdir() if path.is_file())
    small = {path: path.stat().st_size < 2**25 for path in files}
    return [[f.name, f.stat().st_size, sha256(f) if small[f] else f.stat().st_mtime_ns] for f in files]


def manifest(config: SftConfig, args: dict[str, Any]) -> dict[str, Any]:
    """What the run depends on; empty but in the main process. Sets args["model_name_or_path"] to the base with SIDs,
    which is prepared now if need be."""
    plain_base = args["model_name_or_path"]
    is_folder(plain_base, "model_name_or_path")
    if config.add_tokens_list:
        args["model_name_or_path"] = prepared_base(config, args)
    if not is_main_process():
        return {}
    told = {key: value for key, value in args.items() if key not in SECRET}
    settings = {**told, **asdict(config)}
    if not config.lora_sid_rows:  # as in a manifest from before there was this key, whose run may go on
        del settings["lora_sid_rows"]
    settings["weights"] = identity(args["model_name_or_path"])
    settings["processes"] = processes(bool(args.get("deepspeed")))  # each takes its rows
    now = make_manifest(settings, [], args.get("seed", 42), command=COMMAND, base=plain_base)
    now["inputs"] = inputs(args)
    data = find_data(args)
    now["contract"] = data.contract.hash if data and data.contract else None
    return now


def inputs(args: dict[str, Any]) -> dict[str, str]:
    """{file: its hash} of the data, and of the DeepSpeed configuration."""
    found, data = hashes(args), find_data(args)
    more = [data.folder / "id2sid.json"] if data else []
    if isinstance(args.get("deepspeed"), str) and Path(args["deepspeed"]).is_file():
        more.append(Path(args["deepspeed"]))
    return found | {str(path): sha256(path) for path in more}


def ranking_metrics(config: SftConfig, data: SftData, tokenizer, seed: int, support: Support) -> RankingMetrics:
    rows = validation_sample(data, config.eval_ranking, random.Random(seed))
    prompts = prompt_ids(tokenizer, [row_messages(row) for row in rows])
    trie = SidTrie.from_sids(data.catalog.sids, tokenizer)
    return RankingMetrics(trie, prompts, [row_answer(row) for row in rows], support)


if __name__ == "__main__":
    with one_message():
        main(sys.argv[1:])
