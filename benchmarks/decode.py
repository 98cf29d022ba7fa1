"""The engine against generate() with TrieLogitsProcessor: speed, memory, the same lists, distance to the limit.

    python benchmarks/decode.py --size tiny|0.5b|1.5b [--device cpu] [--dtype float32] [--batch 8] [--beams 50]
                                [--prompts 8] [--repeats 3] [--threads N] [--memory] [--unconstrained]

Model: Qwen2 of that shape, random weights, vocabulary 152,271, tied. Catalogue: as large and as branched as Industrial
(3,686 items, 3,677 SIDs, 94 / 2,645 / 3,677 nodes). Prompts: 68 tokens that all share, 3 to 53 of their own.

All contenders run in turn in each round; a ratio is between two of one round, told as median (least - most).
`plain` pads per batch and keeps no scores. `+ reuse` computes the shared tokens once. `lists` is how many
ranked lists are the same, SIDs whose scores are closer than 1e-5 aside; for support trie on the first 2 prompts.
`limit` is the time that the forward's and the head's multiplications take at the speed of one large product on this
machine, as a share of the time measured. --memory: peak above what the process held before, one process each.
On a busy machine take --threads 1: threads that wait for each other spin.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from mimigenrec.decoding.beam import beam_search
from mimigenrec.decoding.plain import left_pad
from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.search import batches, to_lists
from mimigenrec.decoding.tree import Template, shared_length
from mimigenrec.decoding.trie import SidTrie

SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, text tokens
    "micro": (32, 64, 2, 4, 2, 1_000),
    "tiny": (128, 512, 4, 4, 2, 151_665),
    "0.5b": (896, 4864, 24, 14, 2, 151_665),
    "1.5b": (1536, 8960, 28, 12, 2, 151_665),
}
CODES, LEVELS, TEMPLATE, TIE = 256, (94, 2645, 3677), 68, 1e-5
ENGINE = {  # support, template computed once
    "vocab": ("vocab", False),
    "vocab + reuse": ("vocab", True),
    "trie": ("trie", False),
    "trie + reuse": ("trie", True),
}

Prompts = Sequence[Sequence[int]]
Lists = list[list[tuple[tuple[int, ...], float]]]  # SIDs best first; plain knows no scores and says 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--unconstrained", action="store_true", help="also generate() without a trie, as many tokens")
    parser.add_argument("--peak-of", metavar="CONTENDER", help="print one contender's peak memory in MB, nothing else")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model, trie = make_model(options), industrial_like(SHAPES[options.size][-1]).to(options.device)
    prompts = make_prompts(options.prompts, SHAPES[options.size][-1])
    names = ["plain", *(["unconstrained"] if options.unconstrained else []), *ENGINE]
    runs = {name: contender(name, model, trie, options) for name in names}
    if options.peak_of:
        print(f"{peak_mb(runs[options.peak_of], prompts, options.device):.0f}")
        return
    for run in runs.values():
        run(prompts[:1])
    seconds, answers, tokens = compete(runs, prompts, model, options)
    same = compare(answers, model, trie, prompts, options)
    rate = product_rate(model)
    print(
        f"{options.size}, {options.dtype}, {options.device}, {torch.get_num_threads()} threads, "
        f"{options.prompts} prompts in batches of {options.batch}, {options.beams} beams, {rate / 1e9:.0f} GFLOP/s"
    )
    print("| contender | prompts/s | times plain | lists | forward tokens a prompt | limit | MB over base |")
    print("|---|---|---|---|---|---|---|")
    for name, took in seconds.items():
        ratios = [a / b for a, b in zip(seconds["plain"], took, strict=True)]
        limit = ""
        if name in ENGINE:
            limit = f"{flops(name, tokens[name], model, trie, prompts, options) / rate / statistics.median(took):.0%}"
        peak = peak_apart(name) if options.memory else ""
        print(
            f"| {name} | {len(prompts) / statistics.median(took):.3g} | {statistics.median(ratios):.1f} "
            f"({min(ratios):.1f} - {max(ratios):.1f}) | {same.get(name, '')} | {tokens[name] / len(prompts):.0f} "
            f"| {limit} | {peak} |",
            flush=True,
        )


def make_model(options) -> Qwen2ForCausalLM:
    hidden, intermediate, layers, heads, kv_heads, text = SHAPES[options.size]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=text + CODES * 3 - (CODES - LEVELS[0]),  # 94 + 256 + 256 codes
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    with torch.device(options.device):
        return Qwen2ForCausalLM(config).to(getattr(torch, options.dtype)).eval()


def industrial_like(text_tokens: int) -> SidTrie:
    """LEVELS nodes, 78% of the second level with one child, 9 SIDs with a second item."""
    rng = np.random.default_rng(0)
    first, second, third = LEVELS
    popular = rng.lognormal(0.0, 0.35, first).repeat(CODES)
    pairs = rng.choice(first * CODES, second - first, replace=False, p=popular / popular.sum())
    each = np.arange(first) * CODES + rng.integers(0, CODES, first)  # every first code leads on
    pairs = np.unique(np.concatenate([pairs, each]))
    more = np.setdiff1d(np.arange(first * CODES), pairs)
    pairs = np.concatenate([pairs, rng.choice(more, second - len(pairs), replace=False)])
    children = np.ones(second, int)
    many = rng.choice(second, int(0.22 * second), replace=False)
    children[many] += 1
    chosen, counts = np.unique(rng.choice(many, third - children.sum()), return_counts=True)
    children[chosen] += counts
    last = np.concatenate([rng.choice(CODES, n, replace=False) for n in children])
    pairs = pairs.repeat(children)
    codes = np.stack([pairs // CODES, first + pairs % CODES, first + CODES + last], axis=1)
    codes = np.concatenate([codes, codes[:9]]) + text_tokens
    return SidTrie.from_codes(codes, eos_id=2, pad_id=0, names=range(len(codes)))


def make_prompts(n: int, text_tokens: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    template = rng.integers(3, text_tokens, TEMPLATE).tolist()
    return [template + rng.integers(3, text_tokens, rng.integers(3, 54)).tolist() for _ in range(n)]


def contender(name: str, model, trie: SidTrie, options) -> Callable[[Prompts], Lists]:
    if name in ENGINE:
        support, reuse = ENGINE[name]
        return lambda prompts: engine(model, trie, prompts, support, reuse, options)
    return lambda prompts: generate(model, trie, prompts, name == "plain", False, options)


def engine(model, trie: SidTrie, prompts: Prompts, support: str, reuse: bool, options) -> Lists:
    template, answers = Template.of(model, prompts) if reuse else None, [[]] * len(prompts)
    for rows in batches(prompts, options.batch):
        found = beam_search(model, trie, [prompts[row] for row in rows], options.beams, support, template)
        for row, ranked in zip(rows, to_lists(trie, *found), strict=True):
            answers[row] = ranked
    return answers


@torch.no_grad()
def generate(model, trie: SidTrie, prompts: Prompts, constrained: bool, renormalise: bool, options) -> Lists:
    beams, answers = options.beams, [[]] * len(prompts)
    settings = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        length_penalty=0.0,
        max_new_tokens=trie.depth + 1,
        min_new_tokens=None if constrained else trie.depth + 1,
        eos_token_id=trie.eos_id,
        pad_token_id=trie.pad_id,
    )
    for rows in batches(prompts, options.batch):
        ids, mask = left_pad([prompts[row] for row in rows], trie.pad_id, model.device)
        legal = [TrieLogitsProcessor(trie, ids.shape[1], renormalise)] if constrained else []
        out = model.generate(inputs=ids, attention_mask=mask, generation_config=settings, logits_processor=legal)
        written = out[:, ids.shape[1] : ids.shape[1] + trie.depth].view(len(rows), beams, -1).tolist()
        for row, lists in zip(rows, written, strict=True):
            answers[row] = [(tuple(sid), 0.0) for sid in lists]
    return answers


def compete(runs: dict[str, Callable], prompts: Prompts, model, options) -> tuple[dict, dict, dict]:
    """Seconds of each round, answers, and tokens that went through the model's layers, by contender."""
    seconds, answers, tokens = {name: [] for name in runs}, {}, {}
    counted = [0]
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: counted.__setitem__(0, counted[0] + kwargs["input_ids"].numel()),
        with_kwargs=True,
    )
    for _ in range(options.repeats):
        for name, run in runs.items():
            counted[0] = 0
            start = time.perf_counter()
            answers[name] = run(prompts)
            if options.device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
            tokens[name] = counted[0]
    hook.remove()
    return seconds, answers, tokens


