"""What the figures of an index mean: one plain sentence each, and the user's own gates.

The limits are rules of thumb, set so that the SID tables published with MiniOneRec and MIMIGenRec (3,686 items, three
levels) have no bad line, and random, collapsed and badly colliding tables have one. docs/sids.md lists them.
"""

import difflib
import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from mimigenrec.cli import check_range
from mimigenrec.errors import UserError

State = Literal["good", "watch", "bad"]
GATE = re.compile(r"\s*([\w.]+)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Verdict(NamedTuple):
    name: str
    state: State
    value: str  # the figure, as a person reads it
    meaning: str


class Gate(NamedTuple):
    """Fails if figure <compare> limit holds."""

    text: str
    figure: str
    compare: str
    limit: float


def judge(value: float, good: float, bad: float) -> State:
    """good on the near side of `good`, bad beyond `bad`, watch between; which side is which follows from the two."""
    sign = 1 if good < bad else -1
    return "good" if sign * value <= sign * good else "bad" if sign * value > sign * bad else "watch"


def worst(verdicts: Sequence[Verdict]) -> State:
    return max((v.state for v in verdicts), key=("good", "watch", "bad").index)


def give_verdicts(figures: Mapping[str, float]) -> list[Verdict]:
    """One for each question that the figures (names as in docs/sids.md) can answer, the gravest questions first."""
    verdicts = [_collisions(figures)]
    if "targets_hit" in figures:
        verdicts.append(_targets(figures))
    verdicts += _first_level(figures)
    if figures["level1.codes"] > 0.9 * figures["items"]:
        verdicts.append(_own_codes(figures))
    else:
        verdicts += _shared_codes(figures)
    verdicts.append(_last_level(figures))
    if "tokens_split" in figures:
        verdicts.append(_tokens(figures))
    if "churn.kept" in figures:
        verdicts.append(_churn(figures))
    return verdicts


def _collisions(f: Mapping[str, float]) -> Verdict:
    state = judge(f["collisions"], good=0.02, bad=0.1)
    if not f["colliding_items"]:
        return Verdict("Collisions", state, "none", "Every item has a SID of its own.")
    meaning = (
        f"{f['colliding_items']:,} of {f['items']:,} items share their SID, at most {f['largest_group']} at a time; "
        f"the model cannot tell those apart."
    )
    if f.get("collisions_by_text"):
        meaning += f" {f['collisions_by_text']:.0%} of them share it with an item of identical text."
    return Verdict("Collisions", state, f"{f['collisions']:.1%}", meaning)


def _targets(f: Mapping[str, float]) -> Verdict:
    state = judge(1 - f["hr1_ceiling"], good=0.03, bad=0.15)
    meaning = (
        f"A model that always named the right SID would reach item HR@1 {f['hr1_ceiling']:.3f}: "
        f"{f['targets_hit']:.1%} of the test targets share their SID"
    )
    without = f["targets_without_sid"]
    return Verdict(
        "Test ceiling", state, f"{f['hr1_ceiling']:.3f}", meaning + (f", {without:.1%} have none." if without else ".")
    )


def _first_level(f: Mapping[str, float]) -> list[Verdict]:
    codes, even = f["level1.codes"], f["level1.perplexity"] / f["level1.codes"]
    state = "bad" if codes == 1 else judge(even, good=0.6, bad=0.3)
    meaning = f"The {codes:,} first codes in use divide the items as {f['level1.perplexity']:.0f} equal ones would."
    verdicts = [Verdict("Evenness of the first code", state, f"{even:.0%}", meaning)]
    if "level1.used" in f:
        meaning = f"{codes:,} of the {f['level1.size']:,} codes of the first level belong to an item"
        meaning += "." if f["level1.used"] == 1 else "; the others are dead."
        state = judge(f["level1.used"], good=0.8, bad=0.1)
        verdicts.append(Verdict("First codebook in use", state, f"{f['level1.used']:.0%}", meaning))
    state = judge(f["level1.largest"], good=0.1, bad=0.3)
    meaning = f"One first code holds {f['level1.largest']:.1%} of the items; an even share would be {1 / codes:.1%}."
    return [*verdicts, Verdict("Largest cell", state, f"{f['level1.largest']:.1%}", meaning)]


def _own_codes(f: Mapping[str, float]) -> Verdict:
    meaning = (
        f"{f['level1.codes']:,} first codes for {f['items']:,} items: none says what items have in common; "
        f"`mimigenrec add-sids --init vectors` says it with the rows that the tokens start from."
    )
    return Verdict("Alike items, alike SIDs", "watch", "a code each", meaning)


def _shared_codes(f: Mapping[str, float]) -> list[Verdict]:
    """What items of one first code have in common."""
    verdicts = []
    if "neighbours.level1.share" in f:
        verdicts.append(_neighbours(f))
    for section, name, what in (
        (
            "copurchase.level1",
            "Bought one after the other",
            "items bought one after the other start with the same code",
        ),
        ("category", "Same category", "items of one first code have the same category"),
    ):
        if f.get(f"{section}.lift") is not None:
            verdicts.append(_lift(name, what, f[f"{section}.share"], f[f"{section}.lift"]))
    return verdicts


def _neighbours(f: Mapping[str, float]) -> Verdict:
    share, lift = f["neighbours.level1.share"], f.get("neighbours.level1.lift", 0.0)
    state = "bad" if lift < 3 else "good" if share >= 0.4 else "watch"
    meaning = (
        f"Of an item's {f['neighbours.k']} nearest neighbours in the embedding, {share:.0%} start with its first "
        f"code, {lift:.{0 if lift >= 10 else 1}f} times chance."
    )
    return Verdict("Alike items, alike SIDs", state, f"{share:.0%}", meaning)


def _lift(name: str, what: str, share: float, lift: float) -> Verdict:
    meaning = f"{share:.0%} of {what}, {lift:.1f} times chance."
    return Verdict(name, judge(lift, good=3, bad=1.5), f"{lift:.1f} x", meaning)


def _last_level(f: Mapping[str, float]) -> Verdict:
    last = max(int(name[5 : name.index(".")]) for name in f if re.match(r"level\d+\.", name))
    choices = f[f"level{last}.choices"]
    state = "good" if choices >= 1.1 else "watch"
    meaning = f"Once the codes before it are known, the last of {last} leaves {choices:.2f} ways on average"
    meaning += "." if state == "good" else "; it costs a decoding step and decides almost nothing."
    return Verdict("Work of the last code", state, f"{choices:.2f} ways", meaning)


def _tokens(f: Mapping[str, float]) -> Verdict:
    if f["tokens_split"] == f["tokens"]:
        meaning = "The tokenizer knows no SID token yet; `mimigenrec add-sids` adds them before training."
        return Verdict("Tokenizer", "watch", "not added", meaning)
    if f["tokens_split"] or f["sids_mangled"]:
        meaning = (
            f"{f['tokens_split']:,} of {f['tokens']:,} SID tokens fall apart and {f['sids_mangled']:,} SIDs are "
            f"read as other ids than their tokens; the tokenizer belongs to another index."
        )
        return Verdict("Tokenizer", "bad", f"{f['tokens_split']:,} split", meaning)
    return Verdict("Tokenizer", "good", "whole", f"Each of the {f['tokens']:,} SID tokens is one id, inside SIDs too.")


def _churn(f: Mapping[str, float]) -> Verdict:
    carries = f["churn.kept"] == 1 and f["churn.taken_over"] == 0
    meaning = (
        f"{f['churn.kept']:.1%} of the items in both indexes keep their SID; {f['churn.taken_over']:.1%} now have one "
        f"that meant another item. "
    )
    meaning += "A trained model carries over." if carries else "A model trained on the earlier one names other items."
    state = "good" if carries else "watch"
    return Verdict("Change since the earlier index", state, f"{f['churn.kept']:.0%} kept", meaning)


def parse_gate(text: str) -> Gate:
    """ "collisions>0.05" -> Gate. Raises UserError for anything else."""
    match = GATE.fullmatch(text)
    if not match:
        raise UserError(f"--fail_on {text!r} is not <figure><compare><number>, for example collisions>0.05")
    try:
        limit = float(match[3])
    except ValueError as error:
        raise UserError(f"--fail_on {text!r}: {match[3]!r} is not a number") from error
    check_range(f"the number of --fail_on {text!r}", limit)
    return Gate(text.strip(), match[1], match[2], limit)


def failed_gates(gates: Sequence[Gate], figures: Mapping[str, float | None]) -> list[Gate]:
    """The gates whose condition holds.

    Raises UserError for a figure that is not there or not finite: a gate that cannot be checked must not pass.
    """
    for gate in gates:
        value = figures.get(gate.figure)
        if value is None:
            near = difflib.get_close_matches(gate.figure, figures, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            raise UserError(
                f"--fail_on {gate.text!r}: there is no figure {gate.figure!r} in this report{hint} Figures of texts, "
                f"embeddings, rows, an earlier index or a tokenizer need the file they are measured on"
            )
        if not math.isfinite(value):
            raise UserError(
                f"--fail_on {gate.text!r}: the figure {gate.figure!r} is {value}, so it cannot be compared"
            )
    return [gate for gate in gates if COMPARE[gate.compare](figures[gate.figure], gate.limit)]
