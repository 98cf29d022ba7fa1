"""Are these SIDs worth a GPU night? Figures, verdicts and gates for an index.json: `mimigenrec sid-report`.

sid_report.json   {"title", "overall": "good|watch|bad", "verdicts": [{"name", "state", "value", "meaning"}],
                  "gates": [{"text", "value", "failed"}], "figures": {name: number}, "details": {...}, "about": {...}}
sid_report.md     the verdicts and the figures by level
sid_report.html   the same with pictures, one file

Only the index is needed; each other file adds the figures that can be measured on it. Names and formulas are in
docs/sids.md. Exit status 1 if a gate of --fail_on fails, so that a script stops before it trains.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimigenrec.cli import arg, start
from mimigenrec.contract import proven_tokenizer
from mimigenrec.errors import UserError
from mimigenrec.files import write_json, writing
from mimigenrec.interactions.inter_file import read_inter
from mimigenrec.items import category_path, field_text, read_items
from mimigenrec.manifest import make_manifest
from mimigenrec.page import to_html, to_markdown
from mimigenrec.sid_report import purity, structure
from mimigenrec.sid_report.pictures import draw_tree
from mimigenrec.sid_report.sections import OVERALL, footer, sections, subtitle
from mimigenrec.sid_report.verdicts import failed_gates, give_verdicts, parse_gate, worst
from mimigenrec.sids.tokens import Sid, read_index
from mimigenrec.vectors.store import read_vectors, unit_rows

GROUPS_SHOWN, TITLES_SHOWN, CELLS_SHOWN, WORDS_SHOWN = 5, 3, 8, 4


log = logging.getLogger(__name__)


@dataclass
class SidReportConfig:
    """Is an index worth training on? Writes sid_report.json, .md and .html."""

    index: str = arg("index.json or id2sid.json to judge")
    output: str = arg("folder for the report")
    items: str | None = arg("C.item.json: identical texts, categories, what the codes mean", default=None)
    embeddings: str | None = arg("C.emb-NAME.npy of --items: do alike items start alike?", default=None)
    train: str | None = arg("C.train.inter: are items bought in a row alike in SID?", default=None)
    test: str | None = arg("C.test.inter: how many targets share a SID?", default=None)
    earlier: str | None = arg("an index to compare with: how many items changed their SID?", default=None)
    tokenizer: str | None = arg("tokenizer or checkpoint folder: is each SID token one id?", default=None)
    sizes: list[int] = arg("codes per level of the codebooks, to count those that no item has", factory=list, least=1)
    neighbours: int = arg("number of nearest neighbours per item", default=10, least=1)
    queries: int = arg(
        "most items whose neighbours are looked up; of more, so many are drawn", default=20_000, least=1
    )
    fail_on: list[str] = arg("conditions that fail the run, such as 'collisions>0.05'", factory=list)
    title: str | None = arg("heading of the report; default: the index's file name", default=None)
    seed: int = arg("random seed of the draw of items", default=42, least=0, most=2**32 - 1)


def main(config: SidReportConfig) -> None:
    gates = [parse_gate(text) for text in config.fail_on]
    sids = read_index(config.index)
    known = items_of(config, sids)
    details = measure(config, sids, known)
    figures = flatten(details)
    verdicts = give_verdicts(figures)
    failed = failed_gates(gates, figures)
    given = (config.index, config.items, config.embeddings, config.train, config.test, config.earlier)
    report = {
        "title": config.title or f"SID report: {Path(config.index).name}",
        "overall": worst(verdicts),
        "verdicts": [verdict._asdict() for verdict in verdicts],
        "gates": [{"text": g.text, "value": figures[g.figure], "failed": g in failed} for g in gates],
        "figures": figures,
        "details": details,
        "about": make_manifest(config, filter(None, given), config.seed),
    }
    write_report(config.output, report, sids)
    print(f"{OVERALL[report['overall']]}\n")
    for verdict in verdicts:
        print(f"  {verdict.state:<5}  {verdict.name}: {verdict.value}. {verdict.meaning}")
    print(f"\n{Path(config.output) / 'sid_report.html'}")
    if failed:
        lines = [f"{gate.text} ({gate.figure} is {figures[gate.figure]:.4g})" for gate in failed]
        sys.exit(f"sid-report: {len(failed)} of {len(gates)} gates failed: {'; '.join(lines)}")


def measure(
    config: SidReportConfig, sids: Mapping[str, Sid], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All that can be said with the files given; a section is there only if its file is."""
    codes = structure.code_table(sids.values())
    titles = {item: text for item in sids if (text := field_text(known.get(item, {}), "title"))}
    details: dict[str, Any] = {
        "levels": structure.level_figures(codes, config.sizes),
        "depths": structure.depth_counts(sids),
        "sids": structure.collision_figures(sids),
        "collisions": [
            {"sid": list(sid), "items": [f"{item}: {titles.get(item, '')[:70]}" for item in items[:TITLES_SHOWN]]}
            for sid, items in list(structure.groups_of(sids).items())[:GROUPS_SHOWN]
        ],
        "cells": purity.describe_cells(sids, titles, CELLS_SHOWN, WORDS_SHOWN) if titles else [],
    }
    if config.test:
        details["targets"] = structure.target_figures(sids, (row.target for row in read_inter(config.test)))
    if config.items:
        texts = {
            item: f"{field_text(fields, 'title')}\n{field_text(fields, 'description')}"
            for item, fields in known.items()
        }
        details["texts"] = purity.text_figures(sids, texts)
        paths = [category_path(known.get(item, {}), f"{config.items}: item {item!r}") for item in sids]
        category = purity.category_purity(codes, paths)
        if category:
            details["category"] = category
    if config.embeddings:
        vectors = unit_rows(vectors_of(config.embeddings, sids, known))
        rng = np.random.default_rng(config.seed)
        details["neighbours"] = purity.neighbour_purity(codes, vectors, config.neighbours, config.queries, rng)
    if config.train:
        details["copurchase"] = purity.transition_purity(sids, read_inter(config.train))
    if config.earlier:
        details["churn"] = structure.churn_figures(read_index(config.earlier), sids)
    if config.tokenizer:
        details["tokens"] = structure.token_figures(sids, proven_tokenizer(config.tokenizer))
    return details


