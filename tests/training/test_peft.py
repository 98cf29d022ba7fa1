"""Names of modules and rows that LoRA trains are read off the model."""

import pytest

from mimigenrec.errors import UserError
from mimigenrec.training.peft import check_targets, embedding_names, lora_config, row_indices, without_weights
from tests.conftest import make_model


@pytest.mark.parametrize("tie, names", [(True, ["embed_tokens"]), (False, ["embed_tokens", "lm_head"])])
def test_rows_are_trained_wherever_the_model_has_them(tmp_path, tie, names):
    make_model(20, tie=tie).save_pretrained(tmp_path)
    model = without_weights(str(tmp_path))
    assert embedding_names(model) == ["embed_tokens", "lm_head"] and next(model.parameters()).is_meta
    assert row_indices(model, [7, 3]) == {name: [3, 7] for name in names}


def test_a_target_that_is_no_module_is_named_with_those_that_are(tmp_path):
    make_model(20).save_pretrained(tmp_path)
    check_targets(str(tmp_path), ["q_proj", "o_proj"])
    check_targets(str(tmp_path), ["all-linear"])
    with pytest.raises(UserError, match="--lora_target 'q' is no module of the model; choose from .*q_proj"):
        check_targets(str(tmp_path), ["q"])


def test_rank_zero_is_no_lora():
    assert lora_config(0, 32, 0.0, ["all-linear"]) is None
    assert lora_config(2, 4, 0.1, ["q_proj"]).target_modules == {"q_proj"}
    assert lora_config(2, 4, 0.1, ["all-linear"]).target_modules == "all-linear"
