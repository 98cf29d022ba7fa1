"""GRPO for semantic IDs: the G rollouts of a prompt are the G beams of one search inside the catalogue.

Sampling would draw the popular items over and over; beams are G different items in ranked order, as the ranking
rewards and the evaluation see them. What every training by groups needs is in group_trainer.py.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mimigenrec.chat import prompt_ids
from mimigenrec.contract import check_support
from mimigenrec.decoding.rollout import Rollout, check_sampling, roll_out
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.grpo.checks import check_arguments, warn_of_ranks_that_mean_nothing
from mimigenrec.grpo.group_trainer import GroupTrainer
from mimigenrec.grpo.groups import Group
from mimigenrec.grpo.remedies import spread, used, with_remedies
from mimigenrec.grpo.stop_rule import hr_guard
from mimigenrec.grpo.target_loss import appended, columns, cross_entropy, targets_of
from mimigenrec.grpo.validation import validate
from mimigenrec.sids.tokens import split_sid


class BeamGRPOTrainer(GroupTrainer):
    """GroupTrainer with a trie. train_dataset has the columns prompt (messages) and reward_model, as in rl/train.json.

    rollout  "beam", "sample", "distinct" or "mixed": see decoding/rollout.py
    args     RLConfig: TRL's settings and ours, docs/rl.md
    support  "vocab", the default: log-probabilities in loss, KL and search under the full vocabulary, as SFT trains
             them and as search and evaluation score by default. "trie": renormalised over the legal tokens, so what
             is illegal or forced (the EOS of most SIDs) has no gradient; search and evaluate with support trie then
    Raises UserError for settings that cannot work, before any step: see checks.py.
    """

    maker = "the search inside the trie"

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
        warn_of_ranks_that_mean_nothing(reward_funcs if isinstance(reward_funcs, list) else [reward_funcs], rollout)
        super().__init__(model, reward_funcs, args, guard=hr_guard(args), masks=args.hints, **kwargs)
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

    @property
    def inside(self) -> SidTrie | None:
        return self.trie if self.support == "trie" else None

    def roll(self, rows: Sequence[dict[str, Any]], hint: int = 0) -> list[Group]:
        """The rollouts of each row, below the first `hint` tokens of its target."""
        tokenizer, args = self.processing_class, self.args
        prompts = prompt_ids(tokenizer, [row["prompt"] for row in rows], self.max_prompt_length)
        texts = [split_sid(row["reward_model"]["ground_truth"]) for row in rows]
        targets = [[*tokenizer.convert_tokens_to_ids(text), self.trie.eos_id] for text in texts]
        with self.whole_model() as model:
            rollouts = roll_out(
                model,
                self.trie,
                prompts,
                self.num_generations,
                self.rollout,
                self.support,
                self.sampling,
                max(1, args.per_device_train_batch_size // self.num_generations),
                [target[:hint] for target in targets] if hint else None,
            )
        groups = [Group(*group) for group in zip(rows, prompts, rollouts, strict=True)]
        for group, target in zip(groups, targets, strict=True):
            group.target, group.hint = target, hint
            group.own = [[i >= hint for i in range(len(tokens))] for tokens in group.rollouts] if hint else None
        return groups

    def improved(self, groups: list[Group]) -> tuple[list[Group], dict[str, float]]:
        gather, device = self.accelerator.gather, self.accelerator.device
        width = spread(groups, self.trie, gather)  # of what the policy rolls out by itself
        groups, sampling = super().improved(groups)
        return groups, width | used(groups, self.args, device, gather) | sampling

    def helped(self, groups: list[Group], filler: Group) -> list[Group]:
        """Targets added and hints given where args say so; scored if anything depends on it."""
        return with_remedies(groups, self.args, self.trie.depth, self.roll, lambda made: self.score(made, filler))

    def finished(self, output: dict, groups: list[Group]) -> dict:
        output = super().finished(output, groups)
        if not self.args.ce_coef:
            return output
        return output | columns([group.target for group in groups], self.num_generations, self.accelerator.device)

    def logps(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs) -> tuple[Tensor, ...]:
        """With the targets of the loss computed beside, in the same forward."""
        N, C, targets = len(input_ids), logits_to_keep, self.aside.targets
        if targets is None:
            return super().logps(model, input_ids, attention_mask, C, *args, **kwargs)
        ids, mask, wide = appended(targets, input_ids, attention_mask, C)
        logps, entropies, computed = super().logps(model, ids, mask, wide, *args, **kwargs)
        targets.loss = cross_entropy(targets, logps[N:])
        return logps[:N, :C], entropies[:N, :C], computed[:N]

    def _compute_loss(self, model, inputs):
        """The loss of the groups + ce_coef * cross-entropy on the targets, whatever the advantages of a group."""
        if not self.args.ce_coef:
            return super()._compute_loss(model, inputs)
        with self.knowing(targets=targets_of(inputs)) as aside:
            loss = super()._compute_loss(model, inputs)
        ce = aside.targets.loss
        self._metrics["train"]["ce_loss"].append(self.accelerator.gather(ce.detach()).mean().item())
        return loss + self.args.ce_coef * ce / self.current_gradient_accumulation_steps

    def measure(self, model: nn.Module, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """HR and NDCG at 10 and 50 of the constrained search, over the rows, shared by the processes."""
        return validate(
            model,
            self.processing_class,
            self.trie,
            rows,
            self.max_prompt_length,
            self.args.per_device_eval_batch_size,
            self.support,
            self.accelerator,
        )
