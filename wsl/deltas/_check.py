"""Checks of several models: structure, shapes, dtypes and values."""

from collections.abc import Mapping
import re

import jax

from wsl import tree, types
from wsl.deltas import _factors

# The factors of PEFT and of the JAX libraries that follow it.
_FACTOR = re.compile(r'(^|[./])lora_(embedding_)?[abAB]([./]|$)')


def check(
  label: str,
  models: Mapping[str, types.Params],
  *,
  mixed_dtypes: bool = False,
) -> list[types.Params]:
  """Checks structure, shapes, dtypes and values of several models.

  Values of floats must be finite; integers must be equal, see
  ``tree.check_weights``.

  Args:
    label: the calling function, with which the message begins.
    models: the models by the name that messages use; all are compared with the
      first.
    mixed_dtypes: whether real floats of different dtypes are accepted.

  Returns:
    The models, all in the containers of the first: a FrozenDict takes the place
    of a dict. Trees that differ in more are converted by ``tree.like``.

  Raises:
    ValueError: naming the model and the leaf; or if leaves are the factors of
      LoRAs, whose averages are not those of their products.

  Example:
    >>> import jax.numpy as jnp
    >>> check('mix', {'a': {'w': jnp.ones(2)}, 'b': {'w': jnp.ones(3)}})
    Traceback (most recent call last):
    ...
    ValueError: mix: b: leaf 'w' has shape (3,), a has (2,): ...
  """
  first, *others = models
  _check_no_factors(label, models)
  arrays(f'{label}: {first}', models[first])
  same = [models[first]]
  for other in others:
    arrays(f'{label}: {other}', models[other])
    names = f'{label}: {other}', first
    pair = models[other], models[first]
    same.append(_check_same(names, *pair, mixed_dtypes))
  for name, model in models.items():
    _check_finite(f'{label}: {name}', model)
  tree.check_weights(label, dict(zip(models, same)))
  return same


def arrays(label: str, model: types.Tree) -> None:
  """Checks that every leaf is an array that JAX reads, or on demand."""
  # The scale of factors is a number.
  for name, leaf in tree.named(_factors.placeholders(model)).items():
    if not hasattr(leaf, 'dtype'):
      raise ValueError(
        f"{label}: leaf '{name}' is a {type(leaf).__name__}, not an array: "
        'wrap it by jnp.asarray'
      )
    if not getattr(leaf.dtype, 'isnative', True):
      raise ValueError(
        f"{label}: leaf '{name}' is {leaf.dtype}, of the other byte order: "
        "convert it by x.astype(x.dtype.newbyteorder('='))"
      )


def _check_no_factors(label: str, models: Mapping[str, types.Params]) -> None:
  """Checks that no model holds the factors A and B of a LoRA."""
  for name, model in models.items():
    leaf = next(filter(_FACTOR.search, tree.named(model)), None)
    if leaf is not None:
      raise ValueError(
        f"{label}: {name}: leaf '{leaf}' is a factor of a LoRA, and averages "
        'of factors are wrong: give checkpoint.load_lora(base, path), or leave '
        'it out'
      )


def _check_same(
  labels: tuple[str, str],
  model: types.Tree,
  other: types.Tree,
  mixed_dtypes: bool,
) -> types.Tree:
  """Checks names, shapes and dtypes; returns the model like the other."""
  label, other_label = labels
  model = tree.conform(label, model, other_label, other)
  wanted = tree.named(other)
  for name, leaf in tree.named(model).items():
    for what in ('shape', 'dtype'):
      found, expected = getattr(leaf, what), getattr(wanted[name], what)
      cast = what == 'dtype'
      real = _is_real(leaf) and _is_real(wanted[name])
      if found != expected and not (cast and mixed_dtypes and real):
        remedy = 'cast it by tree.cast' if cast else 'leave it out or resize it'
        raise ValueError(
          f"{label}: leaf '{name}' has {what} {found}, {other_label} has "
          f'{expected}: {remedy}'
        )
  return model


def _is_real(leaf: types.Array) -> bool:
  return tree.is_float(leaf) and not tree.is_complex(leaf)


def _check_finite(label: str, model: types.Tree) -> None:
  """Checks the values of leaves that are in memory and not traced."""
  for name, leaf in tree.named(model).items():
    known = not isinstance(leaf, (jax.core.Tracer, tree.Stored, tree.Computed))
    if known and (bad := tree.count_bad(leaf)):
      raise ValueError(
        f"{label}: leaf '{name}' holds {bad} NaN or infinite "
        f'{"value" if bad == 1 else "values"}: repair or leave out that model'
      )
