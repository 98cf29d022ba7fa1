"""metrics.json as Markdown: one result in full, or several methods side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from mimigenrec.evaluation.metrics import REPEAT_K
from mimigenrec.page import markdown_table, plain_markdown

Metrics = Mapping[str, Any]
HEADLINE = ("hr@5", "hr@10", "hr@50", "ndcg@5", "ndcg@10", "ndcg@50")


def one_result(metrics: Metrics) -> str:
    """Every number of a metrics.json."""
    parts = [f"{metrics['n_rows']} rows, {metrics['n_items']} items on {metrics['n_sids']} SIDs; 95 % intervals.\n"]
    for level, title in (("sid", "SID level"), ("item", "Item level (items of one SID in random order)")):
        ks = list(dict.fromkeys(name.split("@")[1] for name in metrics[level]))
        rows = [[k, *(_cell(metrics[level][f"{name}@{k}"]) for name in ("hr", "ndcg", "mrr"))] for k in ks]
        parts.append(f"{title}\n\n" + markdown_table(["K", "HR@K", "NDCG@K", "MRR@K"], rows) + "\n")
    covered = ", ".join(f"{100 * share:.1f} % {k}" for k, share in metrics["coverage"].items())
    repeats = metrics[f"repeat@{REPEAT_K}"]
    repeated = f"{100 * repeats['mean']:.1f} %" if repeats else "not known, the rows tell no history"
    parts.append(
        f"Catalogue covered: {covered}. Items of the own history in the first {REPEAT_K}: {repeated}. "
        f"Invalid SIDs: {metrics['invalid']}. Rows without a list: {metrics['rows_without_list']}; with fewer than "
        f"{metrics['k']} SIDs: {metrics['rows_with_fewer_than_k']}; targets without a SID: "
        f"{metrics['targets_without_sid']}.\n"
    )
    return "\n".join(parts)


def summary(
    results: Mapping[str, Metrics],
    level: str = "item",
    names: Sequence[str] = HEADLINE,
    best: Mapping[str, float] | None = None,
) -> str:
    """One line per method, one column per metric that all of them have.

    best   metric -> the most that any method could reach, where it is known: a last line, and what share of it each
           method reaches
    """
    shared = [name for name in names if all(name in metrics[level] for metrics in results.values())]
    rows = [
        [plain_markdown(method), *(_cell(metrics[level][name]) for name in shared), str(metrics["n_rows"])]
        for method, metrics in results.items()
    ]
    titles = {name: name.replace("hr", "HR").replace("ndcg", "NDCG") for name in shared}
    heads = ["method", *titles.values(), "rows"]
    if not best:
        return markdown_table(heads, rows) + "\n"
    rows.append(["best possible", *(f"{best[name]:.4f}" if name in best else "" for name in shared), ""])
    text = markdown_table(heads, rows) + "\n\n"
    for method, metrics in results.items():
        shares = [
            f"{100 * metrics[level][name]['mean'] / best[name]:.1f} % of the best possible {titles[name]}"
            for name in shared
            if name in best
        ]
        text += f"- {plain_markdown(method)} reaches {', '.join(shares)}\n"
    return text


def _cell(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
