"""What happens beside training: numbers to rl_log.jsonl, checkpoints made self-contained, save steps checked."""

from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mimigenrec.checkpoint import copy_companions
from mimigenrec.decoding.adapter import write_base
from mimigenrec.files import read_json, write_json
from mimigenrec.grpo.checks import check_save_steps


class SelfContained(TrainerCallback):
    """Completes each checkpoint when it is written. base: see complete."""

    def __init__(self, base: tuple[str, str] | None):
        self.base = base

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            complete(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", self.base)


def complete(output_dir: str, name: str, base: tuple[str, str] | None) -> None:
    """Copies id2sid.json, items.json, prompt_contract.json and the manifest of output_dir into its checkpoint `name`.

    base     of a LoRA adapter, the model that RL started from and its identity; base.json then says where that lies
    """
    output, checkpoint = Path(output_dir), Path(output_dir) / name
    copy_companions(output, checkpoint)
    manifest = read_json(output / "manifest.json", made_by="mimigenrec grpo", kind=dict)
    write_json(checkpoint / "manifest.json", {**manifest, "step": int(name.rpartition("-")[2])})
    if base:
        write_base(checkpoint, *base)


class SaveBetweenGenerations(TrainerCallback):
    """Refuses save steps that would fall inside a generation batch.

    TRL keeps the batch's rollouts in memory only, so a run resumed there would roll out anew and train on other rows
    than the run that was never stopped.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        every = {"steps": ("save_steps", state.save_steps), "best": ("eval_steps", state.eval_steps)}
        if args.save_strategy in every:
            check_save_steps(*every[args.save_strategy], args)
