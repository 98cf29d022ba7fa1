"""A small randomly initialised Qwen2 with a tokenizer trained on the spot, all offline.

    mimigenrec make-base --data data/toy --output_dir saves/tiny/base

The tokenizer is byte-level BPE over the questions and answers of sft/train.json, or of registered data sets
(--data data --dataset toy_train,chat_train), with the pipeline and the special tokens of Qwen2 and a chat template;
SID tokens are not in it, `mimigenrec add-sids` brings them. For a real model start from an instruct checkpoint
instead; everything after this step is the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimigenrec.chat import Row
from mimigenrec.claim import claim_folder, replace_folder, temporary_of
from mimigenrec.cli import arg, check_ranges, start
from mimigenrec.errors import UserError
from mimigenrec.files import write_json
from mimigenrec.manifest import make_manifest
from mimigenrec.sft.data import names
from mimigenrec.sids.tokens import TOKEN
from mimigenrec.tasks.register import FILE, read_registered
from mimigenrec.tasks.rows import read_sft_rows

COMMAND = "make-base"
FREE = ("output_dir", "overwrite", "data")  # of data, the rows are compared
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # padding, start and end of a turn
SMALLEST = len(SPECIAL) + 256  # tokens: one for every byte
# Where Qwen2 splits text before its merges apply. transformers 5 builds this pipeline for every folder of a Qwen2,
# whatever tokenizer.json says, so a tokenizer trained with another one gets other token ids there, without an error.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATES = {
    "chatml": "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    # nothing between question and answer: with wording compact a row reads start, SID, SID, ..., SID, end
    "short": "{% for message in messages %}"
    "{{ '' if message['role'] == 'assistant' else '<|im_start|>' }}{{ message['content'] }}"
    "{{ '<|im_end|>' if message['role'] == 'assistant' else '' }}"
    "{% endfor %}",
    # short without an end: where a user's row stops says nothing about items, and learning it costs (docs/results.md)
    "open": "{% for message in messages %}"
    "{{ '' if message['role'] == 'assistant' else '<|im_start|>' }}{{ message['content'] }}"
    "{% endfor %}",
}


@dataclass
class BaseConfig:
    """Writes a random Qwen2 and its tokenizer as a Hugging Face folder."""

    data: Path = arg(
        "data folder, as preprocess_data_sft_rl.py writes it; its texts train the tokenizer. With --dataset, the "
        "folder of dataset_info.json"
    )
    output_dir: Path = arg("folder for model and tokenizer")
    dataset: str | None = arg(
        "names in dataset_info.json of --data, separated by commas, whose texts train the tokenizer: rows with an "
        "instruction, or chats",
        default=None,
    )
    hidden: int = arg("hidden size", default=64, least=1)
    layers: int = arg("number of layers", default=2, least=1)
    heads: int = arg("attention heads; half as many key-value heads", default=4, least=1)
    vocabulary: int = arg("size of the tokenizer, SIDs not counted", default=1000, least=SMALLEST)
    chat_template: Literal["chatml", "short", "open"] = arg(
        "how turns are written: chatml, Qwen's; short, one token before a question and one behind an answer; open, "
        "none behind an answer, which is then scored with --support trie",
        default="chatml",
    )
    dropout: float = arg("share of attention weights dropped in training", default=0.0, least=0, below=1)
    untie: bool = arg("give the head weights of its own", default=False)
    seed: int = arg("random seed of the weights", default=42, least=0, most=2**32 - 1)
    overwrite: bool = arg("replace an earlier result of this command; anything else is refused", default=False)


def check(config: BaseConfig) -> None:
    """Raises UserError naming the flag whose value gives no model: some would fail only when it is trained."""
    check_ranges(config)
    if config.heads % key_value_heads(config) or config.hidden % (2 * config.heads):
        raise UserError(
            f"--heads {config.heads} with --hidden {config.hidden}: take an even number of heads, or one, and a "
            f"hidden size that is a multiple of twice that number"
        )


def key_value_heads(config: BaseConfig) -> int:
    return max(1, config.heads // 2)


def rows_to_read(config: BaseConfig) -> tuple[list[Path], list[Row]]:
    """The files whose texts train the tokenizer, and their rows."""
    if config.dataset is None:
        path = config.data / "sft" / "train.json"
        return [path], read_sft_rows(path)
    registered = [read_registered(config.data / FILE, name) for name in names(config.dataset)]
    return [path for path, _ in registered], [row for _, rows in registered for row in rows]


def texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        chat = [turn["content"] for turn in row.get("messages", ())]
        alpaca = [row.get(key, "") for key in ("system", "instruction", "input", "output")]
        yield TOKEN.sub("", "\n".join(chat or alpaca))


def train_tokenizer(texts: Iterable[str], vocabulary: int, chat_template: str, special: Sequence[str] = SPECIAL):
    """A tokenizer of Qwen2's kind. special: tokens with a meaning of their own, those of SPECIAL among them."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        truncation_side="left",
        model_max_length=4096,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def main(config: BaseConfig) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    check(config)
    files, rows = rows_to_read(config)
    now = make_manifest(config, files, config.seed, command=COMMAND)
    if not claim_folder(config.output_dir, now, ("config.json", "tokenizer.json"), FREE, config.overwrite):
        return
    tokenizer = train_tokenizer(texts(rows), config.vocabulary, CHAT_TEMPLATES[config.chat_template])
    torch.manual_seed(config.seed)
    shape = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=3 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=key_value_heads(config),
        max_position_embeddings=4096,
        attention_dropout=config.dropout,
        tie_word_embeddings=not config.untie,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(shape)
    new = temporary_of(config.output_dir)
    model.save_pretrained(new)
    tokenizer.save_pretrained(new)
    write_json(new / "manifest.json", {**now, "parameters": model.num_parameters(), "tokens": len(tokenizer)})
    replace_folder(new, config.output_dir)
    print(f"{config.output_dir}: {model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    start(main, BaseConfig)
