"""A report's numbers as the sections of a page: which table, which picture, in which words."""

import re
from collections.abc import Mapping
from typing import Any

from mimigenrec.page import Card, Folded, Paragraph, Picture, Pictures, Section, Span, Subheading, Table, Words
from mimigenrec.report.examples import tell_examples
from mimigenrec.report.figures import SURE, best_baseline, outcome
from mimigenrec.report.pictures import draw_curves, draw_intervals, draw_levels
from mimigenrec.report.verdict import p_text, title

Report = Mapping[str, Any]
SIGNS = {"better": ("▲", "good"), "worse": ("▼", "bad"), "unclear": ("≈", "soft")}
BEYOND = {
    "coverage": "coverage",
    "gini": "Gini",
    "entropy": "entropy (bits)",
    "popularity": "popularity",
    "novelty": "novelty (bits)",
    "diversity": "diversity",
}


def sections(report: Report) -> list[Section]:
    parts = [
        Section("What to believe", [Card(v["state"], v["text"], v["points"]) for v in report["verdict"]]),
        Section("What was compared", _about(report)),
        Section("Results", _results(report)),
    ]
    if report["tests"]:
        parts.append(Section("Paired tests", _tests(report)))
    if report["curves"]:
        parts.append(Section("Training", _training(report)))
    parts += [
        Section("Where each method is good", _slices(report)),
        Section("How far down the SID", _levels(report)),
        Section("Beyond accuracy", _beyond(report)),
        Section(f"{len(report['examples']['users'])} users", tell_examples(report["examples"])),
    ]
    return parts


def _about(report: Report) -> list:
    about = report["about"]
    sharing = f"{about['items_sharing']:,} items share theirs" if about["items_sharing"] else "no item shares its SID"
    users = f" of {about['users']:,} users" if about["users"] is not None else ""
    contract = about["contract"]
    facts = [
        f"{about['rows']:,} test rows{users}; {about['targets_without_sid']:,} targets without a SID",
        f"{about['items']:,} items on {about['sids']:,} SIDs, {sharing}",
        f"prompt contract {contract['hash']} ({contract['wording']} wording)" if contract else "no prompt contract",
        *(f"{key} {str(value).lower()}" for key, value in about["settings"].items() if value is not None),
    ]
    heads = ["method", "kind", "seeds", "training", "ranking", "in all", "CPU", "memory", "device"]
    rows = []
    for method in report["methods"]:
        cost = method["cost"] or {}
        seeds = ", ".join(map(str, method["seeds"]))
        lost = ("incomplete" if method["folders"] else "failed") if method["failed"] else ""
        rows.append(
            [
                method["name"],
                method["kind"],
                [seeds, Span(f" {lost}", "bad")] if lost else seeds,
                *(_time(method[key]) for key in ("training_seconds", "ranking_seconds")),
                *(_time(cost.get(key)) for key in ("seconds", "cpu_seconds")),
                f"{cost['peak_memory_gb']:.1f} GB" if "peak_memory_gb" in cost else "",
                method["device"] or "",
            ]
        )
    filled = [i for i in range(len(heads)) if i < 3 or any(row[i] for row in rows)]
    hashes = [[name, *([", ".join(digest[:12] for digest in digests)])] for name, digests in about["data"].items()]
    versions = [[package, ", ".join(versions)] for package, versions in about["versions"].items()]
    return [
        Paragraph("; ".join(facts) + "."),
        Table([heads[i] for i in filled], [[row[i] for i in filled] for row in rows]),
        Paragraph("Times are sums over seeds, as the runs told them."),
        Folded(
            "Data hashes and versions",
            [Table(["file", "SHA-256 begins"], hashes, left=True), Table(["package", "version"], versions, left=True)],
        ),
    ]


def _results(report: Report) -> list:
    table, models = report["table"], report["models"]
    pictures = [
        Picture(f"interval-{_file(metric)}", title(metric), draw_intervals(table, metric, models, best))
        for metric in report["tested"]
        for best in [best_baseline(table, models, metric)]
    ]
    incomplete = {
        method["name"]: f" incomplete: {len(method['folders'])} seeds"
        for method in report["methods"]
        if method["failed"] and method["folders"]
    }
    rows: list[list[Words]] = []
    for name, values in table.items():
        cells = [_value(values[metric]) for metric in report["metrics"]]
        rows.append([[name, *([Span(incomplete[name], "lost")] if name in incomplete else [])], *cells])
    for method in report["methods"]:
        if not method["folders"]:
            rows.append([method["name"], Span("failed", "bad"), *([""] * (len(report["metrics"]) - 1))])
    notes = "[95 % interval over rows, bootstrap]; ± standard deviation over seeds, where there are several. "
    notes += "Highlighted: the highest of its column."
    if any(values[metric]["mark"] for values in table.values() for metric in report["tested"]):
        notes += (
            f" Against the best baseline of the column: ▲ better, ▼ worse, ≈ no difference shown "
            f"(paired permutation test, p adjusted by Holm over all pairs, < {SURE})."
        )
    lead = "Line: 95 % interval. Filled: model; hollow: baseline; dashed: the best baseline; thin strokes: seeds."
    return [
        Paragraph(lead),
        Pictures(pictures),
        Table(["method", *map(title, report["metrics"])], rows),
        Paragraph(notes),
    ]


