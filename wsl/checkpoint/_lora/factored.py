"""LoRAs of PEFT as factors, without their products."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsl import adapters, tree, types


def of_module(
  first: Any, second: Any, scale: float, shape: tuple[int, ...], turned: bool
) -> adapters.Factors:
  """Returns the factors of a module, in the views of ``adapters.Factors``.

  Args:
    first: A, ``[r, in, *window]``.
    second: B, ``[out, r, *ones]``.
    scale: the factor s.
    shape: the shape of the weight.
    turned: whether the weight is ``[in, out]``.
  """
  axes = tuple(range(len(shape)))
  rows, columns = ((0,), (1,)) if turned else (axes[1:], (0,))
  rank = tree.Static(int(first.shape[0]))
  is_matrix = len(first.shape) == len(second.shape) == 2
  a = first if is_matrix else tree.apply_kernel(_flat_a, first, rank=rank)
  b = second if is_matrix else tree.apply_kernel(_flat_b, second, rank=rank)
  view = tree.Matrix(rows=rows, columns=columns)
  return adapters.Factors(a, b, float(scale), shape, view)


def stack(base: types.Params, loras: Sequence[dict[str, Any]]) -> types.Deltas:
  """Stacks LoRAs; one that does not change a leaf has zeros there.

  A leaf that is an array in one of them, a module of DoRA, is one in the stack.
  """
  names = {name for lora in loras for name in lora}
  is_factors = lambda x: isinstance(x, adapters.Factors)
  whole = {k for lora in loras for k, x in lora.items() if not is_factors(x)}
  product = lambda k, x: adapters.dense(x) if k in whole else x
  loras = [{k: product(k, x) for k, x in lora.items()} for lora in loras]
  wanted = {
    name: next(lora[name] for lora in loras if name in lora) for name in names
  }
  filled = [
    {k: lora[k] if k in lora else _zeros(x) for k, x in wanted.items()}
    for lora in loras
  ]
  stacked = adapters.stack(filled) if wanted else {}
  return tree.map_named(lambda name, _: stacked.get(name), base)


def _zeros(like: Any) -> Any:
  """Returns factors of rank one, or an array, of zeros."""
  if not isinstance(like, adapters.Factors):
    return np.zeros(like.shape, like.dtype)
  a: Any = np.zeros((1, like.a.shape[-1]), like.a.dtype)
  b: Any = np.zeros((like.b.shape[0], 1), like.b.dtype)
  return adapters.Factors(a, b, 1.0, like.shape, like.view)


def _flat_a(x: types.Array, *, rank: int) -> types.Array:
  """Returns A ``[r, in]``; windows are inputs."""
  return x.reshape(rank, -1)


def _flat_b(x: types.Array, *, rank: int) -> types.Array:
  """Returns B ``[out, r]``."""
  return x.reshape(-1, rank)
