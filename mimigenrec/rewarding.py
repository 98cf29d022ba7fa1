"""Rewards by name, called with their columns, their scores checked; and what groups of scores teach.

file.function         file.py in ./rewards/, then in the rewards that come with mimigenrec
pkg.mod:function      any importable module; the working directory counts

A reward is its user's code: whatever it raises, and sys.exit in it, becomes one message with its file and line. Its
own traceback is shown with MIMIGENREC_DEBUG=1. A group is the G completions of one prompt.
"""

import functools
import importlib
import importlib.util
import inspect
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mimigenrec.cli import check_range
from mimigenrec.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Reward = Callable[..., list[float | None]]

LARGEST = 3.4028234663852886e38  # of float32, in which advantages are computed

RAISED = (Exception, SystemExit)  # of a reward; Ctrl-C is not its fault

# What ask_rewards fills in; everything else a reward names is a dataset column or a parameter from the YAML.
PASSED = ("prompts", "completions", "completion_ids", "group_index", "rank_in_group", "trainer_state")

log = logging.getLogger(__name__)


def load_rewards(names: Iterable[str], parameters: Mapping[str, Mapping[str, Any]] | None = None) -> list[Reward]:
    """One function per name, in order. parameters: {name as given: {keyword: value}}.

    Raises UserError if no name is given, one is given twice (their metrics could not be told apart), or parameters
    name no reward; and what load_reward raises.
    """
    names, parameters = list(names), {} if parameters is None else parameters
    if not isinstance(parameters, Mapping) or not all(isinstance(value, Mapping) for value in parameters.values()):
        raise UserError(
            f"reward_args is {parameters}; it must be a map of maps, for example "
            '{"ranking_reward.hit_at_k_reward": {"k": 5}}'
        )
    if not names:
        raise UserError("no reward given; name one or more with --rewards, for example ranking_reward.rule_reward")
    functions = [load_reward(name, parameters.get(name)) for name in names]
    short = [function.__name__ for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"reward {name} is given twice; use reward_weights to make it count more")
    for function, name in zip(functions, names, strict=True):
        if short.count(function.__name__) > 1:
            function.__name__ = name  # same function name in two files: the metrics carry the whole name
    for name in parameters:
        if name not in names:
            raise UserError(f"reward_args has parameters for {name!r}, which is not among the rewards: {names}")
    return functions


def check_weights(weights: Sequence[float] | None, names: Sequence[str]) -> None:
    """Raises UserError unless there is one weight per reward, and not all are 0. None or empty: 1 each."""
    if weights and len(weights) != len(names):
        raise UserError(f"reward_weights has {len(weights)} numbers for {len(names)} rewards; give one each")
    if weights and not any(weights):
        raise UserError("reward_weights are all 0, so no rollout is better than another; give one above 0")


def load_reward(name: str, parameters: Mapping[str, Any] | None = None) -> Reward:
    """The function of that name with parameters bound as keyword arguments.

    Raises FileNotFoundError or UserError saying what there is if file, function or parameter are not known.
    """
    module_name, colon, function_name = name.partition(":")
    if colon:
        module = _import(module_name, name)
    else:
        module_name, _, function_name = name.rpartition(".")
        module = _load_file(module_name, name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"reward {name!r}: {module.__file__} has no function {function_name!r}; it has {_has(module)}")
    if inspect.iscoroutinefunction(function):
        raise UserError(f"reward {name!r}{_place_in(function)} is async, and nobody would await it; write def")
    _check_parameters(name, function, parameters or {})
    bound = functools.partial(function, **(parameters or {}))
    bound.__name__ = getattr(function, "__name__", function_name)  # TRL names the metric by it
    bound.file = module.__file__
    return bound


def checked(reward: Reward) -> Reward:
    """The same reward, with an error that names reward, step and sample when its answer cannot be used."""

    @functools.wraps(reward, updated=())
    def check(completions, **columns):
        state = columns.get("trainer_state")
        who, when = f"reward {reward.__name__!r}", f"at step {state.global_step if state else 0}"
        try:
            answer = reward(completions=completions, **columns)
            scores = list(answer) if _is_list(answer) else None
        except RAISED as error:
            one = _first_that_raises(reward, completions, columns)
            raise UserError(f"{who}{_place_in(reward, error)} {when}, {one}: {_reason(error)}") from error
        where = f"{who}{_place_in(reward)} {when}"
        if scores is None:
            raise UserError(
                f"{where} returned {type(answer).__name__} {str(answer)[:60]!r}; it must return a list of numbers, "
                f"one for each of the {len(completions)} completions"
            )
        if len(scores) != len(completions):
            first = min(len(scores), len(completions) - 1)
            raise UserError(
                f"{where} returned {len(scores)} scores for {len(completions)} completions; it must return one each, "
                f"in order. The first without its own is {_show(first, completions, columns)}"
            )
        numbers = [None if score is None else _number(score) for score in scores]
        for i, (score, number) in enumerate(zip(scores, numbers, strict=True)):
            if score is not None and not abs(number) <= LARGEST:  # NaN neither
                raise UserError(
                    f"{where} gave {score!r} for {_show(i, completions, columns)}; return a finite number of float32, "
                    f"whose largest is 3.4e38, or None where it says nothing"
                )
        return numbers

    check.__name__ = reward.__name__
    return check


