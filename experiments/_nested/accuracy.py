"""Test accuracy of all slices of networks, in one compiled program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._nested import settings
from wsl import surgery, tree, types


def of_slices(
  setting: settings.Setting,
  networks: types.Params,
  sizes: list[surgery.Size],
) -> np.ndarray:
  """Returns the test accuracy of slices of networks, in %.

  Args:
    setting: data, model and symmetry.
    networks: parameters, ``[S, ...]``.
    sizes: K sizes.

  Returns:
    ``[S, K]``.
  """
  stacked = tree.stack([jax.tree.map(np.int32, size) for size in sizes])
  of = _program(setting.module, setting.symmetry)
  return 100 * np.asarray(of(networks, stacked, setting.images.test))


def difference(
  setting: settings.Setting, params: types.Params, size: surgery.Size
) -> float:
  """Returns the largest difference of logits of a cut and of a masked slice."""
  x = setting.images.test[0][:32]
  small = settings.resized(setting, size)

  @jax.jit
  def of(params: types.Params) -> types.Array:
    cut = surgery.slice(params, size, symmetry=setting.symmetry)
    whole = surgery.mask_units(params, size, symmetry=setting.symmetry)
    return jnp.abs(small.apply(cut, x) - setting.module.apply(whole, x)).max()

  return float(of(params))


@functools.lru_cache(maxsize=2)
def _program(module: Any, symmetry: Any) -> Any:
  """Returns the compiled accuracy of S networks at K sizes."""

  @jax.jit
  def of(networks: types.Params, sizes: Any, test: Any) -> types.Array:
    def one(params: types.Params, size: surgery.Size) -> types.Array:
      part = surgery.mask_units(params, size, symmetry=symmetry)
      found = jnp.argmax(module.apply(part, test[0]), -1)
      return jnp.mean(found == test[1].astype(found.dtype))

    each = lambda params: jax.lax.map(functools.partial(one, params), sizes)
    return jax.lax.map(each, networks)

  return of
