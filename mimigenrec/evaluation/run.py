"""Checkpoint + test rows -> ranked lists and metrics: `mimigenrec evaluate`, alone or under torchrun.

Writes predictions.jsonl while it runs (predict.py), then what result.py names.
"""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mimigenrec.catalog import Catalog, check_same_catalogue, load_catalog
from mimigenrec.chat import prompt_ids
from mimigenrec.checkpoint import is_adapter
from mimigenrec.cli import start
from mimigenrec.contract import FILE as CONTRACT_FILE
from mimigenrec.contract import (
    Contract,
    check_same,
    check_support,
    check_template,
    choose_support,
    proven_tokenizer,
    read_contract,
)
from mimigenrec.decoding.adapter import base_place
from mimigenrec.decoding.model import MIMIGenRec, load_model
from mimigenrec.environment.devices import choose_device
from mimigenrec.errors import UserError
from mimigenrec.evaluation.config import EvaluateConfig
from mimigenrec.evaluation.metrics import KS
from mimigenrec.evaluation.predict import begin, is_finished, merge, predict, searched_beams
from mimigenrec.evaluation.result import write_result
from mimigenrec.evaluation.rows import AskedRow, read_asked_rows
from mimigenrec.evaluation.table import one_result
from mimigenrec.lock import alone
from mimigenrec.manifest import make_manifest
from mimigenrec.sharded import processes
from mimigenrec.sids.tokens import join_sid, read_index

CHECKPOINT_FILES = ("*config.json", "tokenizer.json", "chat_template.jinja", "*.safetensors", "*model*.bin")
# With the files and the seed of the bootstrap, all that a result depends on.
HOW = ("split", "k", "beams", "support", "exclude_seen", "limit", "dtype", "seed")

logger = logging.getLogger(__name__)


class TestSet(NamedTuple):
    rows: list[AskedRow]
    catalog: Catalog
    contract: Contract | None
    folder: Path  # for messages
    files: list[Path]


def main(config: EvaluateConfig) -> None:
    check_flags(config)
    test = read_test(config)
    check_same_catalogue(test.catalog.sids, test.folder, config.model)
    contract = compare_contracts(test, config.model)
    config = replace(config, support=choose_support(config.support, read_contract(config.model), config.model))
    with processes() as process:
        manifest, run = {}, {}
        if process.rank == 0:
            inputs = [*checkpoint_files(config.model, config.base), *test.files]
            manifest = make_manifest(config, inputs, config.seed, contract=contract)
            run = {"config": {key: manifest["config"][key] for key in HOW}, "inputs": manifest["inputs"]}
        if process.tell(process.rank == 0 and is_finished(config.output, run, config.overwrite)):
            if process.rank == 0:
                print(f"{config.output} is finished: nothing to do; --overwrite starts anew")
            return
        recommender = load(config, test)
        prompts = encode_prompts(recommender, test)
        check_support(recommender.tokenizer, config.support)
        with alone(config.output / ".lock", "another evaluation", process.rank == 0):
            if process.rank == 0:
                begin(config.output, run, config.overwrite)
            process.wait()
            started = time.perf_counter()
            beams = searched_beams(recommender, test.rows, config.beams, config.exclude_seen)
            predicted = predict(recommender, test.rows, prompts, config, beams, process)
            process.wait()
            if process.rank > 0:
                return
            facts = timing(recommender, predicted, process.world, time.perf_counter() - started)
            facts |= {"method": config.model.name, "contract": contract, "searched_beams": beams}
            facts |= {"support": config.support, "exclude_seen": config.exclude_seen}
            rows = merge(config.output, len(test.rows))
            metrics = write_result(config.output, rows, test.catalog, config.k, manifest, **facts)
    print(f"{config.model}, ranked by support {config.support}\n\n{one_result(metrics)}\nwritten to {config.output}")


def check_flags(config: EvaluateConfig) -> None:
    """Raises UserError or FileNotFoundError naming the flag that cannot be meant."""
    if not config.model.is_dir():
        raise FileNotFoundError(
            f"--model {config.model} is not a folder; give a checkpoint of `mimigenrec sft` or grpo"
        )
    if bool(config.data) == bool(config.test_file):
        raise UserError("give either --data or --test_file")
    if config.index and not config.test_file:
        raise UserError(f"--index {config.index} belongs to --test_file; --data holds an id2sid.json of its own")
    if not KS[0] <= config.k <= config.beams:
        raise UserError(
            f"--beams {config.beams} cannot rank --k {config.k} SIDs; beams must be at least k, k at least 1"
        )
    if config.test_file and config.exclude_seen:
        raise UserError("--exclude_seen needs the histories' item ids, which --test_file does not tell; use --data")
    if config.test_file and not config.test_file.is_file():
        raise FileNotFoundError(f"--test_file {config.test_file} is not a file; give sft/test.json of a data folder")


