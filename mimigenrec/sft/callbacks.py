"""What happens inside LLaMA-Factory's trainer: complete checkpoints, ranking metrics, rows that stay as they are."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from mimigenrec.chat import chat_template, prompt_ids, row_messages
from mimigenrec.checkpoint import copy_companions
from mimigenrec.cli import check_range
from mimigenrec.decoding.adapter import write_base
from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.evaluation.quick import constrained_metrics
from mimigenrec.files import write_json
from mimigenrec.sft.data import SftData, spread
from mimigenrec.tasks.rows import read_sft_rows

AT_ONCE = 32  # prompts searched together at most: each holds ten beams, so a batch that fits the loss may not fit here


class CompleteCheckpoints(TrainerCallback):
    """What makes a folder stand alone, in output_dir and in every checkpoint: manifest.json, base.json beside an
    adapter, and the companions of data that preprocessing wrote."""

    def __init__(
        self,
        manifest: dict[str, Any],
        adapter_of: str | None = None,
        data: SftData | None = None,
        support: Support | None = None,
    ):
        """adapter_of   the base, where the run trains a LoRA adapter"""
        self.manifest, self.adapter_of, self.data, self.support = manifest, adapter_of, data, support
        self.prompts = [row_messages(row) for row in spread(read_sft_rows(data.files[0]))] if data else []

    def on_train_begin(self, args, state, control, processing_class=None, **kwargs):
        self.describe(args.output_dir, state, ended=False)
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if newest.is_dir():  # a kill may have left it without them
            self.complete(newest, state, processing_class)

    def on_save(self, args, state, control, processing_class=None, **kwargs):
        self.complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", state, processing_class)

    def on_train_end(self, args, state, control, processing_class=None, **kwargs):
        self.complete(args.output_dir, state, processing_class, ended=False)

    def complete(self, folder: str | Path, state, tokenizer, **facts: Any) -> None:
        if self.data is not None and state.is_world_process_zero:
            copy_companions(self.data.folder, folder)
            if self.data.contract is not None:
                golden = tuple(zip(self.prompts, prompt_ids(tokenizer, self.prompts), strict=True))
                template = chat_template(tokenizer)
                replace(self.data.contract, chat_template=template, support=self.support, golden=golden).write(folder)
        self.describe(folder, state, **facts)

    def describe(self, folder: str | Path, state, **facts: Any) -> None:
        if state.is_world_process_zero:
            if self.adapter_of:
                write_base(folder, self.adapter_of, self.manifest["config"]["weights"])
            write_json(Path(folder) / "manifest.json", {**self.manifest, "step": state.global_step, **facts})


class RankingMetrics(TrainerCallback):
    """After each evaluation, HR@10 and NDCG@10 of a constrained search on a validation sample.

    They join the metrics of the evaluation itself, which the trainer reads afterwards to pick the best checkpoint and
    to stop early, its entry in trainer_state.json, and a line of their own in trainer_log.jsonl.
    """

    def __init__(
        self, trie: SidTrie, prompts: Sequence[list[int]], targets: Sequence[str], support: Support = "vocab"
    ):
        self.trie = trie
        self.prompts = prompts
        self.targets = targets
        self.support = support

    def on_evaluate(self, args, state, control, model=None, processing_class=None, metrics=None, **kwargs):
        found = self.measure(args, model, processing_class)
        metrics.update(found)
        state.log_history[-1].update(found)  # the trainer has just written the evaluation's entry
        if state.is_world_process_zero:
            line = {"current_steps": state.global_step, "total_steps": state.max_steps, "epoch": state.epoch, **found}
            with open(Path(args.output_dir) / "trainer_log.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")

    def measure(self, args, model, tokenizer) -> dict[str, float]:
        """Processes share the sample evenly, a remainder left out. Under ZeRO-3 each does all of it: a forward pass
        gathers weights from all processes, so all must make the same number of them."""
        rank, world = args.process_index, args.world_size
        if is_deepspeed_zero3_enabled() or len(self.prompts) < world:
            rank, world = 0, 1
        mine = range(rank, len(self.prompts) - len(self.prompts) % world, world)
        found = constrained_metrics(
            model,
            tokenizer,
            self.trie.to(model.device),
            [self.prompts[i] for i in mine],
            [self.targets[i] for i in mine],
            ks=(10,),
            batch_size=min(args.per_device_eval_batch_size, AT_ONCE),
            support=self.support,
        )
        if world > 1:
            total = torch.tensor(list(found.values()), device=args.device)
            dist.all_reduce(total)
            found = dict(zip(found, (total / world).tolist(), strict=True))
        return {f"eval_{name}": value for name, value in found.items()}


class EmbeddingDropout(TrainerCallback):
    """Dropout on what the embeddings give, in training alone; the model's files know nothing of it.

    Qwen2 and its kin have dropout on attention weights only; SASRec and TIGER, trained from scratch on as little data,
    drop embeddings too (source: Srivastava et al. 2014, JMLR 15).
    """

    def __init__(self, share: float):
        check_range("embedding_dropout", share, least=0, below=1)
        self.share = share

    def on_init_end(self, args, state, control, model=None, **kwargs):
        """Once per model, before anything wraps it."""
        model.get_input_embeddings().register_forward_hook(
            lambda module, read, vectors: torch.nn.functional.dropout(vectors, self.share, module.training)
        )


class OnlySidRows(TrainerCallback):
    """Freezes everything but the rows of the SIDs, in the embeddings and in a head of its own."""

    def __init__(self, sid_ids: Sequence[int]):
        self.sid_ids = list(sid_ids)

    def on_init_end(self, args, state, control, model=None, **kwargs):
        """Before the optimizer is made and processes are joined, so that both see what is frozen."""
        model.requires_grad_(False)
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            if weight.dim() != 2 or len(weight) <= max(self.sid_ids):
                raise UserError(
                    "train_only: sid_rows meets embeddings that are split over processes; use ZeRO-2 instead of ZeRO-3"
                )
            frozen = torch.ones(len(weight), 1, dtype=torch.bool)
            frozen[self.sid_ids] = False
            weight.requires_grad_(True)
            weight.register_hook(lambda grad, frozen=frozen: grad.masked_fill(frozen.to(grad.device), 0.0))
