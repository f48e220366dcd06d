"""Wider networks of the same function, by copies of units."""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align, tree, types


class Copies(NamedTuple):
  """Which old unit each new unit of an axis copies; hashable.

  Attributes:
    axis: of the leaf.
    units: numbers of old units, one for each new one.
    shares: what each new unit is multiplied by: one over the number of copies
      where a product contracts the axis, else 1.
  """

  axis: int
  units: tuple[int, ...]
  shares: tuple[float, ...] | None


def widen(
  params: types.Params,
  sizes: Mapping[str, int],
  *,
  symmetry: align.Symmetry,
  views: Mapping[str, tree.Matrix | None],
  key: types.PRNGKey | None = None,
) -> types.Params:
  r"""Copies units of groups without a change of the function (G_split).

  .. math:: W'[\dots, j] = W[\dots, u(j)], \qquad
    W'[j, \dots] = \frac{1}{c(u(j))} W[u(j), \dots]

  where u(j) is the unit that unit j copies, and c(u) the number of its copies:
  leaves that compute a unit are copied, leaves whose product contracts it are
  divided by the number of copies. The groups are those of ``find_symmetry``:
  hidden units, channels, heads, the residual stream.

  A group that is normalised (LayerNorm, RMSNorm) has equal moments only if all
  its units have equally many copies: give a multiple of its size, and no key.
  Copies stay equal under training from equal weights: add noise, or give a key,
  by which units differ in their number of copies.

  Args:
    params: a model, in memory, traced or on demand.
    sizes: the new number of units of some groups, at least the old one.
    symmetry: of the model, ``align.find_symmetry``.
    views: ``stats.matrix_views`` of the model: which axes of its leaves a
      product contracts.
    key: a random key: further units copy random ones (bert2BERT). None: unit j
      copies ``j mod n``.

  Returns:
    The wider model, for the module of the new sizes.

  Raises:
    ValueError: if there is no such group, it gets smaller, no product contracts
      it (such as the units of queries and keys), or a leaf has no rule in
      ``views``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, stats
    >>> mlp = lambda p, x: jnp.tanh(x @ p['a']) @ p['b']
    >>> params = {'a': jnp.ones((2, 3)), 'b': jnp.ones((3, 2))}
    >>> x = jnp.ones((4, 2))
    >>> new = widen(params, {'a:1': 5},
    ...             symmetry=align.find_symmetry(mlp, params, x),
    ...             views=stats.matrix_views(mlp, params, x))
    >>> new['a'].shape, new['b'][:, 0].tolist()
    ((2, 5), [0.5, 0.5, 1.0, 0.5, 0.5])
    >>> bool(jnp.allclose(mlp(new, x), mlp(params, x)))
    True

  Reference:
    Chen et al., "bert2BERT: Towards Reusable Pretrained Language Models", 2021,
    arXiv:2110.07143 (its function-preserving initialisation); Du et al.,
    "Stacking Your Transformers: A Closer Look at Model Growth for Efficient LLM
    Pre-Training", 2024, arXiv:2405.15319 (its operator G_split).
  """
  units = _units(sizes, symmetry, key)
  named = tree.named(params)
  wanted = dict.fromkeys(symmetry.leaf, True)
  tree.check_names('widen: params', named, 'the symmetry', wanted)
  rules = [(re.compile(pattern), view) for pattern, view in views.items()]
  plans: dict[str, tuple[Copies, ...]] = {}
  contracted: set[str] = set()
  for name, leaf in named.items():
    plan = symmetry.plan(name)
    groups = [{f.name for part in axis for f in part} for axis in plan]
    if not any(used & set(units) for used in groups):
      continue
    rows = _rows(name, leaf, rules, groups, units)
    if rows and not tree.is_float(leaf):
      raise ValueError(
        f"widen: leaf '{name}' is {leaf.dtype}, and copies divide it: "
        'quantised? dequantise first'
      )
    plans[name] = tuple(
      _copies(i, parts, units, divide=i in rows)
      for i, parts in enumerate(symmetry.layout(name))
      if groups[i] & set(units)
    )
    contracted |= {g for i in rows for g in groups[i]}
  for group in units:
    if group not in contracted:
      raise ValueError(
        f"widen: no product of a leaf contracts group '{group}': copies of its "
        'units would change the function'
      )
  return tree.map_named(
    lambda name, x: (
      tree.apply_kernel(_widen, x, copies=tree.Static(plans[name]))
      if name in plans
      else x
    ),
    params,
  )


