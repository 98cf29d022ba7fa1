"""Search and GRPO log-probabilities on a GPU, in float32 and bfloat16, against the CPU's lists and losses in float32.

    python benchmarks/rooms_gpu.py [--size 0.5b] [--prompts 4] [--group 16] [--repeats 5] [--device cuda]

Without that device it says so and ends. About 2 minutes at the 0.5B shape, most of it the CPU's one pass. The rollouts
of every row are the CPU's, so that losses can be compared. Model, catalogue and prompts as in decode.py.

same first    prompts whose best SID is the CPU's          shared   share of the CPU's SIDs that the list holds
score gap     largest difference of a shared SID's score   logp gap largest difference of a token's log-probability
loss gap      |loss - CPU's loss| of one hit per group     gradient relative difference of all parameters' gradients
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from decode import SHAPES, industrial_like, make_model, make_prompts
from grpo_step import advantages, rows_of

from mimigenrec.decoding.logps import completion_logps
from mimigenrec.decoding.search import search_sids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="0.5b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.silent = False  # of grpo_step.advantages
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
        return
    text = SHAPES[options.size][-1]
    prompts, trie = make_prompts(options.prompts, text), industrial_like(text)
    cpu = argparse.Namespace(**vars(options) | {"device": "cpu", "dtype": "float32"})
    reference = make_model(cpu)
    expected = measure(reference, trie, prompts, None, cpu, repeats=1)
    name = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    print(f"{name}, torch {torch.__version__}, {options.size}, {options.prompts} prompts * {options.group}")
    print("| | search s | logps s | MB | same first | shared | score gap | logp gap | loss gap | gradient |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(f"| CPU, float32 | {expected['search']:.3f} | {expected['step']:.3f} | | | | | | | |", flush=True)
    for dtype in ("float32", "bfloat16"):
        model = make_model(cpu)
        model.load_state_dict(reference.state_dict())
        model = model.to(device, getattr(torch, dtype))
        result = measure(model, trie.to(device), prompts, expected["lists"], options, options.repeats)
        print(f"| {device}, {dtype} | {' | '.join(compared(result, expected))} |", flush=True)
        del model


def measure(model, trie, prompts, lists, options, repeats: int) -> dict:
    """Lists of the search, and the log-probabilities, loss and gradient of `lists` (None: of its own); seconds, MB."""
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found, search = timed(
        lambda: search_sids(model, trie, prompts, options.group, batch_size=len(prompts)), device, repeats
    )
    ids, mask, _ = rows_of(lists or found, prompts, trie, device)
    advantage = advantages(len(prompts), options, device)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logps = completion_logps(model, ids, mask, trie.depth + 1)[0]
        loss = -(logps * advantage[:, None]).mean()
        loss.backward()
        return logps.detach().float().cpu(), loss.detach().float().cpu()

    (logps, loss), seconds = timed(step, device, repeats)
    gradient = torch.cat([p.grad.float().cpu().flatten() for p in model.parameters()])
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0
    return {"lists": found, "search": search, "step": seconds, "peak": peak, "logps": logps, "loss": loss,
            "gradient": gradient}  # fmt: skip


def timed(call: Callable, device: torch.device, repeats: int) -> tuple:
    """Its result and the median of its seconds, one call before the first that counts where there are several."""
    seconds = []
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        result = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds[repeats > 1 :])


def compared(result: dict, expected: dict) -> list[str]:
    pairs = [(dict(here), dict(there)) for here, there in zip(result["lists"], expected["lists"], strict=True)]
    first = sum(here[0][0] == there[0][0] for here, there in zip(result["lists"], expected["lists"], strict=True))
    gaps = [abs(here[sid] - there[sid]) for here, there in pairs for sid in here.keys() & there.keys()]
    shared = len(gaps) / sum(len(there) for _, there in pairs)
    apart = (result["gradient"] - expected["gradient"]).norm() / expected["gradient"].norm()
    return [
        f"{result['search']:.3f}",
        f"{result['step']:.3f}",
        f"{result['peak']:.0f}",
        f"{first} of {len(pairs)}",
        f"{shared:.3f}",
        f"{max(gaps, default=0.0):.1e}",
        f"{(result['logps'] - expected['logps']).abs().max():.1e}",
        f"{(result['loss'] - expected['loss']).abs():.1e}",
        f"{apart:.1e}",
    ]


if __name__ == "__main__":
    main()
