"""All stitches of two networks together: outputs, errors, a loss.

Separately, the stitch (p, q) of two networks of depth D runs p + D - q blocks.
Together, the bottom's blocks run once for all pairs, and block q of the top
runs once, on the concatenated batch of all stitches that enter at or before q.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import batches as batches_lib
from wsl import types
from wsl.stitch import _adapter, _segmented

Pair: TypeAlias = tuple[int, int]
Adapters: TypeAlias = Mapping[Pair, _adapter.Adapter]


def cut_outputs(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  adapters: Adapters,
  inputs: Any,
) -> dict[Pair, types.Array]:
  r"""Runs all stitches of two networks, each block once.

  .. math:: y_{pq} = A_{>q} \circ s_{pq} \circ B_{\le p} (x)

  The adapted values of stitch (p, q) are appended to the batch before block q
  of the top, so that its remaining blocks run on one growing batch.

  Args:
    bottom: the network B that gives the first blocks.
    top: the network A that gives the last blocks.
    adapters: by (p, q), from position p of the bottom to position q of the top,
      the input of its block q.
    inputs: a batch ``[B, ...]``.

  Returns:
    Outputs ``[B, ...]`` by pair, in the order of ``adapters``. The batch at the
    head has B examples for each pair.

  Raises:
    ValueError: if there are no adapters, or a position does not exist.

  Example:
    >>> from wsl import stitch
    >>> def same(params, h):
    ...   return h
    >>> def scale(params, h):
    ...   return h * params
    >>> params = {'embed': {}, 'blocks': jnp.asarray([2.0, 3.0]), 'head': {}}
    >>> model = stitch.Segmented(params, same, scale, same)
    >>> keep = stitch.Adapter()
    >>> found = cut_outputs(model, model, {(1, 1): keep, (2, 0): keep},
    ...                     jnp.ones((1, 1)))
    >>> {pair: y.item() for pair, y in found.items()}
    {(1, 1): 6.0, (2, 0): 36.0}
  """
  check_pairs(bottom, top, adapters)
  values = _segmented.features(bottom, inputs)
  count = values[0].shape[0]
  # Stitches are appended in the order of q, so the batch at the head is their
  # concatenation in this order. The top starts at the smallest q.
  order = sorted(adapters, key=lambda pair: pair[1])
  h = None
  for q in range(order[0][1], top.depth + 1):
    entering = [
      _adapter.apply_adapter(adapters[pair], values[pair[0]])
      for pair in order
      if pair[1] == q
    ]
    batches = entering if h is None else [h, *entering]
    h = jnp.concatenate(batches) if len(batches) > 1 else batches[0]
    if q < top.depth:
      block = _segmented.block_fn(top, q)
      h = block(_segmented.block_params(top, q), h)
  y = top.head(top.params['head'], h)
  parts = y.reshape(len(order), count, *y.shape[1:])
  found = dict(zip(order, parts))
  return {pair: found[pair] for pair in adapters}


def cut_errors(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  adapters: Adapters,
  tests: Iterable[tuple[Any, types.Array]],
) -> dict[Pair, float]:
  """Measures the test error of all stitches of two networks.

  Args:
    bottom: the network that gives the first blocks.
    top: the network that gives the last blocks.
    adapters: by pair, as for ``cut_outputs``.
    tests: batches (inputs ``[B, ...]``, labels ``[B]``); batches of equal shape
      share one compilation.

  Returns:
    The error rate, 0 .. 1, by pair.

  Raises:
    ValueError: as ``cut_outputs``, or if there are no batches.
  """
  wrong = {pair: 0 for pair in adapters}
  count = 0
  for batch in batches_lib.stream(tests, name='cut_errors'):
    inputs, labels = batch
    found = _count_wrong(bottom, top, dict(adapters), inputs, labels)
    wrong = {pair: wrong[pair] + int(n) for pair, n in found.items()}
    count += len(labels)
  return {pair: n / count for pair, n in wrong.items()}


@jax.jit
def _count_wrong(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  adapters: Adapters,
  inputs: Any,
  labels: types.Array,
) -> dict[Pair, types.Array]:
  """Returns the number of errors of each stitch on one batch."""
  outputs = cut_outputs(bottom, top, adapters, inputs)
  return jax.tree.map(lambda y: count_wrong(y, labels), outputs)


def count_wrong(outputs: types.Array, labels: types.Array) -> types.Array:
  """Returns the number of examples whose largest output is not the label's."""
  guesses = jnp.argmax(outputs, -1).astype(jnp.int32)
  return jnp.sum(guesses != jnp.asarray(labels, jnp.int32))


def penalty_loss(
  networks: tuple[_segmented.Segmented, _segmented.Segmented],
  adapters: Adapters,
  batch: tuple[Any, types.Array],
  key: types.PRNGKey,
) -> types.Array:
  """Returns the summed cross-entropy of all stitches, to train the adapters.

  The sum over stitches gives each adapter the gradient of its own stitch. The
  networks are fixed, with the moments of their normalisations.
  ``jax.tree_util.Partial(penalty_loss, (bottom, top))`` is a loss for
  ``wsl.train.advance``.

  Args:
    networks: bottom and top.
    adapters: the parameters, by pair.
    batch: inputs ``[B, ...]`` and labels ``[B]``.
    key: not used.

  Returns:
    A scalar: the sum over pairs of the mean over examples.

  Reference:
    Bansal et al., "Revisiting Model Stitching to Compare Neural
    Representations", 2021, arXiv:2106.07682.
  """
  del key
  inputs, labels = batch
  outputs = cut_outputs(*networks, adapters, inputs)
  losses = [
    jnp.mean(batches_lib.cross_entropy(y, labels, name='penalty_loss'))
    for y in outputs.values()
  ]
  return jnp.sum(jnp.stack(losses))


def check_pairs(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  pairs: Iterable[Pair],
) -> None:
  """Checks that pairs are given and that their positions exist."""
  found = list(pairs)
  if not found:
    raise ValueError('no pairs of positions (bottom, top): give one or more')
  for p, q in found:
    if not (0 <= p <= bottom.depth and 0 <= q <= top.depth):
      raise ValueError(
        f'pair ({p}, {q}): the bottom has positions 0 .. {bottom.depth}, the '
        f'top 0 .. {top.depth}'
      )
