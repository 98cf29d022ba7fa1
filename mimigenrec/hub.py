"""Is a model's name a folder here, or a name on the Hugging Face hub? Answered once, by the hub's own rule."""

import os
from pathlib import Path

from mimigenrec.errors import UserError


def is_folder(name: str | Path, flag: str) -> bool:
    """Whether `name` is a folder; if not, it may be a hub name ("gpt2", "Qwen/Qwen2.5-0.5B-Instruct").

    flag     the flag or key that gave it, for the error
    raises   UserError for what can be neither: a path that is not there is never looked up on a hub. Such are absolute
             paths, those that begin with a dot or ~, those of more than two parts, and those whose first part is a
             folder here ("saves/sft" where there is a saves/)
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    text = str(name)
    if text and Path(text).is_dir():
        return True
    parts = text.replace(os.sep, "/").split("/")
    is_path = Path(text).is_absolute() or text[:1] in ("", ".", "~") or len(parts) > 2 or Path(text).exists()
    if is_path or len(parts) == 2 and Path(parts[0]).is_dir():
        taken = f", since {parts[0]}/ is one" if len(parts) == 2 and not is_path else ""
        raise UserError(
            f"{flag} {text!r} is not a folder here{taken}; correct the path"
            + (", or start elsewhere if a name on the hub is meant" if taken else "")
        )
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise UserError(
            f"{flag} {text!r} is neither a folder here nor a name on the Hugging Face hub; correct it"
        ) from error
    return False
