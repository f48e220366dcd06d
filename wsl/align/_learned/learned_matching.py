r"""Learned matching: gauge elements trained for a low loss between two models.

An element is a linear map of the parameters that does not change the function.
So moving both ends of a line by the same element changes no loss on it: the
losses depend only on the relative element :math:`g_f^{-1} g_m`. Permutations
and signs, which have no small steps, are therefore learned of one end only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.align import _arguments, _assignment, _permutation, _soft, _symmetry
from wsl.align._learned import arguments, latents, steps
from wsl.align._learned import chart as chart_lib
from wsl.align._learned import held_out as held_out_lib
from wsl.align._match import weight_matching


class Learned(NamedTuple):
  """The result of learned matching.

  Attributes:
    fixed: the gauge element to apply to the fixed model; the identity if only
      one is learned.
    moving: the gauge element to apply to the moving model.
    step: the number of steps after which they were taken.
    losses: ``[steps]`` in float64, the loss of each step's batch at its place
      of the path, before the step.
    held_out: ``[evaluations]`` in float64, the mean losses of held-out batches
      over the path, the first at the initial element; empty without them.
  """

  fixed: dict[str, types.Array]
  moving: dict[str, types.Array]
  step: int
  losses: np.ndarray
  held_out: np.ndarray


def learned_matching(
  fixed: types.Params,
  moving: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  loss_fn: steps.Loss,
  batches: Iterable[Any],
  held_out: Sequence[Any] = (),
  gauges: Sequence[str] = _symmetry.GAUGES,
  both: bool = True,
  path: tuple[float, float] = (0.25, 0.75),
  points: int = 3,
  every: int = 10,
  initial: Mapping[str, types.Array] | None = None,
  optimizer: Any = None,
  leaves: types.Leaves = _arguments.default_leaves,
  solver: _assignment.Solver = _assignment.assign_scipy,
  progress: Callable[[int, float, Learned], None] | None = None,
) -> Learned:
  r"""Learns gauge elements of two models by the loss on the line between them.

  .. math:: \min_{g_f, g_m \in G} \operatorname{E}_{\lambda \sim U(a, b)}
    L\left((1 - \lambda)\, g_f \theta_f + \lambda\, g_m \theta_m\right)

  Each step draws a place of the path and takes the gradient of the loss of one
  batch there. Scales, rotations, phases and linear maps move along geodesics of
  their groups, :math:`T \leftarrow \exp(X)\,T` with X the optimizer's update of
  a zero tangent; a rotation keeps its determinant. Permutations and signs are
  projections of latent matrices and numbers, by an assignment on the host; the
  gradient passes through the projections unchanged (straight-through). The
  latents start as the gains of ``weight_matching``, raised where the initial
  element is not the best, and change as the gains of ``straight_through`` do.
  The functions of both models never change.

  The loss on the path depends on :math:`g_f^{-1} g_m` alone. With ``both`` the
  steps are shared between the two models; the reachable paths are the same as
  with one. ``compose(found.moving, invert(found.fixed))`` is the element that
  moves ``moving`` to the unmoved ``fixed``.

  Args:
    fixed: a model, leaves ``[...]``; the path takes its integer leaves.
    moving: the other model, of the same structure and shapes.
    symmetry: the symmetry of both.
    key: a random key, for the places and the initial matching.
    loss_fn: the function ``(params, batch) -> scalar``; compiled.
    batches: one batch for each step; repeat them for several epochs.
    held_out: batches whose mean loss on the path selects the step whose
      elements are returned, the initial ones included; without them it is the
      last.
    gauges: the kinds of maps to learn. Groups on whose units a rotation or a
      linear map is learned keep their initial permutation: the map includes it.
    both: whether the continuous maps of both models are learned, or those of
      ``moving`` only. Permutations and signs are learned for ``moving``.
    path: the range (a, b) of the weight of ``moving``, ``0 <= a <= b <= 1``. A
      wider range lowers the largest loss of the line, a narrow one that of the
      midpoint. For units that are exchanged or of the wrong sign the slope is 0
      at 1/2 and opposite on both sides: below 1/2 the fixed model decides.
    points: the number of places of the path, evenly spread, at which held-out
      batches are evaluated.
    every: evaluate held-out batches after this many steps, and at the end.
    initial: the element of ``moving`` to start from: permutations, and actions
      (the identity if absent); found by ``weight_matching`` if ``None``.
      Actions whose kind is not in ``gauges`` stay as they are.
    optimizer: an optax transformation, line searches included; Adam with
      learning rate 0.003 if ``None``. Its parameters are ``{'fixed': {...},
      'moving': {...}}`` by the names of actions and groups. All of them are
      relative: logarithms of scales, radians, and latents in units of the mean
      gain of a pair. Tangents are 0 before each step, so weight decay and
      optimizers that keep iterates of their own do not apply to them.
    leaves: the leaves that count for the initial matching and for the initial
      gains, as in ``weight_matching``.
    solver: an assignment solver, e.g. ``align.assign_lapx``.
    progress: called after each step with its index, its loss and the elements
      after it.

  Returns:
    The elements, and the losses: ``permute(fixed, found.fixed, ...)`` and
    ``permute(moving, found.moving, ...)`` are the ends of the path.

  Raises:
    ValueError: if the models differ, do not fit the symmetry or contain NaN or
      inf; if there is nothing to learn or no batch; or if a loss is not finite.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> def model(p, x):
    ...   return jax.nn.relu(x @ p['a']) @ p['b']
    >>> loss_fn = lambda p, x: jnp.mean(jnp.square(model(p, x) - 2 * x))
    >>> fixed = {'a': jnp.asarray([[1.0, 2.0]]), 'b': jnp.ones((2, 1))}
    >>> moving = {'a': jnp.asarray([[8.0, 0.5]]), 'b': jnp.ones((2, 1)) / 4}
    >>> x = jnp.ones((1, 1))
    >>> symmetry = align.find_symmetry(model, fixed, x)
    >>> found = learned_matching(fixed, moving, symmetry=symmetry, both=False,
    ...   key=jax.random.key(0), loss_fn=loss_fn, batches=[x] * 3)
    >>> found.step, sorted(found.moving), found.fixed['a:1'].tolist()
    (3, ['a:1', 'scale a:1'], [0, 1])

  Reference:
    Theus et al., "Generalized Linear Mode Connectivity for Transformers", 2025,
    arXiv:2506.22712.

  Differs from the official code, as far as it is known to us, in that the group
  is found from the trace, in geodesic steps in place of projections by SVD, and
  in that the functions of both ends are kept exactly.
  """
  arguments.check(symmetry, gauges, path, points, every)
  batches_lib.check_iterable(batches, name='learned_matching')
  batches_lib.check_iterable(
    held_out, name='learned_matching', argument='held_out'
  )
  fixed, moving = _arguments.check_models(
    {'fixed': fixed, 'moving': moving}, symmetry, caller=steps.CALLER
  )
  for model in (fixed, moving):
    tree.check_not_narrowed(steps.CALLER, model)
  fixed, moving = tree.read(fixed), tree.read(moving)
  if initial is None:
    initial = weight_matching.weight_matching(
      fixed,
      moving,
      symmetry=symmetry,
      key=key,
      leaves=leaves,
      solver=solver,
      gauges=gauges,
    )
  named = 'learned_matching: initial'
  _permutation.check_permutation(initial, symmetry, named)
  # The initial permutation is applied to the model: latents then start at the
  # identity, and the elements that are learned follow it.
  first = {g.name: initial[g.name] for g in symmetry.groups}
  chart = chart_lib.of(symmetry, gauges, both=both)
  models = {
    'fixed': fixed,
    'moving': _permutation.permute(moving, first, symmetry=symmetry),
  }
  optimizer = arguments.adam() if optimizer is None else optimizer
  dtype = _soft.matrix_dtype(fixed, moving)
  state = steps.begin(
    models,
    initial,
    optimizer,
    chart=chart,
    names=arguments.float_leaves(fixed, leaves),
    solver=solver,
  )
  # Assignments are solved on the host, between the compiled steps.
  project = lambda state: latents.project(state.latents, chart, solver)
  permutation = project(state)
  score = functools.partial(
    held_out_lib.score,
    models,
    held_out,
    held_out_lib.places(path, points, dtype),
    chart,
    loss_fn,
  )
  losses: list[float] = []
  scores: list[float] = []
  result = lambda state, permutation, step: Learned(
    *steps.elements_of(state, permutation, first, chart, symmetry),
    step,
    np.asarray(losses),
    np.asarray(scores),
  )
  best = state, permutation, 0  # of the lowest held-out loss
  for step, batch in enumerate(batches):
    if held_out and step % every == 0:
      scores.append(score(state, permutation))
      if held_out_lib.is_lowest(scores):
        best = state, permutation, step
    draw = float(jax.random.uniform(jax.random.fold_in(key, step)))
    loss, state = steps.train_step(
      state,
      models,
      permutation,
      batch,
      np.asarray(path[0] + (path[1] - path[0]) * draw, dtype),
      chart=chart,
      loss_fn=loss_fn,
      optimizer=optimizer,
    )
    losses.append(float(loss))
    if not np.isfinite(losses[-1]):
      raise ValueError(
        f'learned_matching: the loss of step {step} is {loss}: is the learning '
        'rate too high?'
      )
    permutation = project(state)
    if progress is not None:
      progress(step, losses[-1], result(state, permutation, step + 1))
  if not losses:
    raise ValueError(
      'learned_matching: no batches given, at least one is needed '
      '(a generator can be read only once)'
    )
  if held_out:
    scores.append(score(state, permutation))
  if not held_out or held_out_lib.is_lowest(scores):
    best = state, permutation, len(losses)
  return result(*best)
