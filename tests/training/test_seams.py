"""training/seams.py lists every private method of TRL that the package overrides, as the installed TRL has it."""

import hashlib
import importlib
import inspect
import pkgutil
from functools import cache

import pytest
import transformers
import trl
from trl import GRPOTrainer

import mimigenrec
from mimigenrec.grpo import group_trainer as ours
from mimigenrec.grpo.trainer import BeamGRPOTrainer
from mimigenrec.training.seams import OVERRIDDEN, RELIED_ON

SIGNATURES = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_generate_single_turn": ["self", "prompts", "images"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
    ],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_determine_best_metric": ["self", "metrics", "trial"],
    "_maybe_log_save_evaluate": ["self", "tr_loss", "grad_norm"],
    "_load_best_model": ["self"],
}

LISTED = [
    (kind, name, hashed) for table in (OVERRIDDEN, RELIED_ON) for kind in table for name, hashed in table[kind].items()
]


@cache
def subclasses() -> list[type]:
    """Every class of the package that inherits from one of TRL's."""
    found = []
    for module in pkgutil.walk_packages(mimigenrec.__path__, "mimigenrec."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name and framework_class(value, "trl"):
                found.append(value)
    return found


def framework_class(kind: type, *packages: str) -> type | None:
    """The nearest class that `kind` inherits from one of the packages."""
    return next((base for base in kind.__mro__ if base.__module__.partition(".")[0] in packages), None)


def private_overrides(kind: type) -> set[str]:
    """Private methods that TRL or transformers defines and a class of ours, or a mixin of it, defines again."""
    ours, theirs = [], []
    for base in kind.__mro__[:-1]:
        (theirs if base.__module__.partition(".")[0] in ("trl", "transformers") else ours).append(base)
    names = {name for base in ours for name, value in vars(base).items() if callable(value)}
    private = {name for name in names if name.startswith("_") and not name.startswith("__")}
    return {name for name in private if any(hasattr(base, name) for base in theirs)}


def test_every_trl_subclass_is_seen():
    assert BeamGRPOTrainer in subclasses()


def test_every_overridden_private_method_is_in_the_list():
    for kind in subclasses():
        missing = private_overrides(kind) - set(OVERRIDDEN.get(framework_class(kind, "trl").__name__, {}))
        assert not missing, f"{kind.__name__} overrides {missing}: list it in training/seams.py, with its hash"


def test_the_list_holds_nothing_that_is_not_overridden():
    for name, methods in OVERRIDDEN.items():
        kinds = [kind for kind in subclasses() if framework_class(kind, "trl").__name__ == name]
        assert set(methods) == set().union(*map(private_overrides, kinds))


def test_an_override_that_is_not_listed_is_found():
    class Mixin:
        def _save_checkpoint(self, model, trial): ...

    class Trainer(Mixin, BeamGRPOTrainer):
        def _mine(self): ...

    assert private_overrides(Trainer) == private_overrides(BeamGRPOTrainer) | {"_save_checkpoint"}


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_overridden_method_is_called_as_we_expect(name):
    arguments = list(inspect.signature(inspect.unwrap(getattr(GRPOTrainer, name))).parameters)
    assert arguments[: len(SIGNATURES[name])] == SIGNATURES[name]


@pytest.mark.parametrize("kind, name, expected", LISTED)
def test_trls_source_is_the_one_we_read(kind, name, expected):
    source = inspect.getsource(inspect.unwrap(getattr(getattr(trl, kind), name)))
    hashed = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert hashed == expected, f"{kind}.{name} changed with TRL {trl.__version__}: read it, then update"


def test_nothing_of_trl_or_transformers_is_patched():
    """Our classes inherit; what others import from TRL works as its own source says."""
    for kind in (trl.GRPOConfig, GRPOTrainer, transformers.Trainer, transformers.GenerationMixin):
        for name, value in vars(kind).items():
            if inspect.isfunction(value):
                home = inspect.unwrap(value).__module__
                assert home.partition(".")[0] in ("trl", "transformers", "dataclasses", "builtins"), f"{name}: {home}"


def test_another_trl_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "0.25.1")
    with pytest.raises(ImportError, match=r"found TRL 0.25.1.*pip install \"trl>=0.24.0,<0.25\""):
        importlib.reload(ours)
