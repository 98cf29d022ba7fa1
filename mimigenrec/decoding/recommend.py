"""`mimigenrec recommend`: a checkpoint and histories -> items.

--history 17,204,9                 one user, oldest first: prints a table
--users users.jsonl                {"user": "u1", "history": ["17", "204"]} a line, or an .inter file
--output recommendations.jsonl     {"user", "history", "items": [{"rank", "item", "sid", "title", "logp"}]} a line

Among many users some are new and some have items that the catalogue no longer holds. Such an item is left out of the
history that the model reads. A user of whom nothing is left gets what --unknown says, and a line with one key more:
"fallback" is "popular", with logp null, or "none", with no items.
"""

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mimigenrec.catalog import Catalog
from mimigenrec.cli import arg, start
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.model import MIMIGenRec
from mimigenrec.decoding.search import Recommendation, Support
from mimigenrec.errors import UserError
from mimigenrec.files import one_line, read_lines, writing
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.items import id_order
from mimigenrec.schema import check
from mimigenrec.sids.tokens import join_sid

# Control characters, line separators, and marks that turn the direction of what follows.
NOT_PRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

log = logging.getLogger(__name__)


@dataclass
class RecommendConfig:
    """Items for one history or for many, from a checkpoint alone."""

    model: Path = arg("checkpoint of mimigenrec sft or grpo; holds id2sid.json beside the model")
    base: str | None = arg("folder of a LoRA adapter's base, if it no longer lies where it was trained", default=None)
    history: str | None = arg("item ids of one user, oldest first, separated by commas", default=None)
    users: Path | None = arg("many users: JSONL with user and history, or an .inter file", default=None)
    unknown: Literal["popular", "skip", "error"] = arg(
        "what a user of --users gets whose history holds no item of the catalogue: the most popular items, or none. "
        "error: such a user, or an unknown item, stops the command",
        default="popular",
    )
    output: Path | None = arg("JSONL to write; without it a table is printed", default=None)
    k: int = arg("number of items per user", default=10, least=1)
    beams: int | None = arg("width of the search; default: 50, or k if that is more", default=None, least=1)
    support: Support | None = arg(
        "log-probabilities under the full vocabulary, or among the legal tokens; default: as the checkpoint was "
        "trained to rank",
        default=None,
    )
    exclude_seen: bool = arg("leave out the items of the history", default=False)
    allow: Path | None = arg("file with the only item ids to recommend, one per line", default=None)
    deny: Path | None = arg("file with item ids never to recommend, one per line", default=None)
    batch_size: int = arg("number of prompts per search", default=8, least=1)
    device: str | None = arg("cpu, cuda, cuda:1; default: a GPU where there is one", default=None)


USER = {"user": (str, int), "history": [(str, int)]}  # a line of --users


class User(NamedTuple):
    name: str
    history: list[str]
    place: str = ""  # "users.jsonl, line 3"


def main(config: RecommendConfig) -> None:
    if (config.history is None) == (config.users is None):
        raise UserError("give either --history or --users")
    single = config.history is not None
    users = [User("", split_ids(config.history))] if single else list(read_users(config.users))
    if not users:
        raise UserError(f"--users {config.users} holds no user; give one line per user")
    check_output(config.output)
    recommender = MIMIGenRec.from_pretrained(config.model, device=config.device, base=config.base)
    catalog = recommender.catalog
    allow, deny = (read_ids(path, catalog.sids) for path in (config.allow, config.deny))
    if allow is not None and allow.isdisjoint(catalog.sids):
        raise UserError(f"--allow {config.allow} holds no item with a SID, so nothing could be recommended")
    histories = [user.history for user in users]
    if not single:
        if config.unknown == "error":
            check_known(users, recommender)
        histories = [[item for item in history if item in catalog.sids] for history in histories]
        report_unknown(users, histories, recommender, config.unknown)
    asked = [place for place, history in enumerate(histories) if history or single]
    try:
        found = recommender.recommend(
            [histories[place] for place in asked],
            k=config.k,
            beams=config.beams,
            exclude_seen=config.exclude_seen,
            allow=allow,
            deny=deny,
            support=config.support,
            batch_size=config.batch_size,
        )
    except NotFinite as error:
        raise NotFinite(asked[error.row], error.step) from None
    answers = dict(zip(asked, (described(items, catalog.titles) for items in found), strict=True))
    lines = []
    for place, user in enumerate(users):
        line: dict[str, Any] = {"user": user.name, "history": user.history}
        if place in answers:
            line["items"] = answers[place]
        else:
            seen = user.history if config.exclude_seen else ()
            line["items"] = popular(catalog, config.k, allow, {*(deny or ()), *seen})
            if config.unknown == "skip":
                line["items"] = []
            line["fallback"] = "popular" if line["items"] else "none"
        lines.append(line)
    if config.output is None:
        for line in lines:
            print_table(line["user"], line["items"], line.get("fallback"))
        return
    with writing(config.output, "wb") as out:  # half a surrogate pair, which JSON may hold, stays an escape
        out.writelines(one_line(line).encode("utf-8", "backslashreplace") + b"\n" for line in lines)


