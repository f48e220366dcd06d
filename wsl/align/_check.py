"""Checks a symmetry numerically: random elements, random parameters."""

from collections.abc import Callable
import re
from typing import Any, NamedTuple
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from wsl import jaxprs, tree, types
from wsl.align import _blocks, _permutation, _symmetry
from wsl.align._gauges import elements


class Report(NamedTuple):
  """The changes of the outputs under random elements of a group.

  Attributes:
    error: the largest change of an output, relative to its largest entry.
    group: the group that causes it; ``'all'`` is an element of all groups.
    errors: the largest change for each group, and for all groups at once.
  """

  error: float
  group: str
  errors: dict[str, float]


def check(
  symmetry: _symmetry.Symmetry,
  apply_fn: Callable[..., Any],
  params: types.Params,
  *inputs: Any,
  key: types.PRNGKey,
) -> Report:
  r"""Applies random elements of a group and compares the outputs.

  .. math:: \max_i |f(\pi\theta, x)_i - f(\theta, x)_i| \big/
    \max_i |f(\theta, x)_i|

  Zero biases, unit scales and zero means would hide errors, so parameters are
  first perturbed at random; positive leaves stay positive. For a symmetry, the
  error is rounding: at most about 1e-5 in float32 and 1e-12 in float64.

  Args:
    symmetry: the symmetry to check.
    apply_fn: the function ``apply_fn(params, *inputs)``.
    params: parameters, or the shapes of floating ones.
    *inputs: the other arguments, arrays.
    key: draws parameters and permutations.

  Returns:
    The largest relative error and the group that causes it.

  Raises:
    ValueError: if ``params`` do not fit the symmetry, or if the function
      returns NaN.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import align
    >>> mlp = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
    >>> params = {'a': jnp.ones((2, 5)), 'b': jnp.ones((5, 3))}
    >>> x = jnp.ones((1, 2))
    >>> symmetry = align.find_symmetry(mlp, params, x)
    >>> check(symmetry, mlp, params, x, key=jax.random.key(0)).error < 1e-5
    True
  """
  names = tree.named(params)
  _symmetry.check_leaves(symmetry, names, 'check: params')
  tree.check_not_narrowed('check', params)
  draw_key, move_key = jax.random.split(key)
  run = compile_outputs(apply_fn, inputs)
  drawn = perturb(params, draw_key, caller='check')
  wanted = run(drawn)
  moving = _permutation.random(symmetry, move_key, gauges=('permutation',))
  moving |= _actions(symmetry, move_key)
  elements = {g.name: {g.name: moving[g.name]} for g in symmetry.groups}
  for kind in _symmetry.KINDS:
    names_of = [a.name for a in symmetry.actions if a.kind == kind]
    if names_of:
      elements[f'every {kind}'] = {name: moving[name] for name in names_of}
  elements |= {'all': moving}
  errors = {
    name: difference(
      run(permute_on_host(drawn, element, symmetry)), wanted, caller='check'
    )
    for name, element in elements.items()
  }
  worst = max(errors, key=lambda name: errors[name])
  return Report(errors[worst], worst, errors)


def _actions(
  symmetry: _symmetry.Symmetry, key: types.PRNGKey
) -> dict[str, Any]:
  """Draws actions on the host: there is nothing to compile for each shape."""
  seed = np.asarray(jax.random.key_data(key)).tolist()

  def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    words = np.random.default_rng([*seed, zlib.crc32(name.encode())])
    return words.standard_normal(shape)

  return elements.draw(symmetry, normal, np)


def compile_outputs(
  apply_fn: Callable[..., Any], inputs: tuple[Any, ...]
) -> Callable[[types.Params], list[np.ndarray]]:
  """Compiles a function from parameters to the outputs as NumPy arrays."""
  call, arrays = jaxprs.bind_static(apply_fn, inputs)
  leaves = jax.jit(lambda params, arrays: jax.tree.leaves(call(params, arrays)))

  def run(params: types.Params) -> list[np.ndarray]:
    with jax.default_matmul_precision('highest'):
      return [np.asarray(x) for x in leaves(params, arrays)]

  return run


