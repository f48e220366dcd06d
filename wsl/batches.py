"""The one rule for batches, shared by every statistic."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp


def inputs_of(batch: Any) -> Any:
  """Returns the inputs of a batch: a tuple's first entry, else all of it."""
  return batch[0] if isinstance(batch, tuple) else batch


def stream(batches: Iterable[Any], *, name: str) -> Iterator[Any]:
  """Yields the batches, after checking that they are an iterable of batches.

  Args:
    batches: any iterable; a batch is ``inputs``, or a tuple that begins with
      them; inputs are an array ``[B, ...]`` or a pytree of such arrays.
    name: the public function that asks, for its error messages.

  Yields:
    The batches as they came.

  Raises:
    ValueError: for one array instead of an iterable, no batches, or a batch
      without examples.
  """
  if hasattr(batches, 'shape'):
    raise ValueError(
      f'{name}: batches is one array of shape {batches.shape}, expected an '
      'iterable of batches: pass [inputs] if this is the only one'
    )
  empty = True
  for i, batch in enumerate(batches):
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs_of(batch))]
    if not shapes or () in shapes or any(s[0] == 0 for s in shapes):
      raise ValueError(
        f'{name}: batch {i} holds no examples (input shapes {shapes}), '
        'expected inputs [B, ...] with B >= 1'
      )
    empty = False
    yield batch
  if empty:
    raise ValueError(
      f'{name}: no batches given, at least one is needed '
      '(a generator can be read only once)'
    )
