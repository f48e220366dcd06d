"""All stitches of two networks at once: outputs, errors, a loss."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.stitch import _adapter, _segmented

Pair: TypeAlias = tuple[int, int]
Adapters: TypeAlias = Mapping[Pair, _adapter.Adapter]


def cut_outputs(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  adapters: Adapters,
  inputs: Any,
) -> dict[Pair, types.Array]:
  r"""Runs every stitch of two networks, each block once for all of them.

  .. math:: y_{pq} = A_{>q} \circ s_{pq} \circ B_{\le p} (x)

  The bottom runs once. Its values enter the top where their adapter leads, and
  go on as one batch with those that entered before.

  Args:
    bottom: the network B whose first blocks are taken.
    top: the network A whose last blocks are taken.
    adapters: by (p, q): from position p of the bottom to position q of the
      top, that is, before its block q.
    inputs: ``[B, ...]``.

  Returns:
    Outputs ``[B, ...]`` by pair, in the order of ``adapters``. The batch that
    reaches the head is as many times larger as there are pairs.

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
  order = sorted(adapters, key=lambda pair: pair[1])
  h = None
  for q in range(order[0][1], top.depth + 1):
    entering = [
      _adapter.apply_adapter(adapters[pair], values[pair[0]])
      for pair in order
      if pair[1] == q
    ]
    both = entering if h is None else [h, *entering]
    h = jnp.concatenate(both) if len(both) > 1 else both[0]
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
  """Measures the test error of every stitch of two networks.

  Args:
    bottom: the network whose first blocks are taken.
    top: the network whose last blocks are taken.
    adapters: by pair, as for ``cut_outputs``.
    tests: batches (inputs ``[B, ...]``, labels ``[B]``); batches of one size
      compile once.

  Returns:
    The fraction of wrong answers, by pair.

  Raises:
    ValueError: as ``cut_outputs``, or if there are no batches.
  """
  wrong = {pair: 0 for pair in adapters}
  count = 0
  for batch in batches_lib.stream(tests, name='cut_errors'):
    inputs, labels = batch
    found = _wrong(bottom, top, dict(adapters), inputs, labels)
    wrong = {pair: wrong[pair] + int(n) for pair, n in found.items()}
    count += len(labels)
  return {pair: n / count for pair, n in wrong.items()}


@jax.jit
def _wrong(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  adapters: Adapters,
  inputs: Any,
  labels: types.Array,
) -> dict[Pair, types.Array]:
  outputs = cut_outputs(bottom, top, adapters, inputs)
  return jax.tree.map(lambda y: count_wrong(y, labels), outputs)


def count_wrong(outputs: types.Array, labels: types.Array) -> types.Array:
  """Returns how many largest outputs are not the label's."""
  guesses = jnp.argmax(outputs, -1).astype(jnp.int32)
  return jnp.sum(guesses != jnp.asarray(labels, jnp.int32))


def penalty_loss(
  networks: tuple[_segmented.Segmented, _segmented.Segmented],
  adapters: Adapters,
  batch: tuple[Any, types.Array],
  key: types.PRNGKey,
) -> types.Array:
  """Returns the cross-entropy of all stitches together, to train adapters.

  The sum over stitches: each adapter has the gradient that it would have
  alone. The networks are not trained, and their normalisations keep their
  moments. ``jax.tree_util.Partial(penalty_loss, (bottom, top))`` is a loss for
  ``wsl.train.advance``.

  Args:
    networks: bottom and top.
    adapters: what is trained, by pair.
    batch: inputs ``[B, ...]`` and labels ``[B]``.
    key: not used.

  Returns:
    A number: the sum over pairs of the mean over examples.

  Reference:
    Bansal et al., "Revisiting Model Stitching to Compare Neural
    Representations", 2021, arXiv:2106.07682.
  """
  del key
  inputs, labels = batch
  outputs = cut_outputs(*networks, adapters, inputs)
  chosen = jnp.asarray(labels, jnp.int32)[:, None]
  losses = [
    -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(tree.wide(y)), chosen, 1))
    for y in outputs.values()
  ]
  return jnp.sum(jnp.stack(losses))


def check_pairs(
  bottom: _segmented.Segmented,
  top: _segmented.Segmented,
  pairs: Iterable[Pair],
) -> None:
  """Checks that there are pairs of positions, and that they exist."""
  found = list(pairs)
  if not found:
    raise ValueError('no pairs of positions (bottom, top): give one or more')
  for p, q in found:
    if not (0 <= p <= bottom.depth and 0 <= q <= top.depth):
      raise ValueError(
        f'pair ({p}, {q}): the bottom has positions 0 .. {bottom.depth}, the '
        f'top 0 .. {top.depth}'
      )
