"""Settings of transformers' TrainingArguments."""

# Numbers of transformers' TrainingArguments: outside of these they would be refused late, below a traceback, or train
# on nothing without a word.
RANGES = {
    "gradient_accumulation_steps": {"least": 1},
    "weight_decay": {"least": 0},
    "max_grad_norm": {"least": 0},
    "warmup_ratio": {"least": 0, "most": 1},
    "warmup_steps": {"least": 0},
    "logging_steps": {"above": 0},
    "save_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "seed": {"least": 0, "most": 2**32 - 1},
}
