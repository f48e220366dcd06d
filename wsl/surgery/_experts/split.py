"""Experts cut from the hidden units of a perceptron."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align, tree, types
from wsl.surgery._experts import brick_edits, bricks


class Experts(NamedTuple):
  """Experts of one form: one that all tokens use, and E that are routed.

  Attributes:
    shared: the parameters of the shared expert, which has the output bias.
    routed: those of E experts, every leaf ``[E, ...]``.
  """

  shared: types.Params
  routed: types.Params


def split_units(
  mlp: types.Params,
  index: Any,
  *,
  symmetry: align.Symmetry,
  shared: Any = (),
  group: str | None = None,
) -> Experts:
  r"""Cuts a perceptron into experts with some of its hidden units each.

  .. math:: f(x) = b + \sum_{j=1}^{n} v_j \, \sigma(u_j, x) = b +
    \sum_{j \in S} v_j \, \sigma(u_j, x) +
    \sum_{e=1}^{E} \sum_{j \in I_e} v_j \, \sigma(u_j, x)

  where :math:`\sigma(u_j, x)` is the value of unit j, gated or not. If the sets
  :math:`I_e` and S are a partition of the units, all experts together, with
  gates 1, are the perceptron, to rounding.

  The units are those of a group of the symmetry; they act on their own: a
  normalisation over the units is not split by this formula. A leaf without an
  axis of the units is added to the output: it belongs to the shared expert, and
  is zero in the others.

  Args:
    mlp: the parameters of a perceptron with n hidden units, such as the subtree
      ``block_0/mlp`` of a transformer; in memory or on demand.
    index: the units of each expert, integers ``[E, m]``: ``random_clusters``
      (LLaMA-MoE), or ``balanced_clusters`` (MoEfication).
    symmetry: of the perceptron alone, see ``align.find_symmetry``.
    shared: the units S of the shared expert, integers ``[s]``. None by default:
      it then has one unit of zeros, as most modules need a unit.
    group: the name of the group; not needed if there is only one.

  Returns:
    The experts, ``apply_experts`` applies them.

  Raises:
    ValueError: if an index is out of range, occurs twice in an expert, or is
      both shared and routed; the perceptron does not fit the symmetry; or a
      matrix has no axis of the units.

  Example:
    >>> import jax
    >>> from wsl import align
    >>> def mlp(p, x):
    ...   return jax.nn.relu(x @ p['up']) @ p['down']
    >>> p = {'up': jnp.ones((2, 4)), 'down': jnp.ones((4, 2))}
    >>> x = jnp.ones((3, 2))
    >>> symmetry = align.find_symmetry(mlp, p, x)
    >>> experts = split_units(p, [[0, 1], [2, 3]], symmetry=symmetry)
    >>> experts.routed['up'].shape
    (2, 2, 2)
    >>> apply_experts(mlp, experts, jnp.ones((3, 2)), x)[0].tolist()
    [8.0, 8.0]

  Reference:
    Zhang et al., "MoEfication: Transformer Feed-forward Layers are Mixtures of
    Experts", 2021, arXiv:2110.01786; Zhu et al., "LLaMA-MoE: Building
    Mixture-of-Experts from LLaMA with Continual Pre-training", 2024,
    arXiv:2406.16554.

  LLaMA-MoE multiplies the gates by E / k, so that the sum of k experts has the
  scale of the perceptron: scale the gates to do so.
  """
  found = bricks.group_of('split_units', symmetry, group)
  index = np.asarray(index)
  if index.ndim != 2:
    raise ValueError(
      f'split_units: index has shape {index.shape}: expected [E, m], the units '
      'of each expert, all of one number'
    )
  bricks.check_fits('split_units', mlp, symmetry)
  routed = bricks.brick_of_units(symmetry, index, group=found.name)
  own = np.asarray(shared, np.int32)
  empty = not own.size
  if np.isin(own, index).any():
    raise ValueError(
      'split_units: units of shared are also in index, and would count twice: '
      'leave them out of the experts'
    )
  common = bricks.brick_of_units(
    symmetry, np.zeros(1, np.int32) if empty else own, group=found.name
  )
  for name, leaf in tree.named(mlp).items():
    if name not in routed and len(leaf.shape) > 1:
      raise ValueError(
        f"split_units: leaf '{name}' of shape {tuple(leaf.shape)} has no axis "
        f"of the units '{found.name}': give the perceptron alone"
      )
  # A leaf without units is an output bias: f(x) - b is a sum over units, and b
  # is counted once, by the shared expert.
  mine = brick_edits.retrieve_brick(mlp, routed)
  theirs = brick_edits.retrieve_brick(mlp, common)
  if empty:
    theirs = tree.map(jnp.zeros_like, theirs)
  count = tree.Static(len(index))
  return Experts(
    tree.map_named(lambda name, x: theirs.get(name, x), mlp),
    tree.map_named(
      lambda name, x: (
        mine[name]
        if name in mine
        else tree.apply_kernel(_zeros, x, count=count)
      ),
      mlp,
    ),
  )


def apply_experts(
  apply_fn: Callable[[types.Params, Any], types.Array],
  experts: Experts,
  gates: types.Array,
  x: types.Array,
) -> types.Array:
  r"""Returns the shared expert, and the routed ones weighted by their gates.

  .. math:: y = f(\theta_S, x) + \sum_{e=1}^{E} g_e(x) f(\theta_e, x)

  Every expert is computed on every token. Sharded over a mesh axis of experts
  (``mesh.shard`` of ``routed``), each device computes its own, and the sum is
  the only communication.

  Args:
    apply_fn: the function of one expert, ``(params, x [N, d]) -> [N, d']``, for
      any number of units: ``lambda p, x:
      models.SwiGLU(p['up']['kernel'].shape[-1]).apply({'params': p}, x)``.
    experts: the parameters.
    gates: g, ``[N, E]``, such as ``models.top_k_gates`` or ``merge.route``.
    x: tokens, ``[N, d]``.

  Returns:
    ``[N, d']``.

  Raises:
    ValueError: if the gates are not ``[N, E]``.

  Example:
    >>> scale = lambda p, x: p * x
    >>> experts = Experts(jnp.asarray(1.0), jnp.asarray([2.0, 3.0]))
    >>> gates = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    >>> apply_experts(scale, experts, gates, jnp.ones((2, 1))).tolist()
    [[3.0], [4.0]]
  """
  count = jax.tree.leaves(experts.routed)[0].shape[0]
  if gates.shape != (x.shape[0], count):
    raise ValueError(
      f'apply_experts: gates have shape {gates.shape}, expected '
      f'{(x.shape[0], count)}: one for each token and expert'
    )
  found = jax.vmap(apply_fn, (0, None))(experts.routed, x)
  found, gates = tree.widen(found, gates)
  routed = jnp.einsum('ne,end->nd', gates, found, precision='highest')
  own, routed = tree.widen(apply_fn(experts.shared, x), routed)
  return own + routed


def check_divides(caller: str, units: int, experts: int, what: str) -> int:
  """Returns the units of each expert.

  Raises:
    ValueError: if the number of experts does not divide that of the units.
  """
  whole = isinstance(experts, (int, np.integer)) and not isinstance(
    experts, bool
  )
  if not whole or experts < 1 or units % experts:
    raise ValueError(
      f'{caller}: {what}={experts!r} does not divide {units} units: choose a '
      'divisor'
    )
  return units // int(experts)


def _zeros(x: types.Array, *, count: int) -> types.Array:
  """Returns the output bias of the routed experts."""
  return jnp.zeros((count, *x.shape), x.dtype)
