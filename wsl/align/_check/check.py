"""Checks a symmetry numerically: random elements, random parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple
import zlib

import jax
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _permutation, _symmetry
from wsl.align._check import on_host, outputs, random_params
from wsl.align._gauges import draws


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
  _arguments.check_known('check', params)
  _arguments.check_leaves(symmetry, names, 'check: params')
  tree.check_not_narrowed('check', params)
  draw_key, move_key = jax.random.split(key)
  run = outputs.compiled(apply_fn, inputs)
  drawn = random_params.perturb(params, draw_key, caller='check')
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
    name: outputs.difference(
      run(on_host.permute(drawn, element, symmetry)), wanted, caller='check'
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

  return draws.tables(symmetry, normal, np)
