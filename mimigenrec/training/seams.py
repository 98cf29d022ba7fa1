"""TRL's private methods that classes of this package override, and those whose workings they rely on.

TRL may change them from one version to the next without a word, so its version is pinned here and the source of each
has a hash. tests/training/test_seams.py looks at every subclass of a TRL class in the package. It fails where one
overrides a private method that is not listed, and where the source of the installed TRL has another hash. Then read
TRL's new source, change the subclass where it needs it, and put the new hash here.
"""

import trl

from mimigenrec.errors import MissingPackage

VERSION = "0.24."

# TRL's class -> its private method, inherited ones of transformers included -> hash, as tests/training/test_seams.py
# computes it.
OVERRIDDEN = {
    "GRPOTrainer": {
        # rollouts are made before, so that groups without signal can be changed
        "_generate_and_score_completions": "4c9b05583b0dbf38",
        # prompts -> completions: those that were made
        "_generate_single_turn": "99d8f05f1ed7a18f",
        # rewards are told group_index and rank_in_group; groups without signal are counted
        "_calculate_rewards": "a3d0e1fb1ca008a6",
        # each prompt computed once; support "trie": among the legal tokens only
        "_get_per_token_logps_and_entropies": "32e8909f872fdc08",
        # the rows of a prompt stay together in a micro-batch
        "_prepare_inputs": "0624c9a0c47736e3",
        # rows that cannot change the loss are not computed; cross-entropy on the targets is added
        "_compute_loss": "e076bc1215e230b8",
        # an evaluation that breaks the stop rule is never the best
        "_determine_best_metric": "33beb538b68d7c57",
        # a norm of the gradient that is not finite ends the run
        "_maybe_log_save_evaluate": "ea0658df128fd0bf",
        # a best checkpoint that is not there is an error
        "_load_best_model": "a832f4b1ffe03c9a",
    },
}

# How a group lies in the batch, when rollouts are made, where metrics go, and that a run which goes on takes a step
# before it looks (training/stop.py).
RELIED_ON = {
    "GRPOTrainer": {
        "_inner_training_loop": "fb3e7f42af2bcd95",
        "_generate": "0551242bcc43b70e",
        "_get_train_sampler": "85ff49a7c24179c4",
        "get_train_dataloader": "b9ed70f2dd198ead",
        "log": "de21ae80a2fbc6e2",
    },
}


def check_trl() -> None:
    """Raises MissingPackage, with what to install, for a TRL of another version. Trainers ask it when imported."""
    if not trl.__version__.startswith(VERSION):
        raise MissingPackage(
            f"mimigenrec.grpo overrides private methods of TRL 0.24 and found TRL {trl.__version__}; "
            f'run pip install "trl>=0.24.0,<0.25"'
        )
