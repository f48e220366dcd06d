"""Activation matching: pair the units whose activations correlate on data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
from typing import Any, TypeAlias

import jax
import numpy as np

from wsl import batches as batches_lib
from wsl import deltas, tree, types
from wsl.align import (
  _assignment,
  _nested_assignment,
  _permutation,
  _symmetry,
)
from wsl.align._activations import activation_moments, activation_sites

Sites: TypeAlias = Mapping[str, types.Array | Sequence[types.Array]]
Capture: TypeAlias = Callable[[types.Params, Any], Sites]
_GAINS = ('correlation', 'inner', 'distance')


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
  r"""Finds the permutation that pairs units with similar activations.

  .. math:: \arg\max_\pi \sum_i S_{i, \pi(i)}, \qquad
    S_{ij} = \mathrm{E}[a_i b_j] \quad \text{or} \quad
    \frac{\mathrm{E}[(a_i - \bar{a}_i) (b_j - \bar{b}_j)]}
    {\sigma(a_i)\, \sigma(b_j)} \quad \text{or} \quad
    -\Bigl(\sum (a_i - b_j)^2\Bigr)^{1/2}

  Both models are evaluated on the same batches. The activations a and b of a
  group are the inputs of the next linear layer. Their first moments and
  products are summed over all batches, in memory that does not grow with the
  data. Each group is then matched once, independently of others; a group on
  which others depend (attention heads) is matched by the value of the best
  matching of the units within it.

  Args:
    fixed: the model that stays in its order, leaves ``[...]``.
    moving: the model to permute, of the same structure and shapes.
    symmetry: the symmetry of both.
    apply_fn: the function ``(params, inputs) -> anything`` for which the
      symmetry was found.
    batches: an iterable of ``inputs`` or of tuples ``(inputs, ...)``, inputs
      ``[B, ...]`` or pytrees of such arrays.
    gain: ``'correlation'``, which is 0 for a constant unit; ``'inner'``, the
      mean product, in which units with large activations count more; or
      ``'distance'``, minus the Euclidean distance over all rows, which PLeaS
      takes.
    capture: replaces the sites found in ``apply_fn``: a function of a model and
      inputs that returns for each group its activations ``[rows, *outer sizes,
      n]``, or a list of these for several sites, whose gains are summed.
    solver: an assignment solver, e.g. ``align.assign_lapx``.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``; a group
    without activations keeps its order.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or contain NaN
      or inf; if there is no batch; or if an activation is not finite.

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
    section 3.1; the distance: Nasery et al., "PLeaS: Merging Models with
    Permutations and Least Squares", 2024, arXiv:2407.02447.

  Differs from the official code in summing over all batches, centred at the
  mean of the first one, and in nested groups. Differs from that of REPAIR,
  which adds 1e-4 to the denominator of the correlation, in that a unit of small
  variance correlates like any other. Differs from that of PLeaS in the
  distance over all rows (there it is that of the last batch alone), and in the
  sites: inputs of linear maps (there all activations of a unit).
  """
  for name, model in (('fixed', fixed), ('moving', moving)):
    leaves = tree.named(model)
    _symmetry.check_leaves(symmetry, leaves, f'activation_matching: {name}')
  fixed, moving = deltas.check(
    'activation_matching', {'fixed': fixed, 'moving': moving}
  )
  for model in (fixed, moving):
    tree.check_not_narrowed('activation_matching', model)
    reason = 'match its real and imaginary parts instead'
    tree.check_real('activation_matching', model, reason)
  if gain not in _GAINS:
    raise ValueError(
      f"activation_matching: gain '{gain}' is unknown: use one of {_GAINS}"
    )
  if capture is None:
    capture = jax.jit(
      functools.partial(activation_sites.activations, symmetry, apply_fn)
    )
  fixed, moving = tree.read(fixed), tree.read(moving)
  moments: dict[str, list[activation_moments.Moments]] = {}
  for batch in batches_lib.stream(batches, name='activation_matching'):
    inputs = batches_lib.inputs_of(batch)
    captured = capture(fixed, inputs), capture(moving, inputs)
    moments = _add_batch(moments, *captured, symmetry)
  if not moments and symmetry.groups:
    raise ValueError(
      'activation_matching: no activation was captured: the function needs a '
      'group that enters a product'
    )
  # The sites of a group are different observations of the same units: their
  # gains, like the leaves' in weight matching, are summed.
  gains = {
    name: _total_gain(name, sites, gain) for name, sites in moments.items()
  }
  return _nested_assignment.assign(gains, symmetry=symmetry, solver=solver)


def _add_batch(
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
        f"activation_matching: capture returns '{name}', which is no group of "
        'the symmetry'
      )
    group = symmetry.factor[name]
    pairs = list(zip(_as_list(found), _as_list(moving[name])))
    expected = symmetry.table_shape(name)
    for x, _ in pairs:
      if x.shape[1:] != expected:
        raise ValueError(
          f"activation_matching: the activations of '{name}' have shape "
          f'{x.shape}, expected [rows, *{expected}]'
        )
    before = moments.get(name, [None] * len(pairs))
    result[name] = [
      activation_moments.accumulate(old, x, y, group, symmetry)
      for old, (x, y) in zip(before, pairs)
    ]
  return result


def _as_list(found: types.Array | Sequence[types.Array]) -> list[types.Array]:
  """Returns the activations of all sites of a group as a list."""
  return [*found] if isinstance(found, list | tuple) else [found]  # type: ignore


def _total_gain(
  name: str, sites: Sequence[activation_moments.Moments], kind: str
) -> np.ndarray:
  """Sums the gains of a group's sites; raises a ValueError if not finite."""
  total = sum(activation_moments.gains(site, kind) for site in sites)
  if not np.isfinite(total).all():
    raise ValueError(
      f"activation_matching: an activation of '{name}' is NaN or inf"
    )
  return np.asarray(total)
