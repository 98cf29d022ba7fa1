"""How long the rows are in tokens, measured while they are written: what later stages must leave room for."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mimigenrec.chat import Row, prompt_ids, row_answer, row_messages

BATCH = 1000  # rows held while their tokens are counted
SEEN = 20  # rows of each shape in a file that are kept for the comparison with LLaMA-Factory


class Lengths:
    """The longest rows of each file, in tokens of one tokenizer that knows the SIDs."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.longest: dict[str, dict[str, int]] = {}  # file -> {"prompt": tokens, "prompt_and_answer": tokens}
        self.sft_rows: list[Row] = []  # some rows of every SFT file, and its longest

    def measured(self, file: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows as they are. The answer's length counts EOS and the line feed that LLaMA-Factory may add."""
        is_sft = file.startswith("sft/")
        rows, longest, longest_row, seen = iter(rows), {"prompt": 0, "prompt_and_answer": 0}, None, Counter()
        for batch in iter(lambda: list(islice(rows, BATCH)), []):
            prompts = prompt_ids(self.tokenizer, [row_messages(row) if is_sft else row["prompt"] for row in batch])
            answers = [row_answer(row) if is_sft else row["reward_model"]["ground_truth"] for row in batch]
            answer_ids = self.tokenizer(answers, add_special_tokens=False)["input_ids"]
            for row, prompt, answer in zip(batch, prompts, answer_ids, strict=True):
                longest["prompt"] = max(longest["prompt"], len(prompt))
                whole = len(prompt) + len(answer) + 2
                if whole > longest["prompt_and_answer"]:
                    longest["prompt_and_answer"], longest_row = whole, row
                if is_sft and seen[shape := shape_of(row)] < SEEN:
                    seen[shape] += 1
                    self.sft_rows.append(row)
            yield from batch
        if is_sft and longest_row:
            self.sft_rows.append(longest_row)
        self.longest[file] = longest


def shape_of(row: Row) -> tuple[str, ...]:
    """What rows of one task share: the instruction, or the roles of a chat."""
    return tuple(turn["role"] for turn in row["messages"]) if "messages" in row else (row.get("instruction", ""),)
