"""Parts of SVG pictures in the colours of page.py. Lengths are SVG units; text is escaped here."""

from collections.abc import Sequence
from html import escape


def picture(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """A whole picture, which a page scales to its own width; label: what a screen reader says."""
    body = "".join(parts)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>'


def line(x0: float, y0: float, x1: float, y1: float, colour: str, more: str = "") -> str:
    """colour: a variable of the page, "--c0"; more: further attributes as text."""
    ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {ends} stroke="var({colour})"{" " + more if more else ""}/>'


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "--soft", size: float = 11) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {where} fill="var({colour})">{escape(words)}</text>'
