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

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimigenrec.cli import arg, parse
from mimigenrec.files import write_json, writing
from mimigenrec.interactions.amazon import read_amazon
from mimigenrec.interactions.columns import row_blocks, user_blocks
from mimigenrec.interactions.events import Item, Log, instant, pl
from mimigenrec.interactions.imported import read_rows, read_sequences
from mimigenrec.interactions.inter_file import write_inter_blocks
from mimigenrec.interactions.json_lines import BadLines
from mimigenrec.interactions.leakage import check_leakage
from mimigenrec.interactions.movielens import read_movielens
from mimigenrec.interactions.published import read_published
from mimigenrec.interactions.recbole import read_recbole
from mimigenrec.interactions.sequences import Rules, Sequences, make_sequences
from mimigenrec.interactions.splits import split_rows
from mimigenrec.interactions.table import Columns, read_tables
from mimigenrec.manifest import make_manifest

NO_TEXT: Item = {"title": "", "description": "", "brand": "", "categories": ""}


@dataclass
class InteractionsConfig:
    """Raw logs -> item.json, item2id, user2id, review.json, inter.json and the .inter files of one data set."""

    source: Literal["amazon", "movielens", "recbole", "table", "rows", "sequences", "mimigenrec"] = arg(
        "what the files are; rows: MiniOneRec's CSV or .inter files; sequences: C.inter.json of MIMIGenRec or LC-Rec; "
        "mimigenrec: its published rl/*.json"
    )
    interactions: list[Path] = arg("files of interactions, in order")
    category: str = arg("name of the data set, the first part of its file names")
    output_dir: Path = arg("folder to write; the data set gets a folder of its name in it")
    items: list[Path] = arg("files of item texts; without them items have no text", factory=list)
    user_k: int = arg("interactions that a user must have (k-core with --item_k); 0 or 1: any", default=5)
    item_k: int = arg("interactions that an item must have", default=5)  # both as in MIMIGenRec's recipes
    since: str | None = arg("first time that counts, UTC: 2016, 2016-10, 2016-10-03 or ISO", default=None)
    until: str | None = arg("first time that does not count, UTC", default=None)
    min_rating: float | None = arg("ratings below this are no interaction", default=None)
    duplicates: Literal["keep", "exact", "first", "last"] = arg(
        "keep all; exact: one per user, item and time; first or last: one per user and item", default="keep"
    )  # as MiniOneRec and MIMIGenRec
    ties: Literal["line", "shuffle"] = arg("order within one instant: of the lines, or drawn", default="line")
    require_title: bool = arg("leave out items without a title, where --items is given", default=True)
    max_title_words: int = arg("leave out items with a longer title; 0: no limit", default=0)
    split: Literal["time", "leave_one_out"] = arg("how rows become train, valid and test", default="time")
    ratio: list[int] = arg("parts of train, valid and test, for --split time", factory=lambda: [8, 1, 1])
    history: int = arg("items of a history that are written, the latest ones; 0: all", default=10)
    ids: Literal["new", "given"] = arg("number users and items anew, or keep raw ids that are numbers", default="new")
    max_bad_lines: int = arg("lines that may be unreadable before the run stops", default=0)
    id2sid: Path | None = arg("id2sid.json of --source mimigenrec", default=None)
    seed: int = arg("for --ties shuffle", default=42)


def main(config: InteractionsConfig, columns: Columns) -> None:
    if len(config.ratio) != 3 or min(config.ratio) < 1:
        raise ValueError(f"--ratio takes three numbers of at least 1, train valid test, found {config.ratio}")
    if config.source == "sequences" and config.split == "time":
        raise ValueError("C.inter.json has no times, only an order within each user; use --split leave_one_out")
    bad = BadLines(config.max_bad_lines)
    log = read(config, columns, bad)
    counts: dict[str, int] = {}
    texts = log.items(None if config.ids == "given" else set(log.events.items))
    sequences = make_sequences(log.events, rules(config, texts, log, counts), counts)
    user_ids, item_ids = (sequences.users, sequences.items) if config.ids == "given" else new_ids(sequences)
    catalogue = in_order(sequences.items, item_ids, texts, config)
    rows = split_rows(sequences, config.split, config.ratio)

    folder = config.output_dir / config.category
    stem = f"{folder}/{config.category}"
    write_ids(f"{stem}.user2id", sequences.users, user_ids)
    write_ids(f"{stem}.item2id", *(catalogue, catalogue) if config.ids == "given" else (sequences.items, item_ids))
    write_items(f"{stem}.item.json", catalogue)
    write_sequences(f"{stem}.inter.json", sequences, user_ids, item_ids)
    counts["reviews"] = write_reviews(f"{stem}.review.json", log, sequences, user_ids, item_ids)
    hashes = {}
    for split, part in rows.items():
        hashes[split] = write_split(f"{stem}.{split}.inter", sequences, part, config.history, user_ids, item_ids)
        counts[f"rows_{split}"] = len(part)
    counts |= {"items_in_catalogue": len(catalogue), "bad_lines": bad.count} | log.notes
    leakage = check_leakage(sequences, rows, config.history, hashes)
    both = asdict(config) | {name: value for name, value in asdict(columns).items() if value is not None}
    write_json(
        f"{stem}.interactions.json", make_manifest(both, log.inputs, config.seed, counts=counts, leakage=leakage)
    )
    print_report(stem, counts, leakage)


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
            return read_rows(*files)
        case "sequences":
            return read_sequences(*files)
        case "mimigenrec":
            return read_published(*files, config.id2sid)


