"""Settings that could not work, or would be ignored in silence: refused before any step, with what to change."""

import inspect
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_pt_utils import AcceleratorConfig
from trl import GRPOConfig

from mimigenrec.decoding.search import Support
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.decoding.weights import check_complete
from mimigenrec.errors import UserError
from mimigenrec.extras import need
from mimigenrec.files import read_json
from mimigenrec.grpo.rollout import Rollout
from mimigenrec.hub import is_folder

log = logging.getLogger(__name__)


# Texts that TRL 0.24 looks at only when a loss is computed.
CHOICES = {
    "scale_rewards": ("group", "batch", "none"),
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo"),
    "importance_sampling_level": ("token", "sequence"),
}

# Settings that are maps, and whether a path of a JSON file may stand in their place.
MAPS = {
    "lr_scheduler_kwargs": False,
    "model_init_kwargs": False,
    "gradient_checkpointing_kwargs": False,
    "liger_kernel_config": False,
    "generation_kwargs": False,
    "accelerator_config": True,
    "fsdp_config": True,
    "deepspeed": True,
}

# What validation gives.
BEST = re.compile(r"(eval_)?(hr|ndcg)@(10|50)")


def check_folder(model: str) -> None:
    """Raises UserError for a name that is no folder: RL begins where SFT ended, and asks no hub."""
    if not is_folder(model, "--model"):
        raise UserError(
            f"--model {model} is no folder here. RL starts from the folder of an SFT checkpoint, with its "
            f"id2sid.json and prompt_contract.json: train one with mimigenrec sft, or download it first"
        )


def check_model(model: str) -> None:
    """Raises UserError unless RL can start from it: the folder of a whole model, as SFT writes it."""
    check_folder(model)
    folder = Path(model)
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"--model {model} is a LoRA adapter; RL starts from a whole model. Merge it first with llamafactory-cli "
            f"export, copy id2sid.json, items.json and prompt_contract.json beside the result, and give that folder"
        )
    check_complete(folder)
    config = read_json(folder / "config.json", made_by="mimigenrec sft", kind=dict)
    kinds = config.get("architectures")
    if not isinstance(kinds, list) or not kinds or not hasattr(transformers, str(kinds[0])):
        raise UserError(
            f"{folder / 'config.json'}: architectures is {kinds}; it must name a class of transformers, as "
            f'["Qwen2ForCausalLM"] does'
        )


def check_places(output_dir: str, model: str, *data: Path) -> None:
    """Raises UserError if the run would write over what it reads."""
    out = Path(output_dir).resolve()
    if Path(model).resolve().is_relative_to(out):
        raise UserError(f"output_dir {output_dir} holds --model {model}, which the run would write over; take another")
    if out in [folder.resolve() for folder in data]:
        raise UserError(f"output_dir {output_dir} is the data folder, which the run would write over; take another")


def check_targets(model: str, names: Sequence[str]) -> None:
    """Raises UserError for a lora_target that is no module of the model; peft would say so below a traceback."""
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    modules = {name.rpartition(".")[2] for name, _ in shape.named_modules() if name}
    for name in names:
        if name not in modules and names != ["all-linear"]:
            known = sorted(module for module in modules if not module.isdigit())
            raise UserError(f"--lora_target {name!r} is no module of the model; choose from {', '.join(known)}")


def check_arguments(args: GRPOConfig, trie: SidTrie, support: Support) -> None:
    """Raises ValueError, naming the setting to change."""
    G = args.num_generations
    check_whole_groups(args.per_device_train_batch_size * args.steps_per_generation, G)
    check_group_size(G, trie)
    if args.max_completion_length < trie.depth + 1:
        raise UserError(
            f"max_completion_length={args.max_completion_length} cannot hold a SID of {trie.depth} levels and EOS; "
            f"set it to {trie.depth + 1} or leave it out"
        )
    for name in ("use_vllm", "use_transformers_paged"):
        if getattr(args, name):
            raise UserError(
                f"{name}: true would not be used: rollouts come from the search inside the trie, which {name[4:]} "
                f"does not have. Set {name}: false"
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


def check_spread(totals: Tensor, where: str = "") -> None:
    """totals (groups, G), weighted sums of rewards. Raises UserError if float32 cannot hold their spread, for which a
    GPU adds up squares: advantages would be NaN, or 0 for everything."""
    if not torch.isfinite(totals.std(dim=1)).all():
        raise UserError(
            f"{where}the rewards of a group differ by more than float32 holds (their weighted sums lie "
            f"between {totals.min():.3g} and {totals.max():.3g}), so there are no advantages; make them smaller"
        )


def check_maps(args) -> None:
    """Raises UserError for a setting that holds keys and values, and is no such map: transformers would fail with the
    bare error of whatever reads it first. A path of a JSON file is transformers' business."""
    for name, may_be_path in MAPS.items():
        value = getattr(args, name)
        if isinstance(value, str) and may_be_path and not value.lstrip().startswith("{"):
            continue
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                pass
        if value is not None and not isinstance(value, dict):
            raise UserError(f'--{name} is {value!r}; it must be a map of keys to values in JSON, such as {{"key": 1}}')
        known = {one.name for one in fields(AcceleratorConfig)} if name == "accelerator_config" else value
        if unknown := sorted(set(value or ()) - set(known or ())):
            raise UserError(f"--{name} has the key {unknown[0]!r}; it takes {', '.join(sorted(known))}")


def check_optimisation(args) -> None:
    """Raises UserError for a schedule or settings of the optimizer that cannot be made; args: after its own checks."""
    for part in (args.optim_args or "").replace(" ", "").split(","):
        if part and part.count("=") != 1:
            raise UserError(f"--optim_args has {part!r}; write key=value, several with commas between them")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], args.learning_rate)
    settings = args.lr_scheduler_kwargs or {}
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 1, 2, scheduler_specific_kwargs=dict(settings))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--lr_scheduler_type {args.lr_scheduler_type.value} with --lr_scheduler_kwargs {settings} cannot be "
            f"made: {error}"
        ) from error
    dtype = (args.model_init_kwargs or {}).get("dtype")
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"--model_init_kwargs: dtype is {dtype!r}; choose auto, float32, bfloat16 or float16")
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                f"--report_to has {name!r}; choose from none, {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
            )


