"""Every merge, dtype, container, layout and form of a hyperparameter.

Hypothesis draws points of the cross product of the battery with what users
pass. At each point the merged model equals the one computed in float64 from
dicts of arrays and Python numbers, or the call is refused in one line.
"""

from collections import OrderedDict
from collections.abc import Callable
import dataclasses
import functools
import os
import re
from typing import Any, NamedTuple

from flax import nnx
from flax.core import freeze
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from tests.merge import battery
from wsl import deltas, merge, tree

T = battery.T
# A family is a row of its own: materialize. Arcee fusion compares with
# quartiles of its own results, so that rounding decides ties. Short rows of two
# models may be nearly opposite, where an arc is ill-conditioned.
NAMES = [
  name
  for name, row in battery.METHODS.items()
  if row.gives != 'family' and name not in ('arcee_fusion', 'nuslerp/rows')
]
# Merges of two models, by row.
PAIRS = {
  'slerp': merge.slerp,
  'slerp/global': functools.partial(merge.slerp, scope='global'),
  'slerp/scanned': functools.partial(merge.slerp, matrices=battery.LAYERS),
  'nuslerp': merge.nuslerp,
  'nearswap': merge.nearswap,
}
# Rows with views of the battery's matrices.
VIEWED = {name for name in NAMES if name.endswith('/scanned')}
SPECTRAL = {'tsv', 'iso_c', 'iso_cts', 'tsv_compress', 'wudi', 'doge'}
SPECTRAL |= {'knots', 'twins', 'rmm'}
ENTRYWISE = set(NAMES) - SPECTRAL - VIEWED - {'dare', 'della', 'regmean'}
# Weights that are small differences of scores.
ENTRYWISE -= {'pcb'}
LINEAR = {'sum', 'mean', 'weighted_mean', 'fisher', 'scale.by_depth'}
PER_MODEL = {'density', 'outliers', 'rate', 'threshold', 'floor', 'coefs'}
PER_MODEL |= {'epsilon'}
# Their threshold or rate is a number.
ONE_NUMBER = {'ram', 'ram_plus', 'ram_plus/global', 'wudi'}

FLOATS = ['float16', 'bfloat16', 'float32', 'float64']
DTYPES = [*FLOATS, 'complex64', 'complex128', 'float8_e4m3fn', 'int8', 'int32']
# Shapes of the leaf that battery has as [4, 8].
LAYOUTS = {
  'a matrix': (4, 8),
  'scanned layers': (2, 4, 4),
  'attention': (8, 2, 2),
  'a convolution': (2, 2, 2, 4),
}
ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
  'jax': lambda x: x if tree.narrowed(x.dtype) else jnp.asarray(x),
  'numpy': np.asarray,
  'fortran': lambda x: np.asarray(x, order='F'),
  'on demand': lambda x: tree.Stored(lambda: x, x.shape, x.dtype),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Net:
  block_0: Any
  block_1: Any
  step: Any


def _state(x: Any) -> nnx.State:
  return nnx.State(jax.tree.map(nnx.Param, x))


def _reversed(x: Any) -> Any:
  return OrderedDict((k, x[k]) for k in reversed(list(x)))


MAPPINGS = ['dict', 'FrozenDict', 'OrderedDict']
CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
  'dict': dict,
  'FrozenDict': freeze,
  'OrderedDict': _reversed,
  'list': lambda x: list(x.values()),
  'tuple': lambda x: tuple(x.values()),
  'dataclass': lambda x: Net(**x),
  'nnx.State': _state,
}
# One value, given in different forms, and whether it stays a number.
FORMS: dict[str, Callable[[float], Any]] = {
  'number': lambda v: v,
  'numpy number': np.float64,
  'array of rank 0': jnp.asarray,
  'traced': lambda v: v,
  'one for each model': lambda v: [v] * T,
  'array of one': lambda v: np.asarray([v]),
  'two numbers': lambda v: jnp.asarray([v, v]),
}


def _values(seed: int, shape: tuple[int, ...]) -> np.ndarray:
  """Multiples of 1/16 that bfloat16 has, so that differences are exact."""
  x = np.random.default_rng(seed).integers(-40, 40, (4, 8)) / 16
  return x.reshape(shape)


def _model(seed: int, dtype: Any, shape: tuple[int, ...]) -> dict[str, Any]:
  """Returns a model of numpy arrays; complex ones have two parts."""

  def cast(i: int, shape: tuple[int, ...]) -> np.ndarray:
    x = _values(10 * seed + i, (4, 8))
    if jnp.issubdtype(dtype, jnp.complexfloating):
      # All entries of a place have one phase: magnitudes that are equal stay
      # equal when they are rounded, so ranks do not depend on the dtype.
      x = x * (1 + 0.5j) * 1j ** np.arange(32).reshape(4, 8)
    if jnp.issubdtype(dtype, jnp.integer):
      x = x * 16
    return (x if shape else x[0, 0]).reshape(shape).astype(dtype)

  return {
    'block_0': {'w': cast(0, shape)},
    'block_1': {'w': cast(1, shape), 'scale': cast(2, ())},
    'step': np.asarray([7, 2**30], np.int32),
  }


