"""Token sets: what a head's outputs stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHARACTERS, PHONEMES = "characters", "phonemes"  # the token sets that decoders know by name


@dataclass(frozen=True)
class TokenSet:
    """The tokens of one CTC head, in index order, and each one's mean posterior over the training data."""

    symbols: tuple[str, ...]
    blank: str
    boundary: str  # the token that ends every word
    priors: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("symbols must differ from one another")
        for name in ("blank", "boundary"):
            if getattr(self, name) not in self.symbols:
                raise ValueError(f"{name} '{getattr(self, name)}' is not among the symbols")
        if self.blank == self.boundary:
            raise ValueError("blank and boundary must be two tokens")
        if len(self.priors) != len(self.symbols):
            raise ValueError(f"{len(self.priors)} priors for {len(self.symbols)} symbols")
        if not all(0 < prior <= 1 for prior in self.priors):
            raise ValueError("priors must lie in (0, 1]")

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def blank_index(self) -> int:
        return self.symbols.index(self.blank)

    @property
    def boundary_index(self) -> int:
        return self.symbols.index(self.boundary)

    @property
    def log_priors(self) -> np.ndarray:
        """(V,) float32, natural logarithm."""
        return np.log(np.asarray(self.priors, dtype=np.float32))