def _value(value: Mapping[str, Any]) -> list[Span]:
    spans = [Span(f"{value['mean']:.4f}", "best" if value["best"] else "")]
    if value["sd"] is not None:
        spans.append(Span(f" ± {value['sd']:.4f}"))
    if value["mark"]:
        sign, kind = SIGNS[value["mark"]]
        spans.append(Span(f" {sign}", kind))
    return [*spans, Span(f" [{value['low']:.4f}, {value['high']:.4f}]", "under")]


def _tests(report: Report) -> list:
    rows = []
    for pair in report["tests"]:
        cells: list[Words] = []
        for test in pair["metrics"].values():
            sign, kind = SIGNS[outcome(test)]
            p, bootstrapped, adjusted = (p_text(test[key]).removeprefix("= ") for key in ("p", "p_bootstrap", "holm"))
            cells += [
                [
                    f"{test['mean']:+.4f}",
                    Span(f" {sign}", kind),
                    Span(f" [{test['low']:+.4f}, {test['high']:+.4f}]", "under"),
                ],
                [adjusted, Span(f" {p} / {bootstrapped}", "under")],
            ]
        seeds = f" (seed {', '.join(map(str, pair['seeds']))})" if pair["seeds"] else ""
        rows.append([f"{pair['model']} − {pair['against']}{seeds}", *cells])
    heads = [head for metric in report["tested"] for head in (title(metric), "adjusted p")]
    return [
        Paragraph(
            f"Model minus the other, row by row on the same rows; each row is the mean over seeds first. Interval: "
            f"paired bootstrap. Adjusted p: by Holm over the {len(report['tests'])} pairs, each metric for itself, "
            f"from the first of the two-sided p below it (permutation test, {report['resamples']:,} resamples / "
            f"paired bootstrap). "
            f"{title(report['tested'][0])} was chosen beforehand as the one that decides. ▲ better, ▼ worse (adjusted "
            f"p < {SURE}), ≈ no difference shown."
        ),
        Table(["pair", *heads], rows),
    ]


def _training(report: Report) -> list:
    blocks: list = []
    for number, training in enumerate(report["curves"], 1):
        name = training["training"]
        pictures = [
            Picture(
                f"curve-{number}-{_file(name)}-{panel}",
                f"{name}: {panel}",
                draw_curves({"x": training["x"], "curves": curves}),
            )
            for panel, curves in training["panels"].items()
        ]
        if pictures:
            blocks.append(Pictures(pictures))
        if training["lost"]:
            blocks.append(
                Paragraph(f"{name}: {training['lost']} logged values are no finite numbers and are not drawn.")
            )
    return blocks


def _slices(report: Report) -> list:
    names = list(report["table"])
    explained = (
        "Rows cut by what is known before anyone ranks. head: the target is among the 20 % most bought items of "
        "train; cold: it is the target of no train row. Few rows, wide intervals; slices are not tested."
    )
    tables = {}
    for metric in report["tested"][:2]:
        rows: list[list[Words]] = []
        for part in report["slices"]:
            means = {name: part["methods"][name][metric] for name in names if name in part["methods"]}
            highest = max((value["mean"] for value in means.values()), default=0.0)
            cells = [
                [
                    Span(f"{v['mean']:.4f}", "best" if v["mean"] == highest > 0 else ""),
                    Span(f" [{v['low']:.4f}, {v['high']:.4f}]", "under"),
                ]
                for v in means.values()
            ]
            rows.append([f"{part['family']}: {part['slice']}", f"{part['n']:,}", *(cells or [""] * len(names))])
        tables[metric] = Table(["slice", "rows", *names], rows)
    first, *others = report["tested"][:2]
    folded = [Folded(f"The same for {title(metric)}", [tables[metric]]) for metric in others]
    return [Paragraph(explained), Subheading(title(first)), tables[first], *folded]


def _levels(report: Report) -> list:
    reached = sorted({level for shares in report["levels"].values() for level in shares["reached"]}, key=int)
    rows = [
        [name, *(f"{shares['reached'][level]:.1%}" if level in shares["reached"] else "" for level in reached)]
        for name, shares in report["levels"].items()
    ]
    return [
        Paragraph("Where the first recommended SID leaves the target's."),
        Pictures([Picture("levels", "", draw_levels(report["levels"]))], wide=True),
        Paragraph(f"Rows for which some SID of the first {report['k']} agrees with the target's up to a level:"),
        Table(["method", *(f"level {level}" for level in reached)], rows),
    ]


def _beyond(report: Report) -> list:
    forms = {"coverage": "{:.1%}", "gini": "{:.3f}", "diversity": "{:.3f}"}
    rows = [
        [name, *("" if measures[key] is None else forms.get(key, "{:.2f}").format(measures[key]) for key in BEYOND)]
        for name, measures in report["beyond"].items()
    ]
    diversity = "share of SID levels that two items of a list do not have in common."
    if report["vectors"]:
        diversity = f"1 - cosine of the vectors of two items of a list ({report['vectors']})."
    elif any(measures["diversity"] is None for measures in report["beyond"].values()):
        diversity += (
            " It is empty where no list has two items or all SIDs have one level, which cannot tell how alike two "
            "items are; the option vectors can."
        )
    return [
        Paragraph(
            f"Of the first {report['k']} items of each list, right or wrong. coverage: share of the catalogue shown "
            f"to anyone. Gini: 0 all items alike, 1 one item only. entropy: higher is more even. popularity: mean "
            f"number of train rows with the item as target. novelty: -log2 of its share of train. diversity: "
            f"{diversity}"
        ),
        Table(["method", *BEYOND.values()], rows),
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes = seconds / 60
    return f"{seconds:.1f} s" if seconds < 120 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _file(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)
