"""The loss of a step, with the auxiliary state that it updates."""

from collections.abc import Callable
from typing import Any

import jax

from wsl import tree, types


def loss_and_aux(
  loss_fn: Callable[..., Any],
  params: types.Params,
  aux: types.Tree,
  batch: types.Tree,
  key: types.PRNGKey,
) -> tuple[types.Array, types.Tree]:
  """Returns the loss and the new auxiliary state in the form of the old one.

  Args:
    loss_fn: maps (params, batch, key) to the loss; (params, aux, batch, key) to
      (loss, aux) if there is auxiliary state.
    params: the parameters.
    aux: the auxiliary state, or ``None``.
    batch: the examples of the step.
    key: the key of the step.

  Returns:
    The loss, and the auxiliary state in the containers of ``aux``, as a scan
    carries it.

  Raises:
    ValueError: if the loss returns another structure, shape or dtype.
  """
  if aux is None:
    loss = loss_fn(params, batch, key)
    if isinstance(loss, tuple):
      raise ValueError(
        'advance: loss_fn returns a tuple, but the state has no auxiliary '
        'state to update: pass its initial value to start(aux=...)'
      )
    return loss, None
  result = loss_fn(params, aux, batch, key)
  if not isinstance(result, tuple) or len(result) != 2:
    raise ValueError(
      f'advance: loss_fn returns a {type(result).__name__}, expected (loss, '
      'aux), because start was given aux'
    )
  loss, new = result
  old_by_name, new_by_name = tree.named(aux), tree.named(new)
  for name in [*new_by_name, *old_by_name]:
    if name not in old_by_name or name not in new_by_name:
      where = 'start' if name not in old_by_name else 'what loss_fn returns'
      raise ValueError(f"advance: aux '{name}' is missing in {where}")
  for name, old in old_by_name.items():
    found, wanted = jax.typeof(new_by_name[name]), jax.typeof(old)
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
      raise ValueError(
        f"advance: loss_fn returns aux '{name}' as {found.str_short()}, start "
        f'was given {wanted.str_short()}'
      )
  leaves = [new_by_name[name] for name in old_by_name]
  return loss, jax.tree.unflatten(jax.tree.structure(aux), leaves)
