"""A page said once and written twice: as one HTML file that needs no network, and as Markdown with pictures beside it.

A page is a list of sections; a section is a heading and blocks; a cell or a paragraph is text, or spans of text with a
kind:

    best   the best value of its column        good, bad, watch   with a state's colour
    soft   said in passing                     under              the same, on a line of its own
    code   a SID                               wrong              the part of it that is wrong
    lost   what is not as it should be, on a line of its own
    picture   an SVG as it stands, below the text of its cell; Markdown leaves it out

Pictures are SVG that take their colours from the page's variables, so they follow its light and dark.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

LIGHT = (
    "--ground:#f3f5f8;--card:#fff;--ink:#1d2733;--soft:#52606d;--line:#e1e6ec;--tint:#eef2f6;--good:#23784a;"
    "--watch:#a86c04;--bad:#c8352b;--c0:#2f6f9f;--c1:#c45a00;--c2:#1e8a6a;--c3:#a24d86;--c4:#6b7785"
)
DARK = (
    "--ground:#11161c;--card:#1a2129;--ink:#e4e9ee;--soft:#a3b0bc;--line:#313b46;--tint:#26303a;--good:#62c08d;"
    "--watch:#e0ad52;--bad:#f0857b;--c0:#69aede;--c1:#f09a4a;--c2:#4cc3a0;--c3:#dd93c3;--c4:#98a4b0"
)
COLOURS = f":root{{color-scheme:light dark;{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}"
STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink)}
body{font:15px/1.45 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:22px 20px 34px}
h1{font-size:23px;margin:0;overflow-wrap:anywhere}h2{font-size:16px;margin:0 0 3px}h3{font-size:14px;margin:16px 0 4px}
p{margin:0 0 10px;color:var(--soft);font-size:13.5px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:15px 18px;margin-top:14px}
svg{display:block;width:100%;height:auto}svg text{font-family:inherit}td svg{width:240px;margin-left:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px}th{font-weight:600;color:var(--soft)}
th,td{text-align:right;padding:4px 8px;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}.left td,.left th{text-align:left}
code{background:var(--tint);border-radius:4px;padding:1px 4px;font-size:12.5px}
footer{color:var(--soft);font-size:12px;margin-top:14px;overflow-wrap:anywhere}

.scroll{overflow-x:auto;margin:6px 0}.scroll td,.scroll th{white-space:nowrap}
.scroll td:first-child,.scroll th:first-child{position:sticky;left:0;background:var(--card)}
.scroll .left td{white-space:normal;min-width:90px}.left code{white-space:nowrap}
.scroll .left td:first-child{white-space:nowrap}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:14px 24px;margin:8px 0}
.wide svg{min-width:640px}figure{margin:0}figcaption{font-weight:600;font-size:13.5px;margin-bottom:2px}
.card{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--line);border-radius:8px}
.card{padding:9px 14px;margin-top:10px}.card ul{margin:4px 0 0;padding-left:20px;font-size:13.5px;color:var(--soft)}
.card.good{border-left-color:var(--good)}.card.watch{border-left-color:var(--watch)}
.card.bad{border-left-color:var(--bad)}.sign{font-weight:700;margin-right:7px}
.good .sign,span.good{color:var(--good)}.watch .sign,span.watch{color:var(--watch)}
.bad .sign,span.bad{color:var(--bad)}
b.best{background:var(--tint);border-radius:4px;padding:1px 3px;margin:0 -3px}.soft{color:var(--soft)}
.under{color:var(--soft)}.lost{color:var(--bad)}.under,.lost{display:block;font-size:12px}
@media(max-width:600px){.scroll td:first-child{white-space:normal!important}}
code.wrong{color:var(--bad);text-decoration:underline wavy 1px;text-underline-offset:3px}
details{margin-top:8px}summary{cursor:pointer;font-size:13.5px;font-weight:600;color:var(--soft)}
"""
MARKUP = re.compile(r"[\\`*~]|<(?=[A-Za-z/!?])|(?<=\])\(|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
SIGNS = {"good": "✓", "watch": "!", "bad": "✗", "": "•"}


class Span(NamedTuple):
    text: str
    kind: str = ""


Words = str | Span | Sequence[str | Span]


class Table(NamedTuple):
    heads: Sequence[str]
    rows: Sequence[Sequence[Words]]
    left: bool = False  # texts rather than numbers: aligned left, and may wrap


class Paragraph(NamedTuple):
    words: Words


class Subheading(NamedTuple):
    words: Words


class Card(NamedTuple):
    """A statement with its state ("good", "watch", "bad" or "") and what it rests on."""

    state: str
    words: Words
    points: Sequence[Words] = ()


class Picture(NamedTuple):
    name: str  # of its file beside the Markdown, without the ending
    title: str
    svg: str


class Pictures(NamedTuple):
    """Side by side where there is room; wide: one below the other over the whole width."""

    pictures: Sequence[Picture]
    wide: bool = False


class Folded(NamedTuple):
    """Details that HTML shows on a click."""

    title: str
    blocks: Sequence["Block"]


Block = Table | Paragraph | Subheading | Card | Pictures | Folded


class Section(NamedTuple):
    title: str
    blocks: Sequence[Block]


def to_html(title: str, subtitle: str, sections: Iterable[Section], footer: str) -> str:
    parts = [f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>"]
    for section in sections:
        bare = all(isinstance(block, Card) for block in section.blocks)  # cards stand on the ground themselves
        inner = f"<h2>{escape(section.title)}</h2>" + "".join(map(_block_html, section.blocks))
        parts.append(f"<div>{inner}</div>" if bare else f"<section>{inner}</section>")
    parts.append(f"<footer>{escape(footer)}</footer>")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{COLOURS}{STYLE}</style><main>{''.join(parts)}</main></html>\n"
    )


def to_markdown(title: str, subtitle: str, sections: Iterable[Section], footer: str) -> str:
    parts = [f"# {plain_markdown(title)}", subtitle]
    for section in sections:
        parts.append(f"## {plain_markdown(section.title)}")
        parts += [_block_markdown(block) for block in section.blocks]
    return "\n\n".join([*parts, footer]) + "\n"


def pictures_of(blocks: Iterable[Block]) -> list[Picture]:
    """Every picture in the blocks, those inside folded ones too."""
    found = []
    for block in blocks:
        if isinstance(block, Pictures):
            found += block.pictures
        elif isinstance(block, Folded):
            found += pictures_of(block.blocks)
    return found


def svg_file(svg: str) -> str:
    """A picture of a page as a file of its own, with the colours and the ground that the page would give it."""
    head, _, rest = svg.partition(">")
    width, height = head.split('viewBox="0 0 ')[1].split('"')[0].split()
    name = f' xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    look = f'{COLOURS}text{{font-family:system-ui,"Segoe UI","DejaVu Sans",sans-serif}}'
    return f'{head}{name}><style>{look}</style><rect width="100%" height="100%" fill="var(--card)"/>{rest}\n'


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _spans(words: Words) -> list[Span]:
    if isinstance(words, Span):
        return [words]
    parts = [words] if isinstance(words, str) else words
    return [part if isinstance(part, Span) else Span(part) for part in parts]


def _html(words: Words) -> str:
    tags = {"": "", "picture": "", "best": "b", "code": "code", "wrong": "code"}
    parts = []
    for text, kind in _spans(words):
        tag, inner = tags.get(kind, "span"), text if kind == "picture" else escape(text)
        parts.append(f"<{tag} class={kind}>{inner}</{tag}>" if tag else inner)
    return "".join(parts)


def _markdown(words: Words) -> str:
    forms = {
        "best": "**{}**",
        "code": "`{}`",
        "wrong": "**`{}`**",
        "bad": "**{}**",
        "good": "**{}**",
        "lost": "**{}**",
    }
    parts = []
    for text, kind in _spans(words):
        if kind == "picture":
            continue
        bare = text.strip()
        marked = forms.get(kind, "{}").format(bare if kind in ("code", "wrong") else _escaped(bare)) if bare else ""
        start = len(text) - len(text.lstrip())
        parts += [text[:start], marked, text[start + len(bare) :]]  # spaces inside ** would undo it
    return " ".join("".join(parts).splitlines())


def plain_markdown(text: str) -> str:
    """One line in which nothing is markup: titles of a catalogue and names of methods hold anything."""
    return " ".join(_escaped(text).split())


def _escaped(text: str) -> str:
    return MARKUP.sub(r"\\\g<0>", text)


def _block_html(block: Block) -> str:
    match block:
        case Table(heads, rows, left):
            head = "".join(f"<th>{escape(name)}</th>" for name in heads)
            body = "".join("<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<div class=scroll><table{' class=left' if left else ''}><tr>{head}</tr>{body}</table></div>"
        case Paragraph(words):
            return f"<p>{_html(words)}</p>"
        case Subheading(words):
            return f"<h3>{_html(words)}</h3>"
        case Card(state, words, points):
            listed = "<ul>" + "".join(f"<li>{_html(point)}</li>" for point in points) + "</ul>" if points else ""
            return f'<div class="card {state}"><span class=sign>{SIGNS[state]}</span>{_html(words)}{listed}</div>'
        case Pictures(pictures, wide):
            drawn = "".join(
                "<figure>" + (f"<figcaption>{escape(title)}</figcaption>" if title else "") + f"{svg}</figure>"
                for _, title, svg in pictures
            )
            return f'<div class="scroll wide">{drawn}</div>' if wide else f"<div class=pictures>{drawn}</div>"
        case Folded(title, blocks):
            inner = "".join(map(_block_html, blocks))
            return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def _block_markdown(block: Block) -> str:
    match block:
        case Table(heads, rows, _):
            return markdown_table([*map(plain_markdown, heads)], [[_markdown(cell) for cell in row] for row in rows])
        case Paragraph(words):
            return _markdown(words)
        case Subheading(words):
            return f"#### {_markdown(words)}"
        case Card(state, words, points):
            listed = [f"  - {_markdown(point)}" for point in points]
            sign = f"{SIGNS[state]} " if state else ""
            return "\n".join([f"- {sign}{_markdown(words)}", *listed])
        case Pictures(pictures, _):
            return "\n\n".join(f"![{_escaped(picture.title)}]({picture.name}.svg)" for picture in pictures)
        case Folded(title, blocks):
            return "\n\n".join([f"**{_escaped(title)}**", *map(_block_markdown, blocks)])
