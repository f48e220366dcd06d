"""LoRAs whose ranks are weighted for each input: SMoRA and MoRA."""

import functools

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.adapters import _checks, _project


def smora_gates(
  x: types.ArrayLike,
  router: types.Array,
  *,
  active: int,
  bias: types.Array | None = None,
  partition: int = 1,
) -> types.Array:
  r"""Returns the gates of SMoRA: a router activates k of r ranks.

  .. math:: z = \sigma(W x) + \beta, \qquad
    g_j = k \, z_j / \sum_{i \in S} z_i \;\; (j \in S), \quad 0 \text{ else}

  with the k largest entries S of z. The mean gate of active ranks is 1. The
  scale of the factors is alpha / k.

  Args:
    x: inputs, ``[..., in]``.
    router: W, ``[r / q, in]``.
    active: k, a multiple of q, 1 <= k <= r.
    bias: beta, ``[r]``, see ``balance``; it has no gradient. 0 by default.
    partition: q, the number of consecutive ranks that share a gate: a mixture
      of LoRAs of rank q.

  Returns:
    ``[..., r]``, in float32 or wider; differentiable in x and in W.

  Raises:
    ValueError: if ``active`` is out of range or not a multiple of
      ``partition``, or shapes do not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> router = jnp.asarray([[1.0], [3.0], [-1.0]])
    >>> smora_gates(jnp.asarray([1.0]), router, active=2).round(1).tolist()
    [0.9, 1.1, 0.0]

  Reference:
    Zhao et al., "Each Rank Could be an Expert: Single-Ranked Mixture of Experts
    LoRA for Multi-Task Learning", 2025, arXiv:2501.15103.

  As in the official code, the biased score is also the weight. That code
  updates the bias within the forward pass; here ``balance`` does.
  """
  _checks.whole('smora_gates', active=active, partition=partition)
  x, router = tree.widen(x, router)
  ranks = len(router) * partition
  if not 1 <= active <= ranks or active % partition:
    raise ValueError(
      f'smora_gates(active={active}): expected 1 .. {ranks} ranks, a multiple '
      f'of partition={partition}'
    )
  if x.shape[-1] != router.shape[-1]:
    raise ValueError(
      f'smora_gates: the router has {router.shape[-1]} inputs, x has '
      f'{x.shape[-1]}: give the inputs of the adapted map'
    )
  score = jax.nn.sigmoid(tree.matmul(x, router.T))
  score = jnp.repeat(score, partition, axis=-1)
  if bias is not None:
    bias = jnp.asarray(bias)
    if bias.shape != (ranks,):
      raise ValueError(
        f'smora_gates: bias has shape {bias.shape}, expected ({ranks},)'
      )
    fixed = jax.lax.stop_gradient(bias.astype(score.dtype))
    score = score + jnp.broadcast_to(fixed, score.shape)
  chosen = jnp.where(_largest(score, active), score, 0)
  total = jnp.sum(chosen, -1, keepdims=True)
  return active * tree.safe_divide(chosen, total)


def balance(
  bias: types.Array, gates: types.Array, *, rate: float = 1e-5
) -> types.Array:
  r"""Moves the bias of a router towards equal loads of all ranks.

  .. math:: \beta_j \leftarrow \beta_j + u \operatorname{sign}
    \big(\tfrac{1}{r} \textstyle\sum_i c_i - c_j\big)

  with the number :math:`c_j` of inputs for which rank j is active.

  Args:
    bias: beta, ``[r]``.
    gates: of a batch of inputs, ``[..., r]``.
    rate: u > 0.

  Returns:
    The bias after one step, ``[r]``.

  Raises:
    ValueError: if the bias and the gates are of different ranks, or the rate is
      not above 0.

  Example:
    >>> import jax.numpy as jnp
    >>> gates = jnp.asarray([[1.0, 0.0], [2.0, 0.0]])
    >>> balance(jnp.zeros(2), gates, rate=0.5).tolist()
    [-0.5, 0.5]

  Reference:
    as ``smora_gates``; Wang et al., "Auxiliary-Loss-Free Load Balancing
    Strategy for Mixture-of-Experts", 2024, arXiv:2408.15664.
  """
  tree.check_scalars('balance', rate=rate)
  if bias.shape != gates.shape[-1:] or not rate > 0:
    raise ValueError(
      f'balance: bias {bias.shape}, gates {gates.shape}, rate={rate}: expected '
      'one number for each rank, and a rate above 0'
    )
  active = (gates != 0).reshape(-1, gates.shape[-1])
  counts = jnp.sum(active, 0).astype(bias.dtype)
  return bias + rate * jnp.sign(jnp.mean(counts, keepdims=True) - counts)


