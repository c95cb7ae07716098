"""An image in words: a small convolutional network makes a feature map, a decoder attends to its cells.

    a_1 .. a_L = features of the cells of a grid, each a vector that also holds its position
    h_0 = tanh(W_init mean of a)

Every cell is 4 × 4 pixels: two convolutions, each with a 2 × 2 maximum and a ReLU, and a third one by which a cell sees
its neighbours. Row and column are two further channels (Liu et al., 2018), since reading order is a matter of position.
Without attention the decoder sees the image through its first state alone: one-to-many.

Source: Xu et al. (2015), with a network trained along in place of one trained before. Shapes: B batch, L cells row by
row, U target length, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.cells import CELLS
from pipeline.core.cells.stack import unstack_states
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.encoder_decoder import Decoder, Memory, Seq2SeqNetwork
from pipeline.core.models.initialisation import generator, linear
from pipeline.core.models.interface import Interface
from pipeline.core.models.network import NetworkRun


class _ByReplica(torch.autograd.Function):
    """`_layer` of one replica after the other.

    torch makes one grouped convolution of a replica batch: slower, and added up in another order than that of a
    network alone. Under vmap the rule below runs instead of `forward`, in operations that autograd knows.
    """

    @staticmethod
    def forward(maps: Tensor, weight: Tensor, bias: Tensor, pools: bool) -> Tensor:  # noqa: D102
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        raise NotImplementedError

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[Tensor, int]:  # noqa: D102
        def of(r: int) -> Tensor:
            pairs = zip(given, in_dims, strict=True)
            return _layer(*(each if dim is None else each.select(dim, r) for each, dim in pairs))

        return torch.stack([of(r) for r in range(info.batch_size)]), 0


def _layer(maps: Tensor, weight: Tensor, bias: Tensor, pools: bool) -> Tensor:
    """Return the maps of a layer, the channels of a pixel side by side: so a maximum takes a third of the time."""
    maps, weight = (each.contiguous(memory_format=torch.channels_last) for each in (maps, weight))
    found = F.conv2d(maps, weight, bias.contiguous(), padding=1)
    return torch.relu(F.max_pool2d(found, 2) if pools else found)


class Convolution(nn.Module):
    """A 3 × 3 convolution that keeps height and width, a 2 × 2 maximum where it pools, and a ReLU.

    A bias of 0, beside a matrix drawn by He's rule, would put every blank pixel on the kink of the ReLU, where there is
    no gradient to check: it is drawn by torch's.

    Args:
        num_inputs: Channels read.
        num_outputs: Channels written.
        pools: Whether it does.
        start: Where the initial weights come from.
    """

    def __init__(self, num_inputs: int, num_outputs: int, pools: bool, start: torch.Generator) -> None:
        super().__init__()
        self.weight, self.pools = nn.Parameter(torch.empty(num_outputs, num_inputs, 3, 3)), pools
        self.bias = nn.Parameter(torch.empty(num_outputs))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu", generator=start)
        bound = (9 * num_inputs) ** -0.5
        nn.init.uniform_(self.bias, -bound, bound, generator=start)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, num_outputs, height, width), halves of both where it pools, of (B, num_inputs, height, width)."""
        if torch._C._functorch.maybe_current_level() is None or not torch._C._functorch.is_batchedtensor(self.weight):
            return _layer(maps, self.weight, self.bias, self.pools)
        found: Tensor = _ByReplica.apply(maps, self.weight, self.bias, self.pools)  # type: ignore[no-untyped-call]
        return found


class FeatureMap(nn.Module):
    """Images (B, height, width) -> annotations (B, L, size), L = height / 4 × width / 4.

    Args:
        size: Numbers that describe a cell.
        start: Where the initial weights come from.
    """

    def __init__(self, size: int, start: torch.Generator) -> None:
        super().__init__()
        self.first = Convolution(1, size // 4, True, start)
        self.second = Convolution(size // 4, size // 2, True, start)
        self.third = Convolution(size // 2, size, False, start)
        self.project = linear(size + 2, size, start)

    def forward(self, images: Tensor) -> Tensor:
        """Return the annotations, row by row."""
        maps = self.third(self.second(self.first(images[:, None])))
        # row and column of every cell, from -1 to 1
        axes = (torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype) for size in maps.shape[-2:])
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(maps), -1, -1, -1)
        cells_BLC = torch.cat([maps, positions], dim=1).flatten(2).transpose(1, 2)
        return self.project(cells_BLC.contiguous())  # of a replica batch a product with a view is another one


class ImageReader(nn.Module):
    """What recurrent layers have of an image: the annotations of its cells, and first states made of their mean.

    Args:
        spec: Of the layers.
        seed: Where the initial weights come from.
    """

    def __init__(self, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        self.cell, size = CELLS[spec.cell], spec.hidden_size * CELLS[spec.cell].num_outputs
        self.num_states = spec.num_layers * len(self.cell.states)
        self.features = FeatureMap(size, generator(seed, "features"))
        self.begin = linear(size, self.num_states * spec.hidden_size, generator(seed, "begin"))

    def forward(self, images: Tensor) -> Memory:
        """Return what is to be had of images, (B, height, width)."""
        cells_BLH = self.features(images)
        first = torch.tanh(self.begin(cells_BLH.mean(dim=1))).chunk(self.num_states, dim=1)
        return Memory(unstack_states(first, self.cell), cells_BLH, None)


class Captioner(Seq2SeqNetwork):
    """One network that describes an image; see `Network` for the arguments."""

    traces_inputs = False

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        self.image = ImageReader(spec, seed)
        self.decoder = Decoder(interface.output_size, spec, seed)

    def read(self, source: Tensor, run: NetworkRun) -> Memory:
        """Return what the convolutions make of images, (B, height, width)."""
        memory: Memory = self.image(source)
        return memory
