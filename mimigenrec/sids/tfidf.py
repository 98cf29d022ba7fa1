"""TF-IDF and SVD: vectors from words alone, without a network or a model. What was learnt is kept for new items.

X.encoder.safetensors   idf (words,), components (dim, words) float32, words (bytes) uint8: JSON list of the words
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.files import writing
from mimigenrec.sids.kmeans import EXTRA


@dataclass
class Tfidf:
    words: list[str]
    idf: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str], dim: int, seed: int) -> "Tfidf":
        """At most `dim` numbers a vector; fewer where there are too few words or texts for as many directions."""
        try:
            from sklearn.decomposition import TruncatedSVD
        except ImportError as error:
            raise MissingPackage(f"encoder tfidf needs scikit-learn; {EXTRA}") from error
        vectoriser = _vectoriser()
        try:
            weights = vectoriser.fit_transform(texts)
        except ValueError as error:
            raise UserError(f"no words in {len(texts)} item texts ({error}); look at titles and --template") from error
        svd = TruncatedSVD(max(1, min(dim, min(weights.shape) - 1)), random_state=seed).fit(weights)
        words = vectoriser.get_feature_names_out().tolist()
        return cls(words, vectoriser.idf_.astype(np.float32), np.ascontiguousarray(svd.components_, np.float32))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dim) float32; zeros for a text without a known word."""
        vectoriser = _vectoriser(self.words)
        vectoriser.idf_ = self.idf
        return np.asarray(vectoriser.transform(texts) @ self.components.T, dtype=np.float32)

    def save(self, path: str | Path) -> None:
        from safetensors.numpy import save

        words = np.frombuffer(json.dumps(self.words, ensure_ascii=False).encode(), dtype=np.uint8)
        with writing(path, "wb") as out:
            out.write(save({"idf": self.idf, "components": self.components, "words": words}))

    @classmethod
    def load(cls, path: str | Path) -> "Tfidf":
        from safetensors.numpy import load_file

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing; mimigenrec embed --encoder tfidf wrote it")
        arrays = load_file(path)
        return cls(json.loads(arrays["words"].tobytes()), arrays["idf"], arrays["components"])


def _vectoriser(words: list[str] | None = None):
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, vocabulary=words, dtype=np.float32)