def ask_rewards(
    rewards: Sequence[Reward],
    rows: Sequence[Mapping[str, Any]],
    completions: Sequence[list[dict[str, str]]],
    completion_ids: Sequence[list[int]],
    group_size: int,
    first_group: int = 0,
    trainer_state: Any = None,
) -> list[list[float]]:
    """The scores of N completions, (N, rewards): NaN where a reward says nothing. The convention of TRL's GRPOTrainer.

    rewards          as `checked` gives them; each is called once, with keyword arguments alone
    rows             the dataset row of each completion, so each row group_size times in a row. Its columns are passed
                     as lists of N values; "prompt" as "prompts"
    completions      N chats of one message, [{"role": "assistant", "content": "..."}] (see answer_chats)
    completion_ids   N lists of token ids
    first_group      number of the first group among those of all processes, for group_index
    trainer_state    of transformers; None outside of training
    """
    columns = {key: [row[key] for row in rows] for key in rows[0] if key not in ("prompt", "completion")}
    columns |= {
        "prompts": [row["prompt"] for row in rows],
        "completions": list(completions),
        "completion_ids": list(completion_ids),
        "group_index": [first_group + i // group_size for i in range(len(rows))],
        "rank_in_group": [i % group_size for i in range(len(rows))],
        "trainer_state": trainer_state,
    }
    answers = [reward(**columns) for reward in rewards]
    scores = [[math.nan if score is None else score for score in row] for row in zip(*answers, strict=True)]
    silent = next((i for i, row in enumerate(scores) if all(map(math.isnan, row))), None)
    if silent is not None:
        log.warning("no reward says anything about %s; it counts as 0", _show(silent, columns["completions"], columns))
    return scores


def answer_chats(texts: Iterable[str]) -> list[list[dict[str, str]]]:
    """Completions as rewards get them."""
    return [[{"role": "assistant", "content": text}] for text in texts]


def weighted_sums(scores: "Tensor", weights: "Tensor") -> "Tensor":
    """scores (groups, G, rewards), weights (rewards,) -> (groups, G): weighted sums, as TRL takes them."""
    return (scores * weights.to(scores.device)).nansum(dim=2)


def without_signal(sums: "Tensor") -> "Tensor":
    """sums (groups, G) -> (groups,) bool: are the sums of a group all equal? It then teaches nothing."""
    spread = sums.std(dim=1)
    return spread.isclose(spread.new_zeros(()))


def group_advantages(sums: "Tensor") -> "Tensor":
    """sums (groups, G) -> (groups, G): distance from the group's mean in standard deviations, which is what TRL
    trains on (scale_rewards: group)."""
    return (sums - sums.mean(dim=1, keepdim=True)) / (sums.std(dim=1, keepdim=True) + 1e-4)


def check_spread(sums: "Tensor", where: str = "") -> None:
    """sums (groups, G), weighted sums of rewards. Raises UserError if float32 cannot hold their spread, for which a
    GPU adds up squares: advantages would be NaN, or 0 for everything."""
    if not sums.std(dim=1).isfinite().all():
        raise UserError(
            f"{where}the rewards of a group differ by more than float32 holds (their weighted sums lie "
            f"between {sums.min():.3g} and {sums.max():.3g}), so there are no advantages; make them smaller"
        )


def reward_folders() -> list[Path]:
    """Where `file.function` is looked up, first match wins: ./rewards/, the wheel's copy, a checkout's folder."""
    package = Path(__file__).resolve().parent
    folders = [Path.cwd() / "rewards", package / "shipped_rewards", package.parent / "rewards"]
    return [folder for folder in folders if folder.is_dir()]


def _load_file(module_name: str, name: str) -> ModuleType:
    if Path(module_name).name != module_name or "\\" in module_name:
        raise UserError(
            f"reward {name!r} is a path; put the file into rewards/ and write file.function, or pkg.mod:function for "
            f"a module that can be imported"
        )
    for folder in reward_folders():
        path = folder / f"{module_name}.py"
        if module_name and path.is_file():
            spec = importlib.util.spec_from_file_location(f"rewards.{module_name}", path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look their module up there
            try:
                spec.loader.exec_module(module)
            except RAISED as error:
                del sys.modules[spec.name]
                raise UserError(
                    f"reward {name!r} cannot be loaded{_place_of(error, str(path))}: {_reason(error)}"
                ) from error
            return module
    there = {str(folder): sorted(path.stem for path in folder.glob("*.py")) for folder in reward_folders()}
    raise FileNotFoundError(
        f"reward {name!r}: no file {module_name or '<file>'}.py in a rewards folder; there are {there}. Write "
        f"file.function for one of them, or pkg.mod:function for a module that can be imported"
    )


def _import(module_name: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"reward {name!r}: {module_name!r} is no name of a module; write pkg.mod:function")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not have it
    try:
        return importlib.import_module(module_name)
    except RAISED as error:
        raise UserError(
            f"reward {name!r}: cannot import {module_name!r}{_place_of(error)}: {_reason(error)}"
        ) from error


def _has(module: ModuleType) -> list[str]:
    functions = inspect.getmembers(module, inspect.isfunction)
    return [name for name, function in functions if function.__module__ == module.__name__ and name[0] != "_"]


def _check_parameters(name: str, function: Callable, parameters: Mapping[str, Any]) -> None:
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:  # of some builtins
        raise UserError(f"reward {name!r} does not tell its parameters; write a function that calls it") from error
    for key, value in parameters.items():
        check_range(f"reward_args, {name}: {key}", value)
        if key not in known or key in PASSED or known[key].default is inspect.Parameter.empty:
            settable = [p.name for p in known.values() if p.default is not p.empty and p.name not in PASSED]
            raise UserError(f"reward {name!r} has no parameter {key!r}; it has {settable or 'none'}")


def _first_that_raises(reward: Reward, completions: list, columns: dict) -> str:
    """Asks sample by sample, to tell which one it is."""
    for i in range(len(completions)):
        alone = {key: [value[i]] if _per_sample(value, completions) else value for key, value in columns.items()}
        try:
            reward(completions=[completions[i]], **alone)
        except RAISED:  # nothing is lost: the caller raises, chained to the first error, naming this sample
            return _show(i, completions, columns)
    return f"no single sample, only all {len(completions)} together"


def _is_list(answer: Any) -> bool:
    """A list, tuple, tensor, array or generator: one score after the other. A coroutine is closed, unawaited."""
    if inspect.iscoroutine(answer):
        answer.close()
    return isinstance(answer, Iterable) and not isinstance(answer, (str, bytes, Mapping, Set))


def _number(score: Any) -> float:
    """As float; NaN for what is none."""
    if isinstance(score, (str, bytes)):
        return math.nan
    try:
        return float(score)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # a tensor of several numbers, 10**400
        return math.nan


def _per_sample(value: Any, completions: list) -> bool:
    return isinstance(value, list) and len(value) == len(completions)


def _show(i: int, completions: list, columns: dict) -> str:
    target = columns["reward_model"][i] if "reward_model" in columns else None
    target = target.get("ground_truth") if isinstance(target, Mapping) else target
    return f"sample {i} (completion {completions[i][0]['content']!r}, target {target!r})"


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}); let it raise an error, or return scores"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _place_in(function: Callable, error: BaseException | None = None) -> str:
    """Such as " (rewards/mine.py, line 7)": the last line of the function's file that the error passed, else where the
    function begins; an empty text where nothing tells the file, as for a class."""
    function = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    return _place_of(error, code.co_filename) or _file_and_line(code.co_filename, code.co_firstlineno)


def _place_of(error: BaseException | None, file: str | None = None) -> str:
    """The same for the last line of `file`, or of any file but Python's import and ours; "" where there is none."""
    if error is None:
        return ""
    if isinstance(error, SyntaxError) and error.filename and file in (None, error.filename):
        return _file_and_line(error.filename, error.lineno)
    frames = traceback.extract_tb(error.__traceback__)
    if file:
        lines = [frame for frame in frames if frame.filename == file]
    else:
        package = Path(__file__).parent
        files = [(frame, Path(frame.filename)) for frame in frames if "importlib" not in frame.filename]
        lines = [frame for frame, path in files if not path.is_relative_to(package)]
    return _file_and_line(lines[-1].filename, lines[-1].lineno) if lines else ""


def _file_and_line(file: str, line: int | None) -> str:
    path = Path(file)
    return f" ({path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}, line {line})"
