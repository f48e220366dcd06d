"""Gates of residual blocks, trained to rank them."""

from collections.abc import Callable, Iterable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import optimizers, stitch, tree, types

LossFn = Callable[[types.Array, Any], types.Array]


def gated_apply(
  model: stitch.Segmented, gates: types.Array, inputs: Any
) -> types.Array:
  r"""Runs a network whose blocks are weighted by gates.

  .. math:: h_{l+1} = h_l + g_l \, (\mathrm{block}_l(h_l) - h_l)

  Args:
    model: a network of D residual blocks that keep the shape of h.
    gates: ``[D]``; 1 runs a block, 0 leaves it out.
    inputs: inputs of its embedding, ``[B, ...]``.

  Returns:
    Outputs of its head, ``[B, ...]``.

  Raises:
    ValueError: if there is not one gate for each block.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> same = lambda p, h: h
    >>> shift = lambda p, h: h + p
    >>> params = {'embed': {}, 'blocks': jnp.asarray([1.0, 2.0]), 'head': {}}
    >>> model = stitch.Segmented(params, same, shift, same)
    >>> gated_apply(model, jnp.asarray([0.0, 0.5]), jnp.zeros(())).item()
    1.0
  """
  gates = jnp.asarray(gates)
  if gates.shape != (model.depth,):
    raise ValueError(
      f'gated_apply: gates {list(gates.shape)}: expected one for each of '
      f'{model.depth} blocks'
    )

  def step(block: Any, h: types.Array, params: Any, gate: Any) -> types.Array:
    out = block(params, h)
    h = jnp.asarray(h).astype(out.dtype)
    return h + gate.astype(out.dtype) * (out - h)

  h = model.embed(model.params['embed'], inputs)
  blocks, block = model.params['blocks'], model.block
  if isinstance(block, tuple):
    for fn, params, gate in zip(block, blocks, gates, strict=True):
      h = step(fn, h, params, gate)
  else:
    first = jax.tree.map(lambda x: x[0], blocks)
    after = jax.eval_shape(block, first, h)
    h, _ = jax.lax.scan(
      lambda h, x: (step(block, h, *x), None),
      jnp.asarray(h).astype(after.dtype),
      (blocks, gates),
    )
  return model.head(model.params['head'], h)


def block_gates(
  model: stitch.Segmented,
  loss_fn: LossFn,
  batches: Iterable[Any],
  *,
  optimizer: Any,
  keep: float,
  budget: float = 10.0,
  polarise: float = 0.1,
) -> np.ndarray:
  r"""Trains a gate for each block, to rank blocks by what they contribute.

  .. math:: \min_g \; \ell(f_g) + \mu (\bar g - k)_+^2
    + \frac{\nu}{D} \sum_l g_l (1 - g_l), \qquad 0 \le g_l \le 1

  from :math:`g = 1`, with frozen weights. The second term is the budget of
  computation, the third drives gates to 0 or 1. Gates that are trained together
  account for blocks that replace each other, unlike scores of single blocks.

  Args:
    model: a network of D residual blocks that keep the shape of h.
    loss_fn: maps outputs and the batch to a loss ``[]``; one that is hashable
      compiles once.
    batches: any iterable of batches ``(inputs, ...)``, one step each.
    optimizer: any optax transformation. Adam begins with steps of one size for
      all gates: take enough of them to separate gates.
    keep: the share k of blocks that the budget allows, 0 .. 1.
    budget: the weight :math:`\mu`.
    polarise: the weight :math:`\nu`.

  Returns:
    Gates ``[D]``, in float64.

  Raises:
    ValueError: if an argument is out of range, or there are no batches.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> from wsl import stitch
    >>> same = lambda p, h: h
    >>> shift = lambda p, h: h + p
    >>> params = {'embed': {}, 'blocks': jnp.asarray([1.0, 0.0]), 'head': {}}
    >>> model = stitch.Segmented(params, same, shift, same)
    >>> loss = lambda y, batch: jnp.mean((y - batch[1]) ** 2)
    >>> x = jnp.zeros(4)
    >>> gates = block_gates(model, loss, [(x, x + 1)] * 30,
    ...                     optimizer=optax.adam(0.1), keep=0.5)
    >>> int(gates.argmin())
    1

  Reference:
    Liu et al., "FoldGPT: Simple and Effective Large Language Model Compression
    Scheme", 2024, arXiv:2407.00928. A reconstruction from the abstract: the
    optimizer and the penalty of the authors are not published as formulas.
  """
  tree.check_scalars('block_gates', keep=keep, budget=budget, polarise=polarise)
  if not 0 <= keep <= 1 or not min(budget, polarise) >= 0:
    raise ValueError(
      f'block_gates: keep={keep}, budget={budget}, polarise={polarise}: '
      'expected 0 <= keep <= 1 and weights >= 0'
    )
  gates = jnp.ones(model.depth, jnp.float32)
  state = optimizers.init(optimizer, gates, caller='block_gates')
  penalties = tuple(
    jnp.asarray(x, jnp.float32) for x in (keep, budget, polarise)
  )
  for batch in batches_lib.stream(batches, name='block_gates'):
    gates, state = _step(
      model,
      gates,
      state,
      batch,
      penalties,
      loss_fn=loss_fn,
      optimizer=optimizer,
    )
  return np.asarray(gates, np.float64)


@functools.partial(jax.jit, static_argnames=('loss_fn', 'optimizer'))
def _step(
  model: stitch.Segmented,
  gates: types.Array,
  state: Any,
  batch: Any,
  penalties: tuple[types.Array, ...],
  *,
  loss_fn: LossFn,
  optimizer: Any,
) -> tuple[types.Array, Any]:
  """Returns the gates, clipped to 0 .. 1, and the state after one step."""
  keep, budget, polarise = penalties
  inputs = batches_lib.inputs_of(batch)

  def objective(gates: types.Array) -> types.Array:
    loss = loss_fn(gated_apply(model, gates, inputs), batch)
    # g (1 - g) is largest at 1/2 and zero at 0 and 1: its descent moves gates
    # to the nearer end.
    over = jax.nn.relu(jnp.mean(gates) - keep)
    mixed = jnp.mean(gates * (1 - gates))
    return loss.astype(gates.dtype) + budget * over**2 + polarise * mixed

  value, slope = jax.value_and_grad(objective)(gates)
  gates, state = optimizers.step(
    optimizer,
    slope,
    state,
    gates,
    value=value,
    value_fn=objective,
    caller='block_gates',
  )
  return jnp.clip(gates, 0, 1), state