class Point(NamedTuple):
  """A point of the cross product."""

  name: str
  seed: int
  dtype: str
  layout: str
  arrays: str
  base: str
  models: str
  form: str
  argument: int

  @property
  def hyper(self) -> dict[str, Any]:
    """The hyperparameters of the battery, as numbers."""
    return battery.first(battery.METHODS[self.name])

  @property
  def varied(self) -> str | None:
    """The hyperparameter that is given in another form, if there is one."""
    names = list(self.hyper)
    return names[self.argument % len(names)] if names else None


POINTS = st.builds(
  Point,
  name=st.sampled_from(NAMES),
  seed=st.integers(0, 1),
  dtype=st.sampled_from(DTYPES + FLOATS),
  layout=st.sampled_from(list(LAYOUTS)),
  arrays=st.sampled_from(list(ARRAYS)),
  base=st.sampled_from(list(CONTAINERS)),
  models=st.sampled_from(['the same'] * 40 + list(CONTAINERS)),
  form=st.sampled_from(['number'] * 8 + list(FORMS)),
  argument=st.integers(0, 1),
)


# Users have JAX's defaults: most points are drawn there, in the second run.
_EXAMPLES = 90 if os.environ.get('WSL_TEST_DEFAULTS') == '1' else 40


@hypothesis.settings(
  max_examples=_EXAMPLES, deadline=None, derandomize=True, database=None
)
@hypothesis.given(POINTS)
def test_every_point_is_right_or_refused_in_one_line(point: Point) -> None:
  must, may = _reasons(point)
  try:
    found = _result(point)
  except ValueError as error:
    text = str(error)
    assert '\n' not in text
    assert re.search('|'.join([*must, *may]) or 'no reason', text), text
    return
  assert not must
  wanted = _oracle(
    point.name,
    point.seed,
    point.dtype,
    'a matrix' if point.name in ENTRYWISE else point.layout,
    # Random masks depend on the names of leaves.
    point.base if point.name in ('dare', 'della') else 'dict',
  )
  base = _model(point.seed, point.dtype, LAYOUTS[point.layout])
  for name, x in _plain(found).items():
    leaf = tree.named(base)[name]
    assert (x.dtype, x.shape) == (leaf.dtype, leaf.shape), name
    if name == 'step':
      np.testing.assert_array_equal(x, leaf)
      continue
    y = wanted[name].reshape(x.shape)
    error = np.abs(np.asarray(x).astype(y.dtype) - y)
    # Rounding once to the dtype, and the arithmetic in float32.
    bound = 2 * float(jnp.finfo(leaf.dtype).eps) * np.maximum(1, np.abs(y))
    narrow = leaf.dtype.name not in ('float64', 'complex128')
    # Without x64 an array of rank 0 holds a number of 32 bits.
    short = point.form == 'array of rank 0' and not jax.config.jax_enable_x64
    double = 1e-6 if short else 1e-9
    bound += (1e-5 if point.name in ENTRYWISE else 1e-3) if narrow else double
    assert (error <= bound).all(), (name, error.max())


def _reasons(point: Point) -> tuple[list[str], list[str]]:
  """Returns patterns of the errors that must, and of those that may occur."""
  must, may = [], []
  kinds = point.base, point.base if point.models == 'the same' else point.models
  if len(set(kinds) - set(MAPPINGS)) + any(k in MAPPINGS for k in kinds) > 1:
    # The children of a list have other names.
    must.append(r"tree\.like\(base, other\)|no leaf '\S+' as in")
  if 'int' in point.dtype:
    must.append(r"leaf '\S+' .*quantised\?")
  per_model = point.form == 'one for each model' and point.varied in PER_MODEL
  per_model = per_model and point.name not in ONE_NUMBER
  arrays = ('one for each model', 'array of one', 'two numbers')
  if point.varied and point.form in arrays and not per_model:
    must.append(rf'{point.varied} has shape \(')
  if point.form == 'traced' and tree.narrowed(np.dtype(point.dtype)):
    may.append('jax_enable_x64')
  if point.dtype == 'float8_e4m3fn':
    may.append('float8|8 bits|quantised')
  if point.dtype.startswith('complex') and point.name not in LINEAR:
    may.append(r"leaf '\S+' .*complex")
  if point.name in SPECTRAL and point.layout != 'a matrix':
    must.append(r"leaf '\S+' of shape .* has more than two axes: say which")
  if point.name in VIEWED and point.layout != 'a matrix':
    must.append(r"leaf '\S+' of shape .* has to name each of the [34] axes")
  if point.name in VIEWED and point.base not in MAPPINGS:
    may.append(r"matrices: rule '\S+' matches no leaf|has more than two axes")
  if point.name == 'regmean':
    if point.layout != 'a matrix':
      may.append(r"regmean: leaf '\S+' of shape .* needs Gram matrices")
    if point.base not in MAPPINGS:
      may.append('regmean: the grams: ')
  if point.name == 'scale.by_depth' and point.base in ('list', 'tuple'):
    must.append(r'by_depth\(depth=')
  return must, may


