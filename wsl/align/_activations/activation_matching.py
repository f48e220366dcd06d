"""Activation matching: pair the units whose activations correlate on data."""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any, TypeAlias

import jax

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.align import _arguments, _assignment, _permutation, _symmetry
from wsl.align._activations import activation_sites, gauge_matching, readings

Capture: TypeAlias = Callable[[types.Params, Any], readings.Sites]
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
  gauges: Sequence[str] = ('permutation',),
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

  With ``gauges``, signs, scales, rotations, phases and linear maps are matched
  too. An activation that a leaf reads moves with the inverse of the actions on
  the leaf, one that it writes as the leaf does; for each action the last inputs
  of leaves are read that determine it, or else the last outputs, such as
  queries and keys. With second moments G of vectors, H of covectors and C
  between the models (about the means for ``'correlation'``),

  .. math:: s_i = \frac{r(a_i)}{r(b_i)}, \quad z = \frac{m_a}{m_b}
    \frac{c}{|c|}, \quad A = F_a^{-1} R F_b, \quad F^\top F = G^{-1} \# H, \quad
    R = \arg\max_R \Bigl\langle \sum_k F_a^{(k)} C_k F_b^{(k)\top},
    R \Bigr\rangle

  with r the root mean square, c the complex cross moment of a pair,
  :math:`m^2` the ratio of r of the keys and of the queries, :math:`G^{-1} \# H`
  the geometric mean, which is :math:`G^{-1}` without covectors,
  :math:`F^{(k)}` the frame F of vectors and :math:`F^{-\top}` of covectors. A
  sign is that of its gain. Units are paired by the values of their best signs,
  and heads by those of all maps inside them, which is exact. An action that
  changes no activation is the identity.

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
    gauges: the kinds of maps to match, such as ``align.GAUGES`` for all that
      the symmetry has. A warning names those that the data do not determine,
      such as maps of linearly dependent units, scales of constant ones, and
      actions on no product of leaves.

  Returns:
    The permutation to apply to ``moving``, indices ``[*outer, n]``, and the
    tables of the actions of ``gauges`` by name; a group without activations
    keeps its order.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or contain NaN
      or inf; if there is no batch; if an activation is not finite; if a kind of
      ``gauges`` is unknown; or if actions are matched with ``capture`` or the
      gain ``'distance'``.

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
  fixed, moving = _arguments.check_models(
    {'fixed': fixed, 'moving': moving}, symmetry, caller='activation_matching'
  )
  for model in (fixed, moving):
    tree.check_not_narrowed('activation_matching', model)
  if gain not in _GAINS:
    raise ValueError(
      f"activation_matching: gain '{gain}' is unknown: use one of {_GAINS}"
    )
  _arguments.check_kinds(gauges, 'activation_matching')
  view = gauge_matching.view_of(symmetry, gauges)
  if view.symmetry.actions:
    _check_gauges(gain, capture)
    read = jax.jit(functools.partial(readings.read, view, apply_fn))
  elif capture is None:
    capture = jax.jit(
      functools.partial(activation_sites.activations, symmetry, apply_fn)
    )
  fixed, moving = tree.read(fixed), tree.read(moving)
  observed: list[gauge_matching.Observed] = []
  for batch in batches_lib.stream(batches, name='activation_matching'):
    inputs = batches_lib.inputs_of(batch)
    if capture is None:
      pairs = readings.pair(read(fixed, inputs), read(moving, inputs))
    else:
      found = capture(fixed, inputs), capture(moving, inputs)
      pairs = readings.captured_pairs(*found, symmetry)
    observed = gauge_matching.add_batch(observed, pairs, view)
  if not observed and symmetry.groups:
    raise ValueError(
      'activation_matching: no activation was captured: the function needs a '
      'group that enters a product'
    )
  gauge_matching.check_finite(observed)
  floats = [x for x in jax.tree.leaves(fixed) if tree.is_float(x)]
  return gauge_matching.match(
    observed,
    view,
    gain=gain,
    solver=solver,
    dtype=tree.wide_dtype(*floats),
  )


def _check_gauges(gain: str, capture: Capture | None) -> None:
  """Raises a ValueError for arguments that only permutations can have."""
  if gain == 'distance':
    raise ValueError(
      "activation_matching: gain 'distance' is for permutations only: use "
      "'inner', which minimises the squared distance of rotations"
    )
  if capture is not None:
    raise ValueError(
      'activation_matching: capture is for permutations only, as it does not '
      'say how actions move its arrays: leave it out'
    )
