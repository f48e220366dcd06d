"""The stitching penalty of two networks, with its controls."""

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
  """What is measured of each pair of positions, of one bottom.

  Attributes:
    penalty: ``[P]``, the error of the stitched network minus that of the top's
      own; negative where the bottom is the better one.
    residual: ``[P]``, the share of the variance of the top's values that the
      least squares map from the bottom's leaves, 0 .. 1.
    cka: ``[P]``, the similarity of both, unbiased.
  """

  penalty: np.ndarray
  residual: np.ndarray
  cka: np.ndarray


class Penalty(NamedTuple):
  """Stitching penalties, and what they are to be compared with.

  Attributes:
    pairs: P pairs (position of the bottom, position of the top).
    error: of the top as it is, 0 .. 1.
    bottom: of the bottom in question.
    random: of the random bottom.
    own: of the top's own blocks, stitched at the position of the top:
      ``[P]``, one value for all pairs of one position.
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
  r"""Measures what it costs to replace a network's first blocks by another's.

  .. math:: \mathrm{penalty}_{pq} = \mathrm{Err}(A_{>q} \circ s_{pq} \circ
    B_{\le p}) - \mathrm{Err}(A)

  for the top A and the bottom B; :math:`s_{pq}` maps B's values after p
  blocks to A's after q. It is fitted without labels, in closed form, from
  moments that one pass over the batches gives for all pairs; ``tune`` may
  train it further. Blocks run once for all stitches (``cut_outputs``).

  A small penalty says nothing by itself: the first blocks of a network that
  knows nothing can be stitched as well. The same is therefore measured for a
  random bottom, and for the top on itself, which must come out as 0 in closed
  form.

  Args:
    top: A.
    bottom: B.
    random: a network like B with fresh parameters.
    batches: inputs ``[B, ...]``, labels not needed, in a sequence: they are
      read three times.
    tests: (inputs, labels ``[B]``) in a sequence: they are read four times.
    pairs: positions (of B, of A); all of them by default.
    kind: of adapter, as in ``fit_moments``.
    ridge: likewise.
    tune: maps (bottom, top, adapters) to better adapters, for each of the three
      bottoms: by ``wsl.train.advance`` on ``penalty_loss``.

  Returns:
    Penalties of the bottom and of both controls, with the least squares
    residual and the CKA of each pair, fit or not.

  Raises:
    ValueError: if a position does not exist, the random network is not like
      the bottom, batches or tests can be read only once, or as ``fit_moments``
      does.

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
    Representations", 2021, arXiv:2106.07682; residual and penalty side by side
    after Hernandez et al., "Model Stitching: Looking For Functional Similarity
    Between Representations", 2023, arXiv:2303.11277. Differs in that adapters
    are solved for, and only trained by ``tune``; both trained them.
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

  entries = [(q, q) for q in dict.fromkeys(q for _, q in chosen)]
  error = _error(top, tests)
  fit = functools.partial(
    _measure, top, batches, tests, kind=kind, ridge=ridge, tune=tune
  )
  own = fit(top, entries)
  return Penalty(
    chosen,
    error,
    _put(fit(bottom, chosen), chosen, error),
    _put(fit(random, chosen), chosen, error),
    _put(own, [(q, q) for _, q in chosen], error),
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
  """Returns error, residual and CKA of each pair."""
  moments = feature_moments.moments(bottom, top, batches, pairs=pairs)
  adapters: all_pairs.Adapters = features.fit_each(
    moments, kind=kind, ridge=ridge
  )
  if tune is not None:
    adapters = tune(bottom, top, adapters)
  errors = all_pairs.cut_errors(bottom, top, adapters, tests)
  return {
    pair: [errors[pair], float(stats.residual(m)), float(stats.cka(m))]
    for pair, m in moments.items()
  }


def _put(
  found: dict[all_pairs.Pair, list[float]],
  pairs: Sequence[all_pairs.Pair],
  error: float,
) -> Stitched:
  errors, residuals, ckas = np.asarray([found[pair] for pair in pairs]).T
  return Stitched(errors - error, residuals, ckas)


def _error(
  top: _segmented.Segmented, tests: Sequence[tuple[Any, types.Array]]
) -> float:
  """Returns the error of a network as it is: a stitch that leaves it so."""
  whole = {(0, 0): _adapter.Adapter()}
  return all_pairs.cut_errors(top, top, whole, tests)[0, 0]


def _check_alike(
  bottom: _segmented.Segmented, random: _segmented.Segmented
) -> None:
  """Checks that the control has the bottom's functions and shapes."""
  forms = [
    (jax.tree.structure(net), [jnp.shape(x) for x in jax.tree.leaves(net)])
    for net in (bottom, random)
  ]
  if forms[0] != forms[1]:
    raise ValueError(
      'penalty: the random bottom is not like the bottom: cut a network of the '
      'same module with fresh parameters'
    )
