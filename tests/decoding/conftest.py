import pytest

from mimigenrec.contract import Contract
from mimigenrec.decoding.model import MIMIGenRec


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model, tokenizer, toy):
    """A self-contained checkpoint of the toy catalogue."""
    folder = tmp_path_factory.mktemp("checkpoint")
    MIMIGenRec(tiny_model, tokenizer, toy, Contract.of("contract", tokenizer)).save_pretrained(folder)
    return folder
