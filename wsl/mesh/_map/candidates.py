"""Candidates mapped over a mesh axis, in batches."""

from collections.abc import Callable, Iterator
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.mesh import _make, _place
from wsl.mesh._map import program as program_lib


class Batch(NamedTuple):
  """The candidates that were evaluated by one call of the compiled program.

  Attributes:
    indices: their positions among all candidates, ``[n]``, ascending.
    results: their results, leaves ``[n, ...]``, numpy arrays.
    done: the number of candidates that are done so far.
    total: N, the number of all candidates.
  """

  indices: np.ndarray
  results: types.Tree
  done: int
  total: int


def map_candidates(
  fn: Callable[[Any], types.Tree],
  candidates: types.Tree,
  *,
  mesh: jax.sharding.Mesh,
  axis: str = _make.CANDIDATES,
  batch: int | None = None,
  progress: Callable[[Batch], None] | None = None,
) -> types.Tree:
  r"""Evaluates a function of each candidate, many of them at once.

  .. math:: y_i = f(x_i), \quad i = 1, \dots, N

  Each of the D devices along ``axis`` has N / D consecutive candidates (the
  last is repeated where D does not divide N, and its copies are dropped), and
  evaluates ``batch`` of them at once by ``jax.vmap``. All batches are calls of
  one compiled program, kept as long as ``fn``: pass the same function again,
  not a new lambda, and nothing is compiled.

  ``fn`` may close over arrays, such as a bank of task vectors or a data set.
  They keep their sharding over the other axes of the mesh, and arrays of one
  device are replicated. Arrays that a ``jax.jit`` within ``fn`` closes over
  are constants of its program instead: pass them as its arguments.

  Args:
    fn: maps one candidate to a pytree of arrays; it is traced once. It may be a
      ``jax.tree_util.Partial``, whose arrays are arguments of the program, so
      that others of their shapes compile nothing.
    candidates: any pytree, every leaf ``[N, ...]``: coefficients, densities,
      keys, or whole models. Leaves that are sharded over ``axis`` already stay
      where they are if D divides N.
    mesh: a mesh of automatic axes, see ``make``.
    axis: the mesh axis over which candidates are mapped.
    batch: the candidates that one device evaluates at once, at least 1;
      ``None`` evaluates all of its candidates at once. Memory grows with it,
      and 1 needs as much as one call of ``fn``.
    progress: called with each finished ``Batch``, in order. The next batch is
      being computed meanwhile.

  Returns:
    The results of all candidates in order, every leaf ``[N, ...]``, as numpy
    arrays; in a run of several processes, on each of them. Values that are not
    finite are returned as they are, see ``finite``: a candidate that diverges
    does not affect others.

  Raises:
    ValueError: if there are no candidates, leaves differ in length, the mesh
      has no such axis or explicit axes, or ``batch`` is less than 1.

  Example:
    >>> import numpy as np
    >>> from wsl import mesh
    >>> m = mesh.make('candidates:1')
    >>> x = np.arange(3, dtype=np.float32)
    >>> fn = lambda c: (c * x).sum()
    >>> mesh.map_candidates(fn, np.float32([1, 2, 3]), mesh=m, batch=2)
    array([3., 6., 9.], dtype=float32)
  """
  _make.check('map_candidates', mesh)
  total = _count(candidates)
  if axis not in mesh.shape:
    raise ValueError(
      f"map_candidates: the mesh has no axis '{axis}': name one of "
      f'{list(mesh.axis_names)} by axis='
    )
  if batch is not None and batch < 1:
    raise ValueError(f'map_candidates(batch={batch}): give 1 or more')
  devices = mesh.shape[axis]
  share = math.ceil(total / devices)
  batch = share if batch is None else min(batch, share)
  fn = tree.partial(fn)
  placed = _placed(candidates, devices * share - total, mesh, axis)
  program = program_lib.find(fn, placed, mesh, axis, batch)
  bound = [
    program_lib.on_mesh(x, mesh)
    for x in jax.tree.leaves((fn.args, fn.keywords))
  ]
  leaves = jax.tree.leaves(placed)

  def compute() -> Iterator[tuple[int, list[Any]]]:
    for start in range(0, share, batch):
      # The last batch begins earlier, so that it is as large as the others.
      first = np.int32(min(start, share - batch))
      yield start, program.run(program.constants, *bound, *leaves, first)

  results: list[np.ndarray] = []
  done = 0
  for start, found in _ahead(compute()):
    rows = [_place.to_host(y) for y in found]
    rows = [y.reshape(devices, batch, *y.shape[1:]) for y in rows]
    first = min(start, share - batch)
    if not results:
      results = [
        np.empty((devices, share, *y.shape[2:]), y.dtype) for y in rows
      ]
    for y, row in zip(results, rows):
      y[:, first : first + batch] = row
    if progress is not None:
      local = np.arange(start, first + batch)
      indices = (np.arange(devices)[:, None] * share + local).reshape(-1)
      indices = indices[indices < total]
      done += len(indices)
      new = [row[:, start - first :] for row in rows]
      new = [x.reshape(-1, *x.shape[2:])[: len(indices)] for x in new]
      progress(Batch(indices, program.structure.unflatten(new), done, total))
  whole = [y.reshape(-1, *y.shape[2:])[:total] for y in results]
  return program.structure.unflatten(whole)


