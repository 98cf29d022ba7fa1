"""Item texts -> item vectors.

    mimigenrec embed --items C.item.json --output C.emb-tfidf.npy
    mimigenrec embed --items C.item.json --output C.emb-qwen.npy --encoder hf --model Qwen/Qwen3-Embedding-0.6B \\
        --pooling last

The output and its side-car are described in vectors/store.py. Texts go through in chunks, each kept in a folder
beside the output until all are there; a run that is started again with the same texts and settings goes on from the
chunks it finds, and one that is finished does nothing. Vectors or chunks of other texts or settings are replaced with
--overwrite alone. Under `accelerate launch` every process takes its share of the chunks on its own GPU.

New items go to the same space: the same encoder and settings, and for tfidf --fitted with the file that the
catalogue's run left beside its vectors (C.emb-tfidf.encoder.safetensors).
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.items import TEMPLATE, read_item_texts
from mimigenrec.manifest import make_manifest
from mimigenrec.sharded import ALONE, Process, begin, is_begun, processes, write_chunks
from mimigenrec.vectors.encoders import Encode, Encoder, load
from mimigenrec.vectors.store import (
    check_output,
    check_vectors,
    is_finished,
    read_array,
    side_car,
    unit_rows,
    write_vectors,
)
from mimigenrec.vectors.tfidf import Tfidf

CHUNK = 1024  # texts encoded between two writes
USED_BY = {"model": ("hf", "sentence-transformers", "served"), "url": ("served",), "fitted": ("tfidf",)}
USED_BY["prompt"] = ("minilm", *USED_BY["model"])
FREE = (
    "items",
    "fitted",
    "output",
    "overwrite",
    "batch_size",
    "url",
)  # no vector depends on them; files by their hash


@dataclass
class EmbedConfig:
    """Item texts -> item vectors (items, dim), row i for the i-th item id."""

    items: Path = arg("C.item.json, or the same for new items")
    output: Path = arg("C.emb-NAME.npy to write; C.emb-NAME.json says what it holds")
    encoder: Literal["tfidf", "minilm", "hf", "sentence-transformers", "served", "hash"] = arg(
        "tfidf: words and SVD, offline; minilm: all-MiniLM-L6-v2 from a package; hf: any Hugging Face model; "
        "served: an OpenAI-compatible server; hash: words at hashed places, for tests and dry runs",
        default="tfidf",
    )
    model: str | None = arg("folder or name of the model (hf, sentence-transformers, served)", default=None)
    url: str | None = arg("address of the server (served), up to /v1", default=None)
    template: str = arg("text of an item; fields {title}, {description}, {brand}, {categories}", default=TEMPLATE)
    prompt: str = arg("text put before every item text, as some models want it (E5: 'passage: ')", default="")
    pooling: Literal["mean", "cls", "last"] = arg("which hidden states make the vector (hf)", default="mean")
    normalise: bool = arg("scale vectors to length 1", default=True)
    max_tokens: int = arg("tokens per text; the rest is cut", default=512, least=1)  # what BERT-like encoders take
    batch_size: int = arg("texts per forward or request", default=32, least=1)  # sentence-transformers'
    dtype: Literal["float32", "bfloat16", "float16"] = arg("weights of the model (hf)", default="float32")
    dim: int = arg("numbers per vector (hash), or most of them (tfidf)", default=384, least=1)  # MiniLM's
    fitted: Path | None = arg("what tfidf learnt from the catalogue, to encode new items", default=None)
    seed: int = arg("random seed of the SVD (tfidf)", default=42, least=0, most=2**32 - 1)
    overwrite: bool = arg("replace an output of other settings or items, or one that is finished", default=False)


def main(config: EmbedConfig) -> None:
    check_flags(config)
    check_output(config.output, config.items)
    texts = read_item_texts(config.items, config.template)
    read = [config.fitted] if config.fitted else encoder_of(config).files
    manifest = make_manifest(config, [config.items, *read], config.seed)
    with processes() as process:
        if is_finished(config.output, manifest, FREE, config.overwrite):
            if process.rank == 0:
                print(f"{config.output} is finished: nothing to do; --overwrite starts anew")
            return
        folder, learnt = Path(f"{config.output}.partial"), config.output.with_suffix(".encoder.safetensors")
        check_learnt(config, folder, learnt)
        model, encode, tfidf = load_encoder(config, list(texts.values()))
        # a library may make another space of the same data
        run = {**manifest, "config": {**manifest["config"], "space": model}}
        vectors = in_chunks(encode, texts, folder, run, config, process)
    if vectors is None:
        return  # another process writes
    if config.normalise:
        vectors = unit_rows(vectors)
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
    if tfidf and not config.fitted:
        tfidf.save(learnt)
    write_vectors(config.output, vectors, list(texts), **facts, manifest=manifest)
    shutil.rmtree(folder)
    print(f"{config.output}: {vectors.shape[0]} items, {vectors.shape[1]} numbers each, by {model}")
    if zero:
        print(f"{len(zero)} items have a vector of zeros (no text or no known word), {zero[0]!r} first")


def check_flags(config: EmbedConfig) -> None:
    """Raises UserError for a flag that the encoder would not look at."""
    for name, encoders_of_it in USED_BY.items():
        if getattr(config, name) and config.encoder not in encoders_of_it:
            raise UserError(
                f"--{name} is for --encoder {', '.join(encoders_of_it)}, and --encoder is {config.encoder}; leave one "
                f"of the two out"
            )


def encoder_of(config: EmbedConfig) -> Encoder:
    names = [field.name for field in fields(Encoder) if field.name != "name"]
    return Encoder(config.encoder, **{name: getattr(config, name) for name in names})


def check_learnt(config: EmbedConfig, folder: Path, learnt: Path) -> None:
    """Raises UserError if what tfidf learnt elsewhere, which new items need, would be replaced."""
    known = side_car(config.output).exists() or folder.exists() or config.overwrite
    if config.encoder == "tfidf" and not config.fitted and learnt.exists() and not known:
        raise UserError(
            f"{learnt} is there without the vectors that it belongs to, and SIDs may depend on it; take another "
            f"--output, or --overwrite to replace it"
        )


def load_encoder(config: EmbedConfig, texts: Sequence[str]) -> tuple[str, Encode, Tfidf | None]:
    """A name that tells two vector spaces apart, the function texts -> (n, dim), and what tfidf learnt."""
    if config.encoder != "tfidf":
        encoder = encoder_of(config)
        return encoder.space, load(encoder), None
    tfidf = Tfidf.load(config.fitted) if config.fitted else Tfidf.fit(texts, config.dim, config.seed)
    learnt = hashlib.sha256(tfidf.components.tobytes() + json.dumps(tfidf.words).encode()).hexdigest()
    return f"tfidf {learnt[:16]}", tfidf.encode, tfidf


def in_chunks(
    encode: Encode,
    texts: Mapping[str, str],
    folder: Path,
    run: Mapping[str, Any],
    config: EmbedConfig,
    process: Process = ALONE,
) -> np.ndarray | None:
    """All texts (by item), chunk by chunk through files in `folder`; chunks already there are not made again.

    run      the manifest; chunks of another run are refused, or replaced with config.overwrite
    Every process makes its share. The first gets (items, dim) float32 once all have finished, the others None.
    Raises UserError naming the item whose vector is not finite, before its chunk is kept.
    """
    items, name = list(texts), f"what encoder {config.encoder} gave"
    if process.rank == 0 and not is_begun(folder, run, "run of mimigenrec embed", FREE, config.overwrite):
        begin(folder, run, ["*.npy"])
    process.wait()
    starts = range(0, len(items), CHUNK)

    def work(first: int) -> np.ndarray:
        some = items[first : first + CHUNK]
        vectors = np.asarray(encode([texts[item] for item in some]))
        check_vectors(vectors, some, name, first)
        return vectors.astype(np.float32, copy=False)

    write_chunks(folder, starts, work, process)
    process.wait()
    if process.rank > 0:
        return None
    chunks = [read_array(folder / f"{start}.npy") for start in starts]
    widths = list(dict.fromkeys(chunk.shape[1] for chunk in chunks))
    if len(widths) > 1:
        raise UserError(
            f"{name} has {widths[0]} numbers for some items and {widths[1]} for others, so it is by two models; give "
            f"--overwrite to make all vectors again"
        )
    return np.concatenate(chunks)


if __name__ == "__main__":
    start(main, EmbedConfig)
