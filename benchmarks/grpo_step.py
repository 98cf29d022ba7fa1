"""A GRPO step, rollouts + reference + policy forward and backward, against the same step as TRL alone would do it.

    python benchmarks/grpo_step.py --size tiny|0.5b|1.5b [--prompts 8] [--group 16] [--beta 0.001] [--support vocab]
                                   [--repeats 3] [--threads N] [--device cpu] [--memory]

plain: generate() with TrieLogitsProcessor, then each of prompts * group rows through the whole model, the scores of
the whole vocabulary stored, entropies as TRL takes them. ours: the search, and decoding.logps. Both on the same
model with gradient checkpointing, the optimiser left out. Prompts and catalogue as in decode.py.
`silent` gives every second group no signal (beta 0), as most groups of a sparse reward have none.

Checked in every run: the same rollouts, the loss, and the largest relative difference of a parameter's gradient.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time

import torch
from decode import SHAPES, held_kb, industrial_like, make_model, make_prompts
from torch import Tensor
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from mimigenrec.decoding.inside_trie import InsideTrie
from mimigenrec.decoding.logps import completion_logps
from mimigenrec.decoding.plain import generate_sids, left_pad
from mimigenrec.decoding.search import search_sids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--beta", type=float, default=0.001)
    parser.add_argument("--support", choices=["vocab", "trie"], default="vocab")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak-of", choices=STEPS, help="print one contender's peak memory in MB, nothing else")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.silent:
        options.beta = 0.0
    model, trie = make_model(options), industrial_like(SHAPES[options.size][-1]).to(options.device)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    prompts = make_prompts(options.prompts, SHAPES[options.size][-1])
    if options.peak_of:
        STEPS[options.peak_of](model, trie, prompts[:1], options)
        gc.collect()
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
        before = held_kb("VmRSS")
        STEPS[options.peak_of](model, trie, prompts, options)
        print(f"{(held_kb('VmHWM') - before) / 2**10:.0f}")
        return
    for step in STEPS.values():
        step(model, trie, prompts[:1], options)
    seconds = {name: [] for name in STEPS}
    found, gradients = {}, {}
    for _ in range(options.repeats):
        for name, step in STEPS.items():
            model.zero_grad()
            rollouts, loss, took = step(model, trie, prompts, options)
            seconds[name].append(took)
            found[name] = rollouts, loss
            gradients[name] = [p.grad.detach().clone() for p in model.parameters()]
    apart = max(((a - b).norm() / a.norm()).item() for a, b in zip(gradients["plain"], gradients["ours"], strict=True))
    print(
        f"{options.size}, {options.dtype}, {options.device}, {torch.get_num_threads()} threads, {options.prompts} "
        f"prompts of {statistics.mean(map(len, prompts)):.0f} tokens * {options.group}, support {options.support}, "
        f"beta {options.beta}{', every second group silent' if options.silent else ''}"
    )
    print(
        f"same rollouts: {torch.equal(found['plain'][0], found['ours'][0])}; loss {found['plain'][1]:.8f} and "
        f"{found['ours'][1]:.8f}; gradients differ by at most {apart:.1e}"
    )
    print("| | rollouts s | reference s | policy s | step s | times plain | MB over base |")
    print("|---|---|---|---|---|---|---|")
    for name, took in seconds.items():
        ratios = [sum(a) / sum(b) for a, b in zip(seconds["plain"], took, strict=True)]
        parts = [statistics.median(part) for part in zip(*took, strict=True)]
        ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} - {max(ratios):.1f})"
        cells = [
            *(f"{part:.3f}" for part in parts),
            f"{sum(parts):.3f}",
            ratio,
            peak_apart(name) if options.memory else "",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def plain_step(model, trie, prompts, options):
    start = time.perf_counter()
    model.eval()
    found = generate_sids(model, trie, prompts, options.group, options.support)
    model.train()
    ids, mask, rollouts = rows_of(found, prompts, trie, model.device)
    rolled = time.perf_counter()

    def logps() -> Tensor:
        keep = trie.depth + 1
        whole = model if options.support == "vocab" else InsideTrie(model, trie, keep, 1.0)
        logits = whole(input_ids=ids, attention_mask=mask, logits_to_keep=keep + 1, use_cache=False).logits
        logits = logits[:, -keep - 1 : -1]
        with torch.no_grad():
            entropy_from_logits(logits)
        return selective_log_softmax(logits, ids[:, -keep:])

    return rollouts, *finish(logps, logps, advantages(len(prompts), options, model.device), options, start, rolled)


def our_step(model, trie, prompts, options):
    start = time.perf_counter()
    model.eval()
    found = search_sids(model, trie, prompts, options.group, options.support, batch_size=len(prompts))
    model.train()
    ids, mask, rollouts = rows_of(found, prompts, trie, model.device)
    rolled = time.perf_counter()
    advantage = advantages(len(prompts), options, model.device)

    def logps(wanted=None) -> Tensor:
        inside = trie if options.support == "trie" else None
        return completion_logps(model, ids, mask, trie.depth + 1, 1.0, inside, wanted)[0]

    def policy() -> Tensor:
        return logps(advantage != 0 if options.beta == 0 else None)

    return rollouts, *finish(logps, policy, advantage, options, start, rolled)


STEPS = {"plain": plain_step, "ours": our_step}


def rows_of(found, prompts, trie, device) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids and attention_mask (prompts * group, L + C), and the completions (prompts * group, C)."""
    group = [[[*sid, trie.eos_id] for sid, _ in ranked] for ranked in found]
    completions = torch.tensor([tokens for ranked in group for tokens in ranked], device=device)
    repeated = [prompt for prompt, ranked in zip(prompts, group, strict=True) for _ in ranked]
    ids, mask = left_pad(repeated, trie.pad_id, device)
    return torch.cat([ids, completions], dim=1), torch.cat([mask, torch.ones_like(completions)], dim=1), completions


def advantages(prompts: int, options, device) -> Tensor:
    """(prompts * group,) one hit a group, normalised as TRL does; with --silent every second group has none."""
    reward = torch.zeros(prompts, options.group, device=device)
    reward[:: 2 if options.silent else 1, 3 % options.group] = 1.0
    spread = reward.std(dim=1, keepdim=True)
    return ((reward - reward.mean(dim=1, keepdim=True)) / (spread + 1e-4)).flatten()


def finish(reference, policy, advantage: Tensor, options, start: float, rolled: float) -> tuple[float, tuple]:
    """Reference if there is a KL term, policy, loss and backward: the loss and the seconds of the three parts."""
    ref = None
    if options.beta:
        with torch.no_grad():
            ref = reference()
    referred = time.perf_counter()
    logps = policy()
    loss = -((logps - logps.detach()).exp() * advantage[:, None])
    if ref is not None:
        loss = loss + options.beta * ((ref - logps).exp() - (ref - logps) - 1)
    loss = loss.mean()
    loss.backward()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return loss.item(), (rolled - start, referred - rolled, time.perf_counter() - referred)


def peak_apart(name: str) -> str:
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--peak-of", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
