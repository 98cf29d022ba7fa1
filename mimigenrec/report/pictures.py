"""The report's pictures, as SVG in the colours of page.py. Lengths are SVG units."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mimigenrec.svg import line, picture, text

WIDTH = 345
DASHES = ("", "6 3", "2 3", "8 3 2 3")
LETTER = 6.4  # width of a letter at font size 11


def draw_intervals(table: Mapping[str, Any], metric: str, models: Sequence[str], best: str | None) -> str:
    """One line per method: its 95 % interval, its mean, a tick per seed. Dashed: the best baseline.

    table: report["table"]. Models are filled dots in colour, baselines hollow grey ones.
    """
    names = list(table)
    left = min(150, 14 + LETTER * max(map(len, names)))
    highest = max(values[metric]["high"] for values in table.values()) or 1.0
    ticks = _ticks(0.0, highest, 4)
    scale = (WIDTH - left - 14) / max(highest, ticks[-1])
    base = 12 + 24 * len(names)
    parts = []
    for tick in ticks:
        x = left + tick * scale
        parts += [line(x, 4, x, base, "--line"), text(x, base + 15, f"{tick:g}", "middle")]
    if best:
        x = left + table[best][metric]["mean"] * scale
        parts.append(line(x, 4, x, base, "--c4", 'stroke-dasharray="4 3"'))
    for place, name in enumerate(names):
        value, y = table[name][metric], 18 + 24 * place
        colour, fill = ("--c0", "var(--c0)") if name in models else ("--c4", "var(--card)")
        x, low, high = (left + value[key] * scale for key in ("mean", "low", "high"))
        shown = f"{name}: {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
        parts += [
            text(left - 8, y + 4, _short(name, left), "end", "--ink"),
            line(low, y, high, y, colour, 'stroke-width="2"'),
            *(
                line(left + s * scale, y - 6, left + s * scale, y + 6, colour)
                for s in value["seeds"]
                if len(value["seeds"]) > 1
            ),
            f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{fill}" stroke="var({colour})" stroke-width="2">'
            f"<title>{escape(shown)}</title></circle>",
        ]
    return picture(WIDTH, base + 22, parts, f"{metric} of each method with its interval")


def draw_curves(panel: Mapping[str, Any]) -> str:
    """One panel of a training: {"x": name of its axis, "curves": {name: [points of a seed, ...]}}; point: (x, y)."""
    height, left, right = 200, 48, 10
    points = [point for seeds in panel["curves"].values() for curve in seeds for point in curve]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    room = 0.06 * (y1 - y0) or 0.05 * abs(y1) or 0.5
    y0, y1 = y0 - room, y1 + room
    base = height - 24

    def place(x: float, y: float) -> str:
        across = (x - x0) / (x1 - x0) if x1 > x0 else 0.5
        return f"{left + across * (WIDTH - left - right):.1f} {base - (y - y0) / (y1 - y0) * (base - 8):.1f}"

    parts = []
    for tick in _ticks(y0, y1, 4):
        y = float(place(x0, tick).split()[1])
        parts += [line(left, y, WIDTH - right, y, "--line"), text(left - 6, y + 4, f"{tick:g}", "end")]
    parts += [text(left, height - 8, f"{x0:g}"), text(WIDTH - right, height - 8, f"{panel['x']} {x1:g}", "end")]
    for number, seeds in enumerate(panel["curves"].values()):
        look = f'stroke="var(--c{number % 5})" stroke-width="{1.8 if len(seeds) == 1 else 1.2}"'
        if DASHES[number % 4]:
            look += f' stroke-dasharray="{DASHES[number % 4]}"'
        for curve in seeds:
            if len(curve) == 1:
                x, y = place(*curve[0]).split()
                parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="var(--c{number % 5})"/>')
            else:
                drawn = "L".join(place(x, y) for x, y in curve)
                parts.append(f'<path d="M{drawn}" fill="none" stroke-linejoin="round" {look}/>')
    legend, height = _legend(list(panel["curves"]), height + 8)
    return picture(WIDTH, height, [*parts, *legend], f"{', '.join(panel['curves'])} over {panel['x']}s")


def draw_levels(levels: Mapping[str, Any]) -> str:
    """One bar per method: share of rows by where the first recommended SID leaves the target's."""
    width, left = 1080, min(240.0, 14 + 1.1 * LETTER * max(map(len, levels)))
    depth = max(len(shares["wrong"]) for shares in levels.values())
    kinds = [("right", "the whole SID right", "var(--c2)", 1.0)]
    for level in range(depth, 0, -1):
        kinds.append(
            (str(level), f"wrong at level {level}", "var(--c0)", 0.15 + 0.65 * (level - 1) / max(depth - 1, 1))
        )
    kinds.append(("none", "no list, or a target without a SID", "var(--c1)", 0.7))
    kinds = [kind for kind in kinds if any(_share(shares, kind[0]) > 0 for shares in levels.values())]
    parts, y = [], 6
    for name, shares in levels.items():
        parts.append(text(left - 8, y + 17, _short(name, left), "end", "--ink", 12.5))
        x = left
        for key, what, colour, opacity in kinds:
            share = _share(shares, key)
            size = share * (width - left)
            box = f'<rect x="{x:.1f}" y="{y}" width="{max(size - 1, 0):.1f}" height="25" fill="{colour}"'
            parts.append(
                f'{box} fill-opacity="{opacity:.2f}"><title>{escape(f"{name}, {what}: {share:.1%}")}</title></rect>'
            )
            if size > 46:
                parts.append(
                    text(x + size / 2, y + 17, f"{share:.1%}", "middle", "--card" if opacity > 0.5 else "--ink", 12)
                )
            x += size
        y += 31
    x = left
    for _, what, colour, opacity in kinds:
        parts.append(
            f'<rect x="{x:.0f}" y="{y + 5}" width="13" height="13" fill="{colour}" fill-opacity="{opacity:.2f}"/>'
        )
        parts.append(text(x + 18, y + 16, what, size=12))
        x += 38 + 7 * len(what)
    return picture(width, y + 26, parts, "where the first recommended SID leaves the target's")


def _share(shares: Mapping[str, Any], key: str) -> float:
    return shares[key] if key in ("right", "none") else shares["wrong"].get(key, 0.0)


def _legend(names: Sequence[str], y: float) -> tuple[list[str], float]:
    """Samples of the lines with their names, as many to a row as fit, and the height below them."""
    parts, x = [], 8.0
    for number, name in enumerate(names):
        if x > 8 and x + 34 + LETTER * len(name) > WIDTH:
            x, y = 8.0, y + 17
        dash = f'stroke-width="2" stroke-dasharray="{DASHES[number % 4]}"' if number % 4 else 'stroke-width="2"'
        parts += [line(x, y, x + 22, y, f"--c{number % 5}", dash), text(x + 27, y + 4, name)]
        x += 44 + LETTER * len(name)
    return parts, y + 12


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], about so many."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def _short(name: str, room: float) -> str:
    letters = int((room - 10) / LETTER)
    return name if len(name) <= letters else name[: letters - 1] + "…"
