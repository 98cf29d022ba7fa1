"""The pictures of the report on an index, as SVG in the colours of page.py; those of the tree are its own.

Lengths are SVG units; a page scales a picture to its own width.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mimigenrec.sid_report.structure import prefix_table
from mimigenrec.svg import line, picture, text

WIDTH = 1080
BAND = 54  # height of one level in the tree
FINEST = 0.7  # narrower pieces are drawn as one
HUES = (205, 28, 140, 262, 48, 330, 175, 0, 85, 235)


def draw_tree(codes: np.ndarray, tokens: Sequence[str], words: Mapping[str, Sequence[str]]) -> str:
    """The catalogue as the model meets it: one band per level, a piece per prefix, as wide as its share of items.

    codes (N, L) of structure.code_table; tokens: name of each level-1 code by number; words: what a level-1 token is
    about, written where there is room. Prefixes stand under the one they continue, big ones first. The last band marks
    in red the items that share their SID. Pieces finer than a line are merged.
    """
    prefixes = prefix_table(codes)
    keys = []
    for labels in prefixes.T:
        size = np.bincount(labels + 1)[labels + 1]
        keys += [labels, -size]
    order = np.lexsort([key for pair in zip(keys[-2::-2], keys[::-2], strict=True) for key in pair])
    unit = WIDTH / len(codes)
    parts, top = [], 0.0
    hue_of: dict[int, int] = {}
    for label in prefixes[order, 0]:
        hue_of.setdefault(int(label), HUES[len(hue_of) % len(HUES)])
    first = codes[order, 0]
    for level in range(codes.shape[1]):
        paths: dict[str, list[str]] = {}
        for shade, (start, end) in enumerate(_pieces(prefixes[order, level], unit)):
            hue = hue_of[int(prefixes[order[start], 0])]
            light = min(90, 46 + 9 * level) + (shade % 2) * (5 if level else 0)
            box = f"M{start * unit:.1f} {top:.0f}h{(end - start) * unit:.1f}v{BAND}h-{(end - start) * unit:.1f}z"
            paths.setdefault(f"hsl({hue} 48% {light}%)", []).append(box)
        stroke = ' stroke="#fff" stroke-width="0.8"' if level == 0 else ""
        parts += [f'<path d="{"".join(boxes)}" fill="{colour}"{stroke}/>' for colour, boxes in paths.items()]
        if level == 0:
            parts += _names(first, tokens, words, unit)
        top += BAND + 2
    shared = _shared(prefixes, order)
    for start, end in _runs(shared):
        if shared[start]:
            width = max((end - start) * unit, 1.2)
            parts.append(
                f'<rect x="{start * unit:.1f}" y="{top:.0f}" width="{width:.1f}" height="16" fill="var(--bad)"/>'
            )
    parts.append(line(0, top + 16, WIDTH, top + 16, "--line"))
    return picture(WIDTH, top + 18, parts, "prefix tree of the catalogue")


def _names(first: np.ndarray, tokens: Sequence[str], words: Mapping[str, Sequence[str]], unit: float) -> list[str]:
    """Level-1 pieces: token and words on pointing, the words inside where they fit."""
    names = []
    for start, end in _runs(first):
        token = tokens[first[start]]
        x, width = start * unit, (end - start) * unit
        about = list(words.get(token, ()))
        title = escape(f"{token}: {end - start:,} items" + (f" ({', '.join(about)})" if about else ""))
        names.append(
            f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="{BAND}" fill="transparent">'
            f"<title>{title}</title></rect>"
        )
        fitting = [word for word in about or [token] if len(word) * 6.6 + 6 <= width][:2]
        for place, word in enumerate(fitting):
            y = BAND / 2 + 4 + 13 * place - 6.5 * (len(fitting) - 1)
            names.append(f'<text x="{x + 4:.1f}" y="{y:.0f}" font-size="11" fill="#fff">{escape(word)}</text>')
    return names


def _shared(prefixes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,) bool in drawing order: does another item have the same SID?"""
    _, group, size = np.unique(prefixes, axis=0, return_inverse=True, return_counts=True)
    return size[group.reshape(-1)][order] > 1


def _runs(labels: np.ndarray) -> list[tuple[int, int]]:
    """Stretches [start, end) of equal labels."""
    edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _pieces(labels: np.ndarray, unit: float) -> list[tuple[int, int]]:
    """Runs wide enough to be seen; finer neighbours are joined up to that width. Label -1 is left blank."""
    pieces: list[tuple[int, int]] = []
    for start, end in _runs(labels):
        if labels[start] < 0:
            continue
        if pieces and pieces[-1][1] == start and (pieces[-1][1] - pieces[-1][0]) * unit < FINEST:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return pieces


def draw_usage(level: Mapping[str, Any]) -> str:
    """Items per code, most used first, and the even share as a dashed line. A step that falls slowly is good."""
    width, height, left, bottom = 340, 170, 40, 24
    counts = level["counts"]
    drawn = counts if len(counts) <= 300 else [counts[i * len(counts) // 300] for i in range(300)]
    total = max(len(counts), level.get("size", 0))
    step = (width - left - 6) * len(counts) / total / len(drawn)
    scale = (height - bottom - 12) / counts[0]
    base = height - bottom
    steps = "".join(f"V{base - count * scale:.1f}h{step:.2f}" for count in drawn)
    even = base - sum(counts) / total * scale
    parts = [
        f'<path d="M{left} {base}{steps}V{base}z" fill="var(--c0)" fill-opacity="0.75"/>',
        line(left, even, width - 6, even, "--bad", 'stroke-dasharray="5 4"'),
        line(left, base, width - 6, base, "--soft"),
        text(left - 5, 16, f"{counts[0]:,}", "end"),
        text(left - 5, base, "0", "end"),
        text(left, height - 7, "most used code"),
        text(width - 6, height - 7, f"{total:,}th", "end"),
        text(width - 8, even - 5, "even share", "end", "--bad"),
    ]
    return picture(width, height, parts, f"items per code of level {level['level']}")


def draw_bits(levels: Sequence[Mapping[str, Any]]) -> str:
    """How the choice of an item is divided over the levels: bits of each code, given the codes before it."""
    total = sum(level["bits"] for level in levels) or 1.0
    parts, x = [], 0.0
    for place, level in enumerate(levels):
        width = level["bits"] / total * WIDTH
        colour = f"hsl(205 48% {38 + 10 * place}%)"
        parts.append(f'<rect x="{x:.1f}" y="0" width="{max(width - 2, 0.5):.1f}" height="34" rx="3" fill="{colour}"/>')
        bits = f"{level['bits']:.1f} bits"
        for label in (f"code {level['level']}: {level['choices']:,.1f} ways, {bits}", bits):
            if len(label) * 6.8 + 16 <= width:
                parts.append(f'<text x="{x + 8:.1f}" y="21" font-size="12.5" fill="#fff">{label}</text>')
                break
        x += width
    return picture(WIDTH, 34, parts, "bits per level")


def draw_bar(share: float, chance: float) -> str:
    """A share of 1 as a bar, chance as a mark on it."""
    ground = '<rect y="3" width="300" height="10" rx="2" fill="var(--tint)"/>'
    bar = f'<rect y="3" width="{share * 300:.1f}" height="10" rx="2" fill="var(--c0)"/>'
    mark = f'<rect x="{chance * 300:.1f}" y="0" width="2" height="16" fill="var(--bad)">'
    mark += f"<title>{chance:.1%} by chance</title></rect>"
    return picture(302, 16, [ground, bar, mark], f"{share:.1%}, by chance {chance:.1%}")
