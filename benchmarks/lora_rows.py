"""What training the rows of the SIDs beside LoRA brings and costs, by the way they are trained. CPU, some minutes.

    python benchmarks/lora_rows.py --steps 400 --rows 4000 --hidden 64      quality
    python benchmarks/lora_rows.py --steps 8 --rows 20000 --hidden 256      memory

60 items in a ring: what follows an item is always the next one. The base is a random Qwen2 of two layers, with more
rows than any text uses, as large vocabularies have them. Printed for each way:

trained     parameters with a gradient          file       MB of the adapter, or of the model
peak        MB of the process at most           merge      largest difference of logits after mimigenrec merge
"""

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import Qwen2Config, Qwen2ForCausalLM

from mimigenrec.catalog import Catalog, write_items
from mimigenrec.contract import Contract
from mimigenrec.files import read_json, write_json
from mimigenrec.sft.make_base import CHAT_TEMPLATES, SPECIAL, train_tokenizer
from mimigenrec.sids.tokens import write_index, write_new_tokens
from mimigenrec.tasks.register import register, split_files
from mimigenrec.tasks.rows import to_sft_row
from mimigenrec.tasks.sample import Sample

ITEMS, ROWS, VALID = 60, 480, 60
WAYS = {
    "LoRA alone": ["finetuning_type=lora"],
    "lora_sid_rows, tied": ["finetuning_type=lora", "lora_sid_rows=true"],
    "lora_sid_rows, untied": ["finetuning_type=lora", "lora_sid_rows=true", "sid_untie=true"],
    "additional_target, untied": [
        "finetuning_type=lora",
        "additional_target=embed_tokens,lm_head",
        "sid_untie=true",
    ],
    "full, tied": ["finetuning_type=full"],
}


def main(steps: int, rows: int, hidden: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data" / "ring")
        write_base(folder / "base", rows, hidden)
        write_json(folder / "x.yaml", keys(folder, steps))  # JSON is YAML
        print("| way | trained | file | peak | valid loss | NDCG@10 | merge |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for way, options in WAYS.items():
            print(f"| {way} | {' | '.join(measure(folder, way, options))} |", flush=True)


def write_data(data: Path) -> None:
    contract = Contract.of("contract")
    sids = {str(i): (f"<a_{i // 16}>", f"<b_{i // 4 % 4}>", f"<c_{i % 4}>") for i in range(ITEMS)}
    for split, count in (("train", ROWS), ("valid", VALID)):
        samples = []
        for i in range(count):
            history = [sids[str((i + j) % ITEMS)] for j in range(1 + i % 4)]
            target = "".join(sids[str((i + 1 + i % 4) % ITEMS)])
            samples.append(Sample("sid_history", {"sids": contract.write_sids(history)}, target))
        write_json(data / "sft" / f"{split}.json", [to_sft_row(sample, contract, split) for sample in samples])
    write_new_tokens(data / "new_tokens.json", sids)
    write_index(data / "id2sid.json", sids)
    write_items(data / "items.json", Catalog(sids=sids))
    contract.write(data)
    register(data, split_files("ring"))


def write_base(folder: Path, rows: int, hidden: int) -> None:
    text = "You rank items. system user assistant Which item comes next?"
    train_tokenizer([text], 400, CHAT_TEMPLATES["chatml"], SPECIAL).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 4, "vocab_size": rows, "tie_word_embeddings": True}
    Qwen2ForCausalLM(Qwen2Config(**shape)).save_pretrained(folder)


def keys(folder: Path, steps: int) -> dict:
    return {
        "model_name_or_path": str(folder / "base"),
        "add_tokens_list": str(folder / "data" / "ring" / "new_tokens.json"),
        "base_cache": str(folder / "cache"),
        "stage": "sft",
        "do_train": True,
        "dataset": "ring_train",
        "eval_dataset": "ring_valid",
        "dataset_dir": str(folder / "data"),
        "cutoff_len": 256,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 16,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "cosine",
        "max_steps": steps,
        "eval_strategy": "steps",
        "eval_steps": steps,
        "save_strategy": "no",
        "report_to": "none",
        "lora_rank": 8,
    }


def measure(folder: Path, way: str, options: list[str]) -> list[str]:
    out = folder / way.replace(" ", "_")
    command = [sys.executable, "-m", "mimigenrec.cli", "sft", str(folder / "x.yaml"), *options, f"output_dir={out}"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit((folder / "log").read_text()[-3000:])
    results = read_json(out / "all_results.json", "sft")
    is_adapter = (out / "adapter_model.safetensors").is_file()
    weights = out / ("adapter_model.safetensors" if is_adapter else "model.safetensors")
    with safe_open(weights, framework="pt") as file:
        trained = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118  it is no dict
    difference = "-"
    if is_adapter:
        merged = out.with_name(out.name + "_merged")
        command = [sys.executable, "-m", "mimigenrec.cli", "merge", "--model", str(out), "--output", str(merged)]
        subprocess.run(command, check=True, capture_output=True)
        difference = f"{json.loads((merged / 'manifest.json').read_text())['logits']['difference']:.1e}"
    size, peak = weights.stat().st_size / 2**20, usage.ru_maxrss / 1024
    numbers = [f"{trained:,}", f"{size:.1f}", f"{peak:.0f}"]
    return [*numbers, f"{results['eval_loss']:.3f}", f"{results['eval_ndcg@10']:.3f}", difference]


if __name__ == "__main__":
    parser = ArgumentParser()
    for name, default in (("--steps", 400), ("--rows", 4000), ("--hidden", 64)):
        parser.add_argument(name, type=int, default=default)
    main(**vars(parser.parse_args()))
