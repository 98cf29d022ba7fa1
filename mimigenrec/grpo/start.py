"""Where RL may start from and write to: a whole model in a folder, and no folder that it reads."""

from pathlib import Path

import transformers

from mimigenrec.checkpoint import is_adapter
from mimigenrec.decoding.weights import check_complete
from mimigenrec.errors import UserError
from mimigenrec.files import read_json
from mimigenrec.hub import is_folder


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
    if is_adapter(folder):
        raise UserError(
            f"--model {model} is a LoRA adapter; RL starts from a whole model. Merge it first with mimigenrec merge "
            f"--model {model} --output DIR, and give that folder"
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
