"""Sample: one question and its answer, as a task gives it; `rows.py` writes it for LLaMA-Factory and for TRL."""

from typing import NamedTuple


class Sample(NamedTuple):
    """template and values are written into words by the contract; `row` is where the sample came from."""

    template: str  # a name in contract.WORDINGS[...]["templates"]
    values: dict[str, str]
    answer: str  # a SID or a title
    row: int | None = None  # zero-based row of the split's .inter; None for item tasks, which get a running number
