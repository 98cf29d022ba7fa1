"""What a report says first, in sentences made from its numbers: best method, models against baselines, RL, what lacks.

A statement is {"state": "good" | "watch" | "bad" | "", "text", "points": [text]}. "Better" and "worse" mean an
adjusted p below .05 (figures.py); everything else is a difference that these rows do not show.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mimigenrec.report.figures import best_baseline, outcome

WORDS = {"better": "better than", "worse": "worse than", "unclear": "not clearly different from"}

Statement = dict[str, Any]


def verdict(report: Mapping[str, Any]) -> list[Statement]:
    main = report["tested"][0]
    statements = [best_method(report, main)]
    statements += [against_baselines(report, model, main) for model in report["models"] if model in report["table"]]
    statements += [after_training_on(pair, report["tested"]) for pair in report["tests"] if pair["kind"] == "start"]
    statements += [*what_failed(report["methods"]), over_how_many_seeds(report, main)]
    if report["cautions"]:
        text = "Before believing a difference: not everything was alike."
        statements.append({"state": "watch", "text": text, "points": report["cautions"]})
    return statements


def best_method(report: Mapping[str, Any], main: str) -> Statement:
    found, models = report["table"], report["models"]
    ranking = sorted(found, key=lambda name: -found[name][main]["mean"])
    top = found[ranking[0]][main]
    text = (
        f"{ranking[0]} has the highest {title(main)} of {len(found)} methods: {top['mean']:.4f} "
        f"[{top['low']:.4f}, {top['high']:.4f}]."
    )
    baseline = best_baseline(found, models, main)
    if ranking[0] in models and baseline:
        text += f" The best baseline is {baseline} with {found[baseline][main]['mean']:.4f}."
    elif len(ranking) > 1:
        text += f" Next is {ranking[1]} with {found[ranking[1]][main]['mean']:.4f}."
    leads = {"better": "good", "worse": "bad"}.get(top["mark"], "watch") if ranking[0] in models else ""
    return {"state": leads, "text": text, "points": []}


def against_baselines(report: Mapping[str, Any], model: str, main: str) -> Statement:
    pairs = [pair for pair in report["tests"] if pair["model"] == model and pair["kind"] == "baseline"]
    outcomes = [outcome(pair["metrics"][main]) for pair in pairs]
    better, worse = outcomes.count("better"), outcomes.count("worse")
    if not pairs:
        return {"state": "watch", "text": f"{model} is compared with no baseline: there is none here.", "points": []}
    text = f"{model} beats {better} of {len(pairs)} baselines in {title(main)}"
    text += f", and is worse than {worse}." if worse else "."
    state = "good" if better == len(pairs) else "bad" if worse else "watch"
    strongest = sorted(pairs, key=lambda pair: pair["metrics"][main]["mean"])
    points = [
        f"{WORDS[outcome(pair['metrics'][main])]} {pair['against']}: {difference(pair['metrics'][main])}"
        for pair in strongest
    ]
    return {"state": state, "text": text, "points": points}


def after_training_on(pair: Mapping[str, Any], tested: Sequence[str]) -> Statement:
    """Did RL raise the main metric and keep the hit rate of long lists?"""
    main = tested[0]
    wide = max((name for name in tested if name.startswith("hr@")), key=lambda name: int(name[3:]), default=None)
    gain = pair["metrics"][main]
    raised = {"better": "raised", "worse": "lowered", "unclear": "did not clearly change"}[outcome(gain)]
    text = f"RL from {pair['against']} to {pair['model']} {raised} {title(main)}"
    points = [f"{title(main)} {difference(gain)}"]
    kept = True
    if wide:
        loss = pair["metrics"][wide]
        kept = outcome(loss) != "worse"
        text += f" and {'kept' if kept else 'lowered'} {title(wide)}"
        points.append(f"{title(wide)} {difference(loss)}")
        if kept and loss["low"] < 0:
            points[-1] += f"; kept means no loss shown, one of {-loss['low']:.4f} is not ruled out"
    if pair["seeds"]:
        points.append(f"of the seeds that both have: {', '.join(map(str, pair['seeds']))}")
    state = "bad" if outcome(gain) == "worse" or not kept else "good" if outcome(gain) == "better" else "watch"
    return {"state": state, "text": text + ".", "points": points}


def what_failed(methods: Sequence[Mapping[str, Any]]) -> list[Statement]:
    lost = [method for method in methods if method["failed"]]
    if not lost:
        return []
    whole = [m["name"] for m in lost if not m["folders"]]
    parts = [m["name"] for m in lost if m["folders"]]
    text = f"Failed: {', '.join(whole)}. " if whole else ""
    text += f"Incomplete, numbers are of the remaining seeds alone: {', '.join(parts)}." if parts else ""
    points = [f"{method['name']}: {reason}" for method in lost for reason in method["failed"]]
    return [{"state": "bad", "text": text.strip(), "points": points}]


def over_how_many_seeds(report: Mapping[str, Any], main: str) -> Statement:
    counts: dict[int, list[str]] = {}
    for name, of in report["table"].items():
        counts.setdefault(len(of[main]["seeds"]), []).append(name)
    told = "; ".join(f"{n}: {', '.join(names)}" for n, names in sorted(counts.items(), reverse=True))
    single = [name for name in counts.get(1, []) if name in report["models"]]
    points = [
        f"{name}: {title(main)} of the seeds {', '.join(f'{value:.4f}' for value in of[main]['seeds'])}"
        for name, of in report["table"].items()
        if len(of[main]["seeds"]) > 1
    ]
    text = f"Seeds per method: {told}."
    if single:
        text += f" With one seed nothing is known of how {' and '.join(single)} would come out with another."
    return {"state": "watch" if single else "", "text": text, "points": points}


def difference(of: Mapping[str, float]) -> str:
    """ "+0.0282 [+0.0201, +0.0365], adjusted p = 0.001" """
    return f"{of['mean']:+.4f} [{of['low']:+.4f}, {of['high']:+.4f}], adjusted p {p_text(of['holm'])}"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def title(metric: str) -> str:
    return metric.upper()
