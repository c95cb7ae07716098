"""A network of one's own in a study: any nn.Module, its code as it is, its recurrences run by this project's loops.

A pass calls the module. Where it comes to one of torch's recurrent operations, the recurrence of this project takes its
place with the operation's own weights (`core/cells/operations`), so every state can be tapped, and every seed is a row
of the same batched program. A module that cannot be a function of many weights at once, for it draws random numbers,
looks at values, or packs sequences, is run for one seed after the other.

Shapes: T timesteps, B batch, D input, H hidden, O output.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from pipeline.config.strict import Checked, InvalidFieldError, require
from pipeline.core.cells import CELLS
from pipeline.core.cells.operations import SEQUENCES, STEPS, Arguments, Tap, run_sequences, run_step
from pipeline.core.cells.products import in_full_precision
from pipeline.core.cells.recurrence import kernel_of
from pipeline.core.cells.stack import BACKWARD, FORWARD, Place, places_of, turned_round
from pipeline.core.models.dropout import NO_DROPOUT, Coins
from pipeline.core.models.initialisation import (
    MAX_GATES,
    Chrono,
    ConstantBias,
    KeepBias,
    MatrixRule,
    PowerLaw,
    generator,
)
from pipeline.core.models.interface import INPUT, Interface, Prediction, StateKey, lengths_of
from pipeline.core.models.network import NO_OPTIONS, HiddenWeights, Network, RunOptions, buffers_in
from pipeline.data.dataset import PAD
from pipeline.errors import unknown_name

_log = logging.getLogger(__name__)

ParameterRule = MatrixRule | ConstantBias | KeepBias | Chrono | PowerLaw
"""The variants that a spec may name for a parameter of a network of one's own."""

SIZES = ("input_size", "output_size")
"""Arguments that a factory is given of the dataset, where it has them and the spec leaves them open."""


@dataclass(frozen=True, kw_only=True)
class CustomModel(Checked):
    """A network that a class or function of one's own makes.

    Attributes:
        import_: Where it is, `package.module:name`, from the project's folder.
        arguments: What it is called with. Where it has parameters `input_size` and `output_size` that are not among
            them, it is given D, or the size of the vocabulary, and O.
        initialisation: Rules by name of parameters, such as `lstm.weight_hh_l0`, or by pattern, `*.weight_hh_*`. A
            recurrent parameter is filled gate by gate. What no rule names stays as the module drew it.
    """

    name: Literal["custom"] = "custom"
    import_: str = field(metadata={"key": "import", "code": True, "names": (*SEQUENCES.values(),)})
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    initialisation: Mapping[str, ParameterRule] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        module, _, name = self.import_.partition(":")
        fine = all(part.isidentifier() for part in (*module.split("."), name))
        require(fine, "import", "where a class or function is, such as my_package.models:Net", self.import_)
        _require_plain(self.arguments, "arguments")

    @property
    def label(self) -> str:
        """What the network is called where a cell's name would stand."""
        return self.import_.partition(":")[2]


