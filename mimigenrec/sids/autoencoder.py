"""A residual-quantised autoencoder, shared by rqvae and rqkmeans_plus.

    x (B, dim) -> encoder -> z (B, latent) -> residual quantiser -> q (B, latent) -> decoder -> y (B, dim)
    loss = mean (x - y)^2 + commitment * sum over levels of mean (left over at the level - its entry)^2

Inputs are scaled as a whole to a spread of 1 per dimension: the commitment would outweigh the reconstruction of
normalised vectors and the latent space would collapse. Encoder and decoder are MLPs with ReLU. The quantiser is
ResidualVQ of vector-quantize-pytorch: gradients pass straight through, entries follow their items as running means
(EMA), an entry that is hardly used moves to a random item.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mimigenrec.errors import MissingPackage
from mimigenrec.extras import INSTALL_SIDS
from mimigenrec.sids.training import Training

DEAD = 0.1  # an entry used less than this share of an even share is moved


class Autoencoder(nn.Module):
    """skip: encoder and decoder are x + MLP(x), MLP zero at the start: the latent space begins as the input space."""

    def __init__(self, dim: int, sizes: Sequence[int], training: Training, batch: int, skip: bool, scale: float):
        """batch: items per step; scale: what inputs were multiplied by, undone in `arrays`."""
        super().__init__()
        try:
            from vector_quantize_pytorch import ResidualVQ
        except ImportError as error:
            raise MissingPackage(f"this method needs vector-quantize-pytorch; {INSTALL_SIDS}") from error
        self.skip, self.batch, self.scale = skip, batch, scale
        latent = dim if skip else training.latent
        self.encoder = mlp([dim, *training.hidden, latent])
        self.decoder = mlp([latent, *training.hidden[::-1], dim])
        if skip:
            for network in (self.encoder, self.decoder):
                nn.init.zeros_(network[-1].weight)
                nn.init.zeros_(network[-1].bias)
        self.quantiser = ResidualVQ(
            dim=latent,
            codebook_size=tuple(sizes),
            decay=training.decay,
            threshold_ema_dead_code=DEAD * batch / max(sizes),
            commitment_weight=training.commitment,
            rotation_trick=False,  # plain straight-through
        )

    def encode(self, x: Tensor) -> Tensor:
        return x + self.encoder(x) if self.skip else self.encoder(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, dim) -> reconstruction loss, commitment loss (weighted), scalars."""
        quantised, _, commitment = self.quantiser(self.encode(x)[None])
        quantised = quantised[0]
        y = quantised + self.decoder(quantised) if self.skip else self.decoder(quantised)
        return nn.functional.mse_loss(y, x), commitment.sum()

    @torch.no_grad()
    def start_from(self, levels: Sequence[np.ndarray], uses: Sequence[np.ndarray]) -> None:
        """levels: (K, latent) entries each, in the space of `arrays`; uses: (K,) how many items each has.

        Writes the buffers of `_codebook`, which are private; so they are in vector-quantize-pytorch 1.32.
        """
        for layer, entries, counts in zip(self.quantiser.layers, levels, uses, strict=True):
            book, entries = layer._codebook, torch.from_numpy(entries * self._latent_scale())[None]
            book.embed.copy_(entries)
            book.cluster_size.copy_(torch.from_numpy(counts)[None] * (self.batch / counts.sum()))  # per step
            book.embed_avg.copy_(entries * book.cluster_size[..., None])

    def arrays(self) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Codebook entries by level and the encoder's weights as sids/quantiser.py names them, for unscaled inputs."""
        back = 1 / self._latent_scale()
        levels = [layer._codebook.embed[0].detach().cpu().numpy() * back for layer in self.quantiser.layers]
        linear = [layer for layer in self.encoder if isinstance(layer, nn.Linear)]
        weights = {}
        for number, layer in enumerate(linear):
            weights[f"encoder.{number}.weight"] = layer.weight.detach().cpu().numpy().copy()
            weights[f"encoder.{number}.bias"] = layer.bias.detach().cpu().numpy().copy()
        weights["encoder.0.weight"] *= self.scale
        for name in ("weight", "bias"):
            weights[f"encoder.{len(linear) - 1}.{name}"] *= back
        return levels, weights

    def _latent_scale(self) -> float:
        """With skip the latent space is scaled as the input is; else it has a scale of its own."""
        return self.scale if self.skip else 1.0


def mlp(widths: Sequence[int]) -> nn.Sequential:
    layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    between = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*between[:-1])
