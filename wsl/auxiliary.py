"""The loss of a step, with the auxiliary state that it updates.

Auxiliary state, such as the running statistics of a batch normalisation, is
read and returned by the loss, and is not differentiated.
"""

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
  *,
  caller: str,
  start: str,
) -> tuple[types.Array, types.Tree]:
  """Returns the loss and the new auxiliary state in the form of the old one.

  Args:
    loss_fn: maps (params, batch, key) to the loss; (params, aux, batch, key) to
      (loss, aux) if there is auxiliary state.
    params: the parameters.
    aux: the auxiliary state, or ``None``.
    batch: the examples of the step.
    key: the key of the step.
    caller: the public function, with which messages begin.
    start: the public function that is given the first auxiliary state.

  Returns:
    The loss, and the auxiliary state in the containers of ``aux``, as a scan
    carries it.

  Raises:
    ValueError: if the loss returns another structure, shape or dtype.

  Example:
    >>> count = lambda params, aux, batch, key: (params * batch, aux + 1)
    >>> loss_and_aux(count, 2.0, 0, 3.0, None, caller='f', start='f')
    (6.0, 1)
  """
  if aux is None:
    loss = loss_fn(params, batch, key)
    if isinstance(loss, tuple):
      raise ValueError(
        f'{caller}: the loss is a tuple, but there is no auxiliary state to '
        f'update: pass its initial value to {start}(aux=...)'
      )
    return loss, None
  result = loss_fn(params, aux, batch, key)
  if not isinstance(result, tuple) or len(result) != 2:
    raise ValueError(
      f'{caller}: the loss is a {type(result).__name__}, expected (loss, aux), '
      f'because {start} was given aux'
    )
  loss, new = result
  old_by_name, new_by_name = tree.named(aux), tree.named(new)
  for name in [*new_by_name, *old_by_name]:
    if name not in old_by_name or name not in new_by_name:
      where = f'the argument of {start}'
      where = where if name not in old_by_name else 'the result of the loss'
      raise ValueError(f"{caller}: aux '{name}' is missing in {where}")
  for name, old in old_by_name.items():
    found, wanted = jax.typeof(new_by_name[name]), jax.typeof(old)
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
      raise ValueError(
        f"{caller}: the loss returns aux '{name}' as {found.str_short()}, "
        f'{start} was given {wanted.str_short()}'
      )
  leaves = [new_by_name[name] for name in old_by_name]
  return loss, jax.tree.unflatten(jax.tree.structure(aux), leaves)
