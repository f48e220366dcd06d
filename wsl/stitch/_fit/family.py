"""The adapters of a family by least squares, before anything is trained."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._fit import closed_form
from wsl.stitch._routes import joints, routing

SHARED = ('mean', 'pooled')
AVERAGED = ('affine', 'low_rank')  # kinds whose mean is of the same kind


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
  """Fits the adapter of every stitch that some routes need.

  ``fit_joints`` after ``joint_moments``: one pass of the data, each batch once
  through each network. The papers give it 100 images; what is needed is some
  times more tokens than features.

  Args:
    models: trained networks by name.
    routes: as from ``sn_net_routes`` or ``sn_net_v2_routes``.
    batches: inputs, or tuples that begin with them; labels are not needed.
    kind: of all adapters, see ``fit_moments``: ``'affine'`` for SN-Net,
      ``'low_rank'`` for SN-Netv2 (least squares, frozen, and an update).
    shared: see ``fit_joints``, as all that follow.
    ridge: see there.
    rank: see there; SN-Netv2 has 64.
    alpha: see there; SN-Netv2 has 1.
    key: see there.

  Returns:
    The networks and the adapters: what is trained.

  Raises:
    ValueError: as ``joint_moments`` and ``fit_joints``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> def same(params, h):
    ...   return h
    >>> def scale(params, h):
    ...   return params * h
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
  takes images as augmented for training.
  """
  moments = joints.joint_moments(models, routes, batches)
  adapters = fit_joints(
    moments,
    routes,
    kind=kind,
    shared=shared,
    ridge=ridge,
    rank=rank,
    alpha=alpha,
    key=key,
  )
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
  r"""Fits adapters to moments; one that serves several joints, to all of them.

  .. math:: W = \frac{1}{P} \sum_{i=1}^{P} W_i \quad \text{(mean)}, \qquad
    W = \arg\min \sum_{i=1}^{P} \lVert X_i W - Y_i \rVert^2
    \quad \text{(pooled)}

  Args:
    moments: of each joint of the routes, from ``joint_moments``.
    routes: they say which adapter serves which joints.
    kind: of all adapters, see ``fit_moments``.
    shared: ``'mean'`` is the mean of the joints' own solutions (the official
      code, and what the paper's numbers are of); ``'pooled'`` is one solution
      for the rows of all joints together, the least squares of that adapter.
      They agree where an adapter has one joint.
    ridge: see ``fit_moments``.
    rank: see there.
    alpha: see there.
    key: for ``low_rank``; each adapter has a random A of its own.

  Returns:
    Adapters by name. With ``'mean'``, ``ridge`` is the largest of the joints'.

  Raises:
    ValueError: if ``shared`` is neither, a kind has no mean, or as
      ``fit_moments``, naming the adapter.
  """
  if shared not in SHARED:
    raise ValueError(
      f"fit_joints: shared='{shared}': expected 'mean', 'pooled'"
    )
  adapters = {}
  for i, (name, found) in enumerate(_served(moments, routes).items()):
    if len(found) > 1 and shared == 'mean' and kind not in AVERAGED:
      raise ValueError(
        f"fit_joints: adapter '{name}' serves {len(found)} joints, and a mean "
        f"of kind '{kind}' is not of that kind: take shared='pooled'"
      )
    fit = functools.partial(
      closed_form.fit_moments,
      kind=kind,
      ridge=ridge,
      rank=rank,
      alpha=alpha,
      key=None if key is None else jax.random.fold_in(key, i),
    )
    try:
      if shared == 'mean':
        adapters[name] = _mean([fit(m) for m in found])
      else:
        adapters[name] = fit(_pool(found))
    except ValueError as error:
      raise ValueError(f"adapter '{name}': {error}") from error
  return adapters


def _served(
  moments: Mapping[joints.Joint, types.CrossMoments],
  routes: Sequence[routing.Route],
) -> dict[str, list[types.CrossMoments]]:
  """Returns the moments of the joints that each adapter serves, each once."""
  served: dict[str, dict[joints.Joint, types.CrossMoments]] = {}
  for route in routes:
    for name, joint in zip(route.adapters, joints.joints(route), strict=True):
      if joint not in moments:
        raise ValueError(f'fit_joints: no moments of {joint}')
      served.setdefault(name, {})[joint] = moments[joint]
  return {name: list(found.values()) for name, found in served.items()}


def _mean(adapters: Sequence[_adapter.Adapter]) -> _adapter.Adapter:
  mean = jax.tree.map(lambda *x: sum(x[1:], x[0]) / len(x), *adapters)
  ridges = [a.ridge for a in adapters if a.ridge is not None]
  ridge = jnp.max(jnp.stack(ridges)) if ridges else None
  return dataclasses.replace(mean, ridge=ridge)


def _pool(moments: Sequence[types.CrossMoments]) -> types.CrossMoments:
  """Returns the moments of all rows together, without those of norms."""
  dtype = moments[0].xy.dtype
  n = jnp.stack([jnp.asarray(m.count, dtype) for m in moments])
  share = n / jnp.sum(n)
  x = jnp.stack([m.mean_x for m in moments])
  y = jnp.stack([m.mean_y for m in moments])
  mean_x, mean_y = share @ x, share @ y
  dx, dy = x - mean_x[None], y - mean_y[None]

  def covariance(
    parts: list[types.Array], a: types.Array, b: types.Array
  ) -> types.Array:
    within = jnp.tensordot(share, jnp.stack(parts), 1)
    between = jnp.matmul((share[:, None] * a).T, b, precision='highest')
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