def finite(results: types.Tree) -> np.ndarray:
  """Marks the candidates whose results are all finite.

  Args:
    results: results of ``map_candidates``, every leaf ``[N, ...]``.

  Returns:
    Bools ``[N]``.

  Raises:
    ValueError: if there are no results, or leaves differ in length.

  Example:
    >>> finite({'loss': np.array([0.5, np.nan]), 'step': np.array([1, 2])})
    array([ True, False])
  """
  count = _count(results, 'finite: results')
  good = np.ones(count, bool)
  for x in jax.tree.leaves(results):
    with np.errstate(invalid='ignore'):  # narrow floats warn about NaN
      good &= np.isfinite(np.asarray(x)).reshape(count, -1).all(1)
  return good


def _count(candidates: types.Tree, label: str = 'map_candidates') -> int:
  """Returns the number of candidates, the length of every leaf."""
  lengths = {}
  for name, leaf in tree.named(candidates).items():
    if not np.shape(leaf):
      raise ValueError(
        f"{label}: leaf '{name}' is one value: give every leaf [N, ...], one "
        'entry for each candidate'
      )
    lengths[name] = np.shape(leaf)[0]
  first = next(iter(lengths), None)
  if first is None or not lengths[first]:
    raise ValueError(f'{label}: no candidates given, at least one is needed')
  for name, length in lengths.items():
    if length != lengths[first]:
      raise ValueError(
        f"{label}: leaf '{name}' has {length} candidates, leaf '{first}' "
        f'{lengths[first]}: give each leaf one entry for each candidate'
      )
  return int(lengths[first])


def _placed(
  candidates: types.Tree, missing: int, mesh: jax.sharding.Mesh, axis: str
) -> types.Tree:
  """Distributes candidates over the axis, with the last one repeated."""

  def place(leaf: Any) -> jax.Array:
    x: Any = leaf
    if not isinstance(x, jax.Array):
      x = np.asarray(x)
      x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    if missing:
      module = jnp if isinstance(x, jax.Array) else np
      x = module.concatenate([x, *[x[-1:]] * missing])
    rest: tuple[Any, ...] = ()
    sharding = getattr(leaf, 'sharding', None)
    if isinstance(sharding, jax.sharding.NamedSharding):
      # Other axes of a model stay sharded.
      rest = sharding.spec[1:] if sharding.mesh == mesh else ()
    spec = jax.sharding.PartitionSpec(axis, *rest)
    return _place.put(x, jax.sharding.NamedSharding(mesh, spec))

  return jax.tree.map(place, candidates)


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
  """Yields items one late: the next one is begun before one is used."""
  last = None
  for item in items:
    if last is not None:
      yield last
    last = item
  if last is not None:
    yield last
