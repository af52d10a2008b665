"""What training minimizes: the CTC losses of every head, of the same token sets read from the middle layer, and the
CTC-CRF's denominator, where the recipe asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.acoustic import AcousticModel, Emissions
from asr.training.crf import Denominator

Targets = Mapping[str, tuple[Tensor, Tensor]]  # token set → targets of all utterances in a row, and their lengths (B,)


def pack(targets: Sequence[Mapping[str, Sequence[int]]], device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Each utterance's targets (see `data.TargetEncoder`) in the form that `torch.nn.functional.ctc_loss` takes."""
    return {
        name: (
            torch.tensor([token for each in targets for token in each[name]], dtype=torch.long, device=device),
            torch.tensor([len(each[name]) for each in targets], dtype=torch.long, device=device),
        )
        for name in targets[0]
    }


class Objective(nn.Module):
    """A model with what only training needs. One module, so that DistributedDataParallel can wrap it.

    The middle layer's heads (Lee & Watanabe 2021, arXiv 2102.03216) make the lower layers learn early.
    """

    def __init__(
        self,
        model: AcousticModel,
        middle: float,
        crf: float = 0.0,
        head: str = "",
        denominator: Denominator | None = None,
        consistency: float = 0.0,
    ) -> None:
        """`middle`, `crf` and `consistency` weigh losses, `crf` may change; `denominator` belongs to `head`."""
        super().__init__()
        self.model = model
        self.weight, self.consistency = middle, consistency
        self.crf, self.head, self.denominator = crf, head, denominator
        self.middle_layer = max(0, len(model.layers) // 2 - 1)
        hidden = model.config.hidden
        self.middle_norm = nn.LayerNorm(hidden) if middle else None
        self.middle_heads = nn.ModuleDict(
            {
                name: nn.Linear(hidden, head.out_features)  # type: ignore[arg-type]
                for name, head in model.heads.items()
            }
            if middle
            else {}
        )

    def forward(
        self, mel: Tensor, lengths: Tensor, targets: Targets, latency: tuple[int, int] | None
    ) -> tuple[dict[str, Tensor], Emissions, Tensor]:
        """`mel` (B, T, bands), `lengths` (B,) mel frames; `latency` (chunk, look-ahead), None for full context.

        With `consistency` the second half of the rows are the first half's utterances again, masked elsewhere.
        Returns the losses by name, each summed over the utterances; the heads' emissions; their lengths in frames.
        """
        seen: dict[int, Tensor] = {}

        def tap(index: int, x: Tensor) -> None:
            if index == self.middle_layer:
                seen[index] = x

        if latency is None:
            emissions, frames = self.model(mel, lengths, tap)
        else:
            emissions, frames = self.model.forward_chunked(mel, lengths, *latency, tap)
        losses = {name: ctc(emissions[name], frames, *targets[name]) for name in emissions}
        if self.middle_norm is not None:
            x = self.middle_norm(seen[self.middle_layer])
            for name, head in self.middle_heads.items():
                losses[f"middle {name}"] = self.weight * ctc(head(x).log_softmax(-1), frames, *targets[name])
        if self.denominator is not None and self.crf:
            losses["crf"] = self.crf * self.denominator(emissions[self.head], frames).sum()
        if self.consistency:
            losses = {name: loss / 2 for name, loss in losses.items()}  # the mean of both views
            losses |= {
                f"consistency {name}": self.consistency * disagreement(values, frames)
                for name, values in emissions.items()
            }
        return losses, emissions, frames


def disagreement(emissions: Tensor, frames: Tensor) -> Tensor:
    """Consistency regularization (Yao et al. 2024, arXiv 2410.05101): the divergence between the posteriors of two
    views (2 B, F, V) of B utterances, each view pulled toward the other as it stands, summed over frames."""
    log_p = emissions.float()
    target = log_p.detach().roll(len(log_p) // 2, 0)
    inside = torch.arange(log_p.shape[1], device=log_p.device) < frames[:, None]
    return 0.5 * ((target.exp() * (target - log_p)).sum(-1) * inside).sum()


def ctc(emissions: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), natural logarithm, summed over the utterances. An
    utterance with more tokens than frames counts as 0."""
    return F.ctc_loss(
        emissions.float().transpose(0, 1), targets, frames, lengths, blank=0, reduction="sum", zero_infinity=True
    )