def read_test(config: EvaluateConfig) -> TestSet:
    """Raises UserError naming the first row whose answer the catalogue does not hold."""
    if config.data:
        folder = config.data
        files = [folder / "sft" / f"{config.split}.json", folder / "id2sid.json"]
        rows_file = folder / "rows" / f"{config.split}.json"
        if rows_file.is_file():
            files.append(rows_file)
        elif config.exclude_seen:
            raise FileNotFoundError(
                f"{rows_file} is missing, and --exclude_seen needs its histories; preprocess again"
            )
        catalog, contract = load_catalog(folder), read_contract(folder)
    else:
        folder = config.test_file.parent
        files = [config.test_file, index_of(config)]
        catalog, contract = Catalog(sids=read_index(files[1])), None
    rows = read_asked_rows(files[0], files[2] if len(files) > 2 else None, config.limit)
    texts = {join_sid(sid) for sid in catalog.items_of}
    for i, row in enumerate(rows):
        sid = join_sid(catalog.sids.get(row.target, ())) if row.target is not None else row.target_sid
        if sid != row.target_sid or row.target_sid and row.target_sid not in texts:
            raise UserError(
                f"{files[0]}: row {i} answers {row.target_sid!r}, which {files[1]} does not give to item "
                f"{row.target!r}; the two are from different catalogues, build the data again"
            )
    return TestSet(rows, catalog, contract, folder, files)


def index_of(config: EvaluateConfig) -> Path:
    """--index, or C/id2sid.json for C/sft/test.json. Raises FileNotFoundError where there is none."""
    if config.index:
        return config.index
    index = config.test_file.absolute().parent.parent / "id2sid.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"{index} is missing, so nothing tells which SIDs the rows of {config.test_file} are from; name their "
            f"id2sid.json by --index (evaluate.sh: index_path)"
        )
    return index


def compare_contracts(test: TestSet, checkpoint: Path) -> dict[str, Any]:
    """What metrics.json says about wording. Raises UserError if data and checkpoint write prompts differently."""
    of_data, of_checkpoint = test.contract, read_contract(checkpoint)
    note = None
    if of_data is None or of_checkpoint is None:
        lacking = [
            str(folder)
            for folder, contract in ((test.folder, of_data), (checkpoint, of_checkpoint))
            if contract is None
        ]
        note = f"no {CONTRACT_FILE} in {' and '.join(lacking)}: nothing shows that training asked in these words"
    else:
        check_same(of_data, of_checkpoint, test.folder, checkpoint)
        if of_data.wording == "classic":
            note = "classic wording: test rows are worded differently from train rows, as in the original files"
    if note:
        logger.warning(note)
    return {"data": of_data and of_data.hash, "checkpoint": of_checkpoint and of_checkpoint.hash, "note": note}


def load(config: EvaluateConfig, test: TestSet) -> MIMIGenRec:
    """The model on its device, with the catalogue of the data."""
    gpus = torch.cuda.device_count()
    default = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}" if gpus else "cpu"
    device = choose_device(config.device or default)
    tokenizer = proven_tokenizer(config.model)
    for contract, folder in ((read_contract(config.model), config.model), (test.contract, test.folder)):
        if contract is not None:
            check_template(contract, tokenizer, folder)
    model = load_model(config.model, config.dtype, config.base).to(device)
    contract = read_contract(config.model) or test.contract or Contract.of("classic", tokenizer)
    return MIMIGenRec(model, tokenizer, test.catalog, contract, config.model)


def encode_prompts(recommender: MIMIGenRec, test: TestSet) -> list[list[int] | None]:
    """Token ids per row; None for a history that holds no item with a SID. Too long a prompt raises UserError."""
    longest = getattr(recommender.model.config, "max_position_embeddings", None)
    room = longest and longest - recommender.trie.depth - 1
    encoded = prompt_ids(recommender.tokenizer, [row.prompt for row in test.rows], max_length=room)
    return [
        ids if row.history is None or any(item in test.catalog.sids for item in row.history) else None
        for row, ids in zip(test.rows, encoded, strict=True)
    ]


def checkpoint_files(checkpoint: Path, base: str | None = None) -> list[Path]:
    """What the scores depend on; with an adapter, its base's too where that is a folder."""
    folders = [checkpoint]
    if is_adapter(checkpoint):
        folders.append(Path(base_place(checkpoint, base)))
    return [path for folder in folders for pattern in CHECKPOINT_FILES for path in sorted(folder.glob(pattern))]


def timing(recommender: MIMIGenRec, predicted: int, world: int, seconds: float) -> dict[str, Any]:
    """predicted: rows that this process (of `world` with equal shares) predicted in this start."""
    device = recommender.model.device
    cuda = device.type == "cuda"
    return {
        "seconds": round(seconds, 2),
        "rows_per_second": round(predicted * world / seconds, 2),
        "processes": world,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "peak_memory_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if cuda else None,
        "dtype": str(recommender.model.dtype).removeprefix("torch."),
    }


if __name__ == "__main__":
    first = os.environ.get("RANK", "0") == "0"  # warnings once, not once per process
    logging.basicConfig(level=logging.INFO if first else logging.ERROR)
    start(main, EvaluateConfig)
