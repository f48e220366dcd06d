"""Leaves that are not plain floats: what may be merged, and casts."""

from collections.abc import Mapping
import re
from typing import Any

import jax
import numpy as np

from wsl import types
from wsl.tree import _finite, _map, _names, _nodes, _on_demand, _program

_SCALE = re.compile(r'scales?(_|$)')


def cast(tree: types.Tree, dtype: Any) -> types.Tree:
  """Casts the float leaves of a model, in memory or on demand.

  Args:
    tree: any pytree of arrays; integers and ``None`` are returned as they are.
    dtype: a float dtype, such as ``jnp.bfloat16``.

  Returns:
    The tree with leaves of ``dtype``. float64 is possible without
    ``jax_enable_x64`` too, as numpy arrays.

  Raises:
    ValueError: if ``dtype`` is no float dtype; or a leaf is complex and
      ``dtype`` real, or a value overflows ``dtype``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> x = cast({'w': np.ones(2), 'n': np.asarray(3)}, jnp.bfloat16)
    >>> x['w'].dtype.name, x['n'].dtype.name
    ('bfloat16', 'int64')
  """
  hyper = output_dtype('cast', tree, _dtype('cast', dtype))

  def one(x: Any) -> Any:
    if not _program.is_float(x) or x.dtype == hyper['dtype'].value:
      return x
    return _on_demand.apply_kernel(cast_leaf, x, **hyper)

  result = jax.tree.map(one, tree)
  remedy = f'it does not fit {np.dtype(dtype)}: choose a wider dtype'
  _finite.check_finite('cast', result, tree, remedy=remedy)
  return result


def output_dtype(label: str, tree: types.Tree, dtype: Any) -> dict[str, Any]:
  """Returns the keyword ``dtype`` for a kernel; none if ``dtype`` is None.

  Args:
    label: the calling function, with which messages begin.
    tree: the model whose float leaves are to be returned in ``dtype``.
    dtype: a float dtype, or None.

  Returns:
    ``{}``, or ``{'dtype': Static(dtype)}``.

  Raises:
    ValueError: if ``dtype`` is no float dtype, or a leaf is complex and
      ``dtype`` real, naming the leaf.

  Example:
    >>> output_dtype('f', {'w': np.ones(2)}, 'float16')
    {'dtype': Static(value=dtype('float16'))}
  """
  if dtype is None:
    return {}
  found = _dtype(label, dtype)
  for name, leaf in _names.named(tree).items():
    if hasattr(leaf, 'dtype') and is_complex(leaf) and found.kind != 'c':
      raise ValueError(
        f"{label}: leaf '{name}' is {leaf.dtype}, {found} would drop its "
        'imaginary part: split it into real and imaginary parts first'
      )
  return {'dtype': _nodes.Static(found)}


def _dtype(label: str, dtype: Any) -> np.dtype:
  """Returns the dtype of floats that is named, after a check."""
  try:
    # NumPy takes None as float64.
    found: Any = np.dtype(dtype) if dtype is not None else None
    right = found is not None and _program.is_float(np.empty(0, found))
  except TypeError:
    found, right = type(dtype).__name__, False
  if not right:
    raise ValueError(
      f'{label}: dtype={found}: expected a float dtype, such as bfloat16'
    )
  return found


def is_complex(x: Any) -> bool:
  """Returns True for an array of complex numbers.

  Example:
    >>> is_complex(np.zeros(2, np.complex64))
    True
  """
  return isinstance(x.dtype, np.dtype) and x.dtype.kind == 'c'


def check_real(label: str, tree: types.Tree, reason: str) -> None:
  """Checks that no leaf is complex.

  Args:
    label: the calling function, with which the message begins.
    tree: any pytree.
    reason: why the function is not defined for complex numbers.

  Raises:
    ValueError: naming the leaf.

  Example:
    >>> check_real('ties', {'w': np.zeros(2, np.complex64)}, 'no sign')
    Traceback (most recent call last):
    ...
    ValueError: ties: leaf 'w' is complex64: no sign
  """
  for name, leaf in _names.named(tree).items():
    if hasattr(leaf, 'dtype') and is_complex(leaf):
      raise ValueError(f"{label}: leaf '{name}' is {leaf.dtype}: {reason}")


