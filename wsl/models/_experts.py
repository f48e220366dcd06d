"""A mixture of experts in place of a perceptron."""

from collections.abc import Mapping
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _gates, _layers

_LOGITS = 'router_logits'


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
      each expert, which computes no more. Choices beyond it, in the order of
      first to last choices and then of tokens, are dropped: they contribute 0.
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
      gates = _gates.top_k_gates(
        logits, top_k=self.top_k, normalise=self.normalise
      )
      found, gates = tree.widen(every(tokens), gates)
      y = jnp.einsum('ne,end->nd', gates, found, precision='highest')
      return y.reshape(*x.shape[:-1], -1)
    weights, chosen = _gates.choose(logits, self.top_k, self.normalise)
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
