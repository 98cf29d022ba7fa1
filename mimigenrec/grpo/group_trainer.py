"""GRPO on TRL 0.24 whose rollouts a subclass makes, a whole group at a time. No trie, no SIDs: texts work too.

A subclass says how rows become groups (`roll`) and what an evaluation measures (`measure`). What every such training
needs is here: rewards that know group and rank, silent groups and resampling, tokens that others wrote left out of
the loss, each prompt computed once, rows that teach nothing left out of the forward, a rule that stops the run, a loss
that is not finite. Everything else is TRL's: advantages, loss, buffering, optimisation, resume. TRL's private methods
that are overridden are listed in training/seams.py, with the reason for each.

    G rollouts of a prompt (num_generations), N rows of a process, C completion tokens
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from mimigenrec.checkpoint import has_weights
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.inside_trie import InsideTrie
from mimigenrec.decoding.logps import completion_logps, obstacle_to_sharing
from mimigenrec.decoding.search import warn_once
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.grpo.callbacks import SaveBetweenGenerations
from mimigenrec.grpo.checks import check_groups, check_pool, check_rollouts, check_whole_batch
from mimigenrec.grpo.groups import Group, masked, resampled, visible, whole_groups
from mimigenrec.grpo.stop_rule import Guard, StopRule, breaks, gains
from mimigenrec.grpo.target_loss import Targets
from mimigenrec.rewarding import answer_chats, ask_rewards, check_spread, checked, weighted_sums, without_signal
from mimigenrec.training.seams import check_trl
from mimigenrec.training.stop import LookFirst, StopIfNotFinite, check_number, diverged

check_trl()


@dataclass(frozen=True)
class Aside:
    """What a method that TRL calls needs to know and TRL's own code between does not hand on."""

    groups: Sequence[Group] = ()  # while TRL scores the rollouts of a batch: these
    wanted: Tensor | None = None  # (N,) bool while a loss is computed: rows that it depends on; None: all
    old_logps: Tensor | None = None  # (N, C) then, if TRL keeps them
    targets: Targets | None = None  # while a loss is computed that holds cross-entropy on them