def mora_gates(
  x: types.ArrayLike,
  factors: deltas_lib.Factors,
  *,
  active: int,
  temperature: types.Scalar = 1.0,
  threshold: types.Scalar = 0.0,
) -> types.Array:
  r"""Returns the gates of MoRA: each rank scores itself by its own input.

  .. math:: s_j = |a_j^\top x| / |a_j|, \qquad
    g_j = |S| \frac{\exp(s_j / T)}{\sum_{i \in S} \exp(s_i / T)}
    \;\; (j \in S), \quad 0 \text{ else}

  S are the k ranks of the largest scores, without those whose softmax over all
  ranks is less than the threshold. Ranks of new tasks are appended
  (``merge.cat``), and those of earlier tasks stay as they are. For all ranks
  and T = inf the result is the plain LoRA, the sum of all tasks.

  Args:
    x: inputs, ``[..., in]``.
    factors: of one matrix: the ranks of all tasks. Ranks of a zero a, which
      fill stacks of different ranks, are never active.
    active: k, 1 <= k <= r.
    temperature: T > 0.
    threshold: the smallest share of an active rank, 0 .. 1.

  Returns:
    ``[..., r]``, in float32 or wider.

  Raises:
    ValueError: if a number is out of range, or the factors are of several
      matrices, or of other inputs.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> pool = adapters.Factors(
    ...   jnp.eye(3), jnp.ones((1, 3)), 1.0, (3, 1), view)
    >>> x = jnp.asarray([1.0, -2.0, 0.5])
    >>> mora_gates(x, pool, active=2).round(1).tolist()
    [0.5, 1.5, 0.0]

  Reference:
    Lu et al., "Little By Little: Continual Learning via Self-Activated Sparse
    Mixture-of-Rank Adaptive Learning", 2025, arXiv:2506.21035.

  No official code was found: a reconstruction. That scores are divided by the
  norms, and that the mean gate of active ranks is 1, are choices made here.
  """
  x = jnp.asarray(x)
  _project.check_inputs('mora_gates', x, factors)
  _checks.whole('mora_gates', active=active)
  if active > factors.rank:
    raise ValueError(
      f'mora_gates(active={active}): expected 1 .. {factors.rank} ranks'
    )
  tree.check_scalars('mora_gates', temperature=temperature, threshold=threshold)
  for name, value, right in (
    ('temperature', temperature, lambda t: t > 0),
    ('threshold', threshold, lambda t: 0 <= t <= 1),
  ):
    if not tree.is_traced(value) and not right(float(value)):
      raise ValueError(
        f'mora_gates({name}={value}): expected temperature > 0, 0 <= threshold '
        '<= 1'
      )
  x, a = tree.widen(x, factors.a)
  return _mora(x, a, temperature, threshold, active)


@functools.partial(jax.jit, static_argnums=4)
def _mora(
  x: types.Array,
  a: types.Array,
  temperature: types.Scalar,
  threshold: types.Scalar,
  active: int,
) -> types.Array:
  """Returns the gates ``[..., r]`` of inputs in one dtype with A."""
  scores = jnp.abs(tree.matmul(x, tree.unit(a).T))
  scores = scores / jnp.asarray(temperature).astype(scores.dtype)
  real = jnp.broadcast_to(jnp.any(a != 0, -1), scores.shape)
  scores = jnp.where(real, scores, -jnp.inf)
  # The largest score is always active: the threshold leaves no input without.
  share = jax.nn.softmax(scores, -1)
  least = jnp.minimum(
    jnp.asarray(threshold).astype(share.dtype),
    jnp.max(share, -1, keepdims=True),
  )
  # exp(s_j) / sum_S exp(s_i) is a ratio of shares of all ranks, so that one
  # softmax serves the threshold and the gates.
  kept = _largest(scores, active) & real & (share >= least)
  number = jnp.sum(kept, -1, keepdims=True).astype(share.dtype)
  chosen = jnp.where(kept, share, 0)
  total = jnp.sum(chosen, -1, keepdims=True)
  return number * tree.safe_divide(chosen, total)


def _largest(scores: types.Array, count: int) -> types.Array:
  """Marks the ``count`` largest entries of the last axis; the first of ties."""
  _, places = jax.lax.top_k(scores, count)
  size = scores.shape[-1]
  return jnp.any(jax.nn.one_hot(places, size, dtype=bool), -2)