def _require_plain(value: Any, where: str) -> None:
    """Check that a value is made of texts, numbers, lists and mappings, as the text of a spec is.

    Raises:
        InvalidFieldError: If not.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            require(isinstance(key, str), where, "texts as keys", key)
            _require_plain(part, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            _require_plain(part, f"{where}[{place}]")
    else:
        finite = not isinstance(value, float) or math.isfinite(value)
        plain = value is None or isinstance(value, bool | int | float | str)
        require(plain and finite, where, "a text, a finite number, true, false, null, or a list or mapping", value)


def label_of(model: Mapping[str, Any]) -> str:
    """Return the cell of a network's spec, as plain mappings, or what stands in its place for one of one's own."""
    return str(model["import"]).partition(":")[2] if "import" in model else str(model.get("cell"))


def factory_of(spec: CustomModel) -> Callable[..., Any]:
    """Return the class or function that a spec names.

    Raises:
        InvalidFieldError: If it cannot be imported, or is neither.
    """
    module_name, _, name = spec.import_.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 - whatever the user's module raises as it is imported
        why = f"a module that can be imported ({type(error).__name__}: {error})"
        raise InvalidFieldError("model.import", why, spec.import_) from None
    if not callable(found := getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        expected = f"a class or function of {module_name} ({unknown_name('name', name, known)})"
        raise InvalidFieldError("model.import", expected, name)
    return cast(Callable[..., Any], found)


def _module_of(spec: CustomModel, interface: Interface, seed: int) -> nn.Module:
    """Return the module with its initial weights: what it draws as it is made follows from the seed.

    Raises:
        InvalidFieldError: If it cannot be made.
    """
    factory = factory_of(spec)
    given, sizes = dict(spec.arguments), dict(zip(SIZES, (interface.input_size, interface.output_size), strict=True))
    parameters = _parameters_of(factory)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for key in given if parameters and not takes_any else ():
        hint = unknown_name("argument", key, parameters)
        require(key in parameters, "model.arguments", f"arguments of {spec.label} ({hint})", key)
    given |= {key: size for key, size in sizes.items() if key in parameters and key not in given}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(generator(seed, "custom").initial_seed())
        try:
            module = factory(**given)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            expected = f"arguments with which {spec.label} can be made ({type(error).__name__}: {error})"
            raise InvalidFieldError("model.arguments", expected, given) from None
    require(isinstance(module, nn.Module), "model.import", "what makes an nn.Module", f"a {type(module).__name__}")
    return cast(nn.Module, module)


def _parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function by name; none of one that does not tell."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


class CustomNetwork(Network):
    """A module of one's own as a network; see `Network` for the arguments.

    The module is called with real vectors (B, T, D) or symbol ids (B, T), and where it has a parameter `lengths`, and
    sequences are padded, with the number of timesteps of each, (B,). It returns predictions, (B, O) or (B, T, O). It is
    in training mode in the passes that an update is made of, with random numbers that follow from the seed and the
    step, and in evaluation mode in all others. Parameters that need no gradient are not trained.
    """

    options = frozenset({"taps", "state_threshold", "dropout", "initial", "num_scored"})

    def __init__(self, interface: Interface, spec: CustomModel, seed: int) -> None:
        nn.Module.__init__(self)
        self.interface, self.spec, self.attends, self.dropout = interface, spec, False, NO_DROPOUT
        self.input_size, self.embedding = interface.input_size, None
        self.module = _module_of(spec, interface, seed)
        _initialise(self.module, spec.initialisation, seed)
        for module in self.module.modules():
            for name, parameter in [*module.named_parameters(recurse=False)]:
                if not parameter.requires_grad:
                    del module._parameters[name]
                    module.register_buffer(name, parameter.detach())
            if isinstance(module, nn.RNNBase):
                module.register_forward_pre_hook(_note_order)
        self.takes_lengths = interface.padded and "lengths" in _parameters_of(self.module.forward)

    @functools.cached_property
    def parts(self) -> dict[str, nn.Module]:
        """The recurrent modules by name; one alone is "recurrent"."""
        return parts_of(self.module)

    @functools.cached_property
    def state_keys(self) -> tuple[StateKey, ...]:
        """Every state of the recurrent modules, in order."""
        return tuple(
            StateKey(place.layer, place.direction, state, part)
            for part, module in self.parts.items()
            for place in _places(module)
            for state in CELLS[cell_name(module)].states
        )

    @property
    def traces_inputs(self) -> bool:  # type: ignore[override]
        """Whether ∂L/∂x_t can be traced: symbols are encoded by the module itself."""
        return self.interface.input_kind == "real"

    @property
    def stacks(self) -> dict[str, Any]:
        """None: its recurrences are torch's modules."""
        return {}

    def hidden_weights(self, named: Mapping[str, Tensor]) -> Iterator[HiddenWeights]:
        """Yield W_hh of every layer and direction of every recurrent module; with a projection, W_hh W_hr.

        What the module makes of other parameters, or has not to be trained, is read as its passes read it.
        """
        values = next(iter(named.values()))
        kept = buffers_in(self, values.dtype)

        def read(r: int) -> Any:
            mine = {name: each[r] for name, each in named.items()} | kept
            return functional_call(_Reader(self), {f"network.{name}": each for name, each in mine.items()})

        places = [(part, place) for part, module in self.parts.items() for place in _places(module)]
        for (part, place), *weights in zip(places, *map(read, range(len(values))), strict=True):
            yield HiddenWeights(part, place, CELLS[cell_name(self.parts[part])], torch.stack(weights))

    def kernel(self, like: Tensor) -> str | None:
        """Return what runs the recurrences for parameters like this one; None where there are none."""
        sequences = {kernel_of(CELLS[cell_name(part)], like) for part in self.parts.values() if _is_sequence(part)}
        steps = {"eager"} if not all(map(_is_sequence, self.parts.values())) else set()
        return ", ".join(sorted(sequences | steps)) or None

    def layout(self, num_timesteps: int) -> Layout:
        """Return how it runs over sequences of so many timesteps."""
        return layout_of(self.spec, self.interface, num_timesteps)

    def in_turn(self, inputs: Any) -> bool:
        """Return whether seeds are run one after the other."""
        return self.layout(self._num_examples_and_timesteps(inputs)[1][INPUT.part]).reason is not None

    def tap_shapes(self, inputs: Any) -> list[tuple[int, int, int]]:
        """Return the shape of each tap, (T, B, features), for inputs with or without a replica axis."""
        num_examples, lengths = self._num_examples_and_timesteps(inputs)
        lengths |= self.layout(lengths[INPUT.part]).num_timesteps
        return [(lengths[key.part], num_examples, self.width(key)) for key in self.tap_keys]

    def width(self, key: StateKey) -> int:
        """Return the size of what can be tapped, at one timestep of one example."""
        if key == INPUT:
            return self.input_size
        module: Any = self.parts[key.part]
        return (key.quantity == "h" and getattr(module, "proj_size", 0)) or module.hidden_size

    def dropout_coins(self, inputs: Any) -> list[Coins]:
        """Return what the random numbers of one pass in training follow from."""
        num_examples, _ = self._num_examples_and_timesteps(inputs)
        return [_Start((1, num_examples, 1), 1.0, 1.0)]

    def forward(self, inputs: Any, options: RunOptions = NO_OPTIONS) -> Prediction:
        """Return predictions, and the states that the recurrent modules went through."""
        self.check_options(options)
        run = _Run(self, options)
        values = self.predict(inputs, run)[0]
        return Prediction(values=values, states=run.all_states())

    def predict(self, inputs: Tensor, run: Any) -> tuple[Tensor, None]:
        """Return predictions, (B, O) or (B, T, O)."""
        options: RunOptions = run.options
        tap = run.taps.get(INPUT)
        x = inputs if tap is None else inputs + tap.transpose(0, 1)
        given = {"lengths": lengths_of(inputs)} if self.takes_lengths else {}
        if self.module.training != (training := len(options.dropout) > 0):
            self.module.train(training)
        with _kept_weights(self.module), _drawing_from(options.dropout), run:
            values = self.module(x, **given)
        if isinstance(values, Tensor) and torch.is_autocast_enabled(values.device.type):
            values = values.float()
        return values if options.num_scored is None else values[:, -options.num_scored :], None


