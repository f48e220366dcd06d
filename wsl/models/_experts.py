"""A mixture of experts in place of a perceptron."""

from collections.abc import Mapping
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.models import _layers

_LOGITS = 'router_logits'


def top_k_gates(
  logits: types.Array, *, top_k: int, normalise: bool = True
) -> types.Array:
  r"""Returns the weights of the experts, zero of all but the k best.

  .. math:: g_e = \frac{\exp(s_e)}{\sum_{j \in K} \exp(s_j)} \;
    \text{for } e \in K, \quad 0 \text{ otherwise}

  where K are the k largest logits s. Without normalisation the sum is over all
  experts, so that the gates of a token sum to less than 1.

  Args:
    logits: s, ``[..., E]``.
    top_k: k, ``1 <= k <= E``.
    normalise: whether the gates of a token sum to 1. With one expert for each
      token such gates are constant, and a router has no gradient from them.

  Returns:
    Gates ``[..., E]``.

  Raises:
    ValueError: if ``top_k`` is out of range.

  Example:
    >>> s = jnp.log(jnp.asarray([[1.0, 3.0, 4.0]]))
    >>> top_k_gates(s, top_k=1).tolist()
    [[0.0, 0.0, 1.0]]
    >>> top_k_gates(s, top_k=1, normalise=False).round(3).tolist()
    [[0.0, 0.0, 0.5]]

  Reference:
    Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated
    Mixture-of-Experts Layer", 2017, arXiv:1701.06538; without normalisation and
    with k = 1: Fedus et al., "Switch Transformers: Scaling to Trillion
    Parameter Models with Simple and Efficient Sparsity", 2021,
    arXiv:2101.03961.
  """
  weights, chosen = _choose(logits, top_k, normalise)
  hot = jax.nn.one_hot(chosen, logits.shape[-1], dtype=weights.dtype)
  return jnp.sum(weights[..., None] * hot, -2)


def load_balance(logits: types.Array, *, top_k: int) -> types.Array:
  r"""Returns the auxiliary loss that spreads tokens evenly over the experts.

  .. math:: L = E \sum_e f_e P_e

  where :math:`f_e` is the fraction of the choices that are expert e, and
  :math:`P_e` the mean probability of the expert. L is 1 if all experts are
  equally used, and at most E.

  Args:
    logits: ``[..., E]``.
    top_k: number of experts that a token is routed to.

  Returns:
    The loss, a number. Its gradient is that of P.

  Raises:
    ValueError: if ``top_k`` is out of range.

  Example:
    >>> even = 9 * jnp.eye(4)
    >>> round(float(load_balance(even, top_k=1)), 3)
    1.0
    >>> uneven = jnp.zeros((4, 4)).at[:, 2].set(9.0)
    >>> round(float(load_balance(uneven, top_k=1)), 3)
    3.999

  Reference:
    Fedus et al., "Switch Transformers: Scaling to Trillion Parameter Models
    with Simple and Efficient Sparsity", 2021, arXiv:2101.03961, equation 4.
  """
  experts = logits.shape[-1]
  logits = tree.wide(logits.reshape(-1, experts))
  gates = top_k_gates(logits, top_k=top_k)
  share = jnp.mean((gates > 0).astype(logits.dtype), 0) / top_k
  share = jax.lax.stop_gradient(share)
  return experts * jnp.sum(share * jnp.mean(jax.nn.softmax(logits), 0))