def check_choices(args) -> None:
    """Raises UserError for a text that TRL does not know. `true` and `false` of a YAML are TRL's own."""
    written = str(args.scale_rewards).lower()
    args.scale_rewards = {"true": "group", "false": "none"}.get(written, args.scale_rewards)
    for name, known in CHOICES.items():
        if getattr(args, name) not in known:
            raise UserError(f"--{name} is {getattr(args, name)!r}; choose one of {', '.join(known)}")


def check_best_metric(args) -> None:
    """Raises UserError if the best model would be chosen by what validation does not give, or the worst be chosen."""
    if not args.load_best_model_at_end and args.save_strategy != "best":
        return
    if not BEST.fullmatch(args.metric_for_best_model or ""):
        raise UserError(
            f"--metric_for_best_model is {args.metric_for_best_model!r}, which validation does not give; choose "
            f"eval_ndcg@10, eval_ndcg@50, eval_hr@10 or eval_hr@50"
        )
    if args.greater_is_better is False:
        raise UserError("--greater_is_better is false: of HR and NDCG the lowest is the worst; leave it out")


def check_remedies(args) -> None:
    """Raises ValueError for values of RLConfig's own options that make no sense, alone or together."""
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
    """Raises ValueError unless one process holds whole groups."""
    if rows % group_size:
        raise UserError(
            f"each process would hold {rows} rollouts, not a whole number of groups of {group_size}: the beams of one "
            f"prompt would be split over processes and ranked apart. Make per_device_train_batch_size * "
            f"steps_per_generation (default: gradient_accumulation_steps) a multiple of num_generations={group_size}, "
            f"for example {-(-rows // group_size) * group_size}"
        )


def check_groups(inputs: Sequence[Mapping], group_size: int) -> None:
    """Raises ValueError unless the rows of a batch are groups of the same prompt and target, one after the other."""
    for i, row in enumerate(inputs):
        first = i - i % group_size
        for key in ("prompt", "reward_model"):
            if row[key] != inputs[first][key]:
                raise UserError(
                    f"row {i} of the batch of one process is not of its group: its {key} is {str(row[key])[:200]}, "
                    f"that of row {first} is {str(inputs[first][key])[:200]}. Every row must come "
                    f"num_generations={group_size} times in a row, as TRL's own sampler gives them; a sampler or "
                    f"dataset transform of yours must keep that"
                )


def check_whole_batch(rows: int, args: GRPOConfig) -> None:
    """Raises ValueError if the training rows do not fill one generation batch: TRL would train on nothing."""
    prompts = args.generation_batch_size // args.num_generations
    if rows < prompts:
        raise UserError(
            f"one generation batch holds {prompts} prompts ({args.generation_batch_size} rollouts in groups of "
            f"{args.num_generations}) but there are only {rows} training rows; make per_device_train_batch_size or "
            f"steps_per_generation smaller"
        )


def check_pool(rows: int, args) -> None:
    """Raises ValueError if dynamic sampling has no other rows to draw."""
    prompts = args.generation_batch_size // args.num_generations
    if args.dynamic_sampling_rounds and rows <= prompts:
        raise UserError(
            f"dynamic_sampling_rounds={args.dynamic_sampling_rounds} has no other prompts to draw: one generation "
            f"batch already holds {prompts} of {rows} training rows. Make the batch smaller or set it to 0"
        )


def check_save_steps(name: str, steps: int, args: GRPOConfig) -> None:
    """Raises ValueError unless `steps` optimiser steps are whole generation batches."""
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
