"""Defines a model of the zoo and draws parameters without special values."""

from collections.abc import Callable
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree

factorial = math.factorial
_NARROW = {'float64': 'float32'}


class Model(NamedTuple):
  """A function whose symmetry is known from theory.

  Attributes:
    apply: ``apply(params, *inputs) -> output``.
    params: float64, with no zero, unit or repeated entries.
    inputs: float64 or int32.
    order: the order of its permutation group, derived by hand.
    blind: leaves, or segments of their axes as ``'leaf:segment'``, whose
      values do not reach the output. Biases of keys shift all scores of a
      query by the same amount, which softmax ignores.
    narrow: whether it computes in float32, whatever the dtype of its inputs.
    certified: whether a part of the group is found only by certification.
  """

  apply: Callable[..., Any]
  params: Any
  inputs: tuple[Any, ...]
  order: int
  blind: tuple[str, ...] = ()
  narrow: bool = False
  certified: bool = False


def draw(shapes: Any, seed: int = 0) -> Any:
  """Draws float64 parameters; shapes are tuples or objects with a ``shape``."""
  rng = np.random.default_rng(seed)

  def one(name: str, leaf: Any) -> jax.Array:
    shape = getattr(leaf, 'shape', leaf)
    if re.search('(scale|var)(/value)?$', name):
      return jnp.asarray(rng.uniform(0.5, 1.5, shape))
    spread = shape[-2] ** -0.5 if len(shape) > 1 else 0.5
    return jnp.asarray(rng.normal(size=shape) * spread)

  is_shape = lambda x: isinstance(x, tuple) and all(type(n) is int for n in x)
  names = tree.named(shapes, is_leaf=is_shape)
  leaves = [one(name, leaf) for name, leaf in names.items()]
  structure = jax.tree.structure(shapes, is_leaf=is_shape)
  return jax.tree.unflatten(structure, leaves)


def normal(*shape: int, seed: int = 1) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def tokens(batch: int, length: int, vocabulary: int) -> jax.Array:
  rng = np.random.default_rng(2)
  return jnp.asarray(rng.integers(0, vocabulary, (batch, length)), jnp.int32)


def linen(module: Any, *inputs: Any) -> tuple[Callable[..., Any], Any]:
  """Returns the function of a Flax module and all its variables."""
  narrow = [jnp.asarray(x, _NARROW.get(str(x.dtype))) for x in inputs]
  start = lambda: module.init(jax.random.key(0), *narrow)
  with jax.numpy_dtype_promotion('standard'):
    shapes = jax.eval_shape(start)
  return lenient(module.apply), draw(shapes)


def lenient(apply: Callable[..., Any]) -> Callable[..., Any]:
  """Allows implicit dtype promotion, the default of JAX."""

  def call(params: Any, *inputs: Any) -> Any:
    with jax.numpy_dtype_promotion('standard'):
      return apply(params, *inputs)

  return call


def affine(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
  return x @ w + on_last(b, x)


def on_last(vector: jax.Array, x: jax.Array) -> jax.Array:
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
  centred = x - x.mean(-1, keepdims=True)
  deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
  return centred / deviation * on_last(scale, x) + on_last(bias, x)


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
  mean = jnp.mean(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(mean + 1e-6) * on_last(scale, x)
