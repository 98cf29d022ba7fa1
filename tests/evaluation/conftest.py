"""A data folder of the toy catalogue as preprocessing writes it, and a checkpoint that belongs to it."""

import pytest

from mimigenrec.decoding.model import copy_companions
from mimigenrec.tasks import build


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory, raw_toy):
    folder = tmp_path_factory.mktemp("data") / "toy"
    build.main(build.BuildConfig(data_dir=raw_toy, category="toy", output_dir=folder))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model, tokenizer, toy_data):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    copy_companions(toy_data, folder)
    return folder
