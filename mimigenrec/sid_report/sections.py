"""The figures of an index as the sections of a page: verdicts first, then pictures, then tables.

They are made of the dict that sid_report.json holds (build.py), so that the page can say nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mimigenrec.page import Block, Card, Paragraph, Picture, Pictures, Section, Span, Table
from mimigenrec.sid_report.pictures import draw_bar, draw_bits, draw_usage

Report = Mapping[str, Any]
OVERALL = {
    "good": "Worth training on",
    "watch": "Usable; look at the marked lines",
    "bad": "Mend these SIDs before training on them",
}


def subtitle(report: Report) -> str:
    figures, depths = report["figures"], report["details"]["depths"]
    levels = ", ".join(
        (f"{count:,} of " if len(depths) > 1 else "") + f"{length} levels" for length, count in depths.items()
    )
    return f"{figures['items']:,} items, {figures['distinct_sids']:,} distinct SIDs, {levels}"


def footer(report: Report) -> str:
    about = report["about"]
    inputs = "; ".join(f"{path} ({digest[:12]})" for path, digest in about["inputs"].items())
    return (
        f"mimigenrec {about['versions']['mimigenrec']}, seed {about['seed']}. Read: {inputs}. All figures are in "
        f"sid_report.json; docs/sids.md has their formulas."
    )


def sections(report: Report, tree: str | None) -> list[Section]:
    """tree: the picture of pictures.draw_tree; None: no pictures at all, for Markdown in one file."""
    details = report["details"]
    parts = [Section(OVERALL[report["overall"]], _verdicts(report))]
    if report["gates"]:
        rows = [[g["text"], f"{g['value']:.4g}", "failed" if g["failed"] else "passed"] for g in report["gates"]]
        parts.append(Section("Gates", [Table(["fails if", "found", "result"], rows, left=True)]))
    if tree:
        parts += _pictures(details["levels"], tree)
    for name, title, lead in (
        ("neighbours", "Nearest neighbours", "Alike items begin alike? Neighbours in the embedding that share the"),
        ("copurchase", "Train transitions", "Bought next, begins alike? Train transitions that stay within the"),
    ):
        if name in details:
            blocks = [Paragraph(f"{lead} first codes, and what chance gives."), _likeness(details[name]["levels"])]
            parts.append(Section(f"{title} that share the first codes", blocks))
    if details["cells"]:
        rows = [[Span(c["token"], "code"), f"{c['items']:,}", ", ".join(c["words"])] for c in details["cells"]]
        table = Table(["code", "items", "words that set it apart"], rows, left=True)
        lead = Paragraph("From the titles of their items.")
        parts.append(Section("What the biggest first codes mean", [lead, table]))
    if details["collisions"]:
        rows = [[Span("".join(c["sid"]), "code"), "; ".join(c["items"])] for c in details["collisions"]]
        parts.append(
            Section("Who shares a SID", [Paragraph("The biggest groups."), Table(["SID", "items"], rows, left=True)])
        )
    parts.append(Section("Figures by level", [_levels(details["levels"])]))
    if "churn" in details:
        rows = [
            [f"first {v['level']}", f"{v['kept']:.1%}", f"{v['agreement']:.3f}"] for v in details["churn"]["levels"]
        ]
        lead = "Agreement: 1 if both group the items alike, whatever the codes are called, 0 if by chance."
        table = Table(["codes", "items that keep them", "agreement"], rows)
        parts.append(Section("Change since the earlier index", [Paragraph(lead), table]))
    return parts


def _verdicts(report: Report) -> list[Block]:
    cards = [
        Card(v["state"], [f"{v['name']}: ", Span(v["value"], v["state"])], [v["meaning"]]) for v in report["verdicts"]
    ]
    failed = [gate["text"] for gate in report["gates"] if gate["failed"]]
    return [
        *([Card("bad", f"{len(failed)} of {len(report['gates'])} gates failed", failed)] if failed else []),
        *cards,
    ]


def _pictures(levels: Sequence[Mapping[str, Any]], tree: str) -> list[Section]:
    used = [Picture(f"usage-{v['level']}", f"Level {v['level']}: {_usage(v)}", draw_usage(v)) for v in levels]
    return [
        Section(
            "The catalogue as the model meets it",
            [
                Paragraph(
                    "One band per code, first to last; a piece is a prefix, as wide as its share of the items. Red "
                    "below: items that share their SID."
                ),
                Pictures([Picture("tree", "", tree)], wide=True),
            ],
        ),
        Section(
            "Which code decides how much",
            [
                Paragraph(
                    "Bits of each code once those before it are known. Ways: so many equally likely continuations "
                    "have as many bits."
                ),
                Pictures([Picture("bits", "", draw_bits(levels))], wide=True),
            ],
        ),
        Section("How evenly codes are used", [Pictures(used)]),
    ]


def _usage(level: Mapping[str, Any]) -> str:
    known = f" of {level['size']:,}" if "size" in level else ""
    return f"{level['codes']:,}{known} codes, as even as {level['perplexity']:.0f} equal ones"


def _likeness(levels: Iterable[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"first {v['level']}",
            [f"{v['share']:.1%}", Span(draw_bar(v["share"], v["chance"]), "picture")],
            f"{v['chance']:.2%}",
            f"{v['lift']:,.1f}" if v["lift"] is not None else "-",
        ]
        for v in levels
    ]
    return Table(["codes", "share", "chance", "times chance"], rows)


def _levels(levels: Iterable[Mapping[str, Any]]) -> Table:
    heads = (
        "level,items,codes,perplexity,Gini,largest cell,ways,tree width,children (mean),children (most),single child"
    )
    rows = [
        [
            f"{v['level']}",
            f"{v['items']:,}",
            f"{v['codes']:,}" + (f" / {v['size']:,}" if "size" in v else ""),
            f"{v['perplexity']:.1f}",
            f"{v['gini']:.3f}",
            f"{v['largest']:.1%}",
            f"{v['choices']:.2f}",
            f"{v['prefixes']:,}",
            f"{v['children_mean']:.2f}",
            f"{v['children_max']:,}",
            f"{v['single_child']:.0%}",
        ]
        for v in levels
    ]
    return Table(heads.split(","), rows)
