"""What makes a folder a whole checkpoint, which one of a run is the newest, and the companions it takes along.

    config.json, model.safetensors           a model: stock Hugging Face files; parts have an index
    adapter_config.json, adapter_model.*     a LoRA adapter, as PEFT writes it
    trainer_state.json                       of a training, {"global_step", "max_steps", "log_history", ...}
    id2sid.json, items.json,                 the companions: which items the model knows and how it is asked
    prompt_contract.json

transformers writes trainer_state.json of a checkpoint when the rest of it is there, and that of output_dir behind the
final model. It is what tells a whole checkpoint and a finished run from what a kill left. Nothing here needs torch.
"""

import json
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mimigenrec.contract import FILE as CONTRACT_FILE
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, writing
from mimigenrec.schema import read_map

COMPANIONS = ("id2sid.json", "items.json", CONTRACT_FILE)
STATE = "trainer_state.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's; a folder that holds it is an adapter
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# What a folder of a checkpoint has besides these where FSDP or DeepSpeed wrote it.
SHARDED_WEIGHTS = ("pytorch_model_fsdp*", "global_step*")

log = logging.getLogger(__name__)


def state_of(folder: str | Path) -> dict[str, Any] | None:
    """Its trainer_state.json; None where it is missing or was not written to its end."""
    path = Path(folder) / STATE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_bytes())
    except ValueError:
        return None
    return state if isinstance(state, dict) else None


def has_weights(folder: str | Path) -> bool:
    names = (*WEIGHTS, *ADAPTER_WEIGHTS, *SHARDED_WEIGHTS)
    return any(any(Path(folder).glob(name)) for name in names)


def is_adapter(folder: str | Path) -> bool:
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def is_whole(folder: str | Path) -> bool:
    """Whether a checkpoint of a training has its weights and its state, so that the training can go on from it."""
    return state_of(folder) is not None and has_weights(folder)


def is_over(state: Mapping[str, Any]) -> bool:
    """Whether max_steps are done. state: the content of a trainer_state.json."""
    return state.get("global_step", 0) >= state.get("max_steps", math.inf)


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [folder for folder in checkpoints(output_dir) if is_whole(folder)]
    return whole[-1] if whole else None


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Oldest first."""
    folders = [folder for folder in Path(output_dir).glob("checkpoint-*") if folder.is_dir()]
    numbered = [folder for folder in folders if folder.name.rpartition("-")[2].isdecimal()]
    return sorted(numbered, key=lambda folder: int(folder.name.rpartition("-")[2]))


def remove_unfinished(output_dir: str | Path) -> None:
    """Removes checkpoints that a kill or a full disk left without state or weights: nothing can go on from them, and
    transformers, which deletes the oldest by its time, would keep one of them in place of a whole one."""
    for folder in checkpoints(output_dir):
        if not is_whole(folder):
            log.warning("%s is half-written or half-deleted; removing it", folder)
            shutil.rmtree(folder)


def check_files(folder: Path) -> None:
    """Raises FileNotFoundError or UserError naming the first file that is missing, cut short or damaged."""
    read_json(folder / "config.json", made_by="the training or download that wrote the model", kind=dict)
    present = [name for name in WEIGHTS if (folder / name).is_file()]
    if not present:
        raise FileNotFoundError(
            f"{folder} holds no weights (model.safetensors, or its parts with model.safetensors.index.json); give a "
            f"folder that a training saved its model into"
        )
    for path in parts(folder / present[0]):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, which {present[0]} names; copy the checkpoint again")
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except SafetensorError as error:
                raise UserError(
                    f"{path} is cut short or damaged ({error}); copy it again, or take an earlier checkpoint"
                ) from error


def parts(path: Path) -> list[Path]:
    """The files of the weights: the one given, or those that an index names."""
    if path.suffix != ".json":
        return [path]
    made_by = "the training or download that wrote the model; copy the checkpoint again"
    names = read_map(path, {"weight_map": {str: str}}, made_by)["weight_map"]
    return [path.with_name(name) for name in sorted(set(names.values()))]


def copy_companions(source: str | Path, target: str | Path) -> list[str]:
    """Copies id2sid.json, items.json and prompt_contract.json, those present, into a checkpoint; returns which."""
    source, target = Path(source), Path(target)
    present = [name for name in COMPANIONS if (source / name).is_file()]
    for name in present:
        if (source / name).resolve() != (target / name).resolve():
            with open(source / name, "rb") as content, writing(target / name, "wb") as out:
                shutil.copyfileobj(content, out)
    return present