class GroupTrainer(GRPOTrainer):
    """GRPOTrainer for groups that are made as a whole. The column prompt holds messages; the others are the rewards'.

    args     GroupConfig: TRL's settings, and dynamic_sampling_rounds
    guard    the metric that must not fall below its first measure, see stop_rule.py
    masks    groups hold tokens that others wrote (Group.own): they have no loss and no KL, and are not counted
    Raises UserError for settings that cannot work, before any step.
    """

    maker = "the trainer's own rollouts"  # as errors name what makes the groups

    def __init__(self, model, reward_funcs, args, *, guard: Guard | None = None, masks: bool = False, **kwargs):
        check_rollouts(args, self.maker)
        reward_funcs = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        rewards = [f if isinstance(f, (str, nn.Module)) else checked(f) for f in reward_funcs]
        super().__init__(model, rewards, args=args, **kwargs)
        check_whole_batch(len(self.train_dataset), args)
        check_pool(len(self.train_dataset), args)
        self.guard, self.masks, self.aside = guard, masks, Aside()
        self.add_callback(SaveBetweenGenerations())
        if guard is not None:
            self.add_callback(StopRule(guard))
        self.add_callback(StopIfNotFinite())
        self.add_callback(LookFirst())

    def roll(self, rows: Sequence[dict[str, Any]]) -> list[Group]:
        """G rollouts of each row, in order. All processes call it together, each with its own rows, maybe with none.

        Within `whole_model()` the model is there with all its weights.
        """
        raise NotImplementedError

    def measure(self, model: nn.Module, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """What an evaluation on `rows` gives, the same on every process: {"hr@10": 0.1, ...}, without "eval_"."""
        raise NotImplementedError

    def silent(self, scores: Tensor) -> Tensor:
        """scores (groups, G, rewards) -> (groups,) bool: which groups teach nothing, and give way in resampling."""
        return without_signal(weighted_sums(scores, self.reward_weights))

    def improved(self, groups: list[Group]) -> tuple[list[Group], dict[str, float]]:
        """The groups to train on in place of those that were rolled out, and what to log about it."""
        rounds, filler = self.args.dynamic_sampling_rounds, groups[0]
        others = self.others() if rounds else ()
        groups = self.helped(groups, filler)
        groups, taken = resampled(
            groups, lambda rows: self.helped(self.roll(rows), filler), others, rounds, self.largest
        )
        if not rounds:
            return groups, {}
        drawn = torch.tensor([int(group.drawn) for group in groups], device=self.accelerator.device)
        drawn = self.accelerator.gather(drawn)
        share = drawn.sum().item() / len(drawn)
        return groups, {"dynamic_sampling_rounds": float(taken), "replaced_prompts_share": share}

    def helped(self, groups: list[Group], filler: Group) -> list[Group]:
        """Groups that were just rolled out, improved one by one, and scored if they are to be resampled."""
        if self.args.dynamic_sampling_rounds:
            self.score(groups, filler)
        return groups

    def others(self) -> Iterator[dict[str, Any]]:
        """Rows to draw from, of the whole training set, in a new order each time."""
        return (self.train_dataset[row] for row in torch.randperm(len(self.train_dataset)).tolist())

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        """In: every row G times in a row. Out: TRL's tensors of N rows.

        Raises UserError if the rows come in another order.
        """
        G = self.num_generations
        check_groups(inputs, G)
        groups, metrics = self.improved(self.roll(inputs[::G]))
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        with self.knowing(groups=groups):
            output = super()._generate_and_score_completions([group.row for group in groups for _ in range(G)])
        return self.finished(output, groups)

    def finished(self, output: dict, groups: list[Group]) -> dict:
        """TRL's tensors of a generation batch, for these groups."""
        return masked(output, groups, self.accelerator.gather) if self.masks else output

    def _generate_single_turn(self, prompts: list, images: list | None):
        """In: every prompt G times in a row. Out: the rollouts made for them, in those G places, and its token ids."""
        pairs = [(group.prompt, tokens) for group in self.aside.groups for tokens in group.rollouts]
        return [prompt for prompt, _ in pairs], [tokens for _, tokens in pairs], None, {}

    def score(self, groups: list[Group], filler: Group) -> None:
        """Fills in scores and silent. All processes call it together; one with fewer groups adds the filler."""
        most, G = self.largest(len(groups)), self.num_generations
        if not most:
            return
        padded = [*groups, *[filler] * (most - len(groups))]
        rows = [group.row for group in padded for _ in range(G)]
        ids = [tokens for group in padded for tokens in group.rollouts]
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        rewards = self.ask(rows, [row["prompt"] for row in rows], answer_chats(texts), ids)
        first = self.accelerator.process_index * most
        scores = rewards.view(-1, G, rewards.shape[1])[first : first + len(groups)]
        silent = self.silent(scores).tolist()
        for i, group in enumerate(groups):
            group.scores, group.silent = scores[i], silent[i]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """(N, rewards) of all processes; where the groups were scored before, those scores."""
        groups = self.aside.groups
        if groups and groups[0].scores is not None:
            rewards = self.accelerator.gather(torch.cat([group.scores for group in groups]))
        else:
            rewards = self.ask(inputs, prompts, completions, completion_ids_list)
        scores = rewards.view(-1, self.num_generations, rewards.shape[1])
        check_spread(weighted_sums(scores, self.reward_weights), f"step {self.state.global_step + 1}: ")
        silent = self.silent(scores)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["groups_without_signal"].append(silent.sum().item())
        metrics["groups_without_signal_share"].append(silent.float().mean().item())
        return rewards

    def ask(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """(N, rewards) of all processes. Groups are numbered by their place in the global batch."""
        G = self.num_generations
        first = self.accelerator.process_index * len(inputs) // G
        if any(isinstance(reward, nn.Module) for reward in self.reward_funcs):  # a model reads tokens: TRL's own way
            places = [{"group_index": first + i // G, "rank_in_group": i % G} for i in range(len(inputs))]
            inputs = [row | place for row, place in zip(inputs, places, strict=True)]
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        scores = ask_rewards(self.reward_funcs, inputs, completions, completion_ids_list, G, first, self.state)
        return self.accelerator.gather(torch.tensor(scores, dtype=torch.float32, device=self.accelerator.device))

    def largest(self, n: int) -> int:
        """A number of this process -> the largest of all processes."""
        return int(self.accelerator.gather(torch.tensor([n], device=self.accelerator.device)).max())

    @contextmanager
    def knowing(self, **facts) -> Iterator[Aside]:
        """While inside, `aside` holds these facts too; the only place that sets it."""
        before, self.aside = self.aside, replace(self.aside, **facts)
        try:
            yield self.aside
        finally:
            self.aside = before

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, *args, **kwargs
    ):
        """(N, C) twice, with each prompt of the batch computed once, or in TRL's own way where that cannot be.

        Completion tokens that the mask leaves out, padding and what others wrote, get 0. Rows that the loss does not
        depend on get their old log-probabilities, ratio 1, and the mean entropy of the rows computed.
        """
        logps, entropies, computed = self.logps(
            model, input_ids, attention_mask, logits_to_keep, batch_size, *args, **kwargs
        )
        if not computed.all():
            real, left_out, old = attention_mask[:, -logits_to_keep:].bool(), ~computed[:, None], self.aside.old_logps
            logps = logps if old is None else torch.where(left_out, old, logps)
            mean = (entropies * real).sum() / (real & ~left_out).sum().clamp(min=1)
            entropies = torch.where(left_out, mean, entropies)
        return logps, entropies

    def logps(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, *args, **kwargs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As above, 0 in rows left out; and (N,) bool, the rows computed. Rows behind those of `aside` are wanted."""
        N, device = len(input_ids), input_ids.device
        computed = torch.ones(N, dtype=torch.bool, device=device)
        obstacle = obstacle_to_sharing(model, input_ids.shape[1])
        if obstacle:
            warn_once(f"each completion pays for its whole prompt in training: {obstacle}")
            if self.inside is not None:
                model = InsideTrie(model, self.inside, logits_to_keep, self.temperature)
            asked = attention_mask[:, -logits_to_keep:]
            whole = torch.cat([attention_mask[:, :-logits_to_keep], visible(asked)], dim=1)
            logps, entropies = super()._get_per_token_logps_and_entropies(
                model, input_ids, whole, logits_to_keep, batch_size, *args, **kwargs
            )
            return logps.masked_fill(~asked.bool(), 0), entropies, computed
        if (wanted := self.aside.wanted) is not None:
            computed[: len(wanted)] = wanted
        size = batch_size or N
        parts = [
            completion_logps(model, ids, mask, logits_to_keep, self.temperature, self.inside, rows)
            for ids, mask, rows in zip(
                input_ids.split(size), attention_mask.split(size), computed.split(size), strict=True
            )
        ]
        logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logps, entropies, computed

    @property
    def inside(self) -> SidTrie | None:
        """The trie over whose legal tokens log-probabilities are renormalised; None: the whole vocabulary."""
        return None

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before or not self.model.training:
            return inputs
        self._buffered_inputs = whole_groups(self._buffered_inputs)
        return self._buffered_inputs[(self._step - 1) % self.args.steps_per_generation]

    def _compute_loss(self, model, inputs):
        """TRL's. With beta 0 a row of advantage 0 adds nothing to loss or gradient, so its forward and backward are
        saved; TRL's entropy metric is then that of the rows computed."""
        if self.beta != 0 or self.top_entropy_quantile != 1.0:
            return super()._compute_loss(model, inputs)
        wanted = inputs["advantages"] != 0
        self._metrics["train"]["rows_saved_share"].append(1 - wanted.float().mean().item())
        with self.knowing(wanted=wanted, old_logps=inputs.get("old_per_token_logps")):
            return super()._compute_loss(model, inputs)

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
        present = [place for place in places if has_weights(place)]
        if not present:
            raise UserError(f"the best model, {best}, is gone, so there is nothing to end with; put it back")
        self.state.best_model_checkpoint = present[0]
        super()._load_best_model()

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """What `measure` says of eval_dataset.

        Takes the place of TRL's evaluation, which rolls out and scores every row G times and reports rewards only.
        Step 0 measures the model that training starts from (eval_on_start), with which the guard compares.
        """
        rows, start = self.eval_dataset if eval_dataset is None else eval_dataset, time.time()
        was_training = self.model.training
        self.model.eval()
        with self.whole_model() as model:
            measured = self.measure(model, rows)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.time() - start
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.is_in_train and not self.state.global_step and self.guard and self.guard.drop is not None:
            self.keep_the_start(metrics)
        self.model.train(was_training)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        guard, history = self.guard, self.state.log_history
        if guard and guard.drop is not None and breaks(metrics[guard.metric], history, guard):
            return False
        if guard and guard.min_gain and self.state.global_step:
            name = f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"
            if not gains(metrics, history, name, guard.min_gain):
                return False
        return super()._determine_best_metric(metrics, trial)

    def keep_the_start(self, metrics: dict[str, float]) -> None:
        """The model that training starts from as checkpoint-0, the best so far: what is loaded in the end if all that
        follows is worse or breaks the stop rule."""
        self._determine_best_metric(metrics, None)
        self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-0")

    @contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """The bare model with all its weights, whatever DDP, DeepSpeed or FSDP made of it, in eval mode."""
        gather = self.args.ds3_gather_for_generation
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, gather_deepspeed3_params=gather
            ) as model,
            torch.no_grad(),
            self.accelerator.autocast(),  # rollouts may call the parts of the model, past the forward that casts
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
