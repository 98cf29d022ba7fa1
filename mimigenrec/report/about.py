"""What the results of a report depended on, read off their manifests: data, contract, versions, settings, time.

What should be alike between methods and is not becomes a caution, a sentence that stands in the verdict.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mimigenrec.catalog import Catalog
from mimigenrec.contract import read_contract
from mimigenrec.evaluation.curves import read_events
from mimigenrec.evaluation.result import Row
from mimigenrec.files import read_json
from mimigenrec.report.methods import Method, Run

DATA_FILES = (".inter", "id2sid.json", "index.json", "rows/test.json", "rows/valid.json", "sft/test.json")
SAME_SETTINGS = ("split", "limit", "exclude_seen", "support", "k")  # of the methods that have them


def describe(data: Path, catalog: Catalog, rows: Sequence[Row], methods: Sequence[Method]) -> dict[str, Any]:
    runs = [run for method in methods for run in method.runs]
    contract = read_contract(data)
    users = {row["user"] for row in rows}
    settings = {key: _differing(methods, lambda run, key=key: _setting(run, key)) for key in SAME_SETTINGS}
    return {
        "rows": len(rows),
        "users": None if None in users else len(users),
        "items": len(catalog.sids),
        "sids": len(catalog.items_of),
        "items_sharing": sum(len(items) for items in catalog.items_of.values() if len(items) > 1),
        "targets_without_sid": sum(not row["target_sid"] for row in rows),
        "contract": contract and {"hash": contract.hash, "wording": contract.wording},
        "settings": {key: next(iter(values)) for key, values in settings.items() if len(values) == 1},
        "data": {name: sorted(hashes) for name, hashes in sorted(_hashes(runs).items())},
        "versions": _versions(runs),
    }


def cautions(about: Mapping[str, Any], methods: Sequence[Method]) -> list[str]:
    """What makes two of the results less comparable than their rows say."""
    lines = []
    for key in SAME_SETTINGS:
        values = _differing(methods, lambda run, key=key: _setting(run, key))
        if len(values) > 1:
            lines.append(f"{key} is " + "; ".join(f"{value} for {', '.join(of)}" for value, of in values.items()))
    items = _differing(methods, lambda run: run.metrics.get("n_items"))
    if len(items) > 1:
        lines.append("items to rank: " + "; ".join(f"{n:,} for {', '.join(of)}" for n, of in items.items()))
    lines += [f"{name} was not the same file for all" for name, hashes in about["data"].items() if len(hashes) > 1]
    ours = about["contract"] and about["contract"]["hash"]
    for method in methods:
        for run in method.runs:
            contract = run.metrics.get("contract") or {}
            if contract.get("note"):
                lines.append(f"{method.name}: {contract['note']}")
            if contract.get("data") not in (None, ours):
                lines.append(f"{method.name} was asked by contract {contract['data']}, the data folder has {ours}")
    return list(dict.fromkeys(lines))


def method_facts(
    method: Method, models: Sequence[str], training: Sequence[Path], cost: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Seconds are sums over seeds: of training as its log tells, of ranking as metrics.json does; None if untold."""
    trained = [training_seconds(folder) for folder in training]
    ranked = [run.metrics.get("seconds") for run in method.runs]
    told = (run.metrics.get("device") or run.manifest.get("network", {}).get("device") for run in method.runs)
    return {
        "name": method.name,
        "kind": "model" if method.name in models else "baseline",
        "folders": [str(run.folder) for run in method.runs],
        "seeds": [run.manifest.get("seed") for run in method.runs],
        "failed": method.failed,
        "device": ", ".join(sorted({device for device in told if device not in (None, "auto")})) or None,
        "training_seconds": None if not trained or None in trained else round(sum(trained), 1),
        "ranking_seconds": None if not ranked or None in ranked else round(sum(ranked), 1),
        "cost": cost,
    }


def training_seconds(folder: Path) -> float | None:
    """How long a training says it took; of one that was resumed, LLaMA-Factory and TRL tell the last part alone."""
    if (folder / "train_results.json").is_file():
        return read_json(folder / "train_results.json", made_by="`mimigenrec sft`", kind=dict).get("train_runtime")
    for name, key in (("rl_log.jsonl", "train_runtime"), ("training.jsonl", "seconds")):
        if (folder / name).is_file():
            told = [event[key] for event in read_events(folder / name) if key in event]
            return float(sum(told)) if told else None
    return None


def starts(models: Sequence[str], training: Mapping[str, Sequence[Path]], methods: Sequence[Method]) -> dict[str, str]:
    """{a model trained by RL: the model that it started from}, where both are here.

    RL's manifest names the checkpoint; it is another model's training folder, or the one that it was evaluated from.
    """
    of: dict[Path, str] = {}
    for method in methods:
        evaluated = [run.manifest["config"].get("model") for run in method.runs]
        for folder in [*training.get(method.name, ()), *filter(None, evaluated)]:
            of.setdefault(Path(folder).resolve(), method.name)
    before = {}
    for name in models:
        for folder in training.get(name, ()):
            if (folder / "rl_log.jsonl").is_file() and (folder / "manifest.json").is_file():
                manifest = read_json(folder / "manifest.json", made_by="`mimigenrec grpo`", kind=dict)
                config = manifest.get("config")
                start = of.get(Path(str(config.get("model", ""))).resolve()) if isinstance(config, dict) else None
                if start in models and start != name:
                    before[name] = start
    return before


def _setting(run: Run, key: str) -> Any:
    return run.metrics[key] if key in run.metrics else run.manifest["config"].get(key, "")


def _differing(methods: Sequence[Method], read: Any) -> dict[Any, list[str]]:
    """value -> the methods that have it; methods that do not tell ("") are left out."""
    found: dict[Any, list[str]] = {}
    for method in methods:
        for value in dict.fromkeys(map(read, method.runs)):
            if value != "":
                found.setdefault(value, []).append(method.name)
    return found


def _hashes(runs: Sequence[Run]) -> dict[str, set[str]]:
    """File name -> the hashes of it that the runs read, of files that are data (not weights)."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for path, digest in run.manifest["inputs"].items():
            if path.endswith(DATA_FILES):
                end = next(end for end in DATA_FILES if path.endswith(end))
                found.setdefault(Path(path).name if "/" not in end else end, set()).add(digest)
    return found


def _versions(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Package -> the versions that the runs had, usually one."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for package, version in run.manifest["versions"].items():
            if version and version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: versions for package, versions in found.items() if versions}
