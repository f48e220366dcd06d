"""The diagonal of the Fisher information, from gradients per example."""

from collections.abc import Callable, Iterable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import batches as batches_lib
from wsl import tree, types

_LABELS = ('expected', 'sampled', 'empirical')


def fisher(
  apply_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batches: Iterable[Any],
  *,
  chunk: int = 8,
  labels: str = 'expected',
  key: types.PRNGKey | None = None,
) -> types.Params:
  r"""Computes the exact diagonal of the Fisher information of a classifier.

  .. math::
    F_i = \frac{1}{N} \sum_{x} \sum_{c} p_\theta(c \mid x)
      \Bigl( \frac{\partial \log p_\theta(c \mid x)}{\partial \theta_i}
      \Bigr)^2

  The expectation is over the model's own labels, and the square is taken per
  example and class. Widely used code sums gradients over classes and over a
  batch, and then squares: because of the cross terms that is not the Fisher
  diagonal, unless the batch has one example and the sum one class.

  Costs one forward and C backward passes per example, and at most
  ``chunk * C`` gradients of memory.

  Args:
    apply_fn: a hashable function ``(params, inputs) -> logits [B, C]`` that
      treats the examples of a batch independently.
    params: any pytree; gradients are taken in its own dtypes, squared and
      summed in float32 or wider.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``;
      inputs are an array ``[B, ...]`` or a pytree of them. Batches of one
      size compile once; a shorter one counts by its size.
    chunk: how many examples are differentiated at a time, ``>= 1``.
    labels: ``'expected'`` sums over all C classes (the formula), ``'sampled'``
      draws one label per example from the model (unbiased, C times cheaper),
      ``'empirical'`` takes the labels of the data, integers ``[B]``, from
      batches ``(inputs, labels, ...)``: the so-called empirical Fisher, which
      is another quantity.
    key: a key, for ``labels='sampled'`` only; example i draws from
      ``fold_in(key, i)``, whatever the batch size and chunk.

  Returns:
    A tree like ``params``, leaves ``[...] >= 0`` in float32 or wider; ``None``
    at integer leaves.

  Raises:
    ValueError: naming the argument that is out of range or missing, or the
      shape that is not ``[B, C]``.

  Example:
    >>> import jax.numpy as jnp
    >>> logits = lambda p, x: x[:, None] * p['w'][None, :]
    >>> fisher(logits, {'w': jnp.zeros(2)}, [jnp.ones(3)])['w'].tolist()
    [0.25, 0.25]

  Reference: Matena and Raffel, "Merging Models with Fisher-Weighted
  Averaging", 2021, arXiv:2111.09832. Kunstner, Balles and Hennig,
  "Limitations of the Empirical Fisher Approximation for Natural Gradient
  Descent", 2019, arXiv:1905.12558, on ``'empirical'``.
  """
  _check(chunk, labels, key)
  params = tree.read(params)
  tree.check_not_narrowed('fisher', params)
  tree.check_real('fisher', params, 'only that of real parameters is defined')
  total, examples = None, 0
  for batch in batches_lib.stream(batches, name='fisher'):
    inputs = batches_lib.inputs_of(batch)
    size = jax.tree.leaves(inputs)[0].shape[0]
    part = _batch_sum(
      apply_fn,
      params,
      inputs,
      _given_labels(batch, size) if labels == 'empirical' else None,
      None if key is None else _fold(key, examples, size),
      chunk=min(chunk, size),
    )
    total = part if total is None else jax.tree.map(jnp.add, total, part)
    examples += size
  return jax.tree.map(lambda s: s / jnp.asarray(examples, s.dtype), total)


def _check(chunk: int, labels: str, key: types.PRNGKey | None) -> None:
  """Checks the arguments that do not depend on the data."""
  if labels not in _LABELS:
    hint = tree.nearest(str(labels), _LABELS)
    raise ValueError(
      f"fisher: labels='{labels}' is none of {', '.join(_LABELS)}{hint}"
    )
  tree.check_whole('fisher', chunk=chunk)
  if chunk < 1:
    raise ValueError(f'fisher: chunk={chunk} examples, expected at least 1')
  if (labels == 'sampled') != (key is not None):
    raise ValueError(
      f"fisher: key belongs to labels='sampled', and only there; got "
      f"labels='{labels}' and {'no key' if key is None else 'a key'}"
    )