class _Reader(nn.Module):
    """Reads the recurrent weights of a network with whatever parameters it is called with."""

    def __init__(self, network: CustomNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self) -> list[Tensor]:
        """Return W_hh of every place of every part, (gates · H, H) each."""
        found = list[Tensor]()
        for module in self.network.parts.values():
            for place in _places(module):
                suffix = place.suffix if _is_sequence(module) else ""
                weight_hh = getattr(module, f"weight_hh{suffix}")
                found.append(weight_hh @ getattr(module, f"weight_hr{suffix}") if _projects(module) else weight_hh)
        return found


class _Start(Coins):
    """Where the random numbers of a pass begin, a number in [0, 1): the same for seed and step."""

    __slots__ = ()

    @property
    def is_of_sequences(self) -> bool:
        """False: every update has its own."""
        return False

    def drawn(self, source: torch.Generator) -> Tensor:
        """Return it, one per example."""
        return torch.rand(self.shape, generator=source, dtype=torch.float64)


@contextlib.contextmanager
def _drawing_from(start: Sequence[Tensor]) -> Iterator[None]:
    """Let torch's global random numbers follow from a number, and be afterwards where they were."""
    if not len(start) or torch._C._functorch.get_interpreter_stack():  # in a batched program nothing is drawn
        yield
        return
    device = start[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(start[0].flatten()[0].item() * 2**32))  # more bits torch does not look at
        yield


