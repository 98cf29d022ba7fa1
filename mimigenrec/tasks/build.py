"""Interactions, item texts and SIDs -> SFT rows and RL rows: which task feeds which file, how many, in which order.

    D/C/C.{train,valid,test}.inter  C.item.json  C.index.json     (or the same files in D itself)
    -> O/new_tokens.json id2sid.json items.json prompt_contract.json manifest.json
       O/sft/{train,valid,test}.json  O/rl/{train,valid,test}.json  O/rows/{valid,test}.json    (see tasks/rows.py)
       and <C>_train, <C>_valid, <C>_test in dataset_info.json of the folder above O

Rows of train and valid whose target has no SID, or whose history holds no item with a SID, are left out and counted.
In test they stay, with "" for the missing answer or history: they count as misses. Items of a history without a SID
are not written into prompts; rows/ lists histories as they are in the .inter. manifest.json is written last.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from mimigenrec.catalog import Catalog, add_fields, write_items
from mimigenrec.chat import Kind
from mimigenrec.claim import begin_folder, claim_folder, finish_folder
from mimigenrec.cli import arg, check_ranges, start
from mimigenrec.contract import Contract, proven_tokenizer
from mimigenrec.errors import UserError
from mimigenrec.files import write_json_rows
from mimigenrec.hub import is_folder
from mimigenrec.interactions.inter_file import raw_file, read_inter
from mimigenrec.interactions.names import check_category
from mimigenrec.manifest import make_manifest
from mimigenrec.rendering import check_rendering
from mimigenrec.sids.tokens import Sid, distinct_tokens, read_index, split_sid, write_index, write_new_tokens
from mimigenrec.tasks import describe_item, item_text, next_title, sid_history, title_history
from mimigenrec.tasks.clean import read_texts
from mimigenrec.tasks.lengths import Lengths
from mimigenrec.tasks.longest import longest
from mimigenrec.tasks.register import check_entries, register, split_files
from mimigenrec.tasks.rows import to_chat_row, to_rl_row, to_sft_row, to_user_row
from mimigenrec.tasks.shuffle import subsample, write_shuffled
from mimigenrec.tasks.usable import survey, usable

SPLITS = ("train", "valid", "test")
SFT_TASKS = (sid_history, item_text, next_title)
RL_TASKS = (sid_history, title_history, describe_item)
COMMAND = "preprocess"
FREE = ("raw", "data_dir", "output_dir", "overwrite")  # the files in the raw folder are compared
LAST = ("rows/valid.json", "rows/test.json")  # written behind all others
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model")
# special tokens of the chat models that people start from; those of --tokenizer come on top
SPECIAL = (
    "<|im_start|> <|im_end|> <|endoftext|> <|begin_of_text|> <|end_of_text|> <|eot_id|> <|eom_id|> "
    "<|start_header_id|> <|end_header_id|> <|end|> <|user|> <|assistant|> <|system|> <start_of_turn> <end_of_turn>"
).split()
TASKS = {task.NAME: task for task in (*SFT_TASKS, *RL_TASKS)}


@dataclass
class BuildConfig:
    """Interactions and SIDs -> SFT and RL rows, in the words of one prompt contract."""

    raw: Path = arg(
        "folder of C/C.train.inter and the rest, or of C.train.inter itself; C is --category", aliases=["data_dir"]
    )
    category: str = arg("name of the data set, the first part of its file names")
    output_dir: Path = arg("folder to write; the folder above it gets the entries in dataset_info.json")
    # both defaults are MIMIGenRec's
    seq_sample: int = arg("most title histories (task4) that RL trains on; -1: all", default=10_000, least=-1)
    seed: int = arg(
        "order of the train rows, and which title histories are chosen", default=42, least=0, most=2**32 - 1
    )
    data_source: str | None = arg("what RL rows say they come from; the category if not given", default=None)
    tasks: list[str] = arg("tasks to train on; valid and test are task1_sid_sft always", factory=lambda: list(TASKS))
    # the benchmark's cut
    max_history: int = arg("items of a history that are written, the latest ones", default=10, least=1)
    max_text_chars: int = arg("characters of a title or description; longer ones end at a word", default=512, least=1)
    item_fields: list[str] | None = arg(
        "columns of item.json that items.json carries too, beside title, description, brand and categories",
        default=None,
    )
    sft_rows: Literal["all", "longest"] = arg(
        "which histories task1 trains SFT on: all, or the fewest that hold every item of a user; with LLaMA-Factory's "
        "train_on_prompt these teach the same at a fraction of the cost",
        default="all",
    )
    wording: Literal["contract", "compact", "classic"] = arg(
        "contract: one wording everywhere; compact: SIDs without sentences, for models from scratch; classic: the "
        "original MIMIGenRec sentences",
        default="contract",
    )
    row_format: Kind | None = arg(
        "how SFT rows are written: alpaca, with instruction, input and output, if not given; or messages, as chats, "
        "which LLaMA-Factory calls sharegpt and other trainers take as they are",
        default=None,
    )
    tokenizer: str | None = arg(
        "folder or name of a tokenizer: measures the rows and checks that LLaMA-Factory renders them the same",
        default=None,
    )
    template: str | None = arg(
        "LLaMA-Factory template that SFT will use; its parsed chat template if not given", default=None
    )
    overwrite: bool = arg(
        "replace earlier rows in output_dir, and take the category's names in dataset_info.json from other data",
        default=False,
    )


def main(config: BuildConfig) -> None:
    check(config)
    raw = find_raw(config.raw, config.category)
    out = Path(config.output_dir)
    now = manifest(config, raw)
    check_entries(out, split_files(config.category), config.overwrite)
    if not claim_folder(out, now, LAST, FREE, config.overwrite):
        if read_index(out / "id2sid.json") != read_index(raw["index.json"]):
            raise UserError(
                f"{out / 'id2sid.json'} is not {raw['index.json']} any more (sid-assign changes it): the rows of the "
                f"folder belong to the latter; --overwrite writes the folder anew"
            )
        register(out, split_files(config.category), config.row_format or "alpaca")
        return
    sids = read_index(raw["index.json"])
    catalog, text_counts = read_catalog(config, raw["item.json"], sids)
    row_counts = {split: survey(raw[f"{split}.inter"], catalog, catalog.known) for split in SPLITS}
    catalog.popularity = Counter(row.target for row in read_inter(raw["train.inter"]))
    tokenizer = tokenizer_with_sids(config.tokenizer, sids) if config.tokenizer else None
    contract = Contract.of(config.wording, tokenizer, config.max_history)
    lengths = Lengths(tokenizer) if tokenizer else None
    special = {*SPECIAL, *(tokenizer.all_special_tokens if tokenizer else [])}
    check_sid_names(raw["index.json"], sids, special)
    check_texts(raw["item.json"], catalog, special)
    if tokenizer:
        check_rendering(tokenizer, contract, config.template)

    begin_folder(out, now)
    write_index(out / "id2sid.json", sids)
    write_new_tokens(out / "new_tokens.json", sids)
    write_items(out / "items.json", catalog)
    contract.write(out)
    sample_counts = {}
    as_written = to_chat_row if config.row_format == "messages" else dict
    for file, rows, counts in sample_files(config, raw, catalog, contract):
        rows = lengths.measured(file, rows) if lengths else rows
        if file.startswith("sft/"):
            rows = map(as_written, rows)
        if file.endswith("train.json"):
            write_shuffled(out / file, rows, random.Random(f"{config.seed} {file}"))
        else:
            write_json_rows(out / file, rows)
        sample_counts[file] = counts
    for split in ("valid", "test"):
        histories = usable(raw[f"{split}.inter"], split, catalog)
        write_json_rows(out / f"rows/{split}.json", map(to_user_row, histories))
    if lengths:
        check_rendering(tokenizer, contract, config.template, map(as_written, lengths.sft_rows))
    info_file = register(out, split_files(config.category), config.row_format or "alpaca")
    facts = {
        "counts": {"rows": row_counts, "texts": text_counts, "samples": sample_counts},
        "contract_hash": contract.hash,
        "rendering": "as LLaMA-Factory's" if tokenizer else "not compared with LLaMA-Factory's: no --tokenizer given",
        "longest_tokens": lengths.longest if lengths else None,
    }
    finish_folder(out, {**now, **facts})
    report(out, info_file, row_counts, sample_counts, lengths)


def check(config: BuildConfig) -> None:
    """Raises UserError naming the flag whose value cannot be meant."""
    check_ranges(config)
    check_category(config.category)
    for task in config.tasks:
        if task not in TASKS:
            raise UserError(f"--tasks: {task!r} is not a task; choose from {', '.join(TASKS)}")
    if config.template and not config.tokenizer:
        raise UserError("--template needs --tokenizer: the comparison with LLaMA-Factory runs on its token ids")


def manifest(config: BuildConfig, raw: Mapping[str, Path]) -> dict[str, Any]:
    """All that the rows depend on. Raises UserError for a tokenizer that is neither a folder nor a hub name."""
    read = [*raw.values()]
    if config.tokenizer and is_folder(config.tokenizer, "--tokenizer"):
        read += [path for name in TOKENIZER_FILES if (path := Path(config.tokenizer, name)).is_file()]
    return make_manifest(config, read, config.seed, command=COMMAND)


def find_raw(raw: str | Path, category: str) -> dict[str, Path]:
    """{"train.inter": path, "item.json": path, ...}. Raises FileNotFoundError naming all that are missing."""
    if not Path(raw).is_dir():
        raise FileNotFoundError(
            f"--raw {raw} is not a folder; it must hold {category}/{category}.train.inter and the rest, as "
            f"`mimigenrec prepare` or data/amazon18_data_process.sh writes them"
        )
    names = (*(f"{split}.inter" for split in SPLITS), "item.json", "index.json")
    files = {name: raw_file(raw, category, name) for name in names}
    missing = [file for file in files.values() if not file.is_file()]
    if missing:
        first = missing[0].name
        raise FileNotFoundError(
            f"{missing[0].parent} lacks {', '.join(file.name for file in missing)}; --raw must be the folder that "
            f"holds {category}/{first}, or {first} itself"
        )
    return files


def read_catalog(config: BuildConfig, path: Path, sids: dict[str, Sid]) -> tuple[Catalog, Counter[str]]:
    """The catalogue without popularity, and how often each rule for texts was used."""
    items, titles, descriptions, counts = read_texts(path, config.max_text_chars)
    catalog = Catalog(sids, titles, descriptions, known=set(items))
    columns = config.item_fields or []
    check_columns(columns, items, path)
    add_fields(catalog, items, columns, path)
    return catalog, counts


def check_columns(columns: Collection[str], items: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Raises UserError for a column that no item has, or whose name has a meaning of its own in items.json."""
    names = {name for fields in items.values() for name in fields}
    for column in columns:
        if column == "popularity":
            raise UserError(
                "--item_fields popularity: items.json counts train rows under this name; rename the column"
            )
        if column not in names:
            raise UserError(f"--item_fields {column}: no item of {path} has it; it has {', '.join(sorted(names))}")


