"""Finite values: a check that costs about as much as reading the array.

A sum of squares is finite only if all of its terms are, and BLAS computes it as
fast as memory is read. It may overflow where all values are finite, and narrow
floats have no BLAS: then the bits decide. In IEEE formats the exponent bits of
inf and NaN are all ones, so as integers they are at least the bits of +inf,
without the sign bit. The maximum as signed integers finds such positive values,
the maximum as unsigned integers such negative ones: two reductions without a
temporary array, over a chunk that is in the CPU's cache.

(XLA's CPU backend does not fuse a reduction with the program that writes the
array: a flag as its second output takes longer.)
"""

from collections.abc import Iterator
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _names, _nodes, _on_demand, _program, _sums
from wsl.tree._reads import devices, together

_CHUNK = 1 << 20  # bytes
_ROW = 1 << 13  # of a dot product; OpenBLAS has threads from 10001 entries on


def all_finite(values: np.ndarray) -> bool:
  """Returns True if all values of a numpy array are finite.

  Args:
    values: ``[...]``, of any dtype; integers are finite.

  Example:
    >>> all_finite(np.asarray([1.0, 2.0])), all_finite(np.asarray([np.inf]))
    (True, False)
  """
  if not _program.is_float(values) or not values.size:
    return True
  flat = values.reshape(-1)
  if flat.dtype.kind == 'c':
    flat = np.ascontiguousarray(flat).view(flat.real.dtype)
  if flat.dtype in (np.float32, np.float64) and flat.size >= _ROW:
    rows = flat[: flat.size // _ROW * _ROW].reshape(-1, _ROW)
    with np.errstate(all='ignore'):
      squares = np.matmul(rows[:, None], rows[:, :, None])
    if np.isfinite(squares).all():
      flat = flat[rows.size :]
  step = max(_CHUNK // flat.itemsize, 1)
  chunks = (flat[i : i + step] for i in range(0, flat.size, step))
  return all(map(_chunk_finite, chunks))


def check_finite(
  label: str, result: types.Tree, *inputs: types.Tree, remedy: str
) -> None:
  """Checks that a result is finite where all of its inputs are.

  Leaves that are traced or on demand are not checked.

  Args:
    label: the calling function, with which the message begins.
    result: the tree to check.
    *inputs: trees of the same names, ``None`` or missing leaves allowed.
    remedy: how to obtain finite values, the end of the message.

  Raises:
    ValueError: naming the leaf.

  Example:
    >>> check_finite('f', {'w': np.asarray([np.inf])}, remedy='use float32')
    Traceback (most recent call last):
    ...
    ValueError: f: leaf 'w' has 1 NaN or infinite value: use float32
  """
  named = [_names.named(tree) for tree in inputs]
  known = {n: x for n, x in _names.named(result).items() if _is_known(x)}
  finite = _each_finite(list(known.values()))
  for (name, leaf), flag in zip(known.items(), finite, strict=True):
    if flag:
      continue
    bad = ~_finite(leaf)
    for given in (tree.get(name) for tree in named):
      if _is_known(given):
        bad &= _finite(given)
    if bad.any():
      plural = '' if (count := int(bad.sum())) == 1 else 's'
      raise ValueError(
        f"{label}: leaf '{name}' has {count} NaN or infinite value{plural}: "
        f'{remedy}'
      )


def is_finite(x: Any) -> bool:
  """Returns True if all values of a concrete array are finite."""
  if not _program.is_float(x) or not x.size:
    return True
  if not isinstance(x, jax.Array) or _on_one_cpu(x):
    return all_finite(np.asarray(x))
  # Constants of a trace are concrete; compute on them outside of it.
  with jax.core.eval_context():
    return not int(_on_demand.apply_kernel(_count_bad, x))


def _each_finite(leaves: list[Any]) -> Iterator[bool]:
  """Yields ``is_finite`` of each leaf; accelerators count all at once."""
  held = [x.size > 0 and devices.on_accelerator(x) is not None for x in leaves]
  nodes = [
    _nodes.Computed(_count_bad, (x,), {})
    for x, flag in zip(leaves, held)
    if flag
  ]
  with jax.core.eval_context():
    counts = iter(together.read_to_host(nodes))
  for x, flag in zip(leaves, held):
    yield not int(next(counts)) if flag else is_finite(x)


def count_bad(x: Any) -> int:
  """Returns the number of NaN and infinite values of a concrete array."""
  return 0 if is_finite(x) else int(np.sum(~_finite(x)))


def _count_bad(x: types.Array) -> types.Array:
  bad = (~jnp.isfinite(x)).astype(np.int32)
  return _sums.sum_entries(bad.reshape(1, -1))[0]


def _is_known(x: Any) -> bool:
  """Returns True for an array of floats that is neither traced nor unread."""
  known = isinstance(x, (np.ndarray, np.generic, jax.Array))
  traced = isinstance(x, jax.core.Tracer)
  return known and not traced and _program.is_float(x)


def _on_one_cpu(x: Any) -> bool:
  """Returns True if numpy sees the array without a copy."""
  devices = x.devices()
  return len(devices) == 1 and next(iter(devices)).platform == 'cpu'


def _finite(x: Any) -> np.ndarray:
  """Marks finite values; narrow floats of ml_dtypes warn about NaN."""
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    x = x.addressable_shards[0].data
  with np.errstate(invalid='ignore'):
    return np.asarray(np.isfinite(np.asarray(x)))


def _chunk_finite(values: np.ndarray) -> bool:
  """Checks one chunk ``[n]`` of real floats."""
  infinity = _infinity(values.dtype)
  if infinity is None:
    return bool(_finite(values).all())
  width = 8 * values.itemsize
  return bool(
    values.view(f'i{values.itemsize}').max() < infinity
    and values.view(f'u{values.itemsize}').max() < infinity + (1 << width - 1)
  )


@functools.cache
def _infinity(dtype: np.dtype) -> int | None:
  """Returns the least bits of a value that is not finite, without the sign.

  None for a format of 8 bits in which such values are not the largest codes of
  both signs (those without a negative zero).
  """
  if dtype.itemsize > 1:
    return int(np.full(1, np.inf, dtype).view(f'u{dtype.itemsize}')[0])
  bad = ~_finite(np.arange(256, dtype=np.uint8).view(dtype))
  first = int(np.argmax(bad[:128]))
  codes = np.arange(128) >= first
  usual = bad[first] and np.array_equal(bad, np.tile(codes, 2))
  return first if usual else None
