"""Which base a LoRA adapter was trained on, and loading it on that base alone.

    base.json    {"base": absolute folder or hub name, "relative": from the adapter's folder, "weights": its identity}

adapter_config.json holds the base as it was typed, which is another folder, or none, from another working directory.
Whoever saves an adapter writes base.json beside it; whoever loads one compares. The identity of a folder is
"sha256:" of its weights, that of a model on the hub "revision:" and the commit it was loaded from.
"""

import hashlib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mimigenrec.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WEIGHTS, parts
from mimigenrec.decoding.weights import check_finite, load_causal_lm
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, sha256, write_json
from mimigenrec.hub import is_folder
from mimigenrec.schema import read_map

FILE = "base.json"

log = logging.getLogger(__name__)


def identity(base: str | Path, flag: str = "model_name_or_path") -> str:
    """What tells a base from every other one. Reads all its weights: some seconds for some gigabytes.

    flag     what gave the base, for errors
    raises   UserError for a folder that is missing or holds no weights
    """
    if not is_folder(base, flag):
        from transformers import AutoConfig

        try:
            return f"revision:{getattr(AutoConfig.from_pretrained(base), '_commit_hash', None)}"
        except OSError as error:
            raise UserError(
                f"{flag} {str(base)!r} is no folder here, and the Hugging Face hub did not give it "
                f"({str(error).strip().partition(chr(10))[0]}); correct the path or the name"
            ) from error
    present = [Path(base) / name for name in WEIGHTS if (Path(base) / name).is_file()]
    if not present:
        raise UserError(f"{flag} {str(base)!r} holds no weights ({WEIGHTS[0]}), so it is no model; give a whole one")
    hashes = [[path.name, sha256(path)] for path in parts(present[0])]
    if len(hashes) == 1:
        return f"sha256:{hashes[0][1]}"
    return f"sha256:{hashlib.sha256(json.dumps(hashes).encode()).hexdigest()}"


def write_base(folder: str | Path, base: str | Path, weights: str | None = None) -> None:
    """Notes beside an adapter which base it belongs to.

    weights   the base's identity when training began, where it is known already; else it is read now
    """
    weights = weights or identity(base)
    if weights.startswith("revision:"):
        write_json(Path(folder) / FILE, {"base": str(base), "weights": weights})
        return
    absolute = Path(base).resolve()
    relative = os.path.relpath(absolute, Path(folder).resolve())
    write_json(Path(folder) / FILE, {"base": str(absolute), "relative": relative, "weights": weights})


def base_place(folder: str | Path, base: str | Path | None = None) -> str:
    """Where the base of the adapter in `folder` lies: a folder, or a hub name. Nothing is compared here.

    base     what --base says; default: where it lay when the adapter was trained, else the same way from the adapter
             as then, for folders that were moved together; for an adapter without base.json what adapter_config.json
             says
    raises   UserError if it is missing
    """
    folder = Path(folder)
    if base is not None:
        is_folder(base, "--base")
        return str(base)
    known = read_base(folder)
    if known is None:
        config = read_json(folder / ADAPTER_CONFIG, made_by="LoRA training", kind=dict)
        name, key = config.get("base_model_name_or_path"), f"{folder / ADAPTER_CONFIG}: base_model_name_or_path"
        if not isinstance(name, str) or not name:
            raise UserError(f"{key} is missing; give --base")
        is_folder(name, f"give --base, for {key}")
        return name
    if known["weights"].startswith("revision:"):
        return known["base"]
    moved = [str(folder / known["relative"])] if "relative" in known else []
    for place in (known["base"], *moved):
        if Path(place).is_dir():
            return place
    raise UserError(
        f"the base of the LoRA adapter {folder} is missing: it was trained on {known['base']}. Give --base with the "
        f"folder where that lies now"
    )


def read_base(folder: str | Path) -> dict[str, str] | None:
    """base.json of an adapter; None for one of an earlier version, or of another trainer."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    return read_map(path, {"base": str, "weights": str, "relative?": str}, made_by="training; copy it again")


def check_base(folder: str | Path, place: str | Path) -> None:
    """Raises UserError if `place` holds another base than the adapter in `folder` was trained on.

    Only warns where nothing tells, or where one is known by its weights and the other by its commit.
    """
    known = read_base(folder)
    if known is None:
        log.warning("%s has no %s: nothing proves that %s is the base it was trained on", folder, FILE, place)
        return
    then, now = known["weights"], identity(place, "--base")
    if then.partition(":")[0] != now.partition(":")[0]:
        log.warning("%s was trained on %s (%s), which cannot be compared with %s", folder, known["base"], then, place)
    elif then != now:
        raise UserError(
            f"the LoRA adapter {folder} was trained on {known['base']} ({_short(then)}), found {place} "
            f"({_short(now)}): on other weights its numbers mean nothing. Give --base with the folder of the base it "
            f"was trained on, make that base again, or train the adapter again"
        )


def load_adapter(folder: str | Path, base: str | Path | None = None, dtype: Any = None):
    """The base of an adapter with the adapter on it, on the CPU.

    base     where the base lies now; default: see base_place
    raises   UserError if the base is missing or another one, or if the adapter's weights are missing, cut short, or
             for a model of another shape
    """
    from peft import PeftModel

    folder = Path(folder)
    place, known = base_place(folder, base), read_base(folder)
    check_base(folder, place)
    commit = known["weights"].partition("revision:")[2] if known and base is None else ""
    revision = commit if commit not in ("", "None") else "main"
    if not any((folder / weights).is_file() for weights in ADAPTER_WEIGHTS):
        raise UserError(f"{folder} holds {ADAPTER_CONFIG} and no {ADAPTER_WEIGHTS[0]}; copy the adapter again")
    model = load_causal_lm(place, dtype=dtype or "auto", revision=revision)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(model, folder)
    except SafetensorError as error:
        raise UserError(
            f"{folder / ADAPTER_WEIGHTS[0]} cannot be read ({error}); copy or train the adapter again"
        ) from error
    except UserWarning as error:
        raise UserError(
            f"{folder / ADAPTER_WEIGHTS[0]} lacks weights that {ADAPTER_CONFIG} asks for: {str(error)[:200]}"
        ) from error
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise UserError(
            f"the LoRA adapter {folder} does not fit the shape of {place}: it was trained on another base; give --base"
        ) from error
    check_finite(model, folder)
    return model


def _short(weights: str) -> str:
    return weights[: weights.find(":") + 9]
