"""Fingerprint of a base: names, shapes, tied leaves and checksums."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types

Spec: TypeAlias = tuple[str, tuple[int, ...], str]
_ODD = np.uint32(2654435761)


def is_float(x: Any) -> bool:
  """Returns True if a leaf is floating-point, so that it may be scaled."""
  return jnp.issubdtype(x.dtype, jnp.inexact)


def specs(base: types.Params) -> tuple[Spec, ...]:
  """Returns name, shape and dtype of every leaf."""
  return tuple(
    (name, tuple(x.shape), np.dtype(x.dtype).name)
    for name, x in tree.named(base).items()
  )


def tied_leaves(base: types.Params) -> tuple[tuple[str, str], ...]:
  """Returns (name, first name) of leaves that are one array."""
  first: dict[int, str] = {}
  return tuple(
    (name, first[id(x)])
    for name, x in tree.named(base).items()
    if first.setdefault(id(x), name) != name
  )


def checksums(base: types.Params) -> np.ndarray:
  """Returns a checksum of the values of each leaf, ``[leaves]``.

  It depends on every bit and its position, not on the sharding. 0 denotes a
  leaf with unknown values: traced, or on demand.
  """
  with jax.core.eval_context():  # a constant in a trace is known
    sums = [
      _checksum(x) if _is_known(x) else np.uint32(0)
      for x in tree.named(base).values()
    ]
    return np.asarray(jax.device_get(sums), np.uint32)


def check(caller: str, base: types.Params, bank: Any) -> None:
  """Checks that a bank was made from this base.

  Args:
    caller: the public function, for the error message.
    base: the parameters given.
    bank: the ``Bank``.

  Raises:
    ValueError: naming the first leaf in which they differ.
  """
  remedy = 'give the base that the bank was made from'
  expected = {name: rest for name, *rest in bank.specs}
  found = {name: rest for name, *rest in specs(base)}
  for name in [*expected, *found]:
    if name not in found or name not in expected:
      where = 'the bank' if name in expected else 'the base given'
      raise ValueError(
        f'{caller}: a bank whose base differs from the one given: only {where} '
        f"has leaf '{name}': {remedy}"
      )
    if found[name] != expected[name]:
      raise ValueError(
        f'{caller}: a bank whose base differs from the one given: leaf '
        f"'{name}' is {expected[name][1]}{list(expected[name][0])} in the "
        f"bank's, {found[name][1]}{list(found[name][0])} in the one given: "
        f'{remedy}'
      )
  if isinstance(bank.checksums, jax.core.Tracer):
    return
  ours, theirs = np.asarray(bank.checksums), checksums(base)
  if ours.shape != theirs.shape:
    return  # a batch of banks
  for name, a, b in zip(expected, ours, theirs):
    if a and b and a != b:
      raise ValueError(
        f'{caller}: a bank whose base differs from the one given: leaf '
        f"'{name}' has other values: {remedy}"
      )


def _is_known(x: Any) -> bool:
  """Returns True if this process can read the values of a leaf now."""
  if isinstance(x, jax.core.Tracer):
    return False
  if isinstance(x, jax.Array):
    return x.is_fully_addressable
  return isinstance(x, np.ndarray)


@jax.jit
def _checksum(x: types.Array) -> types.Array:
  """Computes sum_i w_i (2 c i + 1) mod 2^32 over words w_i; never 0."""
  # An odd weight is invertible modulo 2^32, so a change of a single word always
  # changes the sum. Integer addition is associative: shards agree exactly.
  if x.dtype == jnp.bool_ or jnp.issubdtype(x.dtype, jnp.complexfloating):
    x = x.view(np.float32) if x.dtype != jnp.bool_ else x.astype(np.uint8)
  size = min(x.dtype.itemsize, 4)
  words = jax.lax.bitcast_convert_type(x, np.dtype(f'uint{8 * size}'))
  words = words.astype(np.uint32).reshape(-1)
  places = jax.lax.iota(np.uint32, words.size)
  weights = places * _ODD * np.uint32(2) + np.uint32(1)
  total = jnp.sum(words * weights, dtype=np.uint32)
  return jnp.maximum(total, np.uint32(1))
