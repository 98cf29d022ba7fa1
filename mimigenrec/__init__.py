"""MIMIGenRec: an LLM as the recommender, over semantic IDs."""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "MIMIGenRec":  # loads torch, so only when asked for
        from mimigenrec.decoding.model import MIMIGenRec

        return MIMIGenRec
    raise AttributeError(f"module 'mimigenrec' has no attribute {name!r}")