def items_of(config: SidReportConfig, sids: Mapping[str, Sid]) -> dict[str, dict[str, Any]]:
    """item.json in row order, {} without --items. Raises UserError if it is of another data set or lacking."""
    if not config.items:
        if config.embeddings:
            raise UserError("--embeddings needs --items: its rows are in the order of the ids of that item.json")
        return {}
    known = read_items(config.items)
    if not any(item in known for item in sids):
        raise UserError(
            f"{config.items} knows no item of the index (the first is {next(iter(sids))!r}); other data set?"
        )
    if without := sum(item not in sids for item in known):
        log.warning("%s: %d of %d items have no SID in the index", config.items, without, len(known))
    if unknown := sum(item not in known for item in sids):
        log.warning("%s lacks %d of the %d items of the index", config.items, unknown, len(sids))
    return known


def vectors_of(path: str, sids: Mapping[str, Sid], known: Mapping[str, Any]) -> np.ndarray:
    """(items of the index, dim) float32. known: all items of item.json, in row order.

    Raises UserError as read_vectors does, and for an item of the index that has no row.
    """
    row_of = {item: row for row, item in enumerate(known)}
    vectors = read_vectors(path, list(known))
    lacking = [item for item in sids if item not in row_of]
    if lacking:
        raise UserError(
            f"item.json, and so {path}, lacks {len(lacking)} items of the index, {lacking[0]!r} first; give the "
            f"item.json of all items, and vectors made from it"
        )
    return vectors[[row_of[item] for item in sids]]


def flatten(details: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of all sections by name: collisions, level1.perplexity, neighbours.level1.share, churn.kept."""
    figures: dict[str, float] = {}
    for section, content in details.items():
        bare = section in ("levels", "sids", "targets", "texts", "tokens")
        if section == "levels":
            content = {"levels": content}
        if section not in ("depths", "collisions", "cells"):
            _flatten("" if bare else f"{section}.", content, figures)
    return figures


def _flatten(prefix: str, content: Mapping[str, Any], figures: dict[str, float]) -> None:
    for name, value in content.items():
        if name == "levels":
            for level in value:
                numbers = {key: number for key, number in level.items() if key != "level"}
                _flatten(f"{prefix}level{level['level']}.", numbers, figures)
        elif isinstance(value, (int, float)) and name != "level":
            figures[prefix + name] = value


def write_report(folder: str | Path, report: Mapping[str, Any], sids: Mapping[str, Sid]) -> None:
    codes = structure.code_table(sids.values())
    tokens = list(dict.fromkeys(sid[0] for sid in sids.values()))
    words = {cell["token"]: cell["words"] for cell in report["details"]["cells"]}
    heading = (report["title"], subtitle(report))
    write_json(Path(folder) / "sid_report.json", report)
    with writing(Path(folder) / "sid_report.md") as out:
        out.write(to_markdown(*heading, sections(report, tree=None), footer(report)))
    with writing(Path(folder) / "sid_report.html") as out:
        drawn = sections(report, draw_tree(codes, tokens, words))
        out.write(to_html(*heading, drawn, footer(report)))


if __name__ == "__main__":
    start(main, SidReportConfig)
