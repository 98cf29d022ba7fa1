"""Two results on the same test rows: paired tests per metric, and what differs in what they depended on.

mimigenrec compare results/sft results/rl          B minus A
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimigenrec.cli import arg, start
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import KS
from mimigenrec.evaluation.outputs import check_own
from mimigenrec.evaluation.result import Result, read_result, row_metrics
from mimigenrec.evaluation.stats import RESAMPLES, paired_bootstrap, permutation_test
from mimigenrec.files import write_json, writing
from mimigenrec.manifest import make_manifest
from mimigenrec.page import markdown_table


@dataclass
class CompareConfig:
    """Is B better than A? Both are folders (or their final_result.json) written by evaluate or baseline."""

    a: Path = arg("folder of the first result")
    b: Path = arg("folder of the second result")
    output: Path | None = arg("folder for compare.json and compare.md; nothing is written without it", default=None)
    seed: int = arg("random seed of the resamples", default=42, least=0, most=2**32 - 1)
    resamples: int = arg(
        "number of resamples, for the bootstrap and for the permutation test", default=RESAMPLES, least=1
    )


class Compared(NamedTuple):
    """B minus A over the same rows, as stats.Difference has it, and the p-value of the permutation test beside it."""

    mean: float
    low: float
    high: float
    p: float  # of the bootstrap
    p_permutation: float


def main(config: CompareConfig) -> None:
    if config.output:
        check_own("compare", {config.output / "compare.json": b'"differing"', config.output / "compare.md": b"A: "})
    a, b = read_result(config.a), read_result(config.b)
    differences = compare(a, b, np.random.default_rng(config.seed), config.resamples)
    settings = differing(a.manifest, b.manifest)
    text = as_text(a, b, differences, settings)
    print(text)
    if config.output:
        shown = {level: {name: d._asdict() for name, d in compared.items()} for level, compared in differences.items()}
        made_from = make_manifest(config, [result.folder / "final_result.json" for result in (a, b)], config.seed)
        content = {"a": str(config.a), "b": str(config.b), **shown, "differing": settings, "manifest": made_from}
        write_json(config.output / "compare.json", content)
        with writing(config.output / "compare.md") as out:
            out.write(text)


def compare(a: Result, b: Result, rng: np.random.Generator, resamples: int) -> dict[str, dict[str, Compared]]:
    """{"sid": {"hr@1": Compared, ...}, "item": ...}, B minus A, up to the smaller k of the two.

    The SID level is left out where the two name the targets by different SIDs.
    """
    check_same_rows(a, b)
    ks = [k for k in KS if k <= min(a.metrics["k"], b.metrics["k"])]
    same_sids = all(x["target_sid"] == y["target_sid"] for x, y in zip(a.rows, b.rows, strict=True))
    (swaps,) = rng.spawn(1)  # a stream of its own: the bootstrap draws what it would draw alone
    compared = {}
    for level in ("sid", "item") if same_sids else ("item",):
        metrics_a, metrics_b = row_metrics(a.rows, level, ks), row_metrics(b.rows, level, ks)
        differences = paired_bootstrap(metrics_a, metrics_b, rng, resamples)
        p = permutation_test(metrics_a, metrics_b, swaps, resamples)
        compared[level] = {name: Compared(*difference, p[name]) for name, difference in differences.items()}
    return compared


def check_same_rows(a: Result, b: Result) -> None:
    """Raises UserError naming the first row that is not about the same user and target."""
    if len(a.rows) != len(b.rows):
        raise UserError(
            f"{a.folder} has {len(a.rows)} rows and {b.folder} {len(b.rows)}; a paired comparison needs the same test "
            f"set and the same --limit"
        )
    for i, (x, y) in enumerate(zip(a.rows, b.rows, strict=True)):
        has_items = x["target"] is not None and y["target"] is not None
        keys = ("row", "user", "target") if has_items else ("row", "target_sid")
        if any(x[key] != y[key] for key in keys):
            here, there = ({key: row[key] for key in keys} for row in (x, y))
            raise UserError(f"row {i} is {here} in {a.folder} and {there} in {b.folder}: not the same test set")


def differing(a: dict[str, Any], b: dict[str, Any], path: str = "") -> dict[str, list]:
    """{"config.beams": [50, 20], ...}: every leaf that the two manifests do not share."""
    leaves = {}
    for key in dict.fromkeys([*a, *b]):
        in_a, in_b = a.get(key), b.get(key)
        if isinstance(in_a, dict) and isinstance(in_b, dict):
            leaves |= differing(in_a, in_b, f"{path}{key}.")
        elif in_a != in_b:
            leaves[f"{path}{key}"] = [in_a, in_b]
    return leaves


def as_text(a: Result, b: Result, differences: dict[str, dict[str, Compared]], settings: dict[str, list]) -> str:
    lines = [f"A: {a.folder}\nB: {b.folder}\n{len(a.rows)} rows; B - A with 95 % interval; two-sided p of two tests\n"]
    for level, compared in differences.items():
        lines += [f"\n{level.upper() if level == 'sid' else level.capitalize()} level\n"]
        metrics_a, metrics_b = a.metrics[level], b.metrics[level]
        rows = [
            [
                name,
                f"{metrics_a[name]['mean']:.4f}",
                f"{metrics_b[name]['mean']:.4f}",
                f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]",
                f"{d.p:.4f}",
                f"{d.p_permutation:.4f}",
            ]
            for name, d in compared.items()
        ]
        lines.append(markdown_table(["metric", "A", "B", "B - A", "p, bootstrap", "p, permutation"], rows))
    if "sid" not in differences:
        lines.append("\nThe two name their targets by different SIDs: the SID level cannot be compared.")
    lines += ["\nWhat differs in the manifests:\n"]
    lines += [f"- {key}: {in_a!r} | {in_b!r}" for key, (in_a, in_b) in settings.items()] or ["- nothing"]
    return "\n".join(lines) + "\n"


def paths_as_flags(argv: list[str]) -> list[str]:
    """Two bare paths in front become --a and --b."""
    if len(argv) >= 2 and not any(token.startswith("-") or "=" in token for token in argv[:2]):
        return ["--a", argv[0], "--b", argv[1], *argv[2:]]
    return argv


if __name__ == "__main__":
    start(main, CompareConfig, argv=paths_as_flags(sys.argv[1:]))
