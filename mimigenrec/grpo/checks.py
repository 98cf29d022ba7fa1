"""Settings that could not work, or would be ignored in silence: refused before any step, with what to change."""

import inspect
import logging
from collections.abc import Mapping, Sequence

from trl import GRPOConfig

from mimigenrec.decoding.rollout import Rollout
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.extras import need

log = logging.getLogger(__name__)


def check_rollouts(args: GRPOConfig, maker: str) -> None:
    """Raises UserError for settings that do not go with rollouts made by `maker`, a whole group at a time."""
    check_whole_groups(args.per_device_train_batch_size * args.steps_per_generation, args.num_generations)
    for name in ("use_vllm", "use_transformers_paged"):
        if getattr(args, name):
            raise UserError(
                f"{name}: true would not be used: rollouts come from {maker}, which {name[4:]} does not have. "
                f"Set {name}: false"
            )


def check_arguments(args: GRPOConfig, trie: SidTrie, support: Support) -> None:
    """Raises UserError, naming the setting to change."""
    check_group_size(args.num_generations, trie)
    if args.max_completion_length < trie.depth + 1:
        raise UserError(
            f"max_completion_length={args.max_completion_length} cannot hold a SID of {trie.depth} levels and EOS; "
            f"set it to {trie.depth + 1} or leave it out"
        )
    if args.generation_kwargs:
        raise UserError(
            f"generation_kwargs={args.generation_kwargs} would not be used: beams take none, and draws take their "
            f"temperature from its own setting"
        )
    if args.use_liger_loss and support == "trie":
        raise UserError("use_liger_loss computes log-probabilities over the vocabulary only; set support: vocab")
    for name, only in (("top_entropy_quantile", 1.0), ("importance_sampling_level", "token")):
        if args.use_liger_loss and getattr(args, name) != only:
            raise UserError(f"use_liger_loss takes no other {name} than {only}; set one of them back")
    for name in ("use_liger_loss", "use_liger_kernel"):
        if getattr(args, name):
            need("liger_kernel", f"{name}: true")
    if args.hints and trie.depth < 2:
        raise UserError("hints: true gives the first levels of a target; SIDs of one level have none to give")


def check_group_size(G: int, trie: SidTrie) -> None:
    """Raises UserError if a catalogue has fewer SIDs than a group has rollouts."""
    if trie.n_sids < G:
        raise UserError(
            f"num_generations={G} asks for {G} different SIDs per prompt, the catalogue has {trie.n_sids}; set "
            f"num_generations to {trie.n_sids} or less"
        )


def check_remedies(args) -> None:
    """Raises UserError for values of RLConfig's own options that make no sense, alone or together."""
    if args.hints and args.add_target:
        raise UserError(
            "hints and add_target are two answers to the same missing target: with the target added there is hardly "
            "a silent group left to hint. Set one of them to false"
        )
    for name in ("ce_coef", "hints"):
        if getattr(args, name) and args.use_liger_loss:
            raise UserError(
                f"{name} would not be used: use_liger_loss has a loss of its own. Set one of them to false"
            )
    if args.stop_hr50_drop is None:
        if args.min_gain:
            raise UserError(
                f"min_gain={args.min_gain} needs stop_hr50_drop, which keeps the SFT checkpoint to go back to"
            )
        return
    if not args.eval_on_start:
        raise UserError(
            f"stop_hr50_drop={args.stop_hr50_drop} compares evaluations with the SFT checkpoint's: set eval_strategy: "
            f"steps and eval_steps, and leave eval_on_start on"
        )
    if not args.load_best_model_at_end or args.save_strategy == "best":
        raise UserError(
            f"stop_hr50_drop={args.stop_hr50_drop} would end with the very model that broke the rule: set "
            f"load_best_model_at_end: true, metric_for_best_model: eval_ndcg@10 and save_strategy as eval_strategy"
        )


def check_whole_groups(rows: int, group_size: int) -> None:
    """Raises UserError unless one process holds whole groups."""
    if rows % group_size:
        raise UserError(
            f"each process would hold {rows} rollouts, not a whole number of groups of {group_size}: the beams of one "
            f"prompt would be split over processes and ranked apart. Make per_device_train_batch_size * "
            f"steps_per_generation (default: gradient_accumulation_steps) a multiple of num_generations={group_size}, "
            f"for example {-(-rows // group_size) * group_size}"
        )


def check_groups(inputs: Sequence[Mapping], group_size: int) -> None:
    """Raises UserError unless the rows of a batch are groups of the same prompt and target, one after the other."""
    for i, row in enumerate(inputs):
        first = i - i % group_size
        for key in ("prompt", "reward_model"):
            here, there = row.get(key), inputs[first].get(key)
            if here != there:
                raise UserError(
                    f"row {i} of the batch of one process is not of its group: its {key} is {str(here)[:200]}, "
                    f"that of row {first} is {str(there)[:200]}. Every row must come "
                    f"num_generations={group_size} times in a row, as TRL's own sampler gives them; a sampler or "
                    f"dataset transform of yours must keep that"
                )


def check_whole_batch(rows: int, args: GRPOConfig) -> None:
    """Raises UserError if the training rows do not fill one generation batch: TRL would train on nothing."""
    prompts = args.generation_batch_size // args.num_generations
    if rows < prompts:
        raise UserError(
            f"one generation batch holds {prompts} prompts ({args.generation_batch_size} rollouts in groups of "
            f"{args.num_generations}) but there are only {rows} training rows; make per_device_train_batch_size or "
            f"steps_per_generation smaller"
        )


def check_pool(rows: int, args) -> None:
    """Raises UserError if dynamic sampling has no other rows to draw."""
    prompts = args.generation_batch_size // args.num_generations
    if args.dynamic_sampling_rounds and rows <= prompts:
        raise UserError(
            f"dynamic_sampling_rounds={args.dynamic_sampling_rounds} has no other prompts to draw: one generation "
            f"batch already holds {prompts} of {rows} training rows. Make the batch smaller or set it to 0"
        )


def check_save_steps(name: str, steps: int, args: GRPOConfig) -> None:
    """Raises UserError unless `steps` optimiser steps are whole generation batches."""
    forwards, per_generation = (
        steps * args.gradient_accumulation_steps,
        args.steps_per_generation * args.num_iterations,
    )
    if forwards % per_generation:
        raise UserError(
            f"{name}={steps} would save inside a generation batch, where a run cannot be resumed exactly: {steps} "
            f"steps are {forwards} forwards (gradient_accumulation_steps={args.gradient_accumulation_steps}), a "
            f"generation batch serves {per_generation} (steps_per_generation={args.steps_per_generation} * "
            f"num_iterations={args.num_iterations}). Make {name} * gradient_accumulation_steps a multiple of "
            f"{per_generation}"
        )


def warn_of_ranks_that_mean_nothing(rewards: list, rollout: Rollout) -> None:
    ranking = [f.__name__ for f in rewards if callable(f) and "rank_in_group" in inspect.signature(f).parameters]
    if ranking and rollout != "beam":
        log.warning("rollout %s: draws come in no order, so rank_in_group tells %s nothing", rollout, ranking)
