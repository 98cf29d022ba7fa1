"""A prompt as messages, and as token ids: what a chat model is asked, whoever asks it.

    [{"role": "system", "content": "..."}, {"role": "user", "content": "..."}]

is rendered by the tokenizer's own chat template with the generation prompt at the end. A row that SFT trains on is
alpaca, {"system", "instruction", "input", "output"}, or a chat, {"messages": [..., {"role": "assistant", "content"}]};
its prompt is what stands before the (last) answer. `tasks.rows` reads and checks both.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mimigenrec.errors import UserError
from mimigenrec.files import read_json

TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "spiece", "sentencepiece")  # how their names begin
Messages = list[dict[str, str]]
Row = Mapping[str, Any]
Kind = Literal["alpaca", "messages"]  # of rows; LLaMA-Factory calls the second sharegpt
# LLaMA-Factory's roles: in a chat, one of the first and one of the second take turns
ASKING = ("user", "observation")
ANSWERING = ("assistant", "function")

log = logging.getLogger(__name__)


def user_text(instruction: str, question: str) -> str:
    """One user message, joined as LLaMA-Factory's alpaca converter joins prompt and query."""
    return "\n".join(part for part in (instruction, question) if part)


def messages(system: str, user: str) -> Messages:
    return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": user}]


def kind_of(row: Row) -> Kind:
    return "messages" if "messages" in row else "alpaca"


def row_messages(row: Row) -> Messages:
    """The prompt of one SFT row: all that stands before its last answer."""
    if "messages" in row:
        return row["messages"][:-1]
    return messages(row.get("system", ""), user_text(row.get("instruction", ""), row.get("input", "")))


def row_answer(row: Row) -> str:
    """The last answer of one SFT row."""
    return row["messages"][-1]["content"] if "messages" in row else row["output"]


def row_chat(row: Row) -> Messages:
    """One SFT row as a whole chat, its answer included."""
    if "messages" in row:
        return row["messages"]
    return [*row_messages(row), {"role": "assistant", "content": row["output"]}]


def chat_template(tokenizer) -> str:
    """Raises UserError if there is none, or several without a name saying which is meant."""
    if not isinstance(tokenizer.chat_template, str) or not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template, or several; start from an instruct "
            f"model, or set tokenizer.chat_template and save it again"
        )
    return tokenizer.chat_template


def ends_answers(tokenizer) -> bool:
    """Whether the chat template writes anything behind an answer. Where it does not, as make-base's "open", no end is
    ever trained, and only scores among the tokens that the trie allows mean something."""
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    return not tokenizer.chat_template or not tokenizer.apply_chat_template(chat, tokenize=False).endswith("!")


def prompt_ids(tokenizer, prompts: Sequence[Messages], max_length: int | None = None) -> list[list[int]]:
    """Token ids of each prompt, generation prompt included: what SFT trained on, RL rolls out from, evaluation asks.

    max_length   longest prompt allowed; a longer one raises UserError naming its place, nothing is ever cut
    """
    chat_template(tokenizer)
    encoded = [
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        for prompt in prompts
    ]
    if max_length is not None:
        for i, ids in enumerate(encoded):
            if len(ids) > max_length:
                raise UserError(
                    f"prompt {i} has {len(ids)} tokens, more than the {max_length} allowed. Nothing is cut here: "
                    f"build the data with a smaller --max_history or --max_text_chars, or raise the limit. It begins "
                    f"{prompts[i][-1]['content'][:80]!r}"
                )
    return encoded


def load_tokenizer(folder: str | Path, **settings):
    """The tokenizer of a model's folder or of a name on the hub; `contract.proven_tokenizer` also asks what it was
    trained with.

    settings   what AutoTokenizer.from_pretrained takes
    raises     UserError if there is no tokenizer that can be read
    """
    from transformers import AutoTokenizer

    if Path(folder).is_dir():
        check_tokenizer_files(Path(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        remedy = "copy the model's tokenizer files again"
        if not Path(folder).is_dir():
            remedy = "it is no folder here, and the Hugging Face hub did not give it: correct the path or the name"
        raise UserError(
            f"transformers cannot load the tokenizer of {folder} ({type(error).__name__}: {reason}); {remedy}"
        ) from error
    if os.environ.get("RANK", "0") == "0" and _is_plain_byte_level(tokenizer, folder):
        log.warning(
            "the tokenizer of %s comes from an earlier version of mimigenrec make-base: this version of transformers "
            "reads it as it was trained, but transformers 5 (vLLM, SGLang, TRL 1.x) reads other token ids from it. "
            "Make the base again and train on it before you use it there",
            folder,
        )
    return tokenizer


def check_tokenizer_files(folder: Path) -> None:
    """Raises UserError for a folder without a tokenizer, or whose tokenizer files are no JSON."""
    if not any(path.name.startswith(TOKENIZER_FILES) for path in folder.iterdir()):
        raise UserError(
            f"{folder} holds no tokenizer (tokenizer.json, tokenizer_config.json); copy that of the model into it, or "
            f"give a folder that holds model and tokenizer"
        )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_json(folder / name, made_by="the model's tokenizer", kind=dict)


def _is_plain_byte_level(tokenizer, folder: str | Path) -> bool:
    """Whether a Qwen2 folder splits text as GPT-2 does; transformers 5 puts Qwen2's own way in its place."""
    config = Path(folder) / "config.json"
    if not tokenizer.is_fast or not config.is_file() or read_json(config, "the model").get("model_type") != "qwen2":
        return False
    splitting = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    return splitting is not None and splitting["type"] == "ByteLevel"