def check_sid_names(path: Path, sids: Mapping[str, Sid], special: Collection[str]) -> None:
    """Raises UserError naming a SID token that is a special token, which decoding drops."""
    for item, sid in sids.items():
        if tokens := [token for token in sid if token in special]:
            raise UserError(
                f"{path}: item {item!r} has {tokens[0]} in its SID, a special token of chat models, which decoding "
                f"drops; name SID tokens otherwise, for example <a_14>"
            )


def check_texts(path: Path, catalog: Catalog, special: Collection[str]) -> None:
    """Raises UserError naming the item whose text would be read as a SID, or as the end of the user's turn."""
    sid_tokens = {token for sid in catalog.sids.values() for token in sid}
    for name, texts in (("title", catalog.titles), ("description", catalog.descriptions)):
        for item, text in texts.items():
            tokens = [token for token in split_sid(text) if token in sid_tokens]
            tokens += [token for token in special if token in text]
            if tokens:
                raise UserError(
                    f"{path}: the {name} of item {item!r} holds {tokens[0]!r}, a token with a meaning of its own in a "
                    f"prompt; write it differently in the text"
                )


def tokenizer_with_sids(name: str, sids: dict[str, Sid]):
    """A tokenizer that knows the SIDs: they are added, in memory alone, to one that does not."""
    tokenizer = proven_tokenizer(name)
    tokenizer.add_tokens(distinct_tokens(sids))
    return tokenizer


