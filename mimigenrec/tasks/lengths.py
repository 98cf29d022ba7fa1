"""How long the rows are in tokens, measured while they are written: what later stages must leave room for."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mimigenrec.contract import prompt_ids, row_messages

BATCH = 1000  # rows held while their tokens are counted
SEEN = 20  # first rows of a file that are kept for the comparison with LLaMA-Factory


class Lengths:
    """The longest rows of each file, in tokens of one tokenizer that knows the SIDs."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.longest: dict[str, dict[str, int]] = {}  # file -> {"prompt": tokens, "prompt_and_answer": tokens}
        self.sft_rows: list[dict[str, str]] = []  # the first rows of every SFT file, and its longest

    def measured(self, file: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows as they are. The answer's length counts EOS and the line feed that LLaMA-Factory may add."""
        rows, longest_row, found = iter(rows), None, {"prompt": 0, "prompt_and_answer": 0}
        for batch in iter(lambda: list(islice(rows, BATCH)), []):
            is_rl = "prompt" in batch[0]
            prompts = prompt_ids(self.tokenizer, [row["prompt"] if is_rl else row_messages(row) for row in batch])
            answers = [row["reward_model"]["ground_truth"] if is_rl else row["output"] for row in batch]
            answer_ids = self.tokenizer(answers, add_special_tokens=False)["input_ids"]
            if longest_row is None and not is_rl:
                self.sft_rows += batch[:SEEN]
            for row, prompt, answer in zip(batch, prompts, answer_ids, strict=True):
                found["prompt"] = max(found["prompt"], len(prompt))
                if len(prompt) + len(answer) + 2 > found["prompt_and_answer"]:
                    longest_row, found["prompt_and_answer"] = row, len(prompt) + len(answer) + 2
            yield from batch
        if longest_row is not None and "output" in longest_row:
            self.sft_rows.append(longest_row)
        self.longest[file] = found
