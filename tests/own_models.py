"""Networks as a user writes them: plain torch, without a word about this project."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Last(nn.Module):
    """Read a sequence, answer once."""

    def __init__(
        self, input_size: int, output_size: int, kind: str = "LSTM", hidden_size: int = 5, **options: Any
    ) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(input_size, hidden_size, batch_first=True, **options)
        width = options.get("proj_size") or hidden_size
        self.readout = nn.Linear(width * (2 if options.get("bidirectional") else 1), output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x)[0][:, -1])


class Every(Last):
    """Answer at every timestep."""

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x)[0])


class Steps(nn.Module):
    """A cell in a loop of its own, from a first state that is learnt."""

    def __init__(self, input_size: int, output_size: int, kind: str = "LSTMCell", hidden_size: int = 5) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(input_size, hidden_size)
        self.first = nn.Parameter(torch.zeros(hidden_size))
        self.readout = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first.expand(len(x), -1)
        state: Any = (h, torch.zeros_like(h)) if isinstance(self.cell, nn.LSTMCell) else h
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.readout(state[0] if isinstance(state, tuple) else state)


class Two(nn.Module):
    """An encoder, and what reads its outputs again; timesteps first, no biases below."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int = 5) -> None:
        super().__init__()
        self.encoder = nn.GRU(input_size, hidden_size, bias=False)
        self.decoder = nn.RNN(hidden_size, hidden_size, nonlinearity="relu")
        self.readout = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        read, last = self.encoder(x.transpose(0, 1))
        return self.readout(self.decoder(read, last)[0][-1])


class Dropped(Last):
    """With dropout in front of the readout."""

    def __init__(self, input_size: int, output_size: int, rate: float = 0.5) -> None:
        super().__init__(input_size, output_size)
        self.dropout = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.dropout(self.rnn(x)[0][:, -1]))


class Orthogonal(Last):
    """With recurrent weights made of others, so that they are orthogonal."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size, kind="RNN")
        nn.utils.parametrizations.orthogonal(self.rnn, "weight_hh_l0")


class Tagger(nn.Module):
    """Embed, read both ways what is packed, answer at every timestep."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(input_size, 3)
        self.rnn = nn.LSTM(3, hidden_size, batch_first=True, bidirectional=True)
        self.readout = nn.Linear(2 * hidden_size, output_size)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(tokens.long()), lengths.cpu(), True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return self.readout(read)


class Classifier(Tagger):
    """Answer once, by the mean over the timesteps of each sequence."""

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(tokens.long()), lengths.cpu(), True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.readout(read.sum(dim=1) / lengths[:, None])


class Frozen(Last):
    """Its readout is not trained, and it multiplies its inputs by a buffer."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size)
        self.register_buffer("scale", torch.full((input_size,), 0.5))
        for parameter in self.readout.parameters():
            nn.init.constant_(parameter, 0.25).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale)


class Tied(nn.Module):
    """What reads the input and what writes the output have one matrix."""

    def __init__(self, input_size: int, output_size: int, hidden_size: int = 5) -> None:
        super().__init__()
        self.write = nn.Linear(hidden_size, input_size, bias=False)
        self.rnn = nn.RNN(hidden_size, hidden_size, batch_first=True)
        self.read = nn.Linear(hidden_size, input_size)
        self.read.weight = self.write.weight
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.rnn(x @ self.write.weight)[0][:, -1])[:, : self.output_size]


class NoRecurrence(nn.Module):
    """A linear function of the mean."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.readout = nn.Linear(input_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(x.mean(dim=1))


class Normalised(Last):
    """Batch normalisation keeps a mean from batch to batch."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.norm(self.rnn(x)[0][:, -1]))


class Noisy(Last):
    """Noise, in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


class Idle(Last):
    """Has a recurrence that it never runs."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size)
        self.other = nn.GRU(input_size, 2)


class Single(Last):
    """Works in float32 whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class Drawn(Last):
    """A buffer that another seed draws anew."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size)
        self.register_buffer("noise", torch.randn(3))


class Empty(nn.Module):
    """Nothing to train."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Tuples(Last):
    """Returns its state, too."""

    def forward(self, x: Tensor) -> Any:
        return self.rnn(x)


def unlucky(input_size: int, output_size: int) -> nn.Module:
    raise RuntimeError("no luck")


def number() -> int:
    return 3


class Stacked(nn.Module):
    """Two recurrences over tokens, one above the other, under names of the caller's own; answers at every timestep."""

    def __init__(self, input_size: int, output_size: int, names: tuple[str, str], hidden_size: int = 4) -> None:
        super().__init__()
        self.names, self.embedding = names, nn.Embedding(input_size, 3)
        for name, width in zip(names, (3, hidden_size), strict=True):
            setattr(self, name, nn.GRU(width, hidden_size, batch_first=True))
        self.readout = nn.Linear(hidden_size, output_size)

    def forward(self, tokens: Tensor) -> Tensor:
        below, above = (getattr(self, name) for name in self.names)
        return self.readout(above(below(self.embedding(tokens.long()))[0])[0])