def check_not_narrowed(
  label: str, params: types.Params, *, integers: bool = False
) -> None:
  """Checks that jit would not narrow a float leaf: x64 is on, or none has 64.

  Args:
    label: the calling function, with which the message begins.
    params: any pytree.
    integers: whether integer leaves are checked too, because they are returned.

  Raises:
    ValueError: naming the leaf.

  Example:
    >>> check_not_narrowed('f', {'w': np.ones(2, np.float32)})
  """
  if jax.config.read('jax_enable_x64'):
    return
  lossy = lambda x: (
    hasattr(x, 'dtype')
    and _program.narrowed(x.dtype)
    and (integers or _program.is_float(x))
  )
  if not any(map(lossy, jax.tree.leaves(params))):
    return
  named = _names.named(params)
  name = next(name for name, leaf in named.items() if lossy(leaf))
  leaf, place = named[name], f" '{name}'" if name else ''
  remedy = f'cast it to {jax.dtypes.canonicalize_dtype(leaf.dtype)}'
  if _program.is_float(leaf):
    remedy = "give tree.cast(params, 'float32')"
  raise ValueError(
    f'{label}: leaf{place} is {leaf.dtype}, which a trace would narrow: set '
    f'jax_enable_x64, or {remedy}'
  )


def check_weights(label: str, models: Mapping[str, types.Tree]) -> None:
  """Checks that integers, and floats of 8 bits under scales, do not differ.

  Such leaves are usually quantised weights: their mean, or the first model's
  values under averaged scales, are no model. Single integers, such as counters
  of steps, may differ; traced leaves are not checked. Leaves on demand are
  read, if they are integers or under scales.

  Args:
    label: the calling function, with which the message begins.
    models: the models by the name that messages use; all are compared with the
      first.

  Raises:
    ValueError: naming the leaf.

  Example:
    >>> a, b = {'w': np.asarray([1, 2])}, {'w': np.asarray([1, 3])}
    >>> check_weights('mix', {'a': a, 'b': b})
    Traceback (most recent call last):
    ...
    ValueError: mix: b: integer leaf 'w' differs from a's: quantised? ...
  """
  (first, model), *others = models.items()
  leaves = _names.named(model)
  for name, x in leaves.items():
    if not hasattr(x, 'dtype') or not isinstance(x.dtype, np.dtype):
      continue
    scale = _scale_of(name, leaves) if _program.is_float(x) else None
    if x.size <= 1 or (_program.is_float(x) and scale is None):
      continue
    for other, tree in others:
      y = _names.named(tree).get(name)
      if y is None or _same(x, y):
        continue
      kind = 'bool' if x.dtype == bool else 'integer'
      what = kind if scale is None else f'{x.dtype}'
      beside = '' if scale is None else f" beside '{scale}'"
      raise ValueError(
        f"{label}: {other}: {what} leaf '{name}'{beside} differs from "
        f"{first}'s: quantised? dequantise first, or leave it out"
      )


def _scale_of(name: str, leaves: dict[str, Any]) -> str | None:
  """Returns the name of the scale beside a leaf of 8-bit floats."""
  if leaves[name].dtype.itemsize > 1:
    return None
  parent, _ = _split(name)
  for other, x in leaves.items():
    beside, last = _split(other)
    if beside != parent or other == name or not _SCALE.search(last.lower()):
      continue
    if hasattr(x, 'dtype') and x.dtype != leaves[name].dtype:
      return other
  return None


def _split(name: str) -> tuple[str, str]:
  """Splits the last part off a name of levels joined by slashes or dots."""
  at = max(name.rfind('/'), name.rfind('.')) + 1
  return name[:at], name[at:]


def _same(x: Any, y: Any) -> bool:
  """Returns True if two leaves have the same bits, or unknown ones."""
  if x is y or any(isinstance(v, jax.core.Tracer) for v in (x, y)):
    return True
  x, y = _map.read((x, y))
  if any(
    isinstance(v, jax.Array) and not v.is_fully_addressable for v in (x, y)
  ):
    with jax.core.eval_context():
      return bool(_on_demand.apply_kernel(_equal, x, y))
  x, y = (np.ascontiguousarray(v) for v in (x, y))
  bits = [v.reshape(-1).view(np.uint8) for v in (x, y)]
  return x.dtype == y.dtype and np.array_equal(*bits)


def _equal(x: types.Array, y: types.Array) -> types.Array:
  return (x == y).all()


def cast_leaf(x: types.Array, *, dtype: np.dtype) -> types.Array:
  """Casts one leaf; the kernel of ``cast``."""
  return x.astype(dtype)
