"""A graphics card for machines that have none: a device of its own, with numbers, on which nothing is faster.

Within ``with card():`` the device "meta" keeps the values of its tensors, computes like a processor, and like a real
card refuses to combine its tensors with others (but for single numbers). Code that runs here, forward and backward,
moves everything to the device that it should: what it leaves behind raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("meta")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class OnCard(Tensor):
    """A tensor on the card; its values are those of an ordinary tensor."""

    kept: Tensor

    @staticmethod
    def __new__(cls, kept: Tensor) -> OnCard:
        return Tensor._make_wrapper_subclass(cls, kept.size(), strides=kept.stride(), dtype=kept.dtype, device=CARD)

    def __init__(self, kept: Tensor) -> None:
        self.kept = kept

    def __repr__(self) -> str:
        return f"OnCard({self.kept})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Everything(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """torch.tensor makes its tensor on the device before anybody is asked: here it is brought there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        there = func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == CARD
        if there:
            del kwargs["device"]
        result = func(*args, **kwargs)
        return result.to(CARD) if there else result


@contextmanager
def card() -> Iterator[None]:
    """In this context the card is there."""
    with _Everything(), _Literals():
        yield


def _compute(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    here = {id(one.kept): one for one in tensors if isinstance(one, OnCard)}
    elsewhere = [one for one in tensors if not isinstance(one, OnCard) and one.dim()]
    if here and elsewhere and func not in MOVES:
        raise RuntimeError(f"{func}: expected all tensors on the same device, found {elsewhere[0].shape} on the CPU")
    stays = bool(here)
    if kwargs.get("device") is not None:
        stays = torch.device(kwargs["device"]) == CARD
        kwargs = kwargs | {"device": torch.device("cpu")}

    def down(one: Any) -> Any:
        return one.kept if isinstance(one, OnCard) else one

    def up(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return here.get(id(one)) if id(one) in here else OnCard(one)  # what works in place returns its argument

    result = func(*tree_map(down, args), **tree_map(down, kwargs))
    if func is torch.ops.aten.copy_.default:
        return args[0]
    return tree_map(up, result) if stays else result