def rules(config: InteractionsConfig, texts: dict[str, Item], log: Log, counts: dict[str, int]) -> Rules:
    """The window in ms, and which items have a text that will do; counts those that have none."""
    allowed = None
    if config.items and config.require_title:
        allowed = {name for name, item in texts.items() if title_will_do(item["title"], config.max_title_words)}
        met = log.events.items
        counts["items_without_metadata"] = sum(name not in texts for name in met)
        counts["items_without_title"] = sum(name in texts and not texts[name]["title"] for name in met)
        counts["items_with_title_too_long"] = sum(
            name in texts and name not in allowed and bool(texts[name]["title"]) for name in met
        )
    since, until = (instant(text) if text else None for text in (config.since, config.until))
    if since is not None and until is not None and since >= until:
        raise ValueError(f"--since {config.since} is not before --until {config.until}")
    return Rules(
        since=since,
        until=until,
        min_rating=config.min_rating,
        items=allowed,
        duplicates=config.duplicates,
        user_k=config.user_k,
        item_k=config.item_k,
        ties=config.ties,
        seed=config.seed,
    )


def title_will_do(title: str, max_words: int) -> bool:
    return bool(title) and (not max_words or len(title.split()) <= max_words)


def new_ids(sequences: Sequences) -> tuple[list[str], list[str]]:
    return tuple([str(i) for i in range(len(names))] for names in (sequences.users, sequences.items))


def in_order(names: list[str], ids: list[str], texts: dict[str, Item], config: InteractionsConfig) -> dict[str, Item]:
    """item.json: id -> texts, id 0 first, so that row i of an embedding file is item i.

    With ids given, the catalogue is all items that have a text, interacted with or not. Raises ValueError unless its
    ids are then 0 to n - 1, and numbers altogether.
    """
    if config.ids == "new":
        return {new: texts.get(name, NO_TEXT) for new, name in zip(ids, names, strict=True)}
    known = {**dict.fromkeys(names, NO_TEXT), **texts}
    wrong = [name for name in known if not name.isdecimal() or str(int(name)) != name]
    found = repr(wrong[0]) if wrong else "gaps"
    if wrong or max(map(int, known)) != len(known) - 1:
        raise ValueError(
            f"--ids given needs item ids 0 to {len(known) - 1}, all of them; found {found}. Use --ids new"
        )
    return {str(i): known[str(i)] for i in range(len(known))}


def write_ids(path: str, names: Iterable[str], ids: Iterable[str]) -> None:
    with writing(path) as out:
        out.writelines(f"{name}\t{new}\n" for name, new in zip(names, ids, strict=True))


def write_items(path: str, catalogue: dict[str, Item]) -> None:
    with writing(path) as out:
        between = "{\n"
        for item, texts in catalogue.items():
            out.write(f"{between}{json.dumps(item)}: {json.dumps(texts, ensure_ascii=False)}")
            between = ",\n"
        out.write("\n}\n")


def write_sequences(path: str, sequences: Sequences, user_ids: list[str], item_ids: list[str]) -> None:
    with writing(path) as out:
        between = "{\n"
        for users, texts in user_blocks(sequences, arrow(user_ids), arrow(item_ids)):
            for user, items in zip(users, texts, strict=True):
                out.write(f"{between}{json.dumps(user)}: [{items}]")
                between = ",\n"
        out.write("\n}\n")


def write_reviews(path: str, log: Log, sequences: Sequences, user_ids: list[str], item_ids: list[str]) -> int:
    """Returns how many. The source is read again, so memory holds no text; the first review of a key is kept."""
    place = np.full(len(log.events.frame), -1, dtype=np.int64)
    place[sequences.line] = np.arange(len(sequences.line))
    written: set[str] = set()
    with writing(path) as out:
        out.write("{")
        for at, (review, summary) in zip(place, log.reviews() if log.reviews else (), strict=bool(log.reviews)):
            if at < 0 or not (review or summary):
                continue
            user, item = user_ids[sequences.user[at]], item_ids[sequences.item[at]]
            key = f"({user}, {item}, {sequences.time[at] // 1000})"
            if key not in written:
                out.write(",\n" if written else "\n")
                out.write(
                    f"{json.dumps(key)}: {json.dumps({'review': review, 'summary': summary}, ensure_ascii=False)}"
                )
                written.add(key)
        out.write("\n}\n")
    return len(written)


def write_split(
    path: str, sequences: Sequences, rows: np.ndarray, history: int, user_ids: list[str], item_ids: list[str]
) -> np.ndarray:
    """(rows,) uint64: one number per history, equal where histories are equal."""
    hashes = []

    def blocks():
        for users, histories, targets in row_blocks(sequences, rows, history, arrow(user_ids), arrow(item_ids)):
            hashes.append(pl.Series(histories).hash(seed=0).to_numpy())
            yield users, histories, targets

    write_inter_blocks(path, blocks())
    return np.concatenate(hashes)


def arrow(names: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(names, pa.string())


def print_report(stem: str, counts: dict[str, int], leakage: dict[str, Any]) -> None:
    print(f"{stem}.*: what was read, left out and written")
    for name, value in (counts | leakage).items():
        print(f"  {name.replace('_', ' '):<40} {value:>12,}")


if __name__ == "__main__":
    main(*parse(InteractionsConfig, Columns))