def compare(answers: dict[str, Lists], model, trie: SidTrie, prompts: Prompts, options) -> dict[str, str]:
    two = generate(model, trie, prompts[:2], True, True, options)
    said = {}
    for name, (support, _) in ENGINE.items():
        pairs = list(zip(answers[name], answers["plain"] if support == "vocab" else two, strict=False))
        said[name] = f"{sum(same_list(ours, theirs) for ours, theirs in pairs)} of {len(pairs)}"
    return said


def same_list(ours: list, theirs: list) -> bool:
    """Rank by rank; SIDs of the list whose scores are closer than TIE may change places."""
    scores = dict(ours)
    return len(ours) == len(theirs) and all(
        abs(scores.get(sid, torch.inf) - logp) < TIE for (_, logp), (sid, _) in zip(ours, theirs, strict=True)
    )


def flops(name: str, tokens: int, model, trie: SidTrie, prompts: Prompts, options) -> float:
    """Multiplications and additions of the layers' and the head's products; attention is left out."""
    support, reuse = ENGINE[name]
    layers = sum(x.numel() for x in model.get_decoder().layers.parameters())
    shared = shared_length(prompts) if reuse and len(prompts) > 1 else 0
    asked = shared
    for rows in batches(prompts, options.batch):
        asked += len(rows) * (max(len(prompts[row]) for row in rows) - shared)
    scored = tokens - asked + len(prompts)  # each node, and each prompt's end
    columns = model.config.vocab_size if support == "vocab" else max(len(trie.level_tokens(i)) for i in range(4))
    return 2.0 * layers * tokens + 2.0 * model.config.hidden_size * columns * scored


def product_rate(model) -> float:
    """FLOP/s of one product of two 2,048 x 2,048 matrices, the best of 5."""
    n = 2048
    left, right = torch.randn(2, n, n, dtype=model.dtype, device=model.device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        if left.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * n**3 / best


def peak_mb(run: Callable[[Prompts], Lists], prompts: Prompts, device: str) -> float:
    """What a run needs above what the process held before; a run on one prompt has loaded the code."""
    run(prompts[:1])
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(prompts)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak begins anew from what is held now
    before = held_kb("VmRSS")
    run(prompts)
    return (held_kb("VmHWM") - before) / 2**10


def held_kb(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key))


def peak_apart(name: str) -> str:
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--peak-of", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
