"""Item texts -> item vectors.

    mimigenrec embed --items C.item.json --output C.emb-tfidf.npy
    mimigenrec embed --items C.item.json --output C.emb-qwen.npy --encoder hf --model Qwen/Qwen3-Embedding-0.6B \\
        --pooling last

The output and its side-car are described in sids/vectors.py. Texts go through in chunks, each kept in a folder
beside the output until all are there; a run that is started again with the same texts and settings goes on from the
chunks it finds. Under `accelerate launch` every process takes its share of the chunks on its own GPU.

New items go to the same space: the same encoder and settings, and for tfidf --fitted with the file that the
catalogue's run left beside its vectors (C.emb-tfidf.encoder.safetensors).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from mimigenrec.cli import arg, start
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.manifest import make_manifest
from mimigenrec.sids import encoders
from mimigenrec.sids.encoders import Encode
from mimigenrec.sids.items import read_item_texts
from mimigenrec.sids.tfidf import Tfidf
from mimigenrec.sids.vectors import check_output, check_vectors, write_vectors

TEMPLATE = "{title}\\n{description}\\n{brand}\\n{categories}"
ENCODERS = {
    "hf": encoders.huggingface,
    "sentence-transformers": encoders.sentence_transformers,
    "served": encoders.served,
    "minilm": encoders.minilm,
}
CHUNK = 1024  # texts encoded between two writes


@dataclass
class EmbedConfig:
    """Item texts -> item vectors (items, dim), row i for the i-th item id."""

    items: Path = arg("C.item.json, or the same for new items")
    output: Path = arg("C.emb-NAME.npy to write; C.emb-NAME.json says what it holds")
    encoder: Literal["tfidf", "minilm", "hf", "sentence-transformers", "served"] = arg(
        "tfidf: words and SVD, offline; minilm: all-MiniLM-L6-v2 from a package; hf: any Hugging Face model; "
        "served: an OpenAI-compatible server",
        default="tfidf",
    )
    model: str | None = arg("folder or name of the model (hf, sentence-transformers, served)", default=None)
    url: str | None = arg("of the server (served), up to /v1", default=None)
    template: str = arg("text of an item; fields title, description, brand, categories", default=TEMPLATE)
    prompt: str = arg("stands before every text, as some models want it (E5: 'passage: ')", default="")
    pooling: Literal["mean", "cls", "last"] = arg("which hidden states make the vector (hf)", default="mean")
    normalise: bool = arg("scale vectors to length 1", default=True)
    max_tokens: int = arg("of a text; the rest is cut", default=512)  # what BERT-like encoders take
    batch_size: int = arg("texts per forward or request", default=32)  # sentence-transformers'
    dtype: Literal["float32", "bfloat16", "float16"] = arg("weights of the model (hf)", default="float32")
    dim: int = arg("numbers a vector (tfidf), at most", default=384)  # MiniLM's
    fitted: Path | None = arg("what tfidf learnt from the catalogue, to encode new items", default=None)
    seed: int = arg("of the SVD (tfidf)", default=42)


def main(config: EmbedConfig) -> None:
    check_output(config.output, config.items)
    texts = read_item_texts(config.items, config.template.replace("\\n", "\n"))
    model, encode = load_encoder(config, list(texts.values()))
    folder = Path(f"{config.output}.partial")
    vectors = in_chunks(
        encode, list(texts.values()), folder, settings={**asdict(config), "output": None, "space": model}
    )
    if vectors is None:
        return  # another process writes
    vectors = np.asarray(vectors, dtype=np.float32)
    check_vectors(vectors, list(texts), f"what encoder {config.encoder} gave")
    if config.normalise:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    zero = [item for item, vector in zip(texts, vectors, strict=True) if not vector.any()]
    facts = {
        "encoder": config.encoder,
        "model": model,
        "normalised": config.normalise,
        "template": config.template,
        "prompt": config.prompt,
        "pooling": config.pooling if config.encoder == "hf" else None,
        "items_without_text": sum(not text for text in texts.values()),
        "zero_vectors": len(zero),
    }
    inputs = [path for path in (config.items, config.fitted) if path]
    write_vectors(config.output, vectors, list(texts), **facts, manifest=make_manifest(config, inputs, config.seed))
    shutil.rmtree(folder)
    print(f"{config.output}: {vectors.shape[0]} items, {vectors.shape[1]} numbers each, by {model}")
    if zero:
        print(f"{len(zero)} items have a vector of zeros (no text or no known word), {zero[0]!r} first")


def load_encoder(config: EmbedConfig, texts: Sequence[str]) -> tuple[str, Encode]:
    """A name that tells two vector spaces apart, and the function texts -> (n, dim)."""
    if config.encoder == "minilm":
        return encoders.MINILM, encoders.minilm(config)
    if config.encoder != "tfidf":
        return str(config.model), ENCODERS[config.encoder](config)
    if config.fitted:
        tfidf = Tfidf.load(config.fitted)
    else:
        tfidf = Tfidf.fit(texts, config.dim, config.seed)
        if _processes()[0] == 0:
            tfidf.save(Path(config.output).with_suffix(".encoder.safetensors"))
    learnt = hashlib.sha256(tfidf.components.tobytes() + json.dumps(tfidf.words).encode()).hexdigest()
    return f"tfidf {learnt[:16]}", tfidf.encode


def in_chunks(encode: Encode, texts: Sequence[str], folder: Path, settings: dict) -> np.ndarray | None:
    """All texts, chunk by chunk through files in `folder`; chunks already there for these texts are not made again.

    Every process makes its share. The first gets (texts, dim) once all have finished, the others None.
    """
    rank, processes, wait = _processes()
    known = json.dumps([settings, hashlib.sha256("\0".join(texts).encode()).hexdigest()], sort_keys=True, default=str)
    if rank == 0:
        key = folder / "settings.json"
        if not key.is_file() or read_json(key, "this command") != known:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(key, known)
    wait()
    starts = range(0, len(texts), CHUNK)
    for first in tqdm(starts[rank::processes], desc="chunks", disable=None if rank == 0 else True):
        path = folder / f"{first}.npy"
        if not path.is_file():
            with writing(path, "wb") as out:
                np.save(out, encode(texts[first : first + CHUNK]), allow_pickle=False)
    wait()
    if rank == 0:
        return np.concatenate([np.load(folder / f"{start}.npy", allow_pickle=False) for start in starts])
    return None


def _processes():
    """Rank, number of processes and a barrier: accelerate's if it launched us, else those of one process."""
    if "LOCAL_RANK" not in os.environ:
        return 0, 1, lambda: None
    from accelerate import PartialState

    state = PartialState()
    return state.process_index, state.num_processes, state.wait_for_everyone


if __name__ == "__main__":
    start(main, EmbedConfig)
