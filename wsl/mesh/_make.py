"""Meshes of automatic axes, from a shape and names or from text."""

from collections.abc import Mapping, Sequence
import math
import operator
import re
from typing import Any

import jax
import numpy as np

CANDIDATES = 'candidates'


def make(
  shape: Mapping[str, int] | Sequence[int] | int | str,
  names: Sequence[str] | str | None = None,
  *,
  devices: Sequence[Any] | None = None,
) -> jax.sharding.Mesh:
  """Makes a mesh of devices whose axes are automatic.

  XLA partitions programs over automatic axes. The axes of ``jax.make_mesh`` are
  explicit by default: there, products and sorts across shards are errors.

  Args:
    shape: the size of each axis: a dict from names to sizes, a sequence of
      sizes or one size (with ``names``), or text such as
      ``'candidates:2,model:4'`` or ``'2,4'`` (with ``names``). One size may be
      -1, which is all remaining devices.
    names: the names of the axes, a sequence or text separated by commas;
      ``None`` if ``shape`` has them.
    devices: the devices, in order; all by default. If the mesh is smaller, it
      has the first of them.

  Returns:
    The mesh.

  Raises:
    ValueError: if there are fewer devices, or in a run of several processes if
      the mesh does not have all devices; if sizes and names do not match; if a
      size is neither positive nor -1; or if the text is malformed.

  Example:
    >>> mesh = make('candidates:1,model:1')
    >>> dict(mesh.shape), mesh == make({'candidates': 1, 'model': 1})
    ({'candidates': 1, 'model': 1}, True)
    >>> make(4096, 'model')
    Traceback (most recent call last):
    ...
    ValueError: make: model=4096 needs 4096 devices, there ...
  """
  given = shape if names is None else f'{shape}, {names}'
  sizes, axes = _read(shape, names)
  named = axes and all(isinstance(name, str) and name for name in axes)
  if len(sizes) != len(axes) or len(set(axes)) < len(axes) or not named:
    raise ValueError(
      f'make({given!r}): {len(sizes)} sizes and the names {axes}: give each '
      "size one name, as in 'candidates:2,model:4'"
    )
  if sizes.count(-1) > 1 or any(n < 1 and n != -1 for n in sizes):
    raise ValueError(
      f'make({given!r}): sizes are positive, and at most one is -1'
    )
  found = jax.devices() if devices is None else _devices(devices)
  known = math.prod(n for n in sizes if n != -1)
  sizes = [len(found) // known if n == -1 else n for n in sizes]
  needed, text = known if 0 in sizes else math.prod(sizes), _text(sizes, axes)
  if needed > len(found):
    kind = found[0].platform if found else ''
    remedy = ', or set XLA_FLAGS=--xla_force_host_platform_device_count='
    known = kind == 'cpu' and needed < 10**6
    remedy = f'{remedy}{needed}' if known else ''
    raise ValueError(
      f'make: {text[:60]} needs {str(needed)[:20]} devices, there '
      f'{"is" if len(found) == 1 else "are"} {len(found)} ({kind}): make the '
      f'mesh smaller{remedy}'
    )
  if jax.process_count() > 1 and needed < len(found):
    raise ValueError(
      f'make: {text} has {needed} of {len(found)} devices: a mesh of several '
      'processes needs all, give one size as -1'
    )
  automatic = (jax.sharding.AxisType.Auto,) * len(axes)
  return jax.make_mesh(sizes, axes, automatic, devices=found[:needed])


def check(function: str, mesh: Any) -> None:
  """Checks that the axes of a mesh are automatic.

  Args:
    function: the public function, with which the message begins.
    mesh: the mesh.

  Raises:
    ValueError: if it is no mesh, or an axis is explicit or manual.
  """
  if not isinstance(mesh, jax.sharding.Mesh):
    raise ValueError(
      f'{function}: mesh is a {type(mesh).__name__}: make one by mesh.make'
    )
  for name, kind in zip(mesh.axis_names, mesh.axis_types):
    if kind != jax.sharding.AxisType.Auto:
      raise ValueError(
        f"{function}: axis '{name}' of the mesh is {kind.name}, the default of "
        'jax.make_mesh: make the mesh by mesh.make, whose axes are automatic'
      )


def describe(mesh: jax.sharding.Mesh) -> str:
  """Returns the sizes and names of a mesh as text that ``make`` reads."""
  return _text(list(mesh.shape.values()), mesh.axis_names, ':', ',')


def _read(shape: Any, names: Any) -> tuple[list[int], list[str]]:
  """Returns the sizes and the names of the axes that arguments ask for."""
  if isinstance(names, str):
    names = [name.strip() for name in names.split(',')]
  sizes, own = shape, []
  if isinstance(shape, Mapping):
    own, sizes = list(shape), shape.values()
  elif isinstance(shape, str):
    parts = [part.strip() for part in shape.split(',')]
    found = [re.fullmatch(r'(?:(\w+)\s*[:=]\s*)?(-?\d+)', p) for p in parts]
    if None in found:
      raise ValueError(
        f"make({shape!r}): expected text such as 'candidates:2,model:4'"
      )
    pairs = [part.groups() for part in found if part]
    sizes = [int(size) for _, size in pairs]
    own = [name or '' for name, _ in pairs]
  if any(own) and names is not None and list(names) != own:
    raise ValueError(
      f'make({shape!r}, {names!r}): two names for an axis: leave names out'
    )
  try:
    if isinstance(shape, (bool, bytes)):
      raise TypeError
    one = np.ndim(shape) == 0 and not isinstance(shape, (Mapping, str))
    numbers = [operator.index(n) for n in ([shape] if one else sizes)]
  except TypeError:
    raise ValueError(
      f'make: shape is {shape!r}: give integers, as in {{"model": 8}}, or text '
      "such as 'candidates:2,model:4'"
    ) from None
  return numbers, list(names or own)


def _devices(devices: Any) -> list[Any]:
  """Returns given devices as a list.

  Raises:
    ValueError: if they are no devices, or one is given twice.
  """
  found = list(np.ravel(np.asarray(devices, object)))
  if not all(isinstance(d, jax.Device) for d in found):
    raise ValueError('make: devices are none: give some of jax.devices()')
  if len(set(found)) < len(found):
    raise ValueError('make: a device is given twice: give each once')
  return found


def _text(
  sizes: Sequence[int], axes: Sequence[str], by: str = '=', comma: str = ', '
) -> str:
  """Lists the axes of a mesh."""
  return comma.join(f'{name}{by}{size}' for name, size in zip(axes, sizes))
