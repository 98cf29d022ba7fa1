"""TRL's private methods that grpo/trainer.py overrides, and those around them whose workings it relies on.

A hash that no longer fits means: read TRL's new source, change the trainer where needed, then put the new hash here.
"""

import hashlib
import importlib
import inspect

import pytest
import transformers
import trl
from trl import GRPOTrainer

from mimigenrec.grpo import trainer as ours

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

# Overridden: the first nine. Relied on: how a group lies in the batch, when rollouts are made, where metrics go,
# and that a run which goes on takes a step before it looks (training.py).
SOURCES = {
    "_generate_and_score_completions": "4c9b05583b0dbf38",
    "_generate_single_turn": "99d8f05f1ed7a18f",
    "_calculate_rewards": "a3d0e1fb1ca008a6",
    "_get_per_token_logps_and_entropies": "32e8909f872fdc08",
    "_prepare_inputs": "0624c9a0c47736e3",
    "_compute_loss": "e076bc1215e230b8",
    "_determine_best_metric": "33beb538b68d7c57",
    "_maybe_log_save_evaluate": "ea0658df128fd0bf",
    "_load_best_model": "a832f4b1ffe03c9a",
    "_inner_training_loop": "fb3e7f42af2bcd95",
    "_generate": "0551242bcc43b70e",
    "_get_train_sampler": "85ff49a7c24179c4",
    "get_train_dataloader": "b9ed70f2dd198ead",
    "log": "de21ae80a2fbc6e2",
}


def test_every_overridden_private_method_is_in_the_list():
    overridden = {
        name
        for name, value in vars(ours.BeamGRPOTrainer).items()
        if name.startswith("_") and not name.startswith("__") and callable(value) and hasattr(GRPOTrainer, name)
    }
    assert overridden == set(ours.SEAMS) == set(SIGNATURES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_overridden_method_is_called_as_we_expect(name):
    arguments = list(inspect.signature(inspect.unwrap(getattr(GRPOTrainer, name))).parameters)
    assert arguments[: len(SIGNATURES[name])] == SIGNATURES[name]


@pytest.mark.parametrize("name", SOURCES)
def test_trls_source_is_the_one_we_read(name):
    source = inspect.getsource(inspect.unwrap(getattr(GRPOTrainer, name)))
    found = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert found == SOURCES[name], f"GRPOTrainer.{name} changed with TRL {trl.__version__}: read it, then update"


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
