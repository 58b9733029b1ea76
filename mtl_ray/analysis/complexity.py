"""Counts the operations of a network for one input, and its parameters, by module.

The rule ``dispatch`` counts the operators that torch executes (matrix products, convolutions and
attention; all others are listed), so the code of a module does not matter. The rule ``mmcv`` is
that of ``mmcv_rule``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mtl_ray.analysis.mmcv_rule import rule_of

CountingRule = Literal["dispatch", "mmcv"]


@dataclass(frozen=True, kw_only=True)
class ModuleCost:
    """One module with everything inside it.

    Attributes:
        name: from ``named_modules``; empty for the whole model.
        kind: its class.
        params: number of parameters.
        trainable_params: number of trainable parameters.
        macs: multiply-adds, or what the rule counts.
    """

    name: str
    kind: str
    params: int
    trainable_params: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Uncounted:
    """An operator without a count: its calls, and the number of output elements."""

    operator: str
    calls: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """The cost of one input.

    Attributes:
        rule: of the count.
        modules: in the order of ``named_modules``, the whole model first.
        operators: multiply-adds by operator (``dispatch``) or class of layer (``mmcv``).
        uncounted: for ``dispatch``, the operators without a count, most elements first.
    """

    rule: CountingRule
    modules: tuple[ModuleCost, ...]
    operators: Mapping[str, int]
    uncounted: tuple[Uncounted, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole model."""
        return self.modules[0].macs

    @property
    def flops(self) -> int:
        """Operations of the whole model: two for a multiply-add, one with the rule of mmcv."""
        return self.macs * (2 if self.rule == "dispatch" else 1)

    @property
    def params(self) -> int:
        """Parameters of the whole model; with the rule of mmcv only the trainable ones."""
        whole = self.modules[0]
        return whole.params if self.rule == "dispatch" else whole.trainable_params


def complexity(
    model: nn.Module, run: Callable[[], object], rule: CountingRule = "dispatch"
) -> Complexity:
    """Counts the cost of a call.

    Args:
        model: the model with the modules; on any device, including ``meta``, where nothing is
            computed.
        run: makes the call, such as ``lambda: model(image)``.
        rule: see above.
    """
    ledger = _Ledger()
    counting = _dispatching(model, ledger) if rule == "dispatch" else _by_layer(model, ledger)
    with torch.no_grad(), _plain_attention(), counting:
        run()
    modules = tuple(
        _cost(name, module, ledger.by_module[name]) for name, module in model.named_modules()
    )
    listed = sorted(ledger.uncounted.items(), key=lambda item: -item[1])
    uncounted = tuple(
        Uncounted(operator=name, calls=ledger.calls[name], elements=elements)
        for name, elements in listed
        if elements
    )
    return Complexity(
        rule=rule,
        modules=modules,
        operators=dict(ledger.by_operator.most_common()),
        uncounted=uncounted,
    )


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disables the fast path of ``nn.MultiheadAttention``, a single operator without a count."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@dataclass
class _Ledger:
    """The counts so far."""

    inside: list[str] = field(default_factory=list)
    by_module: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    by_operator: Counter[str] = field(default_factory=Counter)
    uncounted: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, operator: str, count: int) -> None:
        """Adds a count to all running modules, to the modules that contain them, and to the
        whole.
        """
        self.by_operator[operator] += count
        above = (
            outer for name in self.inside for outer in accumulate(name.split("."), "{}.{}".format)
        )
        for each in {"", *above}:
            self.by_module[each] += count


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Intercepts every operator; composite ones are decomposed."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, named = func._overloadpacket, kwargs or {}
        if packet not in flop_registry:
            with self:
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **named)
        if packet in flop_registry:
            self._ledger.add(
                str(packet), int(flop_registry[packet](*args, **named, out_val=out)) // 2
            )
        elif not func.is_view:
            self._ledger.calls[str(packet)] += 1
            self._ledger.uncounted[str(packet)] += sum(
                each.numel() for each in tree_leaves(out) if isinstance(each, Tensor)
            )
        return out


@contextmanager
def _dispatching(model: nn.Module, ledger: _Ledger) -> Iterator[None]:
    def enter(name: str) -> Callable[..., None]:
        return lambda *_: ledger.inside.append(name)

    def leave(*_: object) -> None:
        ledger.inside.pop()

    hooks = [
        hook
        for name, module in model.named_modules()
        for hook in (
            module.register_forward_pre_hook(enter(name)),
            module.register_forward_hook(leave),
        )
    ]
    try:
        with _Operators(ledger):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _by_layer(model: nn.Module, ledger: _Ledger) -> Iterator[None]:
    def counted(name: str, layer: nn.Module) -> Callable[..., None]:
        rule = rule_of(layer)
        assert rule is not None

        def hook(_: nn.Module, sources: Sequence[Tensor], out: Tensor) -> None:
            ledger.inside = [name]
            ledger.add(type(layer).__name__, rule(layer, sources[0], out))

        return hook

    hooks = [
        layer.register_forward_hook(counted(name, layer))
        for name, layer in model.named_modules()
        if rule_of(layer)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _cost(name: str, module: nn.Module, macs: int) -> ModuleCost:
    return ModuleCost(
        name=name,
        kind=type(module).__name__,
        params=sum(each.numel() for each in module.parameters()),
        trainable_params=sum(each.numel() for each in module.parameters() if each.requires_grad),
        macs=macs,
    )
