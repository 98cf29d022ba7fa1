"""Every chosen method on the same rows by the same metric code, then one report: `mimigenrec benchmark`.

Stages run one after another, each a command of its own (plan.py says which); what is done with the same settings is
passed over, so the same command goes on after a kill. A stage that fails takes those that need it with it and no
others; the report shows it, and the command ends with status 1.
"""

import logging
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from mimigenrec.benchmark.check import check_options
from mimigenrec.benchmark.config import BenchmarkConfig
from mimigenrec.benchmark.plan import brings_figures, plan, report_stage
from mimigenrec.benchmark.process import cost_of, facts_of, reason_of, remembered, run, shown
from mimigenrec.cli import start
from mimigenrec.errors import UserError
from mimigenrec.evaluation.curves import LOGS
from mimigenrec.interactions.names import check_category
from mimigenrec.lock import alone
from mimigenrec.stages import Facts, Stage, Standing, standing


def main(config: BenchmarkConfig) -> None:
    check_category(config.category)
    stages = plan(config)
    check_options([*stages, report_stage(config, {})])
    memory, facts = config.output_dir / "stages", facts_of(stages)
    if config.plan:
        print("\n".join(describe(standings(stages, facts, memory))))
        return
    others = "another benchmark, or a stage that one left running,"
    with alone(config.output_dir / ".lock", others, inherited=True) as lock:
        there = standings(stages, facts, memory)
        if config.changed == "refuse":
            check_unchanged(there, config.output_dir)
        failed = run_all(stages, facts, there, memory, lock)
        failed |= make_report(config, stages, failed, memory, lock)
    tell_failures(failed, memory)


def standings(stages: Sequence[Stage], facts: Mapping[str, Facts], memory: Path) -> dict[str, Standing]:
    before = {stage.name: remembered(stage, facts[stage.name], memory) for stage in stages}
    return {stage.name: standing(stage, facts[stage.name], before[stage.name]) for stage in stages}


def describe(there: Mapping[str, Standing]) -> Iterator[str]:
    width = max(map(len, there))
    for name, (word, changes) in there.items():
        yield f"{name:<{width}}  {word}" + (f": {'; '.join(changes)}" if changes else "")


def check_unchanged(there: Mapping[str, Standing], output_dir: Path) -> None:
    """Raises UserError naming the stages that were run with other settings, and what is different."""
    lines = [f"{name}: {'; '.join(changes)}" for name, (word, changes) in there.items() if word == "changed"]
    if lines:
        raise UserError(
            "\n".join(["some stages were run with other settings or files:", *lines])
            + f"\nChange them back, choose another output_dir than {output_dir}, or have what these stages wrote "
            f"deleted and made again: changed: rerun"
        )


def run_all(
    stages: Sequence[Stage], facts: Mapping[str, Facts], there: Mapping[str, Standing], memory: Path, lock: int
) -> dict[str, str]:
    """Runs what is not done; returns stage -> reason for those that did not come to an end."""
    failed: dict[str, str] = {}
    with tqdm(stages, desc="stages", unit="stage") as bar:
        for stage in bar:
            bar.set_postfix_str(stage.name)
            word = there[stage.name].word
            lost = [name for name in stage.after if name in failed]
            if lost:
                failed[stage.name] = f"it needs {lost[0]}, {failed[lost[0]]}"
                tqdm.write(f"{stage.name}: not run, {failed[stage.name]}")
            elif word == "done":
                tqdm.write(f"{stage.name}: done before")
            elif code := run(stage, facts[stage.name], memory, fresh=word == "changed", lock=lock):
                failed[stage.name] = reason_of(code, memory / stage.name / "log.txt")
                tqdm.write(f"{stage.name}: failed, {failed[stage.name]}")
            else:
                tqdm.write(f"{stage.name}: {cost_of(stage, memory)['seconds']:.0f} s")
    return failed


def make_report(
    config: BenchmarkConfig, stages: Sequence[Stage], failed: Mapping[str, str], memory: Path, lock: int
) -> dict[str, str]:
    """Makes the report anew, of what there is; returns {"report": reason} if that fails."""
    done = [stage for stage in stages if stage.method and stage.name not in failed]
    methods = folders_by_method(stage for stage in done if brings_figures(stage))
    if not methods:
        return {"report": "no method came to an end, so there is nothing to report"}
    results = {
        "methods": methods,
        "training": folders_by_method(s for s in done if any((s.folder / log).is_file() for log in LOGS)),
        "failed": lost_of([stage for stage in stages if brings_figures(stage)], failed),
        "costs": costs_of(stages, memory),
    }
    stage = report_stage(config, results)
    fresh = (memory / stage.name / "stage.json").is_file()
    if code := run(stage, facts_of([stage])[stage.name], memory, fresh, lock):
        return {stage.name: reason_of(code, memory / stage.name / "log.txt")}
    print(f"report: {stage.writes[0]}")
    return {}


def folders_by_method(stages: Iterable[Stage]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for stage in stages:
        folders.setdefault(stage.method, []).append(str(stage.folder))
    return folders


def lost_of(results: Sequence[Stage], failed: Mapping[str, str]) -> dict[str, str | list[str]]:
    """{method or method/seed: reason}, as the report takes it; a method of which nothing is left stands whole."""
    left = {stage.method for stage in results if stage.name not in failed}
    lost: dict[str, str | list[str]] = {}
    for stage in results:
        if stage.name not in failed:
            continue
        if stage.seed is None:
            lost[stage.method] = failed[stage.name]
        elif stage.method in left:
            lost[f"{stage.method}/{stage.seed}"] = failed[stage.name]
        else:
            lost.setdefault(stage.method, []).append(f"seed {stage.seed}: {failed[stage.name]}")
    return lost


def costs_of(stages: Sequence[Stage], memory: Path) -> dict[str, dict[str, float]]:
    """{method: seconds and CPU seconds of all its stages together, the largest of their peaks in memory}

    Without a method of which a start was killed together with the benchmark: its sums would be too small.
    """
    costs: dict[str, dict[str, float]] = {}
    by_stage = [(stage.method, cost) for stage in stages if stage.method and (cost := cost_of(stage, memory))]
    for method, cost in by_stage:
        so_far = costs.setdefault(method, dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_gb"), 0.0))
        for name in ("seconds", "cpu_seconds"):
            so_far[name] = round(so_far[name] + cost[name], 1)
        so_far["peak_memory_gb"] = round(max(so_far["peak_memory_gb"], cost["peak_memory_gb"]), 2)
    unknown = {method for method, cost in by_stage if cost["measured"] < cost["starts"]}
    return {method: cost for method, cost in costs.items() if method not in unknown}


def tell_failures(failed: Mapping[str, str], memory: Path) -> None:
    """Raises UserError naming what failed, what the end of its log says and where that is, if anything did."""
    if not failed:
        return
    lines = [f"{len(failed)} stage{'s' if len(failed) > 1 else ''} failed:"]
    for name, reason in failed.items():
        lines.append(f"\n{name}: {reason}")
        log = memory / name / "log.txt"
        if log.is_file() and not reason.startswith("it needs"):
            lines += [f"  {line}" for line in shown(log)] + [f"  the whole log is {log}"]
    raise UserError("\n".join(lines))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the stage at work ends too
    start(main, BenchmarkConfig)