@contextlib.contextmanager
def _kept_weights(module: nn.Module) -> Iterator[None]:
    """Leave torch's lists of weights as they were, whatever a pass puts in their place."""
    recurrent = [part for part in module.modules() if isinstance(part, nn.RNNBase)]
    kept = [(part._flat_weights, part._flat_weight_refs) for part in recurrent]
    try:
        yield
    finally:
        for part, (weights, refs) in zip(recurrent, kept, strict=True):
            part._flat_weights, part._flat_weight_refs = weights, refs


def _note_order(module: nn.Module, args: Any) -> None:
    """Note in which order the examples of a pack lie, which torch's operation is not told."""
    packed = next((each for each in args if isinstance(each, PackedSequence)), None)
    module.__dict__["_pack_order"] = None if packed is None else packed.sorted_indices


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the recurrent modules of torch.nn in a module, by name; one alone is "recurrent"."""
    kinds = (nn.RNNBase, nn.RNNCellBase)
    found: dict[str, nn.Module] = {name: part for name, part in module.named_modules() if isinstance(part, kinds)}
    return {"recurrent": next(iter(found.values()))} if len(found) == 1 else found


def cell_name(module: nn.Module) -> str:
    """Return which cell a recurrent module of torch.nn is of."""
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return "lstm"
    if isinstance(module, nn.GRU | nn.GRUCell):
        return "gru"
    return "elman_relu" if getattr(module, "nonlinearity", "tanh") == "relu" else "elman"


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase)


def _projects(module: nn.Module) -> bool:
    return getattr(module, "proj_size", 0) > 0


def _places(module: nn.Module) -> tuple[Place, ...]:
    return places_of(module.num_layers, module.bidirectional) if isinstance(module, nn.RNNBase) else places_of(1, False)


class _Run(TorchFunctionMode):
    """One pass through a module: runs its recurrent operations with the options of the pass, and keeps their states."""

    def __init__(self, network: CustomNetwork, options: RunOptions) -> None:
        super().__init__()
        self.options, self.keys, self.parts = options, network.state_keys, network.parts
        self.taps = dict(zip(network.tap_keys, options.taps, strict=False))
        self.states: dict[StateKey, list[Tensor]] = {}
        self.num_run = dict.fromkeys(network.parts, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SEQUENCES:
            given = Arguments.of(args)
            if (part := self._part_of(given.weights[0])) is not None:
                return self._run_sequences(part, SEQUENCES[func], given)
        elif func in STEPS and (part := self._part_of(args[2])) is not None:
            return self._run_step(part, STEPS[func], args)
        return func(*args, **(kwargs or {}))

    def all_states(self) -> list[Tensor]:
        """Return every state at every timestep that ran, (T, B, H) each, in the order of `state_keys`."""
        pieces = [self.states.get(key, []) for key in self.keys]
        return [each[0] if len(each) == 1 else torch.cat(each) for each in pieces if each]

    def _part_of(self, weight: Tensor) -> str | None:
        def first(module: Any) -> object:
            return module._flat_weights[0] if isinstance(module, nn.RNNBase) else module.weight_ih

        return next((name for name, module in self.parts.items() if first(module) is weight), None)

    def _run_sequences(self, part: str, name: str, given: Arguments) -> tuple[Tensor, ...]:
        module, lengths_B = self.parts[part], given.lengths
        order = None if given.batch_sizes is None else module.__dict__.get("_pack_order")
        places, states = _places(module), CELLS[name].states
        dtype = given.weights[0].dtype  # what comes in may be rounded, or torch.zeros of the module's own
        start = tuple(state.to(dtype) for state in self._start(part, places, given.start))
        given, tap = replace(given, x=given.x.to(dtype), start=start), self._tap(part, lengths_B, order)
        with in_full_precision(given.x.device.type):
            run = run_sequences(name, given, tap, state_threshold=self.options.state_threshold, shares=False)
        for place, made in zip(places, run.states, strict=True):
            for state, each in zip(states, made, strict=True):
                found = each if order is None else each.index_select(1, order.argsort())
                self.states.setdefault(StateKey(place.layer, place.direction, state, part), []).append(found)
        self.num_run[part] += len(run.states[0][0])
        return run.found

    def _run_step(self, part: str, name: str, args: Sequence[Any]) -> Any:
        x, start, weights = args[0], args[1] if isinstance(args[1], tuple) else (args[1],), args[2:]
        begun, dtype = self._start(part, places_of(1, False), tuple(state[None] for state in start)), weights[0].dtype
        before, tap = [state[0].to(dtype) for state in begun], self._tap(part, None, None)
        with in_full_precision(x.device.type):
            given = (x.to(dtype), *before, *weights)
            found = run_step(name, given, tap, state_threshold=self.options.state_threshold)
        for state, each in zip(CELLS[name].states, found, strict=True):
            self.states.setdefault(StateKey(0, FORWARD, state, part), []).append(each[None])
        self.num_run[part] += 1
        return found if len(start) > 1 else found[0]

    def _start(self, part: str, places: Sequence[Place], own: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the states before a call: those that are carried into the pass, where it is the first, or its own."""
        if not len(self.options.initial) or self.num_run[part]:
            return own
        carried = dict(zip(self.keys, self.options.initial, strict=True))
        states = CELLS[cell_name(self.parts[part])].states
        return tuple(
            torch.stack([carried[StateKey(place.layer, place.direction, state, part)] for place in places])
            for state in states
        )

    def _tap(self, part: str, lengths_B: Tensor | None, order: Tensor | None) -> Tap:
        begin = self.num_run[part]

        def tap(place: Place, state: str, like: Tensor, shape: tuple[int, ...]) -> Tensor | None:
            whole = self.taps.get(StateKey(place.layer, place.direction, state, part))
            if whole is None:
                return None
            piece = whole[begin : begin + shape[0]]
            if order is not None:
                piece = piece.index_select(1, order)
            return turned_round(piece, lengths_B) if place.direction == BACKWARD else piece

        return tap


