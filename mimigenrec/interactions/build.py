"""Raw logs -> who had what, in which order: the files that every later stage starts from.

    O/C/C.item2id, C.user2id            raw id <tab> id, one a line
        C.item.json                     {"17": {"title", "description", "brand", "categories"}, ...}
        C.inter.json                    {"3": [17, 4, ...], ...}          user -> items, oldest first
        C.review.json                   {"(3, 17, 1529193600)": {"review", "summary"}, ...}
                                        keys are user, item and second, as MIMIGenRec writes them; {} without texts
        C.{train,valid,test}.inter      see inter_file.py
        C.interactions.json             config, hashes, counts of every rule, leakage check; written last

Every rule is stated in sequences.py (what stays, in which order), item_texts.py (texts) and splits.py (rows).
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.interactions.amazon import read_amazon
from mimigenrec.interactions.events import Item, Log, check_ids, instant
from mimigenrec.interactions.imported import read_sequences
from mimigenrec.interactions.json_lines import BadLines
from mimigenrec.interactions.leakage import check_leakage
from mimigenrec.interactions.movielens import read_movielens
from mimigenrec.interactions.names import check_category
from mimigenrec.interactions.published import read_published
from mimigenrec.interactions.recbole import read_recbole
from mimigenrec.interactions.rows import read_rows
from mimigenrec.interactions.sequences import Rules, Sequences, make_sequences
from mimigenrec.interactions.splits import history_starts, split_rows
from mimigenrec.interactions.table import Columns, read_tables
from mimigenrec.interactions.times import as_text
from mimigenrec.interactions.write import write_ids, write_items, write_reviews, write_sequences, write_split
from mimigenrec.manifest import check_same_run, make_manifest

logger = logging.getLogger(__name__)

TAKES = {  # source -> which of the flags in Columns it reads; the others have fixed names
    "table": {one.name for one in fields(Columns)} - {"history_column"},
    "recbole": {one.name for one in fields(Columns)} - {"history_column"},
    "rows": {"user_column", "item_column", "history_column", "time_column", "time_unit", "time_format", "separator"}
    | {"header"},
}
WRITES = "user2id item2id item.json inter.json review.json train.inter valid.inter test.inter".split()
FREE = ("interactions", "items", "id2sid", "output_dir", "overwrite")  # the files are known by their hashes
NO_TEXT: Item = {"title": "", "description": "", "brand": "", "categories": ""}


@dataclass
class InteractionsConfig:
    """Raw logs -> item.json, item2id, user2id, review.json, inter.json and the .inter files of one data set."""

    source: Literal["amazon", "movielens", "recbole", "table", "rows", "sequences", "mimigenrec"] = arg(
        "what the files are; rows: MiniOneRec's CSV, .inter files or any table of histories and targets; sequences: "
        "C.inter.json of MIMIGenRec or LC-Rec, "
        "C.txt(.gz) of S3-Rec or P5; mimigenrec: its published rl/*.json"
    )
    interactions: list[Path] = arg("files of interactions, in order")
    category: str = arg("name of the data set, the first part of its file names")
    output_dir: Path = arg("folder to write; the data set gets a folder of its name in it")
    items: list[Path] = arg("files of item texts; without them items have no text", factory=list)
    user_k: int = arg("fewest interactions of a user (k-core with --item_k); 0 or 1: any", default=5, least=0)
    item_k: int = arg("fewest interactions of an item", default=5, least=0)  # both as in MIMIGenRec's recipes
    since: str | None = arg("ignore events before this time, UTC: 2016, 2016-10, 2016-10-03 or ISO", default=None)
    until: str | None = arg("ignore events from this time on, UTC", default=None)
    min_rating: float | None = arg("ignore ratings below this", default=None)
    duplicates: Literal["keep", "exact", "first", "last"] = arg(
        "keep all; exact: one per user, item and time; first or last: one per user and item", default="keep"
    )  # as MiniOneRec and MIMIGenRec
    ties: Literal["line", "shuffle"] = arg("order within one instant: of the lines, or drawn", default="line")
    require_title: bool = arg("leave out items without a title, where --items is given", default=True)
    max_title_words: int = arg("leave out items with a longer title; 0: no limit", default=0, least=0)
    split: Literal["time", "leave_one_out", "given"] = arg(
        "how rows become train, valid and test; given: as in the three files of --source rows or mimigenrec",
        default="time",
    )
    ratio: list[int] = arg("parts of train, valid and test, for --split time", factory=lambda: [8, 1, 1], least=1)
    history: int = arg("items of a history that are written, the latest ones; 0: all", default=10, least=0)
    ids: Literal["new", "given"] = arg("number users and items anew, or keep raw ids that are numbers", default="new")
    max_bad_lines: int = arg("most unreadable lines before the run stops", default=0, least=0)
    id2sid: Path | None = arg("id2sid.json of --source mimigenrec", default=None)
    seed: int = arg("random seed of --ties shuffle", default=42, least=0, most=2**32 - 1)
    overwrite: bool = arg("replace files of these names that are there already", default=False)


def main(config: InteractionsConfig, columns: Columns) -> None:
    check_flags(config, columns)
    since, until = window(config)
    stem = f"{config.output_dir / config.category}/{config.category}"
    flags = asdict(config) | {name: value for name, value in asdict(columns).items() if value is not None}
    if is_finished(stem, flags, config):
        print(f"{stem}.* are finished: nothing to do; --overwrite makes them anew")
        return
    bad = BadLines(config.max_bad_lines)
    log = read(config, columns, bad)
    check_ids(log)
    counts: dict[str, int] = {}
    texts = log.items(None if config.ids == "given" else set(log.events.items))
    rules = Rules(
        since=since,
        until=until,
        min_rating=config.min_rating,
        items=items_that_may_stay(config, texts, log.events.items, counts),
        duplicates=config.duplicates,
        user_k=config.user_k,
        item_k=config.item_k,
        ties=config.ties,
        seed=config.seed,
    )
    sequences = make_sequences(log.events, rules, counts)
    user_ids, item_ids = (sequences.users, sequences.items) if config.ids == "given" else new_ids(sequences)
    if config.ids == "given":
        check_given_users(user_ids)
    catalogue = in_order(sequences.items, item_ids, texts, config)
    rows = split_rows(sequences, config.split, config.ratio, log.given)

    report, mark = Path(f"{stem}.interactions.json"), unfinished(stem)
    write_json(mark, {"command": "interactions"})
    report.unlink(missing_ok=True)  # an old report never stands beside half of the new files
    write_ids(f"{stem}.user2id", sequences.users, user_ids)
    if config.ids == "given":  # the ids of the whole catalogue, items without an interaction too
        write_ids(f"{stem}.item2id", catalogue, catalogue)
    else:
        write_ids(f"{stem}.item2id", sequences.items, item_ids)
    write_items(f"{stem}.item.json", catalogue)
    write_sequences(f"{stem}.inter.json", sequences, user_ids, item_ids)
    counts["reviews"] = write_reviews(f"{stem}.review.json", log, sequences, user_ids, item_ids)
    hashes = {}
    for split, part in rows.items():
        hashes[split] = write_split(f"{stem}.{split}.inter", sequences, part, config.history, user_ids, item_ids)
        counts[f"rows_{split}"] = len(part)
    counts |= {"items_in_catalogue": len(catalogue), "bad_lines": bad.count}
    counts |= {"lines_with_half_a_character": bad.half_characters} | log.notes
    if config.split == "given" and config.history:
        warn_of_cut_histories(sequences, rows, config.history)
    leakage = check_leakage(sequences, rows, config.history, hashes, log.has_times, config.split == "given")
    times = {"first": None, "last": None}
    if log.has_times:
        times = {"first": as_text(int(sequences.time.min())), "last": as_text(int(sequences.time.max()))}
    facts = {"command": "interactions", "counts": counts, "leakage": leakage, "times": times}
    write_json(report, make_manifest(flags, log.inputs, config.seed, **facts))
    mark.unlink(missing_ok=True)
    print_report(stem, counts, leakage, times)


def is_finished(stem: str, flags: dict[str, Any], config: InteractionsConfig) -> bool:
    """Whether all files of this run are there.

    Raises UserError, unless they are to be overwritten, for those of other flags or data, and for files of these names
    that nothing says the command wrote.
    """
    report, outputs = Path(f"{stem}.interactions.json"), [Path(f"{stem}.{end}") for end in WRITES]
    there = [path for path in outputs if path.is_file()]
    inputs = [*config.interactions, *config.items, *([config.id2sid] if config.id2sid else [])]
    if both := {path.resolve() for path in outputs} & {path.resolve() for path in inputs}:
        raise UserError(f"{both.pop()} is read, and would be written over; take another --output_dir or --category")
    if config.overwrite or not there or unfinished(stem).is_file():
        return False
    if not report.is_file():
        raise UserError(
            f"{there[0]} is there, and no {report.name} beside it tells what wrote it; take another --output_dir, or "
            f"--overwrite to replace it"
        )
    before = read_json(report, made_by="mimigenrec interactions", kind=dict)
    check_same_run(f"{stem}.*", before, make_manifest(flags, inputs, config.seed), FREE, "--overwrite")
    return len(there) == len(outputs)


def warn_of_cut_histories(sequences: Sequences, rows: Mapping[str, np.ndarray], history: int) -> None:
    """A split that is kept as it is should keep its histories too."""
    every = np.concatenate(list(rows.values()))
    longest = every - history_starts(sequences, every, 0)
    if cut := int((longest > history).sum()):
        logger.warning(
            "%d of %d rows have a longer history than the --history %d that is written, up to %d items; --history 0 "
            "writes all",
            cut,
            len(every),
            history,
            longest.max(),
        )


def unfinished(stem: str) -> Path:
    """What stands beside the files while they are written."""
    return Path(f"{stem}.unfinished.json")


def read(config: InteractionsConfig, columns: Columns, bad: BadLines) -> Log:
    files = config.interactions, config.items
    match config.source:
        case "amazon":
            return read_amazon(*files, bad)
        case "movielens":
            return read_movielens(*files, bad)
        case "recbole":
            return read_recbole(*files, columns, bad)
        case "table":
            return read_tables(*files, columns, bad)
        case "rows":
            return read_rows(*files, columns, bad, config.split == "given")
        case "sequences":
            return read_sequences(*files)
        case "mimigenrec":
            return read_published(*files, config.id2sid, config.split == "given")


def check_flags(config: InteractionsConfig, columns: Columns) -> None:
    """Raises UserError for flags that the source does not read, or that mean nothing for it."""
    check_category(config.category)
    if len(config.ratio) != 3 or min(config.ratio) < 1:
        raise UserError(f"--ratio takes three numbers of at least 1, train valid test, found {config.ratio}")
    if config.max_title_words and not config.items:
        raise UserError("--max_title_words needs titles: name the files that hold them with --items")
    source = config.source
    if unread := [name for name in columns.given() if name not in TAKES.get(source, ())]:
        other = "rows" if unread[0] == "history_column" else "table"
        raise UserError(f"--source {source} does not read --{unread[0]}; leave it out, or take --source {other}")
    if config.id2sid and source != "mimigenrec":
        raise UserError(f"--source {source} does not read --id2sid; leave it out, or take --source mimigenrec")
    if config.split == "given" and (source not in ("rows", "mimigenrec") or len(config.interactions) != 3):
        raise UserError(
            f"--split given keeps the rows of three files, train valid test in this order, of --source rows or "
            f"mimigenrec; found {len(config.interactions)} of --source {source}"
        )
    if config.split == "given" and config.ties == "shuffle":
        raise UserError("--split given keeps the order of the files, and --ties shuffle draws another; leave one out")
    if source in ("amazon", "movielens", "recbole", "table") or columns.time_column:
        return
    if source == "sequences" and config.split == "time":
        raise UserError("C.inter.json has no times, only an order within each user; use --split leave_one_out")
    for flag, needed in (
        ("--ties shuffle", config.ties == "shuffle"),
        ("--duplicates exact", config.duplicates == "exact"),
        ("--since", config.since is not None),
        ("--until", config.until is not None),
    ):
        if needed:
            more = "; leave it out" + ", or name --time_column" * (source == "rows")
            raise UserError(f"{flag} needs times, and --source {source} has none, but the order of its lines{more}")


def window(config: InteractionsConfig) -> tuple[int | None, int | None]:
    """In ms. Raises UserError for what is no time, and for an empty window."""
    since, until = (
        instant(text, f"--{name}") if text else None
        for name, text in (("since", config.since), ("until", config.until))
    )
    if since is not None and until is not None and since >= until:
        raise UserError(f"--since {config.since} is not before --until {config.until}")
    return since, until


def items_that_may_stay(
    config: InteractionsConfig, texts: dict[str, Item], met: list[str], counts: dict[str, int]
) -> set[str] | None:
    """Raw ids of items with a title that will do, None for all; counts the others among those met in events.

    --no_require_title keeps an item without a title; one with a title that is too long goes all the same.
    """
    if not config.items or not (config.require_title or config.max_title_words):
        return None
    words = {name: len(texts[name]["title"].split()) for name in met if name in texts}
    longest = config.max_title_words or max(words.values(), default=0)
    counts["items_without_metadata"] = len(met) - len(words)
    counts["items_without_title"] = sum(n == 0 for n in words.values())
    counts["items_with_title_too_long"] = sum(n > longest for n in words.values())
    least = 1 if config.require_title else 0
    return {name for name in met if least <= words.get(name, 0) <= longest}


def new_ids(sequences: Sequences) -> tuple[list[str], list[str]]:
    return tuple([str(i) for i in range(len(names))] for names in (sequences.users, sequences.items))


def check_given_users(user_ids: list[str]) -> None:
    if spaced := next((name for name in user_ids if re.search(r"\s", name)), None):
        raise UserError(f"--ids given needs user ids without white space, found {spaced!r}. Use --ids new")


def in_order(names: list[str], ids: list[str], texts: dict[str, Item], config: InteractionsConfig) -> dict[str, Item]:
    """item.json: id -> texts, id 0 first, so that row i of an embedding file is item i.

    With ids given, the catalogue is all items that have a text, interacted with or not. Raises UserError unless its
    ids are then 0 to n - 1, and numbers altogether.
    """
    if config.ids == "new":
        return {new: texts.get(name, NO_TEXT) for new, name in zip(ids, names, strict=True)}
    known = {**dict.fromkeys(names, NO_TEXT), **texts}
    wrong = [name for name in known if not re.fullmatch("0|[1-9][0-9]{0,17}", name)]
    fault = repr(wrong[0]) if wrong else "gaps"
    if wrong or max(map(int, known)) != len(known) - 1:
        raise UserError(f"--ids given needs item ids 0 to {len(known) - 1}, all of them; found {fault}. Use --ids new")
    return {str(i): known[str(i)] for i in range(len(known))}


def print_report(stem: str, counts: dict[str, int], leakage: dict[str, Any], times: dict[str, str | None]) -> None:
    print(f"{stem}.*: what was read, left out and written")
    shown = counts | {f"{name}_time": value for name, value in times.items()} | leakage
    for name, value in shown.items():
        text = "not known, the source has no times" if value is None else value
        print(f"  {name.replace('_', ' '):<40} {text:>12{'' if isinstance(text, str) else ','}}")


if __name__ == "__main__":
    start(main, InteractionsConfig, Columns)