def permute_on_host(
  params: types.Params,
  permutation: _permutation.Permutation,
  symmetry: _symmetry.Symmetry,
) -> types.Params:
  """Permutes with NumPy, without compilation; otherwise like ``permute``.

  Groups without a table in ``permutation`` are not permuted.
  """
  tables: Any = {name: np.asarray(x) for name, x in permutation.items()}
  tables = elements.with_duals(symmetry, tables, np)

  def source(factors: _blocks.Factors, names: list[str]) -> list[np.ndarray]:
    # The block is gathered at one index array for each factor; the array of a
    # nested group is its table, looked up at the indices of outer factors.
    grid = np.indices([f.size for f in factors], sparse=True)
    index = list(grid)
    for i, factor in enumerate(factors):
      if factor.name in tables:
        outer = [grid[names.index(name)] for name in factor.outer]
        index[i] = tables[factor.name][(*outer, grid[i])]
    return index

  def one(name: str, leaf: Any) -> np.ndarray:
    x = np.asarray(leaf)
    layout = symmetry.layout(name)
    acts = elements.acts_of(symmetry, name, tables)
    used = {f.name for axis in symmetry.plan(name) for s in axis for f in s}
    if not acts and used.isdisjoint(tables):
      return x.copy()
    blocks = []
    for k, (block, factors) in enumerate(_blocks.to_blocks(x, layout)):
      names = [f.name for f in factors]
      here = tuple(a for a in acts if a.block == k)
      if not tables.keys().isdisjoint(names):
        block = block[tuple(source(factors, names))]
      if here:
        acted = elements.act(block, factors, here, tables, np)
        block = np.asarray(acted).astype(x.dtype)
      blocks.append(block)
    return np.array(_blocks.from_blocks(blocks, layout, np))

  return tree.map_named(one, params)


def perturb(
  params: types.Params, key: types.PRNGKey, *, caller: str
) -> types.Params:
  """Perturbs parameters away from special values, with NumPy.

  Positive leaves, such as scales and variances, are multiplied by log-normal
  noise; to others, noise of their own root mean square is added. Leaves given
  as shapes are drawn, positive if their name is ``scale`` or ``var``.

  Args:
    params: arrays, or shapes of floating leaves.
    key: draws the noise; each leaf is keyed by its name.
    caller: the public function to name in the error message.

  Returns:
    NumPy arrays of the same shapes and dtypes; integer leaves are unchanged.
  """
  seed = np.asarray(jax.random.bits(key, (4,), np.uint32)).tolist()

  def one(name: str, leaf: Any) -> np.ndarray:
    rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    if isinstance(leaf, jax.ShapeDtypeStruct):
      if not floating:
        raise ValueError(
          f"{caller}: leaf '{name}' of params is not floating: give its values"
        )
      positive = re.search('(scale|var)(iance)?(/value)?$', name)
      x = np.full(leaf.shape, 1.0 if positive else 0.0)
      spread = leaf.shape[-2] ** -0.5 if len(leaf.shape) > 1 else 0.5
    elif not tree.is_float(leaf):
      return np.asarray(leaf)
    else:
      wide = np.complex128 if tree.is_complex(leaf) else np.float64
      x = np.asarray(leaf).astype(wide)
      spread = float(np.sqrt(np.mean(np.abs(x) ** 2))) if x.size else 0.0
    # The function may need a positive leaf, such as a variance. Noise has the
    # size of the leaf, so that no leaf dominates the output.
    noise = rng.normal(size=x.shape)
    if np.iscomplexobj(x):
      x = x + (spread or 0.5) * (noise + 1j * rng.normal(size=x.shape))
    elif x.min(initial=np.inf) > 0:
      x = x * np.exp(0.5 * noise)
    else:
      x = x + (spread or 0.5) * noise
    return x.astype(leaf.dtype)

  return tree.map_named(one, params)


def difference(
  found: list[np.ndarray], wanted: list[np.ndarray], *, caller: str
) -> float:
  """Returns the largest change, relative to the largest entry of its array.

  Args:
    found: the outputs.
    wanted: the outputs before the change.
    caller: the public function to name in the error message.

  Raises:
    ValueError: if a wanted output is NaN.
  """
  if any(np.isnan(_numbers(x)).any() for x in wanted):
    raise ValueError(
      f'{caller}: the function returns NaN for random parameters: give inputs '
      '(and parameters to start from) for which it is finite'
    )
  return max((_change(x, y) for x, y in zip(found, wanted)), default=0.0)


def _change(found: np.ndarray, wanted: np.ndarray) -> float:
  """Returns the relative change of one output; equal infinities are equal."""
  found, wanted = (_numbers(x) for x in (found, wanted))
  with np.errstate(invalid='ignore'):
    gap = np.where(found == wanted, 0.0, np.abs(found - wanted))
  size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
  largest = gap.max(initial=0.0)
  if not largest:
    return 0.0
  return float(largest / size) if size and np.isfinite(largest) else np.inf


def _numbers(x: np.ndarray) -> np.ndarray:
  """Returns booleans, integers and floats in float64."""
  return x if np.iscomplexobj(x) else x.astype(np.float64)