@torch.no_grad()
def _initialise(module: nn.Module, rules: Mapping[str, ParameterRule], seed: int) -> None:
    """Give the parameters that rules name their initial values, in place.

    Raises:
        InvalidFieldError: If a rule names no parameter, two name one, or one does not suit what it names.
    """
    named, ruled = dict(module.named_parameters()), dict[str, str]()
    owners = {f"{name}." if name else "": part for name, part in module.named_modules()}
    for pattern, rule in rules.items():
        matching = fnmatch.filter(named, pattern)
        where = "model.initialisation"
        if not matching:
            raise InvalidFieldError(
                where, f"names of parameters ({unknown_name('parameter', pattern, named)})", pattern
            )
        for name in matching:
            other = ruled.setdefault(name, pattern)
            require(other == pattern, where, f"one rule for {name!r}, which {other!r} names, too", pattern)
            counter = 1 + MAX_GATES * list(named).index(name)  # 0 is what the module itself draws from
            owner, _, short = name.rpartition(".")
            part = owners[f"{owner}." if owner else ""]
            try:
                _fill(named[name], rule, part, short, seed, counter)
            except InvalidFieldError as error:
                raise InvalidFieldError(f"{where}.{pattern}", f"{error.expected}, for {name!r}", error.got) from None


def _fill(parameter: Tensor, rule: ParameterRule, owner: nn.Module, name: str, seed: int, counter: int) -> None:
    """Fill one parameter by one rule, gate by gate where it is a recurrent module's."""
    recurs = isinstance(owner, nn.RNNBase | nn.RNNCellBase) and not name.startswith("weight_hr")
    cell = CELLS[cell_name(owner)] if recurs else None
    if isinstance(rule, ConstantBias):
        parameter.fill_(rule.value)
    elif isinstance(rule, KeepBias | Chrono | PowerLaw):
        fits = cell is not None and cell.keep_gate is not None and name.startswith("bias")
        require(fits, "name", "a rule for the bias of a module with a gate that keeps the past", rule.name)
        assert cell is not None  # noqa: S101 - see above
        of_gates = dict(zip(cell.gates, parameter.chunk(len(cell.gates)), strict=True))
        values = rule.values(cell, len(parameter) // len(cell.gates), generator(seed, "custom", counter)) or {}
        parameter.zero_()
        for gate, of_gate in values.items():
            of_gates[gate].copy_(of_gate)
    else:
        require(parameter.dim() == 2, "name", "a rule for a parameter that is no matrix (constant)", rule.name)
        for number, block in enumerate(parameter.chunk(len(cell.gates) if cell else 1)):
            square = rule.name != "spectral_radius" or block.shape[0] == block.shape[1]
            require(square, "name", "a rule for blocks that need not be square", rule.name)
            rule.fill(block, generator(seed, "custom", counter + number))


def check_custom(spec: CustomModel, interface: Interface, num_timesteps: int) -> Layout:
    """Check that a module of one's own fits a dataset; return how it runs.

    Raises:
        InvalidFieldError: If not; the caller knows the file and the dataset.
    """
    expected = "a built-in network, for this dataset's targets: a module of one's own has them at the last or at every"
    transduces = interface.target_at == "sequence" or interface.input_kind == "image"
    require(not transduces, "model.name", f"{expected} timestep", spec.name)
    expected = "a built-in network, for texts of images: a module of one's own is given one kind of data"
    require(not interface.describes, "model.name", expected, spec.name)
    layout = layout_of(spec, interface, num_timesteps)
    if interface.padded:
        require_whole(spec, layout, num_timesteps, "sequences that are padded")
    if layout.reason is not None:
        _tell(f"{spec.label} {dict(spec.arguments)}" if spec.arguments else spec.label, layout.reason)
    return layout


@functools.cache
def _tell(what: str, reason: str) -> None:
    """Say, once, why seeds are not one program."""
    _log.warning("%s: seeds are trained one after the other, not as one program: %s", what, reason)


def require_whole(spec: CustomModel, layout: Layout, num_timesteps: int, why: str) -> None:
    """Check that every recurrent module runs the timesteps that the sequences have.

    Raises:
        InvalidFieldError: If one does not.
    """
    for part, number in layout.num_timesteps.items():
        expected = f"a module whose {part!r} runs all {num_timesteps} timesteps, for {why}"
        require(number == num_timesteps, "model.import", expected, f"{number} ({spec.import_})")


@functools.cache
def count_custom(interface: Interface, spec: CustomModel) -> int:
    """Return the number of trained numbers of a module of one's own."""
    return sum(each.numel() for each in CustomNetwork(interface, spec, 0).parameters())


class Layout(NamedTuple):
    """How a module runs over sequences of one length.

    Attributes:
        num_timesteps: That each recurrent module runs in one pass.
        num_traced: Numbers of all states, and of real inputs, of all timesteps, per example.
        is_one_way: Whether there are recurrent modules, and all run forward in time.
        reason: Why seeds run one after the other; None where they are one program.
    """

    num_timesteps: dict[str, int]
    num_traced: int
    is_one_way: bool
    reason: str | None


@functools.cache
def layout_of(spec: CustomModel, interface: Interface, num_timesteps: int) -> Layout:
    """Return how a module runs over sequences of so many timesteps, found by running it.

    Raises:
        InvalidFieldError: If it does not run, or is not what a network of a study must be.
    """
    with torch.enable_grad(), in_full_precision("cpu"):  # wherever it is asked for
        return _Trial(spec, interface, num_timesteps).layout()


class _Trial:
    """Tries out a module, so that what is wrong with it is said before anything is trained."""

    NUM_EXAMPLES = 2

    def __init__(self, spec: CustomModel, interface: Interface, num_timesteps: int) -> None:
        self.spec, self.interface, self.num_timesteps = spec, interface, num_timesteps
        self.networks = [CustomNetwork(interface, spec, seed) for seed in (0, 1)]

    def layout(self) -> Layout:
        """Return what was found."""
        self._check_weights()
        for dtype in (torch.float32, torch.float64):
            ran = self._check_run(dtype)
        network, lengths = self.networks[0], ran | {INPUT.part: self.num_timesteps}
        return Layout(
            num_timesteps=ran,
            num_traced=sum(lengths[key.part] * network.width(key) for key in network.tap_keys),
            is_one_way=bool(ran) and all(key.direction == FORWARD for key in network.state_keys),
            reason=self._why_in_turn(),
        )

    def _refuse(self, expected: str, got: object) -> InvalidFieldError:
        return InvalidFieldError("model.import", f"{self.spec.label} {expected}", got)

    def _inputs(self, dtype: torch.dtype) -> Tensor:
        shape, start = (self.NUM_EXAMPLES, self.num_timesteps), torch.Generator().manual_seed(0)
        if self.interface.input_kind == "real":
            return torch.randn(*shape, self.interface.input_size, generator=start).to(dtype)
        lowest = PAD + 1 if self.interface.padded else 0
        return torch.randint(lowest, self.interface.input_size, shape, generator=start)

    def _check_weights(self) -> None:
        """Check that weights follow from the seed, and that what is not trained is the same for all seeds."""
        first, second = self.networks
        again = dict(CustomNetwork(self.interface, self.spec, 0).named_parameters())
        if not again:
            raise self._refuse("to have parameters to train", "a module without")
        for name, parameter in first.named_parameters():
            short = name.removeprefix("module.")
            if parameter.dtype != torch.float32:
                raise self._refuse("to have parameters in float32", f"{short}: {parameter.dtype}")
            if not torch.equal(parameter, again[name]):
                raise self._refuse("to draw its weights by torch's random numbers, which a seed sets", short)
        shapes = [{name: each.shape for name, each in network.named_parameters()} for network in self.networks]
        if shapes[0] != shapes[1]:
            raise self._refuse("to have parameters of the same shapes for every seed", "others with another seed")
        others = dict(second.named_buffers())
        for name, buffer in first.named_buffers():
            if not torch.equal(buffer, others[name]):
                what = "to have buffers and untrained parameters that are the same for every seed"
                raise self._refuse(what, name.removeprefix("module."))

    def _check_run(self, dtype: torch.dtype) -> dict[str, int]:
        """Check one pass in evaluation and one in training; return the timesteps that each recurrent module ran.

        Raises:
            InvalidFieldError: If the module does not run, or is not what it must be.
        """
        network, inputs = self.networks[0], self._inputs(dtype)
        leaves = {name: each.detach().to(dtype).requires_grad_() for name, each in network.named_parameters()}
        buffers = buffers_in(network, dtype)
        before, drawn = {name: each.clone() for name, each in buffers.items()}, torch.get_rng_state()
        shape = tuple(inputs.shape)
        places = [self.interface.output_size]
        places = [self.num_timesteps, *places] if self.interface.target_at == "every" else places
        wanted = (self.NUM_EXAMPLES, *places)
        try:
            run = functional_call(network, leaves | buffers, (inputs,))
            values = run.values
            fine = isinstance(values, Tensor) and tuple(values.shape) == wanted
            is_drawing = not torch.equal(torch.get_rng_state(), drawn)
            with torch.random.fork_rng(devices=[]):
                trained = functional_call(network, leaves | buffers, (inputs, RunOptions(dropout=[torch.zeros(1)])))
                if fine:
                    torch.autograd.grad(trained.values.sum(), [*leaves.values()], materialize_grads=True)
        except InvalidFieldError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            kind = f"that runs in {str(dtype).removeprefix('torch.')} on inputs of shape {shape}"
            raise self._refuse(f"as a module {kind}", f"{type(error).__name__}: {_first_line(error)}") from None
        if not fine:
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise self._refuse(f"to return a tensor of shape {wanted} for inputs of shape {shape}", got)
        if is_drawing:
            raise self._refuse("to draw no random numbers in evaluation mode", "a module that does")
        for name, buffer in buffers.items():
            if not torch.equal(buffer, before[name]):
                what = "to leave its buffers as they are: what is carried from batch to batch is no function of a step"
                raise self._refuse(what, name.removeprefix("module."))
        ran = dict.fromkeys(network.parts, 0)
        for key, states in zip(network.state_keys, run.states, strict=False):
            ran[key.part] = len(states)
        idle = [part for part, number in ran.items() if not number]
        if idle or len(run.states) != len(network.state_keys):
            raise self._refuse("to run each of its recurrent modules by torch's own forward", f"{idle} did not")
        return ran

    def _why_in_turn(self) -> str | None:
        """Return why seeds cannot be one program; None where they can."""
        inputs = self._inputs(torch.float32)
        stacked, _ = stack_module_state(list[nn.Module](self.networks))
        leaves = {name: each.detach().requires_grad_() for name, each in stacked.items()}
        training = RunOptions(dropout=[torch.zeros(1)])

        def run(parameters: dict[str, Tensor]) -> Tensor:
            values: Tensor = functional_call(self.networks[0], parameters, (inputs, training)).values
            return values

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what vmap has no rule for it would run replica by replica, too
                values = torch.vmap(run, randomness="error")(leaves)
                torch.autograd.grad(values.sum(), [*leaves.values()], materialize_grads=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, one after the other it runs
            said = _first_line(error)
            return "it draws random numbers in training" if "random operation" in said else said
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
