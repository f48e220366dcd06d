"""The stitching penalty of two networks, with its controls.

The penalty is the rise of the test error when the first q blocks of a top
network are replaced by p blocks of a bottom network and an adapter. It has two
controls. A random bottom shows the penalty that adapter and top reach without
trained features. The top's own blocks as bottom have penalty 0, since the
identity is an adapter; any other value is an error of the fit.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import stats, types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._fit import feature_moments, features
from wsl.stitch._penalty import all_pairs

Tune: TypeAlias = Callable[
  [_segmented.Segmented, _segmented.Segmented, all_pairs.Adapters],
  all_pairs.Adapters,
]


class Stitched(NamedTuple):
  """Measurements of the stitches of one bottom, by pair of positions.

  Attributes:
    penalty: ``[P]``, error of the stitched network minus error of the top;
      negative if the bottom's blocks are better than the top's.
    residual: ``[P]``, share of the variance of the top's values that least
      squares on the bottom's values does not explain, 0 .. 1.
    cka: ``[P]``, unbiased linear CKA of both values.
  """

  penalty: np.ndarray
  residual: np.ndarray
  cka: np.ndarray


class Penalty(NamedTuple):
  """Stitching penalties with their controls.

  Attributes:
    pairs: P pairs (position of the bottom, position of the top).
    error: error rate of the top itself, 0 .. 1.
    bottom: measurements of the given bottom.
    random: measurements of the random bottom (control).
    own: measurements of the top as its own bottom at pairs (q, q) (control),
      ``[P]``: equal for pairs of the same q.
  """

  pairs: tuple[all_pairs.Pair, ...]
  error: float
  bottom: Stitched
  random: Stitched
  own: Stitched


def penalty(
  top: _segmented.Segmented,
  bottom: _segmented.Segmented,
  random: _segmented.Segmented,
  batches: Sequence[Any],
  tests: Sequence[tuple[Any, types.Array]],
  *,
  pairs: Iterable[all_pairs.Pair] | None = None,
  kind: str = 'affine',
  ridge: float | None = None,
  tune: Tune | None = None,
) -> Penalty:
  r"""Measures the error of replacing a network's first blocks by another's.

  .. math:: \mathrm{penalty}_{pq} = \mathrm{Err}(A_{>q} \circ s_{pq} \circ
    B_{\le p}) - \mathrm{Err}(A)

  for the top A and the bottom B, where the adapter :math:`s_{pq}` maps B's
  values after p blocks to A's values after q. Adapters are fitted in closed
  form and without labels, from moments of all pairs in one pass over the
  batches; ``tune`` may train them further. Blocks run once for all stitches
  (``cut_outputs``).

  A small penalty alone is no evidence of similar features: the first blocks of
  an untrained network can have one too. The same is therefore measured for a
  random bottom, and for the top on itself, whose penalty is 0 in closed form.

  Args:
    top: the network A.
    bottom: the network B.
    random: a network with the structure of B and untrained parameters.
    batches: a sequence of inputs ``[B, ...]`` without labels; read three times.
    tests: a sequence of (inputs, labels ``[B]``); read four times.
    pairs: pairs (position of B, position of A); all pairs by default.
    kind: kind of adapter, as in ``fit_moments``.
    ridge: ridge of the fit, as in ``fit_moments``.
    tune: maps (bottom, top, adapters) to trained adapters, such as by
      ``wsl.train.advance`` on ``penalty_loss``; called for each of the three
      bottoms.

  Returns:
    Penalties of the bottom and of both controls, with the least squares
    residual and the CKA of each pair.

  Raises:
    ValueError: if a position does not exist, the random network differs from
      the bottom in structure or shapes, batches or tests are one-shot
      iterators, or as ``fit_moments`` does.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import models, stitch
    >>> x = jax.random.normal(jax.random.key(0), (64, 6))
    >>> model = models.MLP(widths=(8, 8), outputs=3)
    >>> init = jax.jit(model.init)
    >>> nets = [init(jax.random.key(i), x)['params'] for i in range(3)]
    >>> a, b, c = (
    ...   stitch.Segmented(*models.segments(model, net)) for net in nets)
    >>> tests = [(x, jnp.argmax(stitch.apply(a, x), 1))]
    >>> found = penalty(a, b, c, [x], tests, pairs=[(0, 0), (1, 1)])
    >>> found.error, found.own.penalty.tolist(), found.bottom.penalty[0].item()
    (0.0, [0.0, 0.0], 0.0)

  Reference:
    Bansal et al., "Revisiting Model Stitching to Compare Neural
    Representations", 2021, arXiv:2106.07682; the comparison of residual and
    penalty after Hernandez et al., "Model Stitching: Looking For Functional
    Similarity Between Representations", 2023, arXiv:2303.11277.

  Both papers train adapters by gradient descent; here ``tune`` does, after a
  closed-form fit.
  """
  for name, given in (('batches', batches), ('tests', tests)):
    if iter(given) is given:
      raise ValueError(
        f'penalty: {name} can be read only once, but are read for every '
        'control: give a list'
      )
  _check_alike(bottom, random)
  every = [
    (p, q) for p in range(bottom.depth + 1) for q in range(top.depth + 1)
  ]
  chosen = tuple(every if pairs is None else dict.fromkeys(pairs))
  all_pairs.check_pairs(bottom, top, chosen)

  # The control of the top's own blocks depends on q only: one stitch per q.
  entries = [(q, q) for q in dict.fromkeys(q for _, q in chosen)]
  error = _error(top, tests)
  fit = functools.partial(
    _measure, top, batches, tests, kind=kind, ridge=ridge, tune=tune
  )
  own = fit(top, entries)
  return Penalty(
    chosen,
    error,
    _gather(fit(bottom, chosen), chosen, error),
    _gather(fit(random, chosen), chosen, error),
    _gather(own, [(q, q) for _, q in chosen], error),
  )


def _measure(
  top: _segmented.Segmented,
  batches: Sequence[Any],
  tests: Sequence[tuple[Any, types.Array]],
  bottom: _segmented.Segmented,
  pairs: Sequence[all_pairs.Pair],
  *,
  kind: str,
  ridge: float | None,
  tune: Tune | None,
) -> dict[all_pairs.Pair, list[float]]:
  """Fits the stitches of one bottom; returns error, residual, CKA by pair."""
  moments = feature_moments.moments(bottom, top, batches, pairs=pairs)
  adapters: all_pairs.Adapters = features.fit_each(
    moments, kind=kind, ridge=ridge
  )
  if tune is not None:
    adapters = tune(bottom, top, adapters)
  errors = all_pairs.cut_errors(bottom, top, adapters, tests)
  # Residual and CKA describe the features, from the same moments as the fit,
  # whether or not `tune` changed the adapters.
  return {
    pair: [errors[pair], float(stats.residual(m)), float(stats.cka(m))]
    for pair, m in moments.items()
  }


def _gather(
  found: dict[all_pairs.Pair, list[float]],
  pairs: Sequence[all_pairs.Pair],
  error: float,
) -> Stitched:
  """Returns measurements as arrays in the order of pairs."""
  errors, residuals, ckas = np.asarray([found[pair] for pair in pairs]).T
  return Stitched(errors - error, residuals, ckas)


def _error(
  top: _segmented.Segmented, tests: Sequence[tuple[Any, types.Array]]
) -> float:
  """Returns the error of a network: that of an identity stitch on itself."""
  whole = {(0, 0): _adapter.Adapter()}
  return all_pairs.cut_errors(top, top, whole, tests)[0, 0]


def _check_alike(
  bottom: _segmented.Segmented, random: _segmented.Segmented
) -> None:
  """Checks that the control has the bottom's structure and shapes."""
  forms = [
    (jax.tree.structure(net), [jnp.shape(x) for x in jax.tree.leaves(net)])
    for net in (bottom, random)
  ]
  if forms[0] != forms[1]:
    raise ValueError(
      'penalty: the random bottom is not like the bottom: cut a network of the '
      'same module with fresh parameters'
    )
