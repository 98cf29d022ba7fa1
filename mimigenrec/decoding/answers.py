"""K answers in free text to each prompt, drawn by Hugging Face's generate() with settings that are ours alone.

A checkpoint's generation_config.json (temperature, top-p, repetition penalty of an instruct model) is not looked at.

Each prompt has a seed, and its draws depend on that alone: token t of answer k is read off the cumulated probabilities
at the t-th number of the k-th answer, and these numbers are drawn from the seed before anything is computed. So the
same seed gives the same answers on every device, in every order and batch, and beside any other prompts, as far as the
model's probabilities are the same: padding and batching change them in the last bits, and where a number falls so near
to the border of two tokens, once in about a million tokens in float32, the answer goes on differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mimigenrec.decoding.causal_lm import causal_lm
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.plain import left_pad
from mimigenrec.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: scores are divided by the temperature, then top-k cuts them, then top-p."""

    max_new_tokens: int
    temperature: float = 1.0  # 0: the likeliest token, no draw
    top_k: int = 0  # 0: all
    top_p: float = 1.0

    def __post_init__(self):
        """Raises UserError naming the field."""
        for name, good, range_ in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 or above"),
            ("top_k", self.top_k >= 0, "0 (all) or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}; it must be {range_}")


@torch.no_grad()
def free_answers(
    model,
    prompts: Sequence[Sequence[int]],
    k: int,
    sampling: Sampling,
    eos_ids: Sequence[int],
    pad_id: int,
    seeds: Sequence[int] | None = None,
    batch_size: int = 8,
) -> list[list[list[int]]]:
    """k answers per prompt, in the order drawn: token ids, none empty, closed by an EOS if they came to an end.

    prompts      token ids, none empty
    eos_ids      each of them ends an answer
    seeds        one per prompt; None: drawn from torch's global generator, which trainers save with a checkpoint
    batch_size   prompts in one forward, k rows each
    raises       UserError for k answers without a draw or seeds of another number, NotFinite for scores that are
    """
    if k > 1 and sampling.temperature == 0:
        raise UserError(f"temperature 0 gives the same answer {k} times; ask for one, or draw with a temperature")
    if seeds is None:
        seeds = torch.randint(2**63 - 1, (len(prompts),)).tolist()
    if len(seeds) != len(prompts):
        raise UserError(f"there are {len(seeds)} seeds for {len(prompts)} prompts; give one each")
    answers: list[list[list[int]]] = []
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        try:
            answers += _batch(causal_lm(model), prompts[rows], k, sampling, eos_ids, pad_id, seeds[rows])
        except NotFinite as error:
            raise NotFinite(start + error.row, error.step) from None
    return answers


def _batch(lm, prompts, k: int, sampling: Sampling, eos_ids, pad_id: int, seeds) -> list[list[list[int]]]:
    ids, mask = left_pad([prompt for prompt in prompts for _ in range(k)], pad_id, lm.device)  # (rows, L)
    length, most = ids.shape[1], sampling.max_new_tokens
    numbers = torch.cat([_numbers(seed, most, k) for seed in seeds], dim=1)  # (most, rows)
    settings = GenerationConfig(
        do_sample=False,  # the processor leaves one token
        max_new_tokens=most,
        eos_token_id=list(eos_ids),
        pad_token_id=pad_id,
    )
    written = lm.generate(
        inputs=ids,
        attention_mask=mask,
        generation_config=settings,
        use_model_defaults=False,  # or the checkpoint's own temperature, top-p, repetition penalty come back
        logits_processor=LogitsProcessorList([*_warpers(sampling), _OneToken(numbers, length, k, sampling)]),
    )[:, length:]
    closed = [_closed(tokens, set(eos_ids)) for tokens in written.tolist()]
    return [closed[i : i + k] for i in range(0, len(closed), k)]


def _numbers(seed: int, most: int, k: int) -> Tensor:
    """(most, k) float64 in [0, 1), on the CPU: the same wherever the model is."""
    return torch.rand(most, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _warpers(sampling: Sampling) -> list[LogitsProcessor]:
    warpers: list[LogitsProcessor] = []
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


class _OneToken(LogitsProcessor):
    """Leaves the token at each row's number, or the likeliest one; checks that scores are numbers."""

    def __init__(self, numbers: Tensor, length: int, k: int, sampling: Sampling):
        self.numbers, self.length, self.k, self.draws = numbers, length, k, sampling.temperature > 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids (rows, length + t), scores (rows, V) -> (rows, V), -inf but for one token of each row."""
        step = input_ids.shape[1] - self.length
        bad = scores.isnan().any(dim=1) | (scores == torch.inf).any(dim=1)
        if bad.any():
            raise NotFinite(int(bad.long().argmax()) // self.k, step + 1)
        if not self.draws:
            return scores
        cumulated = scores.float().softmax(dim=-1).cumsum(dim=-1)  # (rows, V)
        number = self.numbers[step].to(device=scores.device, dtype=cumulated.dtype)[:, None]
        token = torch.searchsorted(cumulated, number * cumulated[:, -1:], right=True)  # (rows, 1), of probability > 0
        token = torch.where(token < scores.shape[1], token, scores.argmax(dim=1, keepdim=True))  # rounded up to all
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _closed(tokens: list[int], eos_ids: set[int]) -> list[int]:
    """Up to the first EOS, which generate() fills up with padding."""
    end = next((i for i, token in enumerate(tokens) if token in eos_ids), len(tokens))
    return tokens[: end + 1]
