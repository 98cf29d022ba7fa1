"""The report on an index as one HTML page and as Markdown: verdicts first, then pictures, then figures.

Both are written from the dict that sid_report.json holds (built in build.py), so that they can say nothing else. The
page has its style and pictures inside it and opens without a network.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mimigenrec.page import html_page, markdown_table
from mimigenrec.sid_report.pictures import draw_bar, draw_bits, draw_usage

OVERALL = {
    "good": "Worth training on",
    "watch": "Usable; look at the marked lines",
    "bad": "Mend these SIDs before training on them",
}
STYLE = """
header{display:flex;gap:16px 28px;align-items:center;flex-wrap:wrap;margin-bottom:16px}
@media(min-width:900px){header{flex-wrap:nowrap}.overall{white-space:nowrap}}
.overall{padding:9px 18px;border-radius:22px;color:#fff;font-weight:600}
.sub{color:var(--soft);font-size:13.5px}header div:first-child{margin-right:auto}header .overall{margin-right:0}
.verdicts{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:10px}
.verdict{background:var(--card);border:1px solid var(--line);border-left:5px solid;border-radius:8px;padding:9px 13px}
.verdict b{font-size:19px;float:right;margin-left:10px}.verdict span{font-weight:600}.verdict p{margin:3px 0 0}
.good{border-left-color:#2c8a57}.watch{border-left-color:#d9971b}.bad{border-left-color:#c8352b}
.overall.good{background:#2c8a57}.overall.watch{background:#b9790a}.overall.bad{background:#c8352b}
.good b{color:var(--good)}.watch b{color:var(--watch)}.bad b{color:var(--bad)}
td.bar{width:45%;vertical-align:middle;min-width:90px}.wide{overflow-x:auto}
.four{grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr))}
.wide svg{min-width:700px}
.wide td,.wide th{white-space:nowrap}
"""


def write_page(report: Mapping[str, Any], tree: str) -> str:
    """HTML of a report; tree: the SVG of pictures.draw_tree."""
    figures, details = report["figures"], report["details"]
    levels = details["levels"]
    depths = [
        (f"{count:,} of " if len(details["depths"]) > 1 else "") + f"{length} levels"
        for length, count in details["depths"].items()
    ]
    parts = [
        f"<header><div><h1>{escape(report['title'])}</h1><div class=sub>{figures['items']:,} items, "
        f"{figures['distinct_sids']:,} distinct SIDs, {', '.join(depths)}</div></div>"
        f"<div class='overall {report['overall']}'>{OVERALL[report['overall']]}</div>"
        f"{_failed(report['gates'])}</header>",
        '<div class="verdicts">' + "".join(map(_verdict, report["verdicts"])) + "</div>",
    ]
    if report["gates"]:
        parts.append(f"<section><h2>Gates</h2>{_table(*_gates(report), 'left')}</section>")
    parts += [
        "<section class=wide><h2>The catalogue as the model meets it</h2><p>One band per code, first to last; "
        "a piece is a prefix, as wide as its share of the items. Red below: items that share their SID.</p>"
        + tree
        + "</section>",
        "<section class=wide><h2>Which code decides how much</h2><p>Bits of each code once those before it are known. "
        "Ways: so many equally likely continuations have as many bits.</p>" + draw_bits(levels) + "</section>",
        '<section><h2>How evenly codes are used</h2><div class="columns four">'
        + "".join(f"<div><p>Level {level['level']}: {_usage(level)}</p>{draw_usage(level)}</div>" for level in levels)
        + "</div></section>",
    ]
    likeness = [
        _purity(title, explained, details[section]["levels"])
        for section, title, explained in (
            (
                "neighbours",
                "Alike items begin alike",
                "Neighbours in the embedding that share them.",
            ),
            ("copurchase", "Bought next, begins alike", "Train transitions that stay within them."),
        )
        if section in details
    ]
    if likeness:
        parts.append(f'<section><div class="columns">{"".join(likeness)}</div></section>')
    examples = []
    if details["cells"]:
        rows = [[_code(c["token"]), f"{c['items']:,}", escape(", ".join(c["words"]))] for c in details["cells"]]
        table = _table(["code", "items", "words that set it apart"], rows, "left", raw=True)
        examples.append(
            f"<div><h2>What the biggest first codes mean</h2><p>From the titles of their items.</p>{table}</div>"
        )
    if details["collisions"]:
        rows = [
            [_code("".join(group["sid"])), "<br>".join(escape(text) for text in group["items"])]
            for group in details["collisions"]
        ]
        table = _table(["SID", "items"], rows, "left", raw=True)
        examples.append(f"<div><h2>Who shares a SID</h2><p>The biggest groups.</p>{table}</div>")
    if examples:
        parts.append(f'<section><div class="columns">{"".join(examples)}</div></section>')
    parts.append(f'<section class="wide"><h2>Figures by level</h2>{_table(*_levels(levels))}</section>')
    if "churn" in details:
        parts.append(
            "<section><h2>Change since the earlier index</h2><p>Agreement: 1 if both group the items alike, "
            f"whatever the codes are called, 0 if by chance.</p>{_table(*_churn(details['churn']))}</section>"
        )
    about = report["about"]
    inputs = "; ".join(f"{path} ({digest[:12]})" for path, digest in about["inputs"].items())
    parts.append(
        f"<footer>mimigenrec {about['versions']['mimigenrec']}, seed {about['seed']}. Read: {escape(inputs)}. "
        "All figures are in sid_report.json; docs/sids.md has their formulas.</footer>"
    )
    return html_page(report["title"], "".join(parts), STYLE)


def write_markdown(report: Mapping[str, Any]) -> str:
    figures, details = report["figures"], report["details"]
    lines = [
        f"# {escape(report['title'], quote=False)}",
        "",
        f"**{OVERALL[report['overall']]}.** {figures['items']:,} items, ",
    ]
    lines[-1] += f"{figures['distinct_sids']:,} distinct SIDs."
    rows = [[v["name"], v["state"], v["value"], v["meaning"]] for v in report["verdicts"]]
    lines += ["", *markdown_table(["question", "verdict", "figure", "in words"], rows)]
    if report["gates"]:
        lines += ["", "## Gates", "", *markdown_table(*_gates(report))]
    lines += ["", "## Levels", "", *markdown_table(*_levels(details["levels"]))]
    for section, title in (("neighbours", "Nearest neighbours"), ("copurchase", "Train transitions")):
        if section in details:
            rows = [_likeness(level) for level in details[section]["levels"]]
            lines += ["", f"## {title} that share the first codes", "", *markdown_table(LIKENESS, rows)]
    if "churn" in details:
        lines += ["", "## Change since the earlier index", "", *markdown_table(*_churn(details["churn"]))]
    return "\n".join(lines) + "\n"


LIKENESS = ["codes", "share", "chance", "times chance"]


def _likeness(level: Mapping[str, Any]) -> list[str]:
    lift = f"{level['lift']:,.1f}" if level["lift"] is not None else "-"
    return [f"first {level['level']}", f"{level['share']:.1%}", f"{level['chance']:.2%}", lift]


def _purity(title: str, explained: str, levels: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for level in levels:
        first, share, _, lift = _likeness(level)
        bar = draw_bar(level["share"], level["chance"])
        rows.append([first, share, f"{lift} x" if level["lift"] is not None else lift, bar])
    body = "".join(
        f"<tr><td>{first}</td><td>{share}</td><td>{lift}</td><td class=bar>{bar}</td></tr>"
        for first, share, lift, bar in rows
    )
    head = "<tr><th>codes</th><th>share</th><th>of chance</th><th></th></tr>"
    return f"<div><h2>{title}</h2><p>{explained} Red: chance.</p><table>{head}{body}</table></div>"


def _failed(gates: Sequence[Mapping[str, Any]]) -> str:
    failed = sum(gate["failed"] for gate in gates)
    return f'<div class="overall bad">{failed} of {len(gates)} gates failed</div>' if failed else ""


def _verdict(verdict: Mapping[str, str]) -> str:
    name, value, meaning = (escape(verdict[key]) for key in ("name", "value", "meaning"))
    return f'<div class="verdict {verdict["state"]}"><b>{value}</b><span>{name}</span><p>{meaning}</p></div>'


def _usage(level: Mapping[str, Any]) -> str:
    known = f" of {level['size']:,}" if "size" in level else ""
    return f"<b>{level['codes']:,}</b>{known} codes, as even as <b>{level['perplexity']:.0f}</b> equal ones"


def _gates(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [[g["text"], f"{g['value']:.4g}", "failed" if g["failed"] else "passed"] for g in report["gates"]]
    return ["fails if", "found", "result"], rows


def _levels(levels: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
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
    return heads.split(","), rows


def _churn(churn: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f"first {level['level']}", f"{level['kept']:.1%}", f"{level['agreement']:.3f}"] for level in churn["levels"]
    ]
    return ["codes", "items that keep them", "agreement"], rows


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "", raw: bool = False) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell if raw else escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<table class="{kind}"><tr>{head}</tr>{body}</table>'
