"""A few test rows to look at: what the user had, what came next, what each method recommended first.

Rows are drawn so that hits and misses of one model stand side by side, which makes them no sample of its quality.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mimigenrec.catalog import Catalog
from mimigenrec.evaluation.metrics import item_places
from mimigenrec.evaluation.result import Row
from mimigenrec.page import Block, Folded, Paragraph, Span, Subheading, Table, Words
from mimigenrec.report.methods import Method
from mimigenrec.sids.tokens import split_sid

KINDS = {  # what the model does with the target -> the best rank of that kind, and how many rows of it are wanted
    "has the target first": (1, 3),
    "has it among the first 10": (2, 3),
    "has it further down": (11, 2),
    "does not list it": (0, 2),
}
SHOWN = 5  # methods of a row that need no click
TOP, HISTORY, TITLE = 3, 6, 70  # recommendations, latest history items and letters of a title that are shown


def choose_rows(rows: Sequence[Row], rng: np.random.Generator, count: int = 10) -> list[int]:
    """Row numbers, kind by kind: of each as many as wanted, then of any up to `count`."""
    kinds = [kind_of(rank_of(row)) for row in rows]
    order = rng.permutation(len(rows)).tolist()
    chosen = [i for kind, (_, wanted) in KINDS.items() for i in [i for i in order if kinds[i] == kind][:wanted]]
    chosen = (chosen + [i for i in order if i not in set(chosen)])[:count]
    return sorted(chosen, key=lambda i: (list(KINDS).index(kinds[i]), i))


def rank_of(row: Row) -> tuple[int, int] | None:
    """First and last rank that the target may have (items of one SID stand equally); None if it is not in the list."""
    places = item_places([row["ranked"]], [row["target"]], [row["target_sid"]])
    start, size = int(places.start[0]), int(places.size[0])
    return (start + 1, start + size) if size else None


def kind_of(rank: tuple[int, int] | None) -> str:
    if rank is None:
        return "does not list it"
    return max((begins, kind) for kind, (begins, _) in KINDS.items() if 0 < begins <= rank[0])[1]


def examples(model: str, methods: Sequence[Method], catalog: Catalog) -> list[dict[str, Any]]:
    """One dict per row that the runs kept; of a method with several seeds the first is shown."""
    runs = {method.name: method.runs[0] for method in methods if method.runs}
    users = []
    for i, row in runs[model].kept.items():
        history = row["history"]
        users.append(
            {
                "row": row["row"],
                "user": row["user"],
                "kind": kind_of(rank_of(row)),
                "history": None if history is None else [title_of(item, catalog) for item in history[-HISTORY:]],
                "earlier": max(0, len(history or ()) - HISTORY),
                "target": None if row["target"] is None else title_of(row["target"], catalog),
                "target_sid": row["target_sid"],
                "methods": {name: _shown(run.kept[i], int(run.first_wrong[i]), catalog) for name, run in runs.items()},
            }
        )
    return users


def _shown(row: Row, wrong: int, catalog: Catalog) -> dict[str, Any]:
    """wrong: the level at which the first SID leaves the target's; 0 nowhere, -1 nothing to compare."""
    ranked = row["ranked"][:TOP]
    return {
        "rank": rank_of(row),
        "top": [
            {
                "title": title_of(row["target"] if row["target"] in group["items"] else group["items"][0], catalog),
                "alike": len(group["items"]) - 1,
                "right": _is_right(group, row),
            }
            for group in ranked
        ],
        "sid": split_sid(ranked[0]["sid"]) if ranked else [],
        "wrong": wrong,
    }


def _is_right(group: Mapping[str, Any], row: Row) -> bool:
    return row["target"] in group["items"] or row["target"] is None and group["sid"] == row["target_sid"]


def title_of(item: str, catalog: Catalog) -> str:
    text = catalog.titles.get(item, f"item {item}")
    return text if len(text) <= TITLE else text[: TITLE - 1].rstrip() + "…"


def tell_examples(shown: Mapping[str, Any]) -> list[Block]:
    """What `examples` found, and for which model, as blocks of a page."""
    model = shown["model"]
    blocks: list[Block] = [
        Paragraph(
            f"Drawn so that hits and misses of {model} stand side by side: no sample of its quality. Of methods with "
            f"several seeds the first is shown. rank: where the target stands. Underlined: the SID of the first "
            f"recommendation from the level on that is wrong."
        )
    ]
    for user in shown["users"]:
        asked = f"User {user['user']}" if user["user"] is not None else f"Row {user['row']}"
        blocks.append(Subheading(f"{asked}: {model} {user['kind']}"))
        if user["history"] is not None:
            earlier = f"({user['earlier']} earlier) " if user["earlier"] else ""
            blocks.append(Paragraph(f"Had: {earlier}{' → '.join(user['history']) or 'nothing'}"))
        sid = Span(user["target_sid"], "code") if user["target_sid"] else "no SID"
        target = [user["target"] + " "] if user["target"] is not None else []
        blocks.append(Paragraph(["Then came: ", *target, sid]))
        rows = [[name, _rank(of["rank"]), _marked_sid(of), *_top(of["top"])] for name, of in user["methods"].items()]
        most = max(len(of["top"]) for of in user["methods"].values())
        rows = [row + [""] * (3 + most - len(row)) for row in rows]
        heads = ["method", "rank", "SID of the first", *("first", "second", "third")[:most]]
        blocks.append(Table(heads, rows[:SHOWN], left=True))
        if rows[SHOWN:]:
            blocks.append(Folded(f"{len(rows) - SHOWN} more methods", [Table(heads, rows[SHOWN:], left=True)]))
    return blocks


def _rank(rank: Sequence[int] | None) -> Words:
    if rank is None:
        return Span("–", "soft")
    return f"{rank[0]}" if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def _marked_sid(of: Mapping[str, Any]) -> list[Span]:
    """The SID up to the level at which it goes wrong, and the rest marked."""
    right = len(of["sid"]) if of["wrong"] <= 0 else of["wrong"] - 1
    parts = ["".join(of["sid"][:right]), "".join(of["sid"][right:])]
    spans = [Span(text, kind) for text, kind in zip(parts, ("code", "wrong"), strict=True) if text]
    return spans if of["wrong"] <= 0 else [*spans, Span(f" level {of['wrong']}", "soft")]


def _top(top: Sequence[Mapping[str, Any]]) -> list[Words]:
    cells: list[Words] = []
    for item in top:
        more = f" (or {item['alike']} more on its SID)" if item["alike"] else ""
        cells.append([Span(f"✓ {item['title']}", "good") if item["right"] else item["title"], more])
    return cells
