"""TF-IDF and SVD: vectors from the terms of a text alone, without a network or a model. What was learnt is kept.

X.encoder.safetensors   idf (terms,), components (dim, terms) float32, words (bytes) uint8: JSON list of the terms
    metadata "terms"    "2": the terms are those of terms.py; a file without it knows words alone, which earlier
                        versions took every run of letters for
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimigenrec.errors import MissingPackage, UserError
from mimigenrec.extras import INSTALL_SIDS
from mimigenrec.files import writing
from mimigenrec.vectors.terms import OTHERWISE, earlier_terms, terms

RULES = "2"
MADE_BY = "mimigenrec embed --encoder tfidf"

log = logging.getLogger(__name__)


@dataclass
class Tfidf:
    words: list[str]  # the terms
    idf: np.ndarray
    components: np.ndarray
    analyse: Callable[[str], list[str]] = terms

    @classmethod
    def fit(cls, texts: Sequence[str], dim: int, seed: int) -> "Tfidf":
        """At most `dim` numbers a vector; fewer where there are too few terms or texts for as many directions."""
        try:
            from sklearn.decomposition import TruncatedSVD
        except ImportError as error:
            raise MissingPackage(f"encoder tfidf needs scikit-learn; {INSTALL_SIDS}") from error
        vectoriser = _vectoriser(terms)
        try:
            weights = vectoriser.fit_transform(texts)
        except ValueError as error:
            raise UserError(f"no words in {len(texts)} item texts ({error}); look at titles and --template") from error
        warn_of_strangers(weights)
        svd = TruncatedSVD(max(1, min(dim, min(weights.shape) - 1)), random_state=seed).fit(weights)
        words = vectoriser.get_feature_names_out().tolist()
        return cls(words, vectoriser.idf_.astype(np.float32), np.ascontiguousarray(svd.components_, np.float32))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dim) float32; zeros for a text without a known term."""
        vectoriser = _vectoriser(self.analyse, self.words)
        vectoriser.idf_ = self.idf
        return np.asarray(vectoriser.transform(texts) @ self.components.T, dtype=np.float32)

    def save(self, path: str | Path) -> None:
        from safetensors.numpy import save

        words = np.frombuffer(json.dumps(self.words, ensure_ascii=False).encode(), dtype=np.uint8)
        with writing(path, "wb") as out:
            out.write(save({"idf": self.idf, "components": self.components, "words": words}, {"terms": RULES}))

    @classmethod
    def load(cls, path: str | Path) -> "Tfidf":
        """Raises FileNotFoundError, and UserError if the file is damaged."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing; {MADE_BY} wrote it")
        try:
            with safe_open(path, framework="np") as stored:
                rules = (stored.metadata() or {}).get("terms")
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}
            words = json.loads(arrays["words"].tobytes())
            tfidf = cls(words, arrays["idf"], arrays["components"])
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:  # ValueError: the JSON, or no UTF-8
            raise UserError(
                f"--fitted {path} is not what {MADE_BY} wrote, or is damaged ({error}); embed the catalogue again"
            ) from error
        tfidf._check(path)
        if rules is None:
            tfidf.analyse = earlier_terms
            if any(OTHERWISE.search(word) for word in words):
                log.warning(
                    "%s is by an earlier version, which took a title without spaces for one word: such new items get "
                    "vectors that say nothing. Embed the catalogue again, with --overwrite, and make new SIDs",
                    path,
                )
        elif rules != RULES:
            raise UserError(f"--fitted {path} is by another version of mimigenrec (terms {rules}); install that one")
        return tfidf

    def _check(self, path: str | Path) -> None:
        count = len(self.words) if isinstance(self.words, list) else -1
        whole = (
            count > 0
            and all(isinstance(word, str) for word in self.words)
            and len(set(self.words)) == count
            and self.idf.shape == (count,)
            and self.components.ndim == 2
            and self.components.shape[1] == count
            and all(array.dtype.kind == "f" and np.isfinite(array).all() for array in (self.idf, self.components))
        )
        if not whole:
            raise UserError(
                f"--fitted {path} is damaged: words, idf {self.idf.shape} and components {self.components.shape} "
                f"are not finite numbers of the same terms; embed the catalogue again"
            )


def warn_of_strangers(weights) -> None:
    """weights (texts, terms), sparse. A text that shares no term with any other is as far from all of them alike."""
    weights = weights.tocsr()
    common = np.bincount(weights.indices, minlength=weights.shape[1]) > 1  # terms of two texts or more
    shared = np.add.reduceat(np.append(common[weights.indices], False), weights.indptr[:-1]) > 0
    filled = np.diff(weights.indptr) > 0
    alone = int((filled & ~shared).sum())
    if filled.sum() > 1 and alone > filled.sum() / 2:
        log.warning(
            "%d of %d texts share no word with any other: their vectors say nothing about what is alike. Look at the "
            "texts and --template, or take another --encoder",
            alone,
            filled.sum(),
        )


def _vectoriser(analyse: Callable[[str], list[str]], words: list[str] | None = None):
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=analyse, sublinear_tf=True, vocabulary=words, dtype=np.float32)
