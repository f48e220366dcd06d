"""Candidates mapped over a mesh axis, in batches."""

from collections.abc import Callable, Iterator
import itertools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.mesh import _make, _place
from wsl.mesh._map import calls as calls_lib
from wsl.mesh._map import program as program_lib
from wsl.mesh._map import results as results_lib

# The status of a call that does not fit the memory of a device.
_EXHAUSTED = 'RESOURCE_EXHAUSTED'


def map_candidates(
  fn: Callable[[Any], types.Tree],
  candidates: types.Tree,
  *,
  mesh: jax.sharding.Mesh,
  axis: str = _make.CANDIDATES,
  batch: int | None = None,
  progress: Callable[[results_lib.Batch], None] | None = None,
) -> types.Tree:
  r"""Evaluates a function of each candidate, many of them at once.

  .. math:: y_i = f(x_i), \quad i = 1, \dots, N

  Each of the D devices along ``axis`` has N / D consecutive candidates (the
  last is repeated where D does not divide N, and its copies are dropped), and
  evaluates ``batch`` of them at once by ``jax.vmap``. All batches are computed
  by one compiled program, kept as long as ``fn``: pass the same function again,
  not a new lambda, and nothing is compiled. Where a batch takes less than a
  quarter of a second, a call of the program evaluates several in turn.

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
    batch: the candidates that one device evaluates at once, at least 1. Memory
      grows with it, and 1 needs as much as one call of ``fn``. ``None`` takes 1
      on CPUs, where larger ones are rarely faster; elsewhere all candidates of
      the device, and half as many until they fit its memory.
    progress: called with each finished ``Batch``, the candidates of one call,
      in order. The next call is being computed meanwhile.

  Returns:
    The results of all candidates in order, every leaf ``[N, ...]``, as numpy
    arrays; in a run of several processes, on each of them. Values that are not
    finite are returned as they are, see ``finite``: a candidate that diverges
    does not affect others.

  Raises:
    ValueError: if there are no candidates, leaves differ in length, they are
      traced, no numbers or too large for JAX's dtype; if the mesh has no such
      axis or explicit axes; if ``batch`` is no integer or less than 1; or if
      ``fn`` or ``progress`` cannot be called.

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
  if tree.is_traced(candidates):
    raise ValueError(
      'map_candidates: candidates are traced: call it outside of jax.jit, on '
      'arrays'
    )
  total = results_lib.count(candidates)
  batch = _check_arguments(fn, mesh, axis, batch, progress)
  devices = mesh.shape[axis]
  share = math.ceil(total / devices)
  placed = _placed(candidates, devices * share - total, mesh, axis)
  partial = tree.partial(fn)
  bound = jax.tree.leaves((partial.args, partial.keywords))
  bound = [program_lib.on_mesh(x, mesh) for x in bound]
  leaves = jax.tree.leaves(placed)
  for size in _sizes(batch, share, mesh):
    try:
      program = program_lib.find(partial, placed, mesh, axis, size)
      calls = calls_lib.run(program, bound, leaves, devices, size)
      head = next(calls)
    except RuntimeError as error:
      # Memory is exhausted by the first batch, or not at all.
      if batch is not None or size == 1 or _EXHAUSTED not in str(error):
        raise
    else:
      break
  results = results_lib.Results(devices, share, total)
  structure = program.structure
  for rows in itertools.chain([head], calls):
    found = results.add(rows)
    if progress is not None:
      progress(found._replace(results=structure.unflatten(found.results)))
  return structure.unflatten(results.whole())


def _check_arguments(
  fn: Any, mesh: jax.sharding.Mesh, axis: Any, batch: Any, progress: Any
) -> int | None:
  """Checks what is no array; returns the size of a batch."""
  for name, value in (('fn', fn), ('progress', progress)):
    if not callable(value) and (value is not None or name == 'fn'):
      raise ValueError(f'map_candidates: {name} is no function: {value!r:.60}')
  if not isinstance(axis, str) or axis not in mesh.shape:
    raise ValueError(
      f"map_candidates: the mesh has no axis '{axis}': name one of "
      f'{list(mesh.axis_names)} by axis='
    )
  if batch is None:
    return None
  whole = hasattr(batch, '__index__') and not isinstance(batch, bool)
  if not whole or batch < 1:
    raise ValueError(
      f'map_candidates(batch={batch!r:.60}): give an integer of 1 or more'
    )
  return operator.index(batch)


def _on_host(name: str, leaf: Any) -> np.ndarray:
  """Returns candidates in a dtype of JAX.

  Raises:
    ValueError: if they are no numbers, or too large for the dtype.
  """
  x = np.asarray(leaf)
  if x.dtype.kind in 'OSUMm':
    raise ValueError(
      f"map_candidates: leaf '{name}' is of {x.dtype}, no numbers: make "
      'candidates of what differs in structure by one call each'
    )
  dtype = jax.dtypes.canonicalize_dtype(x.dtype)
  with np.errstate(over='ignore'):
    found = x.astype(dtype, copy=False)
  real = x.dtype.kind in 'fc'
  same = np.isfinite(found) == np.isfinite(x) if real else found == x
  if dtype != x.dtype and not np.all(same):
    raise ValueError(
      f"map_candidates: leaf '{name}' has values of {x.dtype} that do not fit "
      f'{dtype}: set jax_enable_x64'
    )
  return found


def _placed(
  candidates: types.Tree, missing: int, mesh: jax.sharding.Mesh, axis: str
) -> types.Tree:
  """Distributes candidates over the axis, with the last one repeated."""

  def place(name: str, leaf: Any) -> jax.Array:
    x: Any = leaf if isinstance(leaf, jax.Array) else _on_host(name, leaf)
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

  return tree.map_named(place, candidates)


def _sizes(
  batch: int | None, share: int, mesh: jax.sharding.Mesh
) -> Iterator[int]:
  """Yields the sizes of batches to try, until one fits the memory."""
  if batch is None:
    # A program of one candidate uses all cores of a CPU, and its caches.
    batch = 1 if mesh.devices.flat[0].platform == 'cpu' else share
  size = min(batch, share)
  while size > 1:
    yield size
    size = math.ceil(size / 2)
  yield 1