def sample_files(
    config: BuildConfig, raw: dict[str, Path], catalog: Catalog, contract: Contract
) -> Iterator[tuple[str, Iterable[dict[str, Any]], Counter]]:
    """(file below O, its rows as they are made, samples by task: complete once the rows are used up)."""
    for split in SPLITS:
        path = raw[f"{split}.inter"]
        counts = Counter()
        yield f"sft/{split}.json", sft_rows(config, path, split, catalog, contract, counts), counts
        counts = Counter()
        yield f"rl/{split}.json", rl_rows(config, path, split, catalog, contract, counts), counts


def tasks_of(split: str, offered: Iterable[ModuleType], wanted: list[str]) -> list[ModuleType]:
    return [task for task in offered if task.NAME in wanted] if split == "train" else [sid_history]


def sft_rows(config: BuildConfig, path: Path, split: str, catalog: Catalog, contract: Contract, counts: Counter):
    for task in tasks_of(split, SFT_TASKS, config.tasks):
        histories = usable(path, split, catalog)
        if split == "train" and task is sid_history and config.sft_rows == "longest":
            histories = longest(list(histories), config.max_history)
        for sample in task.samples(histories, catalog, contract):
            counts[task.NAME] += 1
            yield to_sft_row(sample, contract, split)


def rl_rows(config: BuildConfig, path: Path, split: str, catalog: Catalog, contract: Contract, counts: Counter):
    source = config.data_source or config.category
    for task in tasks_of(split, RL_TASKS, config.tasks):
        samples = task.samples(usable(path, split, catalog), catalog, contract)
        if task is title_history and config.seq_sample >= 0:
            samples = subsample(samples, config.seq_sample, random.Random(f"{config.seed} {task.NAME}"))
        for index, sample in enumerate(samples):
            counts[task.NAME] += 1
            yield to_rl_row(sample, contract, split, task.NAME, task.ABILITY, source, index)


def report(out: Path, info_file: Path, row_counts: dict, sample_counts: dict, lengths: Lengths | None) -> None:
    for split, counts in row_counts.items():
        print(f"{split}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))
    for file, counts in sample_counts.items():
        longest = f"; longest {lengths.longest[file]['prompt_and_answer']} tokens" if lengths else ""
        print(f"{out / file}: " + ", ".join(f"{n} {task}" for task, n in counts.items()) + longest)
    print(f"registered in {info_file}")


if __name__ == "__main__":
    start(main, BuildConfig)