class MoE(nn.Module):
  r"""Experts of one form, of which each token uses the k best.

  .. math:: y = \sum_{e} g_e(x W) f_e(x)

  with the gates g of ``top_k_gates``. Leaves: ``router/kernel`` ``[width, E]``,
  and those of one expert under ``experts``, each with a first axis E.

  Logits ``[tokens, E]`` are sown as ``router_logits``; ``router_logits``
  returns them.

  Attributes:
    expert: the module of one expert, such as ``SwiGLU``, made by
      ``expert(hidden)``.
    hidden: hidden size of an expert.
    experts: E.
    top_k: k, ``1 <= k <= E``.
    normalise: whether the gates of a token sum to 1.
    capacity: None computes every expert on all tokens, and weights with the
      gates. A number c is a bound of ``ceil(c k N / E)`` of the N tokens for
      each expert: what exceeds it, in the order of choices and then of tokens,
      contributes nothing, and an expert computes no more tokens than that.
      ``c >= E / k`` drops none. A dropped choice depends on all tokens of the
      batch, so that a causal model is not exactly causal.

  Example:
    >>> from wsl import models
    >>> layer = models.MoE(models.SwiGLU, hidden=8, experts=4)
    >>> x = jnp.ones((2, 3, 5))
    >>> y, variables = jax.eval_shape(
    ...   layer.init_with_output, jax.random.key(0), x)
    >>> params = variables['params']
    >>> params['router']['kernel'].shape
    (5, 4)
    >>> params['experts']['up']['kernel'].shape
    (4, 5, 8)
    >>> y.shape
    (2, 3, 5)

  Reference:
    Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated
    Mixture-of-Experts Layer", 2017, arXiv:1701.06538; capacity: Lepikhin et
    al., "GShard: Scaling Giant Models with Conditional Computation and
    Automatic Sharding", 2020, arXiv:2006.16668.
  """

  expert: type[nn.Module]
  hidden: int
  experts: int
  top_k: int = 2
  normalise: bool = True
  capacity: float | None = None

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[..., width]`` to the same shape."""
    (x,) = tree.widen(x)
    tokens = x.reshape(-1, x.shape[-1])
    router = _layers.Dense(self.experts, bias=False, name='router')
    logits = router(tokens)
    self.sow('intermediates', _LOGITS, logits)
    every = nn.vmap(
      self.expert,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=None if self.capacity is None else 0,
      axis_size=self.experts,
    )(self.hidden, name='experts')
    if self.capacity is None:
      gates = top_k_gates(logits, top_k=self.top_k, normalise=self.normalise)
      found, gates = tree.widen(every(tokens), gates)
      y = jnp.einsum('ne,end->nd', gates, found, precision='highest')
      return y.reshape(*x.shape[:-1], -1)
    weights, chosen = _choose(logits, self.top_k, self.normalise)
    room = self.capacity * self.top_k * len(tokens) / self.experts
    slots = min(math.ceil(room), len(tokens))
    slot, kept = _slots(chosen, self.experts, slots)
    found = every(_dispatch(tokens, slot, kept, self.experts, slots))
    found, weights = tree.widen(found, weights)
    y = (
      jnp.where(kept, weights, 0)[..., None]
      * found.reshape(-1, found.shape[-1])[jnp.where(kept, slot, 0)]
    )
    return jnp.sum(y, 1).reshape(*x.shape[:-1], -1)


def mlp(
  expert: type[nn.Module],
  hidden: int,
  *,
  experts: int,
  top_k: int,
  capacity: float | None,
) -> nn.Module:
  """Returns the mlp of a block: one perceptron, or a mixture of them."""
  if not experts:
    return expert(hidden, name='mlp')
  return MoE(expert, hidden, experts, top_k, capacity=capacity, name='mlp')


def router_logits(
  module: nn.Module, params: types.Params, x: types.ArrayLike
) -> tuple[types.Array, dict[str, types.Array]]:
  """Applies a model, and returns the logits of its routers too.

  Args:
    module: a Flax module with ``MoE`` layers.
    params: its parameters.
    x: inputs.

  Returns:
    The outputs; and logits ``[tokens, E]`` by the name of the layer.

  Raises:
    ValueError: if the module has no ``MoE`` layer.

  Example:
    >>> from wsl import models
    >>> model = models.ViT(outputs=3, width=8, depth=1, heads=2, experts=4)
    >>> x = jnp.ones((2, 14, 14, 1))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    >>> _, logits = jax.eval_shape(
    ...   lambda p: models.router_logits(model, p, x), params)
    >>> {name: s.shape for name, s in logits.items()}
    {'block_0/mlp': (8, 4)}
  """
  y, found = module.apply({'params': params}, x, mutable='intermediates')
  logits = _sown(found.get('intermediates', {}))
  if not logits:
    raise ValueError(
      f'router_logits: {type(module).__name__} has no MoE layer: give a model '
      'with experts'
    )
  return jnp.asarray(y), logits


def _sown(nodes: Mapping[str, object], at: str = '') -> dict[str, types.Array]:
  """Returns the sown logits by the name of the layer, in order."""
  found: dict[str, types.Array] = {}
  for name in tree.in_order(nodes):
    node = nodes[name]
    if name == _LOGITS and isinstance(node, tuple):
      found[at] = node[0]
    elif isinstance(node, Mapping):
      found |= _sown(node, f'{at}/{name}' if at else name)
  return found


def _choose(
  logits: types.Array, top_k: int, normalise: bool
) -> tuple[types.Array, types.Array]:
  """Returns weights and indices ``[..., k]`` of the k best experts."""
  experts = logits.shape[-1]
  whole = isinstance(top_k, (int, np.integer)) and not isinstance(top_k, bool)
  if not whole or not 1 <= top_k <= experts:
    raise ValueError(
      f'top_k={top_k!r}: expected an integer, 1 <= top_k <= {experts} experts'
    )
  best, chosen = jax.lax.top_k(logits, top_k)
  if normalise:
    return jax.nn.softmax(best), chosen
  total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return jnp.exp(best - total), chosen


def _slots(
  chosen: types.Array, experts: int, slots: int
) -> tuple[types.Array, types.Array]:
  """Returns the places of choices ``[N, k]`` in the slots, and which fit.

  Expert e has the slots ``e * slots .. (e + 1) * slots - 1``.
  """
  # The first choices of all tokens precede the second ones, as in GShard.
  order = chosen.T.reshape(-1)
  hot = jax.nn.one_hot(order, experts, dtype=jnp.int32)
  before = jnp.cumsum(hot, 0, dtype=hot.dtype) - hot
  before = jnp.sum(before * hot, 1, dtype=hot.dtype)
  turn = lambda a: a.reshape(chosen.shape[::-1]).T
  return turn(order * slots + before), turn(before < slots)


def _dispatch(
  tokens: types.Array,
  slot: types.Array,
  kept: types.Array,
  experts: int,
  slots: int,
) -> types.Array:
  """Returns the tokens of each expert, ``[E, slots, width]``; 0 if unused."""
  count = experts * slots
  # The token of each slot; a choice without room has the last, which is cut.
  owner = jnp.full(count + 1, len(tokens), slot.dtype)
  index = jnp.arange(len(tokens), dtype=slot.dtype)[:, None]
  owner = owner.at[jnp.where(kept, slot, count)].set(
    jnp.broadcast_to(index, slot.shape)
  )
  padded = jnp.pad(tokens, ((0, 1), (0, 0)))
  return padded[owner[:count]].reshape(experts, slots, -1)
