"""Steps of optax optimizers, with every argument that one of them asks for.

An optax transformation may take more than the gradient: line searches evaluate
the loss again, Polyak's step size and ``reduce_on_plateau`` need its value. A
step passes all of these, in the form that ``jax.jit`` and ``jax.vmap`` trace.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types


def init(optimizer: Any, params: types.Tree, *, caller: str) -> Any:
  """Returns the state of an optimizer before the first step.

  Args:
    optimizer: an optax transformation.
    params: the parameters, leaves ``[...]``; for ``optax.lookahead`` a pair
      ``optax.LookaheadParams``.
    caller: the public function to name in an error message.

  Returns:
    The state.

  Raises:
    ValueError: in one line, if the optimizer does not accept the parameters.

  Example:
    >>> import optax
    >>> momentum = optax.trace(0.9)
    >>> init(momentum, jnp.zeros(2), caller='f').trace.tolist()
    [0.0, 0.0]
  """
  if not callable(getattr(optimizer, 'init', None)) or not callable(
    getattr(optimizer, 'update', None)
  ):
    raise ValueError(
      f'{caller}: optimizer is a {type(optimizer).__name__}, expected an optax '
      'transformation such as optax.adam(1e-3)'
    )
  try:
    with _promotion():
      return optimizer.init(params)
  except Exception as error:
    raise ValueError(f'{caller}: {_reason(error)}') from error


def step(
  optimizer: Any,
  gradient: types.Tree,
  state: Any,
  params: types.Tree,
  *,
  value: types.Array,
  value_fn: Callable[[types.Tree], types.Array],
  caller: str,
) -> tuple[types.Tree, Any]:
  """Returns the parameters and the state after one step of an optimizer.

  The optimizer receives those of these arguments that its ``update`` accepts:
  ``value``, ``grad``, ``value_fn`` (line searches), ``obj_fn`` (the same, for
  Sophia) and ``grad_fn`` (SAM's inner steps). All are of the current batch.

  Args:
    optimizer: an optax transformation.
    gradient: the gradient at ``fast(params)``.
    state: the state of the optimizer.
    params: the parameters, leaves ``[...]``.
    value: the loss, ``[]``.
    value_fn: the loss as a function of ``fast(params)``.
    caller: the public function to name in an error message.

  Returns:
    The new parameters, of the dtypes of ``params``, and the new state, of the
    dtypes of ``state``.

  Raises:
    ValueError: in one line and while tracing, thus before the first step, if
      the optimizer cannot take it.

  Example:
    >>> import optax
    >>> loss = lambda x: jnp.sum(x**2)
    >>> x, optimizer = jnp.asarray([3.0, -1.0]), optax.polyak_sgd()
    >>> state = init(optimizer, x, caller='f')
    >>> step(optimizer, jax.grad(loss)(x), state, x, value=loss(x),
    ...      value_fn=loss, caller='f')[0].tolist()
    [1.5, -0.5]
  """

  # A line search passes its unknown arguments on to value_fn, and refuses those
  # that value_fn does not take.
  def loss(x: types.Tree, obj_fn: Any = None, grad_fn: Any = None) -> Any:
    del obj_fn, grad_fn
    return value_fn(x)

  extra = {
    'value': value,
    'grad': gradient,
    'value_fn': loss,
    'obj_fn': value_fn,
    'grad_fn': lambda x, step: jax.grad(value_fn)(x),
  }
  try:
    with _promotion():
      updates, new_state = optimizer.update(
        gradient, state, params, **_accepted(optimizer.update, extra)
      )
      params = jax.tree.map(_add, params, updates, is_leaf=_is_none)
  except Exception as error:
    raise ValueError(f'{caller}: {_reason(error)}') from error
  return params, _like_before(new_state, state, caller)


def fast(params: types.Tree) -> types.Tree:
  """Returns the parameters at which the loss is evaluated.

  Args:
    params: parameters, or ``optax.LookaheadParams(fast, slow)``.

  Returns:
    The fast parameters of a lookahead pair, else ``params``.

  Example:
    >>> import optax
    >>> fast(optax.LookaheadParams(fast=1.0, slow=2.0)), fast({'w': 3.0})
    (1.0, {'w': 3.0})
  """
  return params.fast if is_lookahead(params) else params


def is_lookahead(params: types.Tree) -> bool:
  """Returns True for ``optax.LookaheadParams``; does not import optax."""
  return getattr(params, '_fields', None) == ('fast', 'slow')


@contextlib.contextmanager
def _promotion() -> Iterator[None]:
  """Allows promotion of dtypes and ranks, which optax relies on."""
  standard = jax.numpy_dtype_promotion('standard')
  with standard, jax.numpy_rank_promotion('allow'):
    yield


def _is_none(x: Any) -> bool:
  """Returns True for the placeholder of a leaf that is not trained."""
  return x is None


def _add(x: Any, update: Any) -> Any:
  """Adds an update in the wider of both dtypes; returns the dtype of x."""
  if x is None:
    return None
  if jnp.shape(update) != jnp.shape(x):
    raise ValueError(
      f'its update of a leaf {list(jnp.shape(x))} is {list(jnp.shape(update))} '
      '(does it expect a gradient for each example?)'
    )
  return jnp.asarray(x + update).astype(jnp.asarray(x).dtype)


def _accepted(
  update: Callable[..., Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the extra arguments that an update function can be called with."""
  parameters = [*inspect.signature(update).parameters.values()]
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
    return dict(extra)
  names = {p.name for p in parameters[3:]}  # after gradient, state and params
  return {name: x for name, x in extra.items() if name in names}


def _like_before(new: Any, old: Any, caller: str) -> Any:
  """Returns the new state in the dtypes of the old one, or names a leaf.

  A state that is carried through a scan keeps its structure, shapes and dtypes.
  A float leaf may have been promoted by a scalar of another dtype.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(new)
  expected: Any = jax.tree.structure(old)
  if structure != expected:
    raise ValueError(
      f'{caller}: a step changes the structure of the state of the optimizer, '
      'which a scan cannot carry'
    )
  result = []
  for (path, leaf), before in zip(leaves, jax.tree.leaves(old)):
    x, wanted = _array(leaf), _array(before)
    floats = all(jnp.issubdtype(y.dtype, jnp.inexact) for y in (x, wanted))
    if x.shape != wanted.shape or (x.dtype != wanted.dtype and not floats):
      raise ValueError(
        f'{caller}: a step changes {jax.tree_util.keystr(path)} in the state '
        f'of the optimizer from {wanted.dtype}{list(wanted.shape)} to '
        f'{x.dtype}{list(x.shape)}'
      )
    result.append(x if x.dtype == wanted.dtype else x.astype(wanted.dtype))
  return jax.tree.unflatten(structure, result)


def _array(x: Any) -> types.Array:
  """Returns an array; one of random keys stays as it is."""
  return x if isinstance(x, jax.Array) else jnp.asarray(x)


def _reason(error: Exception) -> str:
  """Returns why an optimizer cannot run, in one line, with the remedy."""
  text = ' '.join(str(error).split())
  if isinstance(error, AttributeError) and error.name in ('fast', 'slow'):
    return (
      'optax.lookahead trains a pair of parameters: start from '
      'optax.LookaheadParams.init_synced(params)'
    )
  missing = re.search(r"missing \d+ required .*argument.*?: ('\w+'.*)", text)
  if isinstance(error, TypeError) and missing:
    return (
      f'the optimizer asks for {missing[1]}; what is passed to its update is '
      'value, grad, value_fn, obj_fn and grad_fn'
    )
  kind = '' if type(error) is ValueError else f'{type(error).__name__}: '
  return f'the optimizer cannot run: {kind}{text[:120]}'