def split_ids(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def read_users(path: Path) -> Iterator[User]:
    """Users of an .inter file (its targets are not looked at) or of JSONL.

    Raises FileNotFoundError, and UserError naming the line that is not {"user", "history": [item ids]}.
    """
    if path.suffix == ".inter":
        yield from (User(row.user, list(row.items), f"{path}, line {row.row + 2}") for row in read_inter(path))
        return
    for number, line in read_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{place}: not JSON ({error})") from error
        check(row, USER, place)
        yield User(str(row["user"]), [str(item) for item in row["history"]], place)


def check_output(path: Path | None) -> None:
    """Raises UserError if there is a file that an earlier `recommend` did not write."""
    if path is None or not path.exists():
        return
    with open(path, "rb") as handle:
        first = handle.readline(1 << 24)
    if first and not (first.startswith(b'{"user": ') and b'"items": [' in first):
        raise UserError(
            f"--output {path} holds something that `mimigenrec recommend` did not write; take another path"
        )


def check_known(users: Sequence[User], recommender: MIMIGenRec) -> None:
    """Raises UserError naming the first line with an item that the catalogue lacks, or without an item with a SID."""
    catalog = recommender.catalog
    for user in users:
        for item in user.history:
            if item not in catalog.sids and item not in catalog.titles:
                raise UserError(f"{user.place}: item {item!r} is not in the catalogue of {recommender.folder}")
        if not any(item in catalog.sids for item in user.history):
            raise UserError(f"{user.place}: the history of user {user.name!r} holds no item with a SID")


def report_unknown(
    users: Sequence[User], known: Sequence[Sequence[str]], recommender: MIMIGenRec, unknown: str
) -> None:
    """Counts in warnings what was left out of the histories, and of how many users nothing is left."""
    lost = [item for user in users for item in user.history if item not in recommender.catalog.sids]
    if lost:
        log.warning(
            "%d items of the histories are not in the catalogue of %s, or have no SID there, %r first; they are left "
            "out",
            len(lost),
            recommender.folder,
            lost[0],
        )
    empty = [user for user, history in zip(users, known, strict=True) if not history]
    if empty:
        has_counts = bool(recommender.catalog.popularity)
        given = "the most popular items" if unknown == "popular" and has_counts else "an empty list"
        why = "" if has_counts or unknown != "popular" else f": {recommender.folder} holds no items.json with counts"
        log.warning(
            "%d of %d users have no item of the catalogue in their history, %r first; they get %s%s",
            len(empty),
            len(users),
            empty[0].name,
            given,
            why,
        )


def popular(catalog: Catalog, k: int, allow: Collection[str] | None, deny: Collection[str]) -> list[dict[str, Any]]:
    """The k items that are most often the target of a train row, then by id; none where nothing was counted."""
    if not catalog.popularity:
        return []
    legal = [item for item in catalog.sids if (allow is None or item in allow) and item not in deny]
    legal.sort(key=lambda item: (-catalog.popularity.get(item, 0), id_order(item)))
    return [entry(rank, item, catalog.sids[item], catalog.titles, None) for rank, item in enumerate(legal[:k], 1)]


def read_ids(path: Path | None, known: Collection[str]) -> set[str] | None:
    """Item ids, one a line; those the catalogue does not know are counted in a warning. None for no file."""
    if path is None:
        return None
    ids = {line.strip() for _, line in read_lines(path) if line.strip()}
    strangers = sorted(ids.difference(known))
    if strangers:
        log.warning("%s: %d of %d item ids have no SID, %s first", path, len(strangers), len(ids), strangers[0])
    return ids


def described(items: Sequence[Recommendation], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    return [entry(rank, r.item, r.sid, titles, r.logp) for rank, r in enumerate(items, 1)]


def entry(rank: int, item: str, sid: Sequence[str], titles: Mapping[str, str], logp: float | None) -> dict[str, Any]:
    return {"rank": rank, "item": item, "sid": join_sid(sid), "title": titles.get(item, ""), "logp": logp}


def print_table(user: str, table: list[dict[str, Any]], fallback: str | None = None) -> None:
    if user:
        notes = {
            "popular": "  (nothing known of the history: popular items)",
            "none": "  (nothing known of the history)",
        }
        print(f"user {printable(user)}{notes.get(fallback, '')}")
    rows = [{**row, "item": printable(row["item"]), "title": printable(row["title"])} for row in table]
    item, sid = (max([len(name), *(len(row[name]) for row in rows)]) for name in ("item", "sid"))
    print(f"rank  {'item':<{item}}  {'sid':<{sid}}  {'logp':>8}  title")
    for row in rows:
        logp = "" if row["logp"] is None else f"{row['logp']:.3f}"
        print(f"{row['rank']:>4}  {row['item']:<{item}}  {row['sid']:<{sid}}  {logp:>8}  {row['title']}")


def printable(text: str) -> str:
    """Text of a catalogue without what a terminal obeys: an escape character becomes \\x1b, readable."""
    return NOT_PRINTED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


if __name__ == "__main__":
    start(main, RecommendConfig)
