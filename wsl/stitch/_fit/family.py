"""Fits the adapters of a family of routes, before joint training."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._fit import closed_form
from wsl.stitch._routes import joints, routing

SHARED = ('mean', 'pooled')
AVERAGED = ('affine', 'low_rank')  # a mean of these kinds is of the same kind


def fit_family(
  models: Mapping[str, _segmented.Segmented],
  routes: Sequence[routing.Route],
  batches: Iterable[Any],
  *,
  kind: str = 'affine',
  shared: str = 'mean',
  ridge: float | None = None,
  rank: int = 64,
  alpha: float = 1.0,
  key: types.PRNGKey | None = None,
) -> routing.Family:
  """Fits the adapters of all stitches of a set of routes.

  Equals ``fit_joints`` on the result of ``joint_moments``: one pass over the
  data, in which each batch runs once through each network. The papers use 100
  images; the number of tokens should be several times the number of features.

  Args:
    models: trained networks by name.
    routes: such as those of ``sn_net_routes`` or ``sn_net_v2_routes``.
    batches: inputs, or tuples ``(inputs, ...)``; labels are not used.
    kind: of all adapters, see ``fit_moments``: ``'affine'`` for SN-Net,
      ``'low_rank'`` (frozen least squares and an update) for SN-Netv2.
    shared: see ``fit_joints``.
    ridge: see ``fit_moments``.
    rank: see ``fit_moments``; SN-Netv2 uses 64.
    alpha: see ``fit_moments``; SN-Netv2 uses 1.
    key: see ``fit_joints``.

  Returns:
    The networks and their adapters, to be trained jointly.

  Raises:
    ValueError: as ``joint_moments`` and ``fit_joints``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> same, scale = lambda _, h: h, lambda params, h: params * h
    >>> models = {
    ...   name: stitch.Segmented(
    ...     {'embed': {}, 'blocks': jnp.full(2, rate), 'head': {}},
    ...     same, scale, same)
    ...   for name, rate in {'a': 2.0, 'b': 3.0}.items()}
    >>> routes = stitch.sn_net_routes({'a': 2, 'b': 2}, window=1)
    >>> data = [jnp.asarray([[1.0], [2.0], [4.0]])]
    >>> family = fit_family(models, routes, data)
    >>> first = family.adapters['a_b_0']  # from 2 x to x
    >>> first.weight.round(4).tolist(), abs(first.bias.round(4)).tolist()
    ([[0.5]], [0.0])

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586; "Stitched
    ViTs are Flexible Vision Backbones", 2023, arXiv:2307.00154.

  Differs from the official code, which inverts the matrix of all tokens, and
  fits to images with training augmentation.
  """
  fitter = closed_form.Fitter(kind, ridge, rank, alpha, key)
  served = _served(routes, kind=kind, shared=shared)
  moments = joints.joint_moments(models, routes, batches)
  adapters = _fit_each(moments, served, fitter, shared)
  return routing.Family(dict(models), adapters)


def fit_joints(
  moments: Mapping[joints.Joint, types.CrossMoments],
  routes: Sequence[routing.Route],
  *,
  kind: str = 'affine',
  shared: str = 'mean',
  ridge: float | None = None,
  rank: int = 64,
  alpha: float = 1.0,
  key: types.PRNGKey | None = None,
) -> dict[str, _adapter.Adapter]:
  r"""Fits adapters to moments; a shared adapter to those of all its joints.

  .. math:: W = \frac{1}{P} \sum_{i=1}^{P} W_i \quad \text{(mean)}, \qquad
    W = \arg\min \sum_{i=1}^{P} \lVert X_i W - Y_i \rVert^2
    \quad \text{(pooled)}

  Args:
    moments: of each joint of the routes, from ``joint_moments``.
    routes: assign the adapters to the joints.
    kind: of all adapters, see ``fit_moments``.
    shared: how an adapter of P > 1 joints is fitted. ``'mean'`` averages the
      solutions of the joints (the official code, and the paper's numbers);
      ``'pooled'`` solves once for the rows of all joints, the least squares of
      that adapter. They are equal for P = 1.
    ridge: see ``fit_moments``.
    rank: see ``fit_moments``.
    alpha: see ``fit_moments``.
    key: for ``low_rank``; each adapter draws its own A.

  Returns:
    Adapters by name. With ``'mean'``, ``ridge`` is the maximum over the joints.

  Raises:
    ValueError: if ``shared`` is unknown, if a shared adapter's kind is not
      closed under averaging, or as ``fit_moments``, naming the adapter.
  """
  fitter = closed_form.Fitter(kind, ridge, rank, alpha, key)
  served = _served(routes, kind=kind, shared=shared)
  return _fit_each(moments, served, fitter, shared)


def _served(
  routes: Sequence[routing.Route], *, kind: str, shared: str
) -> dict[str, list[joints.Joint]]:
  """Returns the distinct joints of each adapter; checks ``shared``."""
  if shared not in SHARED:
    raise ValueError(f"shared='{shared}': expected 'mean', 'pooled'")
  served: dict[str, dict[joints.Joint, None]] = {}
  for route in routes:
    for name, joint in zip(route.adapters, joints.joints(route), strict=True):
      served.setdefault(name, {})[joint] = None
  for name, found in served.items():
    if len(found) > 1 and shared == 'mean' and kind not in AVERAGED:
      raise ValueError(
        f"adapter '{name}' serves {len(found)} joints, and a mean of kind "
        f"'{kind}' is not of that kind: use shared='pooled'"
      )
  return {name: list(found) for name, found in served.items()}


def _fit_each(
  moments: Mapping[joints.Joint, types.CrossMoments],
  served: Mapping[str, Sequence[joints.Joint]],
  fitter: closed_form.Fitter,
  shared: str,
) -> dict[str, _adapter.Adapter]:
  """Fits each adapter to the moments of its joints, with its own key."""
  adapters = {}
  for i, (name, found) in enumerate(served.items()):
    missing = [joint for joint in found if joint not in moments]
    if missing:
      raise ValueError(f'fit_joints: no moments of {missing[0]}')
    parts = [moments[joint] for joint in found]
    fit = fitter.fold_in(i)
    try:
      if shared == 'mean':
        adapters[name] = _mean([fit(part) for part in parts])
      else:
        adapters[name] = fit(_pool(parts))
    except ValueError as error:
      raise ValueError(f"adapter '{name}': {error}") from error
  return adapters


def _mean(adapters: Sequence[_adapter.Adapter]) -> _adapter.Adapter:
  """Averages adapters leaf by leaf; reports the largest ridge."""
  mean = jax.tree.map(lambda *x: sum(x[1:], x[0]) / len(x), *adapters)
  ridges = [a.ridge for a in adapters if a.ridge is not None]
  ridge = jnp.max(jnp.stack(ridges)) if ridges else None
  return dataclasses.replace(mean, ridge=ridge)


def _pool(moments: Sequence[types.CrossMoments]) -> types.CrossMoments:
  """Returns the first and second moments of the union of all rows."""
  # Law of total covariance, with group g a share w_g = n_g / n of the rows:
  # C = sum_g w_g C_g  (within)  +  sum_g w_g (m_g - m) (m_g - m)^T  (between).
  dtype = moments[0].xy.dtype
  n = jnp.stack([jnp.asarray(m.count, dtype) for m in moments])
  share = n / jnp.sum(n)
  x = jnp.stack([m.mean_x for m in moments])
  y = jnp.stack([m.mean_y for m in moments])
  mean_x, mean_y = tree.matmul(share, x), tree.matmul(share, y)
  dx, dy = x - mean_x[None], y - mean_y[None]

  def covariance(
    parts: list[types.Array], a: types.Array, b: types.Array
  ) -> types.Array:
    within = jnp.tensordot(share, jnp.stack(parts), 1, precision='highest')
    between = tree.matmul((share[:, None] * a).T, b)
    return within + between

  return dataclasses.replace(
    moments[0],
    count=sum(m.count for m in moments[1:]) + moments[0].count,
    mean_x=mean_x,
    mean_y=mean_y,
    xx=covariance([m.xx for m in moments], dx, dx),
    xy=covariance([m.xy for m in moments], dx, dy),
    yy=None,
    norms=None,
  )
