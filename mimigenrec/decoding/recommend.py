"""`mimigenrec recommend`: a checkpoint and histories -> items.

--history 17,204,9                 one user, oldest first: prints a table
--users users.jsonl                {"user": "u1", "history": ["17", "204"]} a line, or an .inter file
--output recommendations.jsonl     {"user", "history", "items": [{"rank", "item", "sid", "title", "logp"}]} a line
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimigenrec.cli import arg, start
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import Recommendation, Support
from mimigenrec.errors import UserError
from mimigenrec.files import writing
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.sids.tokens import join_sid

log = logging.getLogger(__name__)


@dataclass
class RecommendConfig:
    """Items for one history or for many, from a checkpoint alone."""

    model: Path = arg("checkpoint of mimigenrec sft or grpo; holds id2sid.json beside the model")
    base: str | None = arg("of a LoRA adapter: where its base lies now, if not where it was trained", default=None)
    history: str | None = arg("item ids of one user, oldest first, separated by commas", default=None)
    users: Path | None = arg("many users: JSONL with user and history, or an .inter file", default=None)
    output: Path | None = arg("JSONL to write; without it a table is printed", default=None)
    k: int = arg("items for each user", default=10)
    beams: int | None = arg("width of the search; default: 50, or k if that is more", default=None)
    support: Support = arg("log-probabilities under the full vocabulary, or among the legal tokens", default="vocab")
    exclude_seen: bool = arg("leave out what is in the history", default=False)
    allow: Path | None = arg("file with the only item ids to recommend, one a line", default=None)
    deny: Path | None = arg("file with item ids never to recommend, one a line", default=None)
    batch_size: int = arg("prompts searched at once", default=8)
    device: str | None = arg("cpu, cuda, cuda:1; default: a GPU where there is one", default=None)


def main(config: RecommendConfig) -> None:
    if (config.history is None) == (config.users is None):
        raise UserError("give either --history or --users")
    users = [("", split_ids(config.history))] if config.history is not None else list(read_users(config.users))
    recommender = MIMIGenRec.from_pretrained(config.model, device=config.device, base=config.base)
    allow, deny = (read_ids(path, recommender.catalog.sids) for path in (config.allow, config.deny))
    answers = recommender.recommend(
        [history for _, history in users],
        k=config.k,
        beams=config.beams,
        exclude_seen=config.exclude_seen,
        allow=allow,
        deny=deny,
        support=config.support,
        batch_size=config.batch_size,
    )
    tables = [described(items, recommender.catalog.titles) for items in answers]
    if config.output is None:
        for (user, _), table in zip(users, tables, strict=True):
            print_table(user, table)
        return
    with writing(config.output) as out:
        for (user, history), table in zip(users, tables, strict=True):
            line = {"user": user, "history": history, "items": table}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def split_ids(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def read_users(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(user, history), from an .inter file (its targets are not looked at) or JSONL.

    Raises FileNotFoundError, and ValueError naming the line that is not {"user", "history": [item ids]}.
    """
    if path.suffix == ".inter":
        yield from ((row.user, list(row.items)) for row in read_inter(path))
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error
        history = row.get("history") if isinstance(row, dict) else None
        if not isinstance(history, list) or "user" not in row:
            raise UserError(f'{path}, line {number}: expected {{"user", "history": [item ids]}}, found {line[:120]}')
        yield str(row["user"]), [str(item) for item in history]


def read_ids(path: Path | None, known: Collection[str]) -> set[str] | None:
    """Item ids, one a line; those the catalogue does not know are counted in a warning. None for no file."""
    if path is None:
        return None
    ids = {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    strangers = sorted(ids.difference(known))
    if strangers:
        log.warning("%s: %d of %d item ids have no SID, %s first", path, len(strangers), len(ids), strangers[0])
    return ids


def described(items: Sequence[Recommendation], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"rank": rank, "item": r.item, "sid": join_sid(r.sid), "title": titles.get(r.item, ""), "logp": r.logp}
        for rank, r in enumerate(items, 1)
    ]


def print_table(user: str, table: list[dict[str, Any]]) -> None:
    if user:
        print(f"user {user}")
    item, sid = (max([len(name), *(len(row[name]) for row in table)]) for name in ("item", "sid"))
    print(f"rank  {'item':<{item}}  {'sid':<{sid}}  {'logp':>8}  title")
    for row in table:
        print(f"{row['rank']:>4}  {row['item']:<{item}}  {row['sid']:<{sid}}  {row['logp']:8.3f}  {row['title']}")


if __name__ == "__main__":
    start(main, RecommendConfig)
