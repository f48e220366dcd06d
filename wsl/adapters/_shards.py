"""Mixture of shards (MoS): LoRAs that share the parts of their factors."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.adapters import _checks, _leaves


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('a', 'b', 'scale'),
  meta_fields=('pool', 'shape', 'view'),
)
@dataclasses.dataclass(frozen=True)
class ShardTable:
  """The places in a pool of the parts of the factors of a leaf.

  Attributes:
    a, b: those of the rows of A and of the columns of B, ``[G, r, l]``, int32.
    scale, shape, view: as in ``Factors``.
    pool: the name of the pool.
  """

  a: types.Array
  b: types.Array
  scale: types.Scalar
  pool: str
  shape: tuple[int, ...]
  view: tree.Matrix


class Shards(NamedTuple):
  """A mixture of shards.

  Attributes:
    pools: by role, ``a [P, in / l]`` and ``b [P, out / l]``.
    tables: by the name of the leaf.
  """

  pools: dict[str, dict[str, types.Array]]
  tables: dict[str, ShardTable]


def mos(
  params: types.Params,
  *,
  rank: int,
  budget: int,
  private: int = 0,
  shards: int = 1,
  key: types.PRNGKey,
  scale: types.Scalar = 1.0,
  leaves: types.Leaves = '',
  matrices: tree.Matrices | None = None,
) -> Shards:
  r"""Draws LoRAs of rank r whose parts are shards of pools for all layers.

  The L layers of a role (``tree.role``: names that differ in numbers alone, of
  one shape) share two pools of :math:`L e l` shards. Row j of A of layer k is

  .. math:: A^k_j = [P^A_{I^k_{j1}} \dots P^A_{I^k_{jl}}], \qquad
    B^k_{:j} = [P^B_{J^k_{j1}} \dots P^B_{J^k_{jl}}]

  with fixed random tables I and J, drawn separately. There are
  :math:`e (in + out)` parameters for each layer, as in a LoRA of rank e.

  Args:
    params: the model, in memory, on demand or ``jax.ShapeDtypeStruct``; only
      shapes are read.
    rank: r, of the LoRA of each layer.
    budget: e, the rank that is paid for.
    private: p, ranks of a layer that no other layer shares,
      0 <= p <= min(r, e).
    shards: l >= 1, the parts of a row of A and of a column of B. The last one
      is cut where l does not divide the size.
    key: a random key.
    scale: s; alpha / r.
    leaves: the leaves that are adapted, by a regular expression or a predicate
      on (name, shape). All matrices by default.
    matrices: as in ``tree.views``; leaves that are no matrices are left out.

  Returns:
    Pools, A uniform in :math:`\pm in^{-1/2}` and B zero; tables for ``expand``.

  Raises:
    ValueError: if a number is out of range, or a pool too small for a layer.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> params = {f'layer_{i}': jnp.zeros((6, 4)) for i in range(3)}
    >>> found = mos(params, rank=4, budget=2, private=1, shards=2,
    ...             key=jax.random.key(0))
    >>> {k: x.shape for k, x in found.pools['layer_# (6, 4)'].items()}
    {'a': (12, 3), 'b': (12, 2)}
    >>> expand(found.pools, found.tables)['layer_1'].rank
    4

  Reference:
    Wang et al., "MoS: Unleashing Parameter Efficiency of Low-Rank Adaptation
    with Mixture of Shards", 2024, arXiv:2410.00938.

  A reconstruction: the stored official code is of a predecessor, with rotated
  shards and random scales in place of tables.
  """
  _check(rank, budget, private, shards)
  roles: dict[str, dict[str, tuple[Any, tree.Matrix]]] = {}
  found = _leaves.matrices('mos', params, leaves, matrices)
  for name, (leaf, view) in found.items():
    role = f'{tree.role(name)} {tuple(leaf.shape)}'
    roles.setdefault(role, {})[name] = leaf, view
  pools: dict[str, dict[str, types.Array]] = {}
  tables: dict[str, ShardTable] = {}
  for role, members in roles.items():
    leaf, view = next(iter(members.values()))
    groups, *sizes = view.sizes(leaf.shape)
    counts = _Counts(len(members) * groups, rank, budget, private, shards)
    _check_room(role, counts, sizes)
    own = tree.name_key(key, role)
    dtype = jax.dtypes.canonicalize_dtype(tree.wide_dtype(leaf.dtype))
    pools[role] = _pool(own, counts, tuple(sizes), dtype)
    sides = [_table(jax.random.fold_in(own, i), counts) for i in (1, 2)]
    for k, (name, (leaf, view)) in enumerate(members.items()):
      a, b = (side[k * groups : (k + 1) * groups] for side in sides)
      tables[name] = ShardTable(a, b, scale, role, tuple(leaf.shape), view)
  return Shards(pools, {name: tables[name] for name in found})


def expand(
  pools: dict[str, dict[str, types.Array]], tables: dict[str, ShardTable]
) -> dict[str, deltas_lib.Factors]:
  """Returns the plain LoRAs of a mixture of shards.

  Args:
    pools: of ``mos``.
    tables: of ``mos``.

  Returns:
    ``Factors`` by the name of the leaf; differentiable in the pools: the
    gradient of a shard is the sum over all places that have it.

  Raises:
    ValueError: if a pool is missing.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> params = {'w': jnp.zeros((3, 2))}
    >>> pools, tables = mos(params, rank=1, budget=1, key=jax.random.key(0))
    >>> expand(pools, tables)['w'].a.shape
    (1, 3)

  Reference:
    as ``mos``.
  """
  for pool in {x.pool for x in tables.values()} - set(pools):
    raise ValueError(f"expand: no pool '{pool}': give both parts of one mos")
  return {k: _expand(pools[table.pool], table) for k, table in tables.items()}


def _expand(
  pool: dict[str, types.Array], table: ShardTable
) -> deltas_lib.Factors:
  """Joins l shards to each row of A and column of B; the last may be cut."""
  _, n, out = table.view.sizes(table.shape)

  def join(shards: types.Array, places: types.Array, size: int) -> types.Array:
    return shards[places].reshape(*places.shape[:2], -1)[..., :size]

  a = join(pool['a'], table.a, n)
  b = jnp.matrix_transpose(join(pool['b'], table.b, out))
  if not table.view.batch and table.view.groups == 1:
    a, b = a[0], b[0]
  return deltas_lib.Factors(a, b, table.scale, table.shape, table.view)


class _Counts(NamedTuple):
  """L, r, e, p and l of a pool."""

  layers: int
  rank: int
  budget: int
  private: int
  shards: int


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _pool(
  key: types.PRNGKey, counts: _Counts, sizes: tuple[int, int], dtype: Any
) -> dict[str, types.Array]:
  """Draws A as PyTorch draws a linear map, and returns zeros for B."""
  bound = sizes[0] ** -0.5
  count = counts.layers * counts.budget * counts.shards
  of_a, of_b = ((count, -(-size // counts.shards)) for size in sizes)
  a = jax.random.uniform(key, of_a, dtype, -bound, bound)
  return {'a': a, 'b': jnp.zeros(of_b, dtype)}


@functools.partial(jax.jit, static_argnums=1)
def _table(key: types.PRNGKey, counts: _Counts) -> types.Array:
  """Draws the places of the shards of all layers, ``[L, r, l]``.

  The first L p l shards of a pool are private: those of layer k follow each
  other. The public ranks of a layer are different shards of the rest.
  """
  layers, rank, budget, private, shards = counts
  first = layers * private * shards
  own = jnp.arange(first, dtype=jnp.int32)
  rest = layers * (budget - private) * shards
  wanted = (rank - private) * shards

  def public(key: types.PRNGKey) -> types.Array:
    return first + jax.random.permutation(key, rest)[:wanted]

  drawn = jax.vmap(public)(jax.random.split(key, layers)).astype(jnp.int32)
  parts = [
    own.reshape(layers, private, shards),
    drawn.reshape(layers, rank - private, shards),
  ]
  return jnp.concatenate(parts, 1)


def _check(rank: int, budget: int, private: int, shards: int) -> None:
  """Checks the arguments of ``mos``."""
  _checks.whole('mos', rank=rank, budget=budget, shards=shards)
  tree.check_whole('mos', private=private)
  if not 0 <= private <= min(rank, budget):
    most = f'0 .. {min(rank, budget)}, of rank= and budget='
    raise ValueError(f'mos(private={private}): expected {most}')


def _check_room(role: str, counts: _Counts, sizes: list[int]) -> None:
  """Checks that the layers of a role have room for ranks and shards."""
  public = counts.layers * (counts.budget - counts.private)
  wanted = counts.rank - counts.private
  if wanted > public:
    raise ValueError(
      f"mos: the pool of '{role}' has {public} public ranks, {wanted} are "
      'needed: raise budget=, or lower rank='
    )
  if counts.shards > min(sizes):
    raise ValueError(
      f"mos(shards={counts.shards}): '{role}' has {sizes[0]} inputs and "
      f'{sizes[1]} outputs: expected at most the smaller number'
    )
