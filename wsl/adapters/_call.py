"""Models with factored weights, applied without the products of factors."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from wsl import deltas as deltas_lib
from wsl import jaxprs, tree, types
from wsl.adapters import _factored


def call(
  apply_fn: Callable[..., types.Tree],
  params: types.Params,
  *inputs: Any,
  delta: types.Delta | None = None,
) -> types.Tree:
  r"""Applies a model whose weights are factors, or have LoRAs beside them.

  .. math:: x W = x W_0 + s \, (x A^\top) B^\top

  The function is traced, and each product with a weight in factors becomes two
  small ones: wherever it is contracted over all of its inputs, or all of its
  outputs (tied embeddings), also within ``jit``, ``remat`` and ``scan`` over
  layers. Elsewhere (a look-up of rows, a convolution, ``cond``) the weight is
  computed there. No model has to be written for it.

  Compile it with ``jit``. It is differentiable in factors; ``vmap`` over a
  stack of LoRAs shares the base.

  Args:
    apply_fn: a function ``(params, *inputs) -> outputs`` of weights that are
      arrays.
    params: leaves are arrays or ``Factors``, as ``factorise`` returns.
    inputs: arrays or pytrees of them, and flags.
    delta: a task vector that is added: a LoRA, or any tree or dict by name of
      ``Factors`` and arrays for some of the leaves.

  Returns:
    The outputs, as of ``deltas.apply`` and ``dense``, to rounding.

  Raises:
    ValueError: if the delta has a leaf that is not in the model, of another
      shape, of integers there, or a stack; or if the function depends on
      values.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = adapters.Factors(
    ...   jnp.ones((1, 2)), jnp.ones((3, 1)), 0.5, (2, 3), view)
    >>> model = lambda p, x: x @ p['w']
    >>> x, base = jnp.asarray([[1.0, 3.0]]), {'w': jnp.zeros((2, 3))}
    >>> call(model, {'w': one}, x).tolist()
    [[2.0, 2.0, 2.0]]
    >>> call(model, base, x, delta={'w': one}).tolist()
    [[2.0, 2.0, 2.0]]

  Reference:
    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
    arXiv:2106.09685.
  """
  is_leaf = deltas_lib.is_factors
  leaves = tree.named(params, is_leaf=is_leaf)
  added = {} if delta is None else tree.named(delta, is_leaf=is_leaf)
  for name, x in added.items():
    if name not in leaves or tuple(leaves[name].shape) != tuple(x.shape):
      has = tuple(leaves[name].shape) if name in leaves else 'no such leaf'
      raise ValueError(
        f"call: delta leaf '{name}' has shape {tuple(x.shape)}, the model {has}"
      )
    if is_leaf(x) and x.stacked:
      raise ValueError(
        f"call: delta leaf '{name}' is a stack: jax.vmap over it, or merge it"
      )
    if not is_leaf(leaves[name]) and not tree.is_float(leaves[name]):
      raise ValueError(
        f"call: leaf '{name}' of the model is {leaves[name].dtype}, no float: "
        'leave it out of the delta'
      )
  weights = [_factored.weight(x, added.get(name)) for name, x in leaves.items()]
  shapes = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights]
  structure = jax.tree.structure(params, is_leaf=is_leaf)
  outputs = []

  def flat(leaves: list[Any], *inputs: Any) -> Any:
    found = apply_fn(jax.tree.unflatten(structure, leaves), *inputs)
    outputs.append(jax.tree.structure(found))
    return found

  program = jaxprs.trace(flat, shapes, inputs, caller='call')
  _, arrays = jaxprs.bind_static(flat, inputs)
  found = jaxprs.interpret(program, [*weights, *arrays], _visit)
  return jax.tree.unflatten(outputs[-1], map(_factored.array, found))


def _visit(k: int, eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
  """Evaluates one equation; products with factored weights are split."""
  del k
  factored = [isinstance(x, _factored.Weight) for x in values]
  if not any(factored):
    return jaxprs.evaluate(eqn, values)
  name, inner = eqn.primitive.name, jaxprs.called(eqn)
  if inner is not None:
    return jaxprs.interpret(inner, values, _visit)
  if name == 'scan':
    return _scan(eqn, values)
  found = None
  if name in jaxprs.CASTS:
    result: Any = eqn.outvars[0].aval
    found = _factored.cast(values[0], result.dtype)
  elif name == 'transpose':
    found = _factored.transpose(values[0], eqn.params['permutation'])
  elif name == 'dot_general' and sum(factored) == 1:
    found = _factored.product(eqn, values)
  if found is not None:
    return [found]
  return jaxprs.evaluate(eqn, [*map(_factored.array, values)])


def _scan(eqn: core.JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
  """Scans over layers whose weights are factored, one layer at a time."""
  consts, carry, xs = jaxprs.split_scan(eqn, values)
  carry = [*map(_factored.array, carry)]
  xs = [_factored.by_layer(x) for x in xs]

  def step(carry: Any, x: Any) -> tuple[Any, Any]:
    args = [*consts, *carry, *x]
    found = jaxprs.interpret(eqn.params['jaxpr'], args, _visit)
    found = [*map(_factored.array, found)]
    return found[: len(carry)], found[len(carry) :]

  last, ys = jaxprs.run_scan(eqn, step, carry, xs)
  return [*last, *ys]
