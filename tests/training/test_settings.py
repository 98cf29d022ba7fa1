"""Settings of ours before the config classes of TRL."""

from dataclasses import make_dataclass

import pytest
import trl

from mimigenrec.errors import UserError
from mimigenrec.training.settings import TrainingSettings


@pytest.mark.parametrize("name", ["SFTConfig", "DPOConfig", "RewardConfig", "GRPOConfig"])
def test_they_go_before_any_config_of_trl(tmp_path, name):
    Config = make_dataclass("Config", [], bases=(TrainingSettings, getattr(trl, name)))
    args = Config(output_dir=str(tmp_path), eval_strategy="epoch", use_cpu=True)
    assert args.report_to == [] and args.eval_on_start and not args.bf16
    with pytest.raises(UserError, match="--lr_scheduler_kwargs is 3; it must be a map"):
        Config(output_dir=str(tmp_path), lr_scheduler_kwargs=3)
