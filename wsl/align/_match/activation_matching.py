"""Activation matching: units are paired that respond alike to data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
from typing import Any, TypeAlias

import jax
import numpy as np

from wsl import deltas, tree, types
from wsl.align import _assignment, _permutation, _symmetry
from wsl.align._match import activation_moments, activation_sites

Sites: TypeAlias = Mapping[str, types.Array | Sequence[types.Array]]
Capture: TypeAlias = Callable[[types.Params, Any], Sites]
_GAINS = ('correlation', 'inner')


def activation_matching(
  fixed: types.Params,
  moving: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  apply_fn: Callable[[types.Params, Any], Any],
  batches: Iterable[Any],
  gain: str = 'correlation',
  capture: Capture | None = None,
  solver: _assignment.Solver = _assignment.assign_scipy,
) -> _permutation.Permutation:
  r"""Finds the permutation that pairs units with like activations.

  .. math:: \arg\max_\pi \sum_i S_{i, \pi(i)}, \qquad
    S_{ij} = \mathrm{E}[a_i b_j] \quad \text{or} \quad
    \frac{\mathrm{E}[(a_i - \bar{a}_i) (b_j - \bar{b}_j)]}
    {\sigma(a_i)\, \sigma(b_j)}

  Both models see the same data. Where each group's units meet the next weights
  their activations a and b are watched; first moments and products are added up
  over all batches, so that memory does not grow with the data. Each group is
  then assigned once, independent of others. A group that others depend on
  (heads) is assigned by the best pairings within it.

  Args:
    fixed: the model that stays, leaves ``[...]``.
    moving: the model to be permuted, of the same structure and shapes.
    symmetry: the symmetry of both.
    apply_fn: the function ``(params, inputs) -> anything`` that the symmetry
      was found for.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``.
    gain: ``'correlation'``, which is 0 for a unit that never varies; or
      ``'inner'``, the mean product, where large units count more.
    capture: in place of the sites found in ``apply_fn``, a function of a model
      and inputs that gives for each group its activations ``[rows, *outer
      sizes, n]``, or a list of several sites, whose gains add up.
    solver: an assignment solver, e.g. ``align.assign_lapx``.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``; a group of
    which no activation is seen keeps its order.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or hold NaN or
      inf; if there is no batch; or if an activation is not finite.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import align
    >>> mlp = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
    >>> fixed = {'a': jnp.asarray([[1., -1., 2.], [1., 2., -2.]]),
    ...          'b': jnp.asarray([[1.], [2.], [3.]])}
    >>> x = jax.random.normal(jax.random.key(0), (8, 2))
    >>> symmetry = align.find_symmetry(mlp, fixed, x)
    >>> moving = align.permute(fixed, {'a:1': jnp.asarray([2, 0, 1])},
    ...                        symmetry=symmetry)
    >>> activation_matching(fixed, moving, symmetry=symmetry, apply_fn=mlp,
    ...                     batches=[x])['a:1'].tolist()
    [1, 2, 0]

  Reference:
    Li et al., "Convergent Learning: Do different neural networks learn the same
    representations?", 2015, arXiv:1511.07543; Ainsworth et al., "Git Re-Basin:
    Merging Models modulo Permutation Symmetries", 2022, arXiv:2209.04836,
    section 3.1.

  Differs from the official code in sums over all batches about the mean of the
  first, and in groups that depend on others.
  """
  for name, model in (('fixed', fixed), ('moving', moving)):
    leaves = tree.named(model)
    _symmetry.check_leaves(symmetry, leaves, f'activation_matching: {name}')
  deltas.check('activation_matching', {'fixed': fixed, 'moving': moving})
  if gain not in _GAINS:
    raise ValueError(
      f"activation_matching: gain '{gain}' is unknown: take one of {_GAINS}"
    )
  if hasattr(batches, 'shape'):
    raise ValueError(
      'activation_matching: batches is one array, give a list of arrays'
    )
  if capture is None:
    capture = jax.jit(
      functools.partial(activation_sites.activations, symmetry, apply_fn)
    )
  fixed, moving = tree.read(fixed), tree.read(moving)
  moments: dict[str, list[activation_moments.Moments]] = {}
  for batch in batches:
    inputs = batch[0] if isinstance(batch, tuple) else batch
    seen = capture(fixed, inputs), capture(moving, inputs)
    moments = _accumulate(moments, *seen, symmetry)
  if not moments and symmetry.groups:
    raise ValueError(
      'activation_matching: no activation was seen: give at least one batch, '
      'and a function in which a group enters a product'
    )
  gains = {name: _gain(name, sites, gain) for name, sites in moments.items()}
  return activation_moments.assign(gains, symmetry=symmetry, solver=solver)


def _accumulate(
  moments: dict[str, list[activation_moments.Moments]],
  fixed: Sites,
  moving: Sites,
  symmetry: _symmetry.Symmetry,
) -> dict[str, list[activation_moments.Moments]]:
  """Adds a batch to the moments of every site of every group."""
  result = {}
  for name, found in fixed.items():
    if name not in symmetry.factor or symmetry.factor[name].pinned:
      raise ValueError(
        f"activation_matching: capture gives '{name}', which is no group of "
        'the symmetry'
      )
    group = symmetry.factor[name]
    pairs = list(zip(_listed(found), _listed(moving[name])))
    wanted = symmetry.table_shape(name)
    for x, _ in pairs:
      if x.shape[1:] != wanted:
        raise ValueError(
          f"activation_matching: the activations of '{name}' have shape "
          f'{x.shape}, expected [rows, *{wanted}]'
        )
    before = moments.get(name, [None] * len(pairs))
    result[name] = [
      activation_moments.accumulate(old, x, y, group, symmetry)
      for old, (x, y) in zip(before, pairs)
    ]
  return result


def _listed(found: types.Array | Sequence[types.Array]) -> list[types.Array]:
  return [*found] if isinstance(found, list | tuple) else [found]  # type: ignore


def _gain(
  name: str, sites: Sequence[activation_moments.Moments], kind: str
) -> np.ndarray:
  """Adds up the gains of a group's sites."""
  total = sum(activation_moments.gains(site, kind) for site in sites)
  if not np.isfinite(total).all():
    raise ValueError(
      f"activation_matching: an activation of '{name}' is NaN or inf"
    )
  return np.asarray(total)
