"""Texts as token ids: a vocabulary learned from training rows."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

MISSING, UNKNOWN = 0, 1
_RESERVED = 2
_FORMAT = 1
_LONGEST = 256
# What Keras' TextVectorization takes out.
_PUNCTUATION = re.compile(rb"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of a text column and how many of a text are read.

    Tokens are what lies between white space, in small letters (A-Z alone) and without ASCII
    punctuation, as in Keras' `TextVectorization`; see `text_vectorization` for the same in a graph.

    Attributes:
        tokens: The tokens known; the first has id 2. Id 0 is where a text has ended, 1 an unknown
            token.
        length: Int, tokens read of each text.
    """

    tokens: tuple[str, ...]
    length: int

    def __post_init__(self):
        if not self.tokens or self.length < 1:
            raise ValueError(
                "A vocabulary needs at least one token and a length of 1 or more. Received: "
                f"{len(self.tokens)} tokens, length={self.length}."
            )

    @classmethod
    def fit(
        cls,
        texts: Sequence[str | None],
        *,
        max_tokens: int = 10_000,
        min_count: int = 2,
        length: int | None = None,
    ) -> Vocabulary:
        """Learns the most frequent tokens of training texts.

        Args:
            texts: Strings; None or NaN where one is missing.
            max_tokens: Int, the most ids, 0 and 1 among them.
            min_count: Int, how often a token must occur. Rarer ones are unknown, so that there
                are unknown tokens to learn from.
            length: Int, tokens read of each text; by default those of the longest, but at most
                256.

        Raises:
            TypeError: If a text is no string.
            ValueError: If no token occurs often enough, or `length` is below 1.
        """
        split = _split_all(texts)
        counts = collections.Counter(token for tokens in split for token in tokens)
        frequent = [token for token, count in counts.items() if count >= min_count]
        frequent.sort(key=lambda token: (-counts[token], token))
        if not frequent or max_tokens <= _RESERVED:
            raise ValueError(
                f"No token can be kept: of {len(counts)} different ones {len(frequent)} occur "
                f"{min_count} times or more (`min_count`), and `max_tokens={max_tokens}` counts "
                f"{_RESERVED} reserved ids."
            )
        kept = tuple(token.decode() for token in frequent[: max_tokens - _RESERVED])
        if length is None:
            length = min(_LONGEST, max(map(len, split)))
        return cls(kept, length)

    @property
    def num_tokens(self) -> int:
        """How many ids there are."""
        return len(self.tokens) + _RESERVED

    def encode(self, texts: Sequence[str | None]) -> np.ndarray:
        """Returns `(rows, length)` int32 ids; all 0 where a text is missing or empty.

        Raises:
            TypeError: If a text is no string.
        """
        codes = {token.encode(): code for code, token in enumerate(self.tokens, start=_RESERVED)}
        split = _split_all(texts)
        ids = np.full((len(split), self.length), MISSING, np.int32)
        for row, tokens in enumerate(split):
            read = tokens[: self.length]
            ids[row, : len(read)] = [codes.get(token, UNKNOWN) for token in read]
        return ids

    def to_json(self) -> str:
        """Returns the vocabulary as JSON text, which `from_json` reads."""
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Reads what `to_json` wrote; raises `ValueError` if it is anything else."""
        try:
            content = json.loads(text)
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {_FORMAT}")
            return cls(tuple(content["tokens"]), int(content["length"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is not a vocabulary written by kfusion: {error}.") from error


def _split_all(texts: Sequence[str | None]) -> list[list[bytes]]:
    """Tokens of each text; in bytes, whose case and white space are ASCII's as in TensorFlow."""
    split = []
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            if not (pd.api.types.is_scalar(text) and pd.isna(text)):
                raise TypeError(f"Texts must be strings. Received in row {row}: {text!r}.")
            text = ""
        split.append(_PUNCTUATION.sub(b"", text.encode().lower()).split())
    return split
