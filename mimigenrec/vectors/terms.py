"""A text as the terms that TF-IDF counts: its words, or pieces of words where a script leaves no space between them.

Chinese, Japanese, Thai, Lao, Khmer and Burmese write words without spaces: a whole title would be one term, which no
other title has. Runs of these scripts become overlapping pieces of 1 and 2 characters (Chinese, Japanese) or of 2 and
3 (the others, whose letters say less). All other text becomes words of 2 or more letters or digits; accents and vowel
signs that are characters of their own belong to their word. Case makes no difference.

Measured on generated titles of 10 kinds, share of the 5 nearest titles of the same kind, 60 titles, 32 numbers, words
alone against these terms: Chinese 0.10 -> 0.98, Japanese 0.07 -> 0.99, Thai 0.71 -> 0.98. English keeps its words:
pieces of 3 to 5 characters make nine times as many terms and are no better (Industrial 2023, the 10 nearest of the
same category: words 0.511, pieces 0.500).
"""

import re
import unicodedata

IDEOGRAMS = (  # and kana
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
LETTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
INDIC = "\u0900-\u0963\u0966-\u0dff"  # Devanagari to Sinhala; their vowel signs are no letters to Python
MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u200c\u200d" + INDIC
RUN = re.compile(f"[{IDEOGRAMS}]+|[{LETTERS}]+")
WORD = re.compile(f"[\\w{MARKS}]{{2,}}")
EARLIER = re.compile(r"\b\w\w+\b")  # of versions that knew no other terms than words
OTHERWISE = re.compile(f"[{IDEOGRAMS}{LETTERS}{INDIC}]")  # what they read otherwise


def terms(text: str) -> list[str]:
    """Each term as often as it occurs, in no particular order."""
    text = unicodedata.normalize("NFC", text.lower())
    if not RUN.search(text):
        return WORD.findall(text)
    text = unicodedata.normalize("NFKC", text)  # full-width letters and half-width kana become the usual ones
    pieces = WORD.findall(RUN.sub(" ", text))
    for run in RUN.findall(text):
        shortest = 1 if re.match(f"[{IDEOGRAMS}]", run) else 2
        lengths = (shortest, shortest + 1) if len(run) > shortest else (len(run),)
        pieces += [run[i : i + n] for n in lengths for i in range(len(run) - n + 1)]
    return pieces


def earlier_terms(text: str) -> list[str]:
    """Words alone, for what was learnt from them."""
    return EARLIER.findall(text.lower())
