"""GRPO for semantic IDs, on TRL 0.24: the G rollouts of a prompt are the G beams of one search inside the catalogue.

Sampling would draw the popular items over and over; beams are G different items in ranked order, as the ranking
rewards and the evaluation see them. Everything else is TRL's: loss, advantages, buffering, optimisation, resume.
All of TRL's private methods that this house overrides are in SEAMS; tests/test_seams.py watches them.
"""

import inspect
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import trl
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from mimigenrec.contract import prompt_ids
from mimigenrec.decoding.search import Support, warn_once
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.evaluation.quick import constrained_metrics
from mimigenrec.grpo.callbacks import SaveBetweenGenerations
from mimigenrec.grpo.checks import check_arguments, check_whole_batch
from mimigenrec.grpo.load_reward import checked
from mimigenrec.grpo.rollout import Rollout, check_sampling, roll_out
from mimigenrec.grpo.shared_prefix import completion_logps, obstacle_to_sharing, whole_groups

if not trl.__version__.startswith("0.24."):
    raise ImportError(
        f"mimigenrec.grpo overrides private methods of TRL 0.24 and found TRL {trl.__version__}; "
        f'run pip install "trl>=0.24.0,<0.25"'
    )

SEAMS = (
    "_generate_single_turn",  # prompts -> completions: ours come from roll_out()
    "_calculate_rewards",  # rewards are told group_index and rank_in_group; groups without signal are counted
    "_get_per_token_logps_and_entropies",  # each prompt computed once; support "trie": among the legal tokens only
    "_prepare_inputs",  # the rows of a prompt stay together in a micro-batch
    "_compute_loss",  # rows that cannot change the loss are not computed
)
EVAL_KS = (10, 50)

log = logging.getLogger(__name__)


class BeamGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with a trie. train_dataset has the columns prompt (messages) and reward_model, as in rl/train.json.

    rollout  "beam", "sample", "distinct" or "mixed": see rollout.py
    support  "vocab", the default: log-probabilities in loss, KL and search under the full vocabulary, as SFT trains
             them and as search and evaluation score by default. "trie": renormalised over the legal tokens, so what
             is illegal or forced (the EOS of most SIDs) has no gradient; search and evaluate with support trie then
    Raises ValueError for settings that cannot work, before any step: see checks.py.
    """

    def __init__(
        self,
        model,
        reward_funcs,
        args,
        *,
        trie: SidTrie,
        rollout: Rollout = "beam",
        support: Support = "vocab",
        **kwargs,
    ):
        if args.max_completion_length is None:
            args.max_completion_length = trie.depth + 1
        check_arguments(args, trie, support)
        reward_funcs = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        rewards = [f if isinstance(f, (str, nn.Module)) else checked(f) for f in reward_funcs]
        warn_of_ranks_that_mean_nothing(rewards, rollout)
        super().__init__(model, rewards, args=args, **kwargs)
        check_whole_batch(len(self.train_dataset), args)
        if self.processing_class.eos_token_id != trie.eos_id:
            raise ValueError(
                f"the trie closes SIDs with token id {trie.eos_id}, the tokenizer's EOS is "
                f"{self.processing_class.eos_token_id}; build the trie with the checkpoint's own tokenizer"
            )
        self.trie, self.rollout, self.support = trie.to(self.accelerator.device), rollout, support
        self.sampling = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
        }
        check_sampling(rollout, self.sampling)
        self._with_signal: Tensor | None = None  # (N,) bool while a loss is computed that needs only these rows
        self._old_logps: Tensor | None = None  # (N, C) then, if TRL keeps them
        self.add_callback(SaveBetweenGenerations())

    def _generate_single_turn(self, prompts: list, images: list | None):
        """In: every prompt G times in a row. Out: its G rollouts in those G places, and its token ids."""
        G = self.num_generations
        ids = prompt_ids(self.processing_class, prompts[::G], self.max_prompt_length)
        batch = max(1, self.args.per_device_train_batch_size // G)
        with self._whole_model() as model:
            groups = roll_out(
                model,
                self.processing_class,
                self.trie,
                ids,
                G,
                self.rollout,
                self.support,
                self.sampling,
                batch,
            )
        return [own for own in ids for _ in range(G)], [tokens for group in groups for tokens in group], None, {}

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """(N, rewards) of all processes. Groups are told by their place in the global batch."""
        G = self.num_generations
        first = self.accelerator.process_index * len(inputs) // G
        inputs = [{**row, "group_index": first + i // G, "rank_in_group": i % G} for i, row in enumerate(inputs)]
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1).view(-1, G)
        silent = torch.isclose(total.std(dim=1), torch.zeros(len(total), device=total.device))  # (groups,)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["groups_without_signal"].append(silent.sum().item())
        metrics["groups_without_signal_share"].append(silent.float().mean().item())
        return rewards

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, *args, **kwargs
    ):
        """(N, C) twice, with each prompt of the batch computed once, or in TRL's own way where that cannot be."""
        obstacle = obstacle_to_sharing(model, input_ids.shape[1])
        if obstacle:
            warn_once(f"each completion pays for its whole prompt in training: {obstacle}")
            if self.support == "trie":
                model = InsideTrie(model, self.trie, logits_to_keep, self.temperature)
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, *args, **kwargs
            )
        size = batch_size or len(input_ids)
        parts = [
            completion_logps(
                model, self.trie, ids, mask, logits_to_keep, self.support, self.temperature, self._with_signal
            )
            for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
        ]
        logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        if self._with_signal is not None and not self._with_signal.all():
            silent, real = ~self._with_signal[:, None], attention_mask[:, -logits_to_keep:].bool()
            logps = logps if self._old_logps is None else torch.where(silent, self._old_logps, logps)  # ratio 1
            entropies = torch.where(silent, (entropies * real).sum() / (real & ~silent).sum().clamp(min=1), entropies)
        return logps, entropies

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before or not self.model.training:
            return inputs
        self._buffered_inputs = whole_groups(self._buffered_inputs)
        return self._buffered_inputs[(self._step - 1) % self.args.steps_per_generation]

    def _compute_loss(self, model, inputs):
        """With beta 0 a row of advantage 0 adds nothing to loss or gradient, so its forward and backward are saved.

        TRL's entropy metric is then that of the rows computed.
        """
        if self.beta == 0 and self.top_entropy_quantile == 1.0:
            self._with_signal, self._old_logps = inputs["advantages"] != 0, inputs.get("old_per_token_logps")
            self._metrics["train"]["rows_saved_share"].append(1 - self._with_signal.float().mean().item())
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._with_signal = None

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """HR and NDCG at 10 and 50 of the constrained search, over the rows of eval_dataset, shared by the processes.

        Takes the place of TRL's evaluation, which rolls out and scores every row G times and reports rewards only.
        Step 0 measures the SFT checkpoint (eval_on_start); a later HR@50 below it is warned about.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        start, rank, world = time.time(), self.accelerator.process_index, self.accelerator.num_processes
        mine = [rows[i] for i in range(rank, len(rows), world)]
        found: dict[str, float] = {}
        was_training = self.model.training
        self.model.eval()
        with self._whole_model() as model:
            if mine:
                found = constrained_metrics(
                    model,
                    self.processing_class,
                    self.trie,
                    prompt_ids(self.processing_class, [row["prompt"] for row in mine], self.max_prompt_length),
                    [row["reward_model"]["ground_truth"] for row in mine],
                    EVAL_KS,
                    self.args.per_device_eval_batch_size,
                    self.support,
                )
        parts = gather_object([(len(mine), found)])
        keys = parts[0][1]  # the first process always has a row
        metrics = {f"{metric_key_prefix}_{key}": sum(n * part.get(key, 0.0) for n, part in parts) for key in keys}
        metrics = {key: value / len(rows) for key, value in metrics.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.time() - start
        self.log(metrics)
        self._warn_if_below_sft(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.model.train(was_training)
        return metrics

    def _warn_if_below_sft(self, metrics: dict[str, float]) -> None:
        key = f"eval_hr@{EVAL_KS[-1]}"
        before = [entry[key] for entry in self.state.log_history if entry["step"] == 0 and key in entry]
        if before and metrics.get(key, 1.0) < before[0] and self.accelerator.is_main_process:
            log.warning(
                "step %d: HR@%d %.4f is below the SFT checkpoint's %.4f: the list narrows. Lower learning_rate or "
                "raise beta, or keep the best checkpoint with load_best_model_at_end and metric_for_best_model",
                self.state.global_step,
                EVAL_KS[-1],
                metrics[key],
                before[0],
            )

    @contextmanager
    def _whole_model(self) -> Iterator[nn.Module]:
        """The bare model with all its weights, whatever DDP, DeepSpeed or FSDP made of it, in eval mode."""
        gather = self.args.ds3_gather_for_generation
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, gather_deepspeed3_params=gather
            ) as model,
            torch.no_grad(),
            self.accelerator.autocast(),  # the search calls the parts of the model, past the forward that casts
            FSDP.summon_full_params(self.model_wrapped, recurse=False) if self.is_fsdp_enabled else nullcontext(),
        ):
            was_training = model.training
            model.eval()
            yield model
            model.train(was_training)


class InsideTrie:
    """A model's forward whose logits at the completion's places leave only the tokens that the trie allows there."""

    def __init__(self, model: nn.Module, trie: SidTrie, logits_to_keep: int, temperature: float):
        self.model, self.trie, self.keep, self.temperature = model, trie, logits_to_keep, temperature

    def __call__(self, input_ids: Tensor, **inputs):
        """input_ids (N, P + keep) -> the model's output, logits (N, any, V) whose last keep + 1 rows count.

        The row before a completion token decides about it; the last row decides about nothing. What is forbidden gets
        a large negative number, not -inf, whose product with a probability of 0 would make the entropy NaN. Behind
        EOS, where the loss does not look, everything stays.
        """
        output = self.model(input_ids=input_ids, **inputs)
        logits = output.logits
        legal = legal_tokens(self.trie, input_ids[:, -self.keep :], logits.shape[-1])  # (N, keep, V)
        lowest = torch.finfo(logits.dtype).min / 2 * min(1.0, self.temperature)
        kept = logits[:, -self.keep - 1 : -1].masked_fill(~legal, lowest)
        output.logits = torch.cat([kept, logits[:, -1:]], dim=1)
        return output


def legal_tokens(trie: SidTrie, completions: Tensor, vocabulary: int) -> Tensor:
    """completions (N, T) -> (N, T, V): what may stand at each place, given what stands before it."""
    node = completions.new_zeros(len(completions))
    open_ = torch.ones_like(node, dtype=torch.bool)
    legal = []
    for t in range(completions.shape[1]):
        legal.append(trie.allowed(node, vocabulary) | ~open_[:, None])
        node = trie.step(node, completions[:, t])
        open_ = open_ & (completions[:, t] != trie.eos_id)
    return torch.stack(legal, dim=1)


def warn_of_ranks_that_mean_nothing(rewards: list, rollout: Rollout) -> None:
    ranking = [f.__name__ for f in rewards if callable(f) and "rank_in_group" in inspect.signature(f).parameters]
    if ranking and rollout != "beam":
        log.warning("rollout %s: draws come in no order, so rank_in_group tells %s nothing", rollout, ranking)
