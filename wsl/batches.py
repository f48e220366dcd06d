"""The convention for batches, shared by every function that streams data.

A batch is ``inputs``, or a tuple that begins with them, such as ``(inputs,
labels)``. Inputs are an array ``[B, ...]``, or a pytree of arrays with the same
leading axis. Only a tuple is unpacked: a list or a dict is a pytree of inputs.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types


def inputs_of(batch: Any) -> Any:
  """Returns the inputs of a batch: the first entry of a tuple, else the batch.

  Args:
    batch: inputs, or a tuple ``(inputs, ...)``.

  Returns:
    The inputs, an array ``[B, ...]`` or a pytree of such arrays.

  Example:
    >>> inputs_of(('x', 'y')), inputs_of({'image': 'x'})
    ('x', {'image': 'x'})
  """
  return batch[0] if isinstance(batch, tuple) else batch


def check_iterable(
  batches: Iterable[Any], *, name: str, argument: str = 'batches'
) -> None:
  """Checks that batches are no array, whose rows would be taken for batches.

  Args:
    batches: an iterable of batches.
    name: the public function, for error messages.
    argument: its argument.

  Raises:
    ValueError: naming the argument and its shape.

  Example:
    >>> check_iterable([jnp.ones((4, 2))], name='gram')
  """
  if hasattr(batches, 'shape'):
    raise ValueError(
      f'{name}: {argument} is one array of shape {batches.shape}, expected an '
      'iterable of batches: pass [inputs] if this is the only one'
    )


def stream(batches: Iterable[Any], *, name: str) -> Iterator[Any]:
  """Yields batches, after checking each of them.

  Args:
    batches: an iterable of batches.
    name: the public function that reads them, for error messages.

  Yields:
    The batches, unchanged.

  Raises:
    ValueError: if ``batches`` is one array instead of an iterable, holds no
      batch, or a batch has no examples.

  Example:
    >>> [x.shape for x in stream([jnp.ones((4, 2))], name='gram')]
    [(4, 2)]
    >>> list(stream([], name='gram'))
    Traceback (most recent call last):
    ...
    ValueError: gram: no batches given, at least one is needed ...
  """
  check_iterable(batches, name=name)
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


def cross_entropy(
  logits: types.Array, labels: types.ArrayLike, *, name: str
) -> types.Array:
  """Returns the cross-entropy of each example, in float32 or wider.

  Args:
    logits: ``[..., C]``.
    labels: integers ``[...]``, 0 .. C-1. The loss of any other is NaN: a
      negative label, such as -1 for an example without one, would count from
      the last class.
    name: the public function, for error messages.

  Raises:
    ValueError: if labels are no integers of that shape.

  Example:
    >>> logits = jnp.zeros((2, 4))
    >>> [f'{x:.3f}' for x in cross_entropy(logits, [1, -1], name='f')]
    ['1.386', 'nan']
  """
  import optax  # not at import: rooms open without it

  labels = jnp.asarray(labels)
  whole = jnp.issubdtype(labels.dtype, jnp.integer)
  if not whole or logits.shape[:-1] != labels.shape:
    raise ValueError(
      f'{name}: logits {logits.shape} need integer labels of shape '
      f'{logits.shape[:-1]}, got {labels.dtype}{list(labels.shape)}'
    )
  labels = jnp.where(
    labels < 0, jnp.full_like(labels, logits.shape[-1]), labels
  )
  found: types.Array = optax.softmax_cross_entropy_with_integer_labels(
    tree.wide(logits), labels
  )
  return found
