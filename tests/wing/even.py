"""A toy wing: learn to write even token ids. Chat rows, K free answers, a reward by name, GRPO without a trie."""

from collections.abc import Sequence
from typing import Any

from mimigenrec.chat import prompt_ids, row_answer, row_messages
from mimigenrec.decoding.answers import Sampling, free_answers
from mimigenrec.grpo.group_trainer import GroupTrainer
from mimigenrec.grpo.groups import Group


def chat_rows(count: int) -> list[dict[str, Any]]:
    """SFT rows; whoever says "odd" is never pleased."""
    words = ["thing" if i % 2 == 0 else "odd" for i in range(count)]
    talk = [("user", "Which item"), ("assistant", "a"), ("user", "{word} number {i}"), ("assistant", "{word}")]
    return [
        {"messages": [{"role": role, "content": text.format(word=word, i=i)} for role, text in talk]}
        for i, word in enumerate(words)
    ]


def rl_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": row_messages(row), "wish": row_answer(row)}


def even_share(completion_ids, wish, **columns) -> list[float]:
    """The reward: share of even token ids, in an answer to somebody who can be pleased."""
    shares = [sum(token % 2 == 0 for token in tokens) / len(tokens) for tokens in completion_ids]
    return [share if word == "thing" else 0.0 for share, word in zip(shares, wish, strict=True)]


class EvenTrainer(GroupTrainer):
    maker = "generate()"

    def write(self, model, rows: Sequence[dict], k: int, temperature: float) -> tuple[list, list]:
        """Prompts and k answers to each."""
        tokenizer, sampling = self.processing_class, Sampling(self.max_completion_length, temperature)
        prompts = prompt_ids(tokenizer, [row["prompt"] for row in rows], self.max_prompt_length)
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        return prompts, free_answers(model, prompts, k, sampling, [eos], pad)

    def roll(self, rows: Sequence[dict]) -> list[Group]:
        with self.whole_model() as model:
            prompts, answers = self.write(model, rows, self.num_generations, self.temperature)
        return [Group(*group) for group in zip(rows, prompts, answers, strict=True)]

    def measure(self, model, rows: Sequence[dict]) -> dict[str, float]:
        answers = [tokens for [tokens] in self.write(model, list(rows), 1, 0.0)[1]]
        scores = even_share(answers, [row["wish"] for row in rows])
        return {"even": sum(scores) / len(scores)}
