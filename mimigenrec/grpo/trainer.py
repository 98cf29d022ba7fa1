"""GRPO for semantic IDs, on TRL 0.24: the G rollouts of a prompt are the G beams of one search inside the catalogue.

Sampling would draw the popular items over and over; beams are G different items in ranked order, as the ranking
rewards and the evaluation see them. Everything else is TRL's: loss, advantages, buffering, optimisation, resume.
TRL's private methods that it overrides are listed in training/seams.py, with the reason for each.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from mimigenrec.chat import prompt_ids
from mimigenrec.checkpoint import has_weights
from mimigenrec.contract import check_support
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.inside_trie import InsideTrie
from mimigenrec.decoding.logps import completion_logps, obstacle_to_sharing
from mimigenrec.decoding.rollout import Rollout, check_sampling, roll_out
from mimigenrec.decoding.search import Support, warn_once
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.grpo.callbacks import SaveBetweenGenerations
from mimigenrec.grpo.checks import (
    check_arguments,
    check_groups,
    check_pool,
    check_whole_batch,
    warn_of_ranks_that_mean_nothing,
)
from mimigenrec.grpo.groups import Group, remedies, spread, whole_groups, with_signal, without_hints
from mimigenrec.grpo.stop_rule import HR, StopRule, breaks, gains
from mimigenrec.grpo.target_loss import Targets, appended, columns, cross_entropy, targets_of
from mimigenrec.grpo.validation import validate
from mimigenrec.rewarding import answer_chats, ask_rewards, check_spread, checked, weighted_sums, without_signal
from mimigenrec.sids.tokens import split_sid
from mimigenrec.training.seams import check_trl
from mimigenrec.training.stop import LookFirst, StopIfNotFinite, check_number, diverged

check_trl()


class BeamGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with a trie. train_dataset has the columns prompt (messages) and reward_model, as in rl/train.json.

    rollout  "beam", "sample", "distinct" or "mixed": see decoding/rollout.py
    args     RLConfig: TRL's settings and ours, docs/rl.md
    support  "vocab", the default: log-probabilities in loss, KL and search under the full vocabulary, as SFT trains
             them and as search and evaluation score by default. "trie": renormalised over the legal tokens, so what
             is illegal or forced (the EOS of most SIDs) has no gradient; search and evaluate with support trie then
    Raises UserError for settings that cannot work, before any step: see checks.py.
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
        check_pool(len(self.train_dataset), args)
        if self.processing_class.eos_token_id != trie.eos_id:
            raise UserError(
                f"the trie closes SIDs with token id {trie.eos_id}, the tokenizer's EOS is "
                f"{self.processing_class.eos_token_id}; build the trie with the checkpoint's own tokenizer"
            )
        check_support(self.processing_class, support)
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
        self._groups: list[Group] = []  # while TRL scores the rollouts of a batch
        self._targets: Targets | None = None  # while a loss is computed that holds cross-entropy on them
        self.add_callback(SaveBetweenGenerations())
        self.add_callback(StopRule(args.stop_hr50_drop, args.stop_patience))
        self.add_callback(StopIfNotFinite())
        self.add_callback(LookFirst())

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        """In: every row G times in a row. Out: TRL's tensors of N rows, and what hints and ce_coef need beside.

        Raises UserError if the rows come in another order.
        """
        G, args, gather, device = self.num_generations, self.args, self.accelerator.gather, self.accelerator.device
        check_groups(inputs, G)
        groups = self._roll(inputs[::G])
        found = spread(groups, self.trie, gather)  # what the policy rolls out by itself
        drawn = torch.randperm(len(self.train_dataset)).tolist() if args.dynamic_sampling_rounds else []
        others = (self.train_dataset[row] for row in drawn)
        score = partial(self._score, filler=groups[0])
        groups, rounds = with_signal(groups, args, self.trie.depth, self._roll, score, others, self._most)
        for name, value in (found | remedies(groups, rounds, args, device, gather)).items():
            self._metrics["train"][name].append(value)
        self._groups = groups
        try:
            output = super()._generate_and_score_completions([group.row for group in groups for _ in range(G)])
        finally:
            self._groups = []
        output = without_hints(output, groups, gather) if args.hints else output
        return output | (columns([group.target for group in groups], G, device) if args.ce_coef else {})

    def _generate_single_turn(self, prompts: list, images: list | None):
        """In: every prompt G times in a row. Out: the rollouts made for them, in those G places, and its token ids."""
        pairs = [(group.prompt, tokens) for group in self._groups for tokens in group.rollouts]
        return [prompt for prompt, _ in pairs], [tokens for _, tokens in pairs], None, {}

    def _roll(self, rows: list[dict], hint: int = 0) -> list[Group]:
        """The rollouts of each row, below the first `hint` tokens of its target. All processes call it together."""
        tokenizer, args = self.processing_class, self.args
        prompts = prompt_ids(tokenizer, [row["prompt"] for row in rows], self.max_prompt_length)
        texts = [split_sid(row["reward_model"]["ground_truth"]) for row in rows]
        targets = [[*tokenizer.convert_tokens_to_ids(text), self.trie.eos_id] for text in texts]
        with self._whole_model() as model:
            rollouts = roll_out(
                model,
                tokenizer,
                self.trie,
                prompts,
                self.num_generations,
                self.rollout,
                self.support,
                self.sampling,
                max(1, args.per_device_train_batch_size // self.num_generations),
                [target[:hint] for target in targets] if hint else None,
            )
        return [Group(*group, hint=hint) for group in zip(rows, prompts, targets, rollouts, strict=True)]

    def _score(self, groups: list[Group], filler: Group) -> None:
        """Fills in scores and silent. All processes call it together; one with fewer groups adds the filler."""
        most, G = self._most(len(groups)), self.num_generations
        if not most:
            return
        asked = [*groups, *[filler] * (most - len(groups))]
        inputs = [group.row for group in asked for _ in range(G)]
        ids = [tokens for group in asked for tokens in group.rollouts]
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        rewards = self._ask_rewards(inputs, [row["prompt"] for row in inputs], answer_chats(texts), ids)
        first = self.accelerator.process_index * most
        mine = rewards.view(-1, G, rewards.shape[1])[first : first + len(groups)]
        silent = without_signal(weighted_sums(mine, self.reward_weights)).tolist()
        for i, group in enumerate(groups):
            group.scores, group.silent = mine[i], silent[i]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """(N, rewards) of all processes; where the groups were scored before, those scores."""
        if self._groups and self._groups[0].scores is not None:
            rewards = self.accelerator.gather(torch.cat([group.scores for group in self._groups]))
        else:
            rewards = self._ask_rewards(inputs, prompts, completions, completion_ids_list)
        groups = rewards.view(-1, self.num_generations, rewards.shape[1])
        sums = weighted_sums(groups, self.reward_weights)
        check_spread(sums, f"step {self.state.global_step + 1}: ")
        silent = without_signal(sums)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["groups_without_signal"].append(silent.sum().item())
        metrics["groups_without_signal_share"].append(silent.float().mean().item())
        return rewards

    def _ask_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """(N, rewards) of all processes. Groups are told by their place in the global batch."""
        G = self.num_generations
        first = self.accelerator.process_index * len(inputs) // G
        if any(isinstance(reward, nn.Module) for reward in self.reward_funcs):  # a model reads tokens: TRL's own way
            places = [{"group_index": first + i // G, "rank_in_group": i % G} for i in range(len(inputs))]
            inputs = [row | place for row, place in zip(inputs, places, strict=True)]
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        scores = ask_rewards(self.reward_funcs, inputs, completions, completion_ids_list, G, first, self.state)
        return self.accelerator.gather(torch.tensor(scores, dtype=torch.float32, device=self.accelerator.device))

    def _most(self, n: int) -> int:
        return int(self.accelerator.gather(torch.tensor([n], device=self.accelerator.device)).max())

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, *args, **kwargs
    ):
        """(N, C) twice, with each prompt of the batch computed once, or in TRL's own way where that cannot be.

        Completion tokens that the mask leaves out, padding and hints, get 0.
        """
        N, C, wanted, targets = len(input_ids), logits_to_keep, self._with_signal, self._targets
        if targets is not None:
            input_ids, attention_mask, logits_to_keep = appended(targets, input_ids, attention_mask, C)
            more = torch.ones(len(input_ids) - N, dtype=torch.bool, device=input_ids.device)
            wanted = None if wanted is None else torch.cat([wanted, more])
        obstacle = obstacle_to_sharing(model, input_ids.shape[1])
        if obstacle:
            warn_once(f"each completion pays for its whole prompt in training: {obstacle}")
            if self.support == "trie":
                model = InsideTrie(model, self.trie, logits_to_keep, self.temperature)
            asked = attention_mask[:, -logits_to_keep:].bool()
            seen = asked.flip(1).cummax(dim=1).values.flip(1)  # a hint has no loss, but what follows it sees it
            whole = torch.cat([attention_mask[:, :-logits_to_keep], seen.to(attention_mask.dtype)], dim=1)
            logps, entropies = super()._get_per_token_logps_and_entropies(
                model, input_ids, whole, logits_to_keep, batch_size, *args, **kwargs
            )
            logps = logps.masked_fill(~asked, 0)
        else:
            size = batch_size or len(input_ids)
            parts = [
                completion_logps(model, self.trie, ids, mask, logits_to_keep, self.support, self.temperature, wanted)
                for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
            logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        if targets is not None:
            self._ce = cross_entropy(targets, logps[N:])
            logps, entropies = logps[:N, :C], entropies[:N, :C]
        if not obstacle and self._with_signal is not None and not self._with_signal.all():
            silent, real = ~self._with_signal[:, None], attention_mask[:N, -logits_to_keep:][:, :C].bool()
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
        """TRL's loss + ce_coef * cross-entropy on the targets.

        With beta 0 a row of advantage 0 adds nothing to loss or gradient, so its forward and backward are saved; TRL's
        entropy metric is then that of the rows computed. A target is computed whatever the group's advantages.
        """
        if self.beta == 0 and self.top_entropy_quantile == 1.0:
            self._with_signal, self._old_logps = inputs["advantages"] != 0, inputs.get("old_per_token_logps")
            self._metrics["train"]["rows_saved_share"].append(1 - self._with_signal.float().mean().item())
        self._targets = targets_of(inputs) if self.args.ce_coef else None
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self._with_signal = self._targets = None
        if self.args.ce_coef:
            self._metrics["train"]["ce_loss"].append(self.accelerator.gather(self._ce.detach()).mean().item())
            loss = loss + self.args.ce_coef * self._ce / self.current_gradient_accumulation_steps
        return loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        """TRL's, Liger's loss included. Raises UserError if it is not finite, before there is a gradient of it."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        check_number("loss", loss.item(), self.state.global_step + 1, self.args)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, *args, **kwargs):
        if grad_norm is not None and not self.args.fp16:  # whose scaler leaves out a step with such a norm
            check_number("grad_norm", float(grad_norm), self.state.global_step, self.args)
        return super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _load_best_model(self) -> None:
        """transformers (4.57) ends with the last model, and a remark, where the best one is not there."""
        best = self.state.best_model_checkpoint
        places = [best, str(Path(self.args.output_dir) / Path(best).name)]  # output_dir may have moved
        there = [place for place in places if has_weights(place)]
        if not there:
            raise UserError(f"the best model, {best}, is gone, so there is nothing to end with; put it back")
        self.state.best_model_checkpoint = there[0]
        super()._load_best_model()

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """HR and NDCG at 10 and 50 of the constrained search, over the rows of eval_dataset, shared by the processes.

        Takes the place of TRL's evaluation, which rolls out and scores every row G times and reports rewards only.
        Step 0 measures the SFT checkpoint (eval_on_start); for a later HR@50 below it see stop_rule.py.
        """
        rows, start = self.eval_dataset if eval_dataset is None else eval_dataset, time.time()
        was_training = self.model.training
        self.model.eval()
        with self._whole_model() as model:
            found = validate(
                model,
                self.processing_class,
                self.trie,
                rows,
                self.max_prompt_length,
                self.args.per_device_eval_batch_size,
                self.support,
                self.accelerator,
            )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.time() - start
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.is_in_train and not self.state.global_step and self.args.stop_hr50_drop is not None:
            self._keep_the_start(metrics)
        self.model.train(was_training)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        drop = self.args.stop_hr50_drop
        if drop is not None and breaks(metrics[HR], self.state.log_history, drop):
            return False
        if self.args.min_gain and self.state.global_step:
            name = f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"
            if not gains(metrics, self.state.log_history, name, self.args.min_gain):
                return False
        return super()._determine_best_metric(metrics, trial)

    def _keep_the_start(self, metrics: dict[str, float]) -> None:
        """The SFT checkpoint as checkpoint-0, the best so far: what is loaded in the end if all that follows is worse
        or breaks the stop rule."""
        self._determine_best_metric(metrics, None)
        self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-0")

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
            try:
                yield model
            except NotFinite as error:
                raise diverged(
                    "the scores of the search are NaN or infinite", self.state.global_step + 1, self.args
                ) from error
            model.train(was_training)