def _units(
  sizes: Mapping[str, int],
  symmetry: align.Symmetry,
  key: types.PRNGKey | None,
) -> dict[str, np.ndarray]:
  """Returns for each group the old unit of each new one."""
  known = {group.name: group.size for group in symmetry.groups}
  found = {}
  if not isinstance(sizes, Mapping):
    raise ValueError(
      f'widen: sizes is a {type(sizes).__name__}: give {{group: units}}'
    )
  for name, size in sizes.items():
    if name not in known:
      raise ValueError(
        f"widen: there is no group '{name}'{tree.nearest(name, list(known))}: "
        'align.explain lists them'
      )
    old = known[name]
    tree.check_whole('widen', **{f'sizes[{name!r}]': size})
    if size < old:
      raise ValueError(
        f"widen: group '{name}' has {old} units, {size!r} asked: expected a "
        'whole number that is not smaller'
      )
    found[name] = np.arange(size) % old
    if key is not None:
      extra = jax.random.randint(
        tree.name_key(key, name), (size - old,), 0, old
      )
      found[name][old:] = np.asarray(extra)
  return found


def _rows(
  name: str,
  leaf: Any,
  rules: list[tuple[re.Pattern[str], tree.Matrix | None]],
  groups: list[set[str]],
  units: Mapping[str, np.ndarray],
) -> tuple[int, ...]:
  """Returns the axes of a leaf that its product contracts."""
  view = next((v for pattern, v in rules if pattern.search(name)), 'none')
  if isinstance(view, str):
    if len(leaf.shape) < 2:  # a bias or a scale
      return ()
    raise ValueError(
      f"widen: leaf '{name}' has no rule in views=: it has several uses, as a "
      'tied table, or is altered first; untie it, or add a rule'
    )
  if view is None:
    return ()
  batch = {g for i in view.batch for g in groups[i]}
  if batch & set(units):
    raise ValueError(
      f"widen: group '{min(batch & set(units))}' is a batch axis of leaf "
      f"'{name}', such as experts: its copies would change the function"
    )
  return tuple(view.rows)


def _copies(
  i: int,
  parts: tuple[Any, ...],
  units: Mapping[str, np.ndarray],
  *,
  divide: bool,
) -> Copies:
  """Returns the old entry of each new one of an axis, and its share."""
  places, shares = _entries(parts, units)
  every = tuple(shares.tolist()) if divide else None
  return Copies(i, tuple(places.tolist()), every)


def _entries(
  parts: tuple[Any, ...], units: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the old entry of each new one of a sum of parts, and its share.

  A part is a product of factors, major to minor, and of an inner sum, if it has
  one. Its new entries are all combinations of new units.
  """
  places: list[np.ndarray] = []
  shares: list[np.ndarray] = []
  offset = 0
  # If u has c copies, each with the share 1 / c of its outgoing weights, the
  # product sums c equal terms h_u W_u / c to h_u W_u. Copies of a product of
  # factors multiply, and so do shares.
  for part in parts:
    place, share = np.zeros(1, int), np.ones(1)
    for factor in part.factors:
      unit = units.get(factor.name, np.arange(factor.size))
      count = np.bincount(unit, minlength=factor.size)[unit]
      place = (place[:, None] * factor.size + unit).ravel()
      share = (share[:, None] / count).ravel()
    if part.parts:
      unit, each = _entries(part.parts, units)
      size = sum(p.size for p in part.parts)
      place = (place[:, None] * size + unit).ravel()
      share = (share[:, None] * each).ravel()
    places.append(place + offset)
    shares.append(share)
    offset += part.size
  return np.concatenate(places), np.concatenate(shares)


def _widen(x: types.Array, *, copies: tuple[Copies, ...]) -> types.Array:
  """Copies the units of a leaf, and divides those that are contracted."""
  wide = tree.wide(x)
  for axis, units, shares in copies:
    wide = jnp.take(wide, jnp.asarray(units, jnp.int32), axis=axis, mode='clip')
    if shares is not None:
      shape = [-1 if i == axis else 1 for i in range(wide.ndim)]
      wide = wide * jnp.asarray(shares, wide.dtype).reshape(shape)
  return wide.astype(x.dtype)
