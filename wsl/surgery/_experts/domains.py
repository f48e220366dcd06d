"""Experts of domains: the units that each domain activates (Read-ME)."""

from collections.abc import Callable, Iterable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align, tree, types
from wsl import batches as batches_lib
from wsl.surgery._experts import split


def unit_activity(
  hidden_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batches: Iterable[Any],
) -> types.Array:
  r"""Computes the mean magnitude of each hidden unit on the data of a domain.

  .. math:: a_j = \frac{1}{N} \sum_{i=1}^{N} |h_{ij}|

  Args:
    hidden_fn: a hashable function from (params, inputs) to the inputs of the
      last linear map of a perceptron, ``[..., n]``.
    params: of the model.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``.

  Returns:
    ``[n]``, in float32 or wider.

  Raises:
    ValueError: if there are no batches.

  Example:
    >>> unit_activity(lambda p, x: x, {}, [jnp.asarray([[1.0, -3.0]])]).tolist()
    [1.0, 3.0]

  Reference:
    Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of
    Experts with System Co-Design", 2024, arXiv:2410.19123.
  """
  total: tuple[types.Array, types.Array] | None = None
  for batch in batches_lib.stream(batches, name='unit_activity'):
    sums = _activity(hidden_fn, params, batches_lib.inputs_of(batch))
    total = sums if total is None else jax.tree.map(jnp.add, total, sums)
  assert total is not None
  return total[0] / total[1]


def domain_masks(activity: Any, *, keep: float) -> np.ndarray:
  r"""Marks the most active units of each domain.

  .. math:: m_{cj} = [a_{cj} \text{ is among the } \operatorname{round}(\kappa
    n) \text{ largest of } a_c]

  Args:
    activity: a, ``[C, n]``, one row of ``unit_activity`` for each domain.
    keep: kappa, the fraction of the units that an expert has,
      ``0 < keep <= 1``.

  Returns:
    bool ``[C, n]``, with the same number of units for each domain; of equal
    ones the first.

  Raises:
    ValueError: if the activity is no finite matrix, or ``keep`` is out of
      range or keeps no unit.

  Example:
    >>> domain_masks([[1.0, 3.0, 2.0, 0.0], [4.0, 0.0, 5.0, 1.0]], keep=0.5)
    array([[False,  True,  True, False],
           [ True, False,  True, False]])

  Reference:
    Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of
    Experts with System Co-Design", 2024, arXiv:2410.19123.

  Differs from the official code, which keeps one unit less (a strict
  comparison with the threshold).
  """
  a = np.asarray(activity, np.float64)
  if a.ndim != 2 or not a.size or not np.isfinite(a).all():
    raise ValueError(
      f'domain_masks: activity has shape {a.shape}: expected finite [C, n]'
    )
  tree.check_scalars('domain_masks', keep=keep)
  count = round(keep * a.shape[1]) if 0 < keep <= 1 else 0
  if not count:
    raise ValueError(
      f'domain_masks(keep={keep}): expected a fraction, 0 < keep <= 1, of one '
      f'of {a.shape[1]} units at least'
    )
  masks = np.zeros(a.shape, bool)
  best = np.argsort(-a, axis=-1, kind='stable')[:, :count]
  np.put_along_axis(masks, best, True, axis=-1)
  return masks


def split_domains(
  mlp: types.Params,
  masks: Any,
  *,
  symmetry: align.Symmetry,
  group: str | None = None,
) -> split.Experts:
  r"""Cuts a perceptron into one expert for each domain, and a shared one.

  .. math:: S = \bigcap_c m_c, \qquad I_c = m_c \setminus S

  The shared expert and expert c together are the perceptron with the units of
  mask c alone. Units in no mask are left out.

  Args:
    mlp: the parameters of a perceptron, in memory or on demand.
    masks: m, bool ``[C, n]``, such as ``domain_masks``.
    symmetry: of the perceptron alone.
    group: the name of the group of units; not needed if there is only one.

  Returns:
    The shared expert, stored once, and C routed ones.

  Raises:
    ValueError: if the masks have different numbers of units, or as
      ``split_units``.

  Example:
    >>> from wsl import align
    >>> h, x = align.Factor('h', 3), align.Factor('x', 1, 'an input')
    >>> symmetry = align.Symmetry((h, x), (('up', ((('x',),), (('h',),))),))
    >>> masks = [[True, True, False], [True, False, True]]
    >>> found = split_domains(
    ...   {'up': jnp.asarray([[5.0, 6.0, 7.0]])}, masks, symmetry=symmetry)
    >>> found.shared['up'].tolist(), found.routed['up'].tolist()
    ([[5.0]], [[[6.0]], [[7.0]]])

  Reference:
    Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of
    Experts with System Co-Design", 2024, arXiv:2410.19123.
  """
  m = np.asarray(masks)
  if m.ndim != 2 or m.dtype != bool or len({*m.sum(1).tolist()}) > 1:
    raise ValueError(
      f'split_domains: masks of {m.dtype}{list(m.shape)}: expected bool [C, n] '
      'with the same number of units in each row'
    )
  # All masks have one number of units, and S is in each of them: the rests
  # I_c have one size too, so that experts are of one form.
  shared = m.all(0)
  index = np.stack([np.flatnonzero(row & ~shared) for row in m])
  return split.split_units(
    mlp,
    index.astype(np.int32),
    symmetry=symmetry,
    shared=np.flatnonzero(shared),
    group=group,
  )


@functools.partial(jax.jit, static_argnums=0)
def _activity(
  hidden_fn: Callable[..., types.Array], params: types.Params, inputs: Any
) -> tuple[types.Array, types.Array]:
  """Returns the sum of magnitudes over the rows, and the number of rows."""
  h = hidden_fn(params, inputs)
  h = tree.wide(h.reshape(-1, h.shape[-1]))
  return jnp.sum(jnp.abs(h), 0), jnp.asarray(len(h), h.dtype)