def _given_labels(batch: Any, size: int) -> types.Array:
  """Returns the labels of a batch, after checking their shape and dtype."""
  if not isinstance(batch, tuple) or len(batch) < 2:
    raise ValueError(
      "fisher: labels='empirical' needs batches (inputs, labels), got inputs "
      'alone'
    )
  labels = jnp.asarray(batch[1])
  if labels.shape != (size,) or not jnp.issubdtype(labels.dtype, jnp.integer):
    raise ValueError(
      f"fisher: labels='empirical' needs integer labels of shape ({size},), "
      f'got {labels.dtype} of shape {labels.shape}'
    )
  return labels


@functools.partial(jax.jit, static_argnums=2)
def _fold(key: types.PRNGKey, first: int, size: int) -> types.Array:
  """Returns a key for each example, folded in by its index in the data."""
  index = jnp.asarray(first, jnp.uint32) + jnp.arange(size, dtype=jnp.uint32)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(index)


@functools.partial(jax.jit, static_argnums=0, static_argnames='chunk')
def _batch_sum(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Any,
  labels: types.Array | None,
  keys: types.Array | None,
  *,
  chunk: int,
) -> types.Params:
  """Sums the examples' Fisher diagonals, a chunk at a time."""
  examples = (inputs, labels, keys)
  size = jax.tree.leaves(inputs)[0].shape[0]
  steps = -(-size // chunk)
  # The last chunk is padded with copies of the last example, of weight 0.
  index = jnp.arange(steps * chunk)
  fill = jnp.minimum(index, size - 1).reshape(steps, chunk)
  weight = (index < size).reshape(steps, chunk)
  of_example = functools.partial(_example, apply_fn, params)

  def add(total: types.Params, rows: Any) -> tuple[types.Params, None]:
    rows, weight = rows
    parts = jax.vmap(of_example)(jax.tree.map(lambda x: x[rows], examples))
    return jax.tree.map(
      lambda s, f: s + _weighted_sum(weight, f), total, parts
    ), None

  zero = jax.tree.map(_zeros, params)
  return jax.lax.scan(add, zero, (fill, weight))[0]


def _example(
  apply_fn: Callable[..., Any], params: types.Params, example: Any
) -> types.Params:
  """Returns sum_c p_c (d log p_c / d theta)^2 for one example."""
  # Chain rule: d log p_c / d theta = J^T (d log p_c / d z) with logits z and
  # J = dz / d theta. One forward pass yields J^T, which is applied to the K
  # directions of the sum; the square comes after, so no cross terms appear.
  inputs, label, key = example
  leaves, treedef = jax.tree.flatten(params)
  real = [i for i, x in enumerate(leaves) if _is_real(x)]

  def logits_of(values: list[types.Array]) -> types.Array:
    filled = list(leaves)
    for i, value in zip(real, values):
      filled[i] = value
    logits = apply_fn(
      jax.tree.unflatten(treedef, filled),
      jax.tree.map(lambda x: x[None], inputs),
    )
    if getattr(logits, 'ndim', None) != 2 or logits.shape[0] != 1:
      raise ValueError(
        'fisher: apply_fn must return logits [B, C], for one example it gave '
        f'{jax.tree.map(jnp.shape, logits)}'
      )
    return logits[0]

  logits, pull_back = jax.vjp(logits_of, [leaves[i] for i in real])
  weights, directions = _log_p_gradients(tree.wide(logits), label, key)
  (gradients,) = jax.vmap(pull_back)(directions.astype(logits.dtype))
  diagonal: list[types.Array | None] = [None] * len(leaves)
  for i, g in zip(real, gradients):
    diagonal[i] = _weighted_sum(weights, jnp.square(tree.wide(g)))
  return jax.tree.unflatten(treedef, diagonal)


def _log_p_gradients(
  logits: types.Array, label: types.Array | None, key: types.PRNGKey | None
) -> tuple[types.Array, types.Array]:
  """Returns weights [K] and gradients of log p_c in the logits, [K, C].

  The sum has K = C labels with weights p_c, or one given or sampled label. As
  log p_c = z_c - log sum_k exp z_k, its gradient is e_c - p.
  """
  p = jax.nn.softmax(logits)
  one_hot = jnp.eye(p.size, dtype=p.dtype)
  if key is not None:
    label = jax.random.categorical(key, logits)
  if label is not None:
    return jnp.ones(1, p.dtype), one_hot[label][None] - p[None]
  return p, one_hot - p[None]


def _weighted_sum(weights: types.Array, x: types.Array) -> types.Array:
  """Contracts the first axis with weights, ``[K], [K, ...] -> [...]``."""
  return jnp.tensordot(weights.astype(x.dtype), x, 1, precision='highest')


def _is_real(x: Any) -> bool:
  return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _zeros(x: types.Array) -> types.Array | None:
  return jnp.zeros_like(tree.wide(x)) if _is_real(x) else None