def _result(point: Point) -> Any:
  """Calls the method as the point says."""
  shape = LAYOUTS[point.layout]
  made = [_model(point.seed + t, point.dtype, shape) for t in range(T + 1)]
  same = point.models == 'the same'
  kinds = [point.base] + [point.base if same else point.models] * T
  base, *models = [
    CONTAINERS[kind](jax.tree.map(ARRAYS[point.arrays], model))
    for kind, model in zip(kinds, made)
  ]
  sides = _sides(point.name, shape)
  merged = functools.partial(_merge, point.name, base, models, sides)
  hyper, varied = point.hyper, point.varied
  if varied is None:
    found = tree.read(merged(hyper))
  elif point.form == 'traced':
    traced = jax.jit(lambda v: tree.read(merged(hyper | {varied: v})))
    found = traced(hyper[varied])
  else:
    form = FORMS[point.form](hyper[varied])
    found = tree.read(merged(hyper | {varied: form}))
  assert jax.tree.structure(found) == jax.tree.structure(base)
  return found


@functools.cache
def _oracle(
  name: str, seed: int, dtype: str, layout: str, kind: str
) -> dict[str, np.ndarray]:
  """Merges in float64; linear methods merge complex parts one by one."""
  shape = LAYOUTS[layout]
  made = [_model(seed + t, dtype, shape) for t in range(T + 1)]
  is_complex = dtype.startswith('complex')
  wide = np.complex128 if is_complex else np.float64
  hyper = battery.first(battery.METHODS[name])

  def merged(part: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    cast = lambda x: x if x.dtype == np.int32 else part(x.astype(wide))
    models = [CONTAINERS[kind](jax.tree.map(cast, model)) for model in made]
    sides = _sides(name, shape)
    return _plain(_merge(name, models[0], models[1:], sides, hyper))

  if is_complex and name in LINEAR:
    real, imaginary = merged(np.real), merged(np.imag)
    return {
      name: np.asarray(x) + 1j * np.asarray(imaginary[name])
      for name, x in real.items()
    }
  return jax.tree.map(np.asarray, merged(lambda x: x))


def _merge(
  name: str, base: Any, models: list[Any], sides: Any, hyper: Any
) -> Any:
  """Returns the merged model; edits of task vectors are averaged."""
  row = battery.METHODS[name]
  if row.gives == 'model':
    if name in PAIRS:
      return PAIRS[name](base, models[-1], **hyper)
    # A merge without a base comes in the containers of its first model.
    first = deltas.check(name, {'base': base, 'first': models[0]})[1]
    return getattr(merge, name)([first, *models[1:]], **sides, **hyper)
  x = deltas.stack(base, models)
  if 'fishers' in sides:
    # In the order of names, which all containers have.
    values = dict(zip(_plain_names(x), tree.named(x)))
    fishers = tree.named(sides['fishers'])
    flat = {values[name]: fishers[name] for name in values}
    sides = {'fishers': tree.like(x, flat)}
  merged = row.call(x, sides, **hyper)
  merged = merge.mean(merged) if row.gives == 'deltas' else merged
  return deltas.apply(base, merged, coef=0.5)


@functools.cache
def _sides(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
  """Returns the battery's statistics, Fisher diagonals in another shape."""
  sides = battery.METHODS[name].sides(T)
  if 'fishers' not in sides:
    return sides
  fit = lambda f: f.reshape(T, *shape) if f.ndim > 1 else f
  return {'fishers': jax.tree.map(fit, sides['fishers'])}


def _plain_names(x: Any) -> list[str]:
  """Returns the names of leaves as in nested dicts."""
  keys = {'0': 'block_0', '1': 'block_1', '2': 'step'}
  split = [name.removesuffix('/value').split('/') for name in tree.named(x)]
  return ['/'.join([keys.get(first, first), *rest]) for first, *rest in split]


def _plain(x: Any) -> dict[str, Any]:
  """Returns the leaves by their names in nested dicts."""
  return dict(zip(_plain_names(x), tree.named(x).values()))
