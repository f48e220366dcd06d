"""The programs that are counted and timed: merges, alignment, evaluation.

All have the same operands: a base, stacks of task vectors of square leaves, and
what a method needs besides them, sharded by ``mesh.shardings``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._scale_study import costs
from wsl import deltas, landscape, merge, tree, types

# Arguments of the methods; they do not change the number of passes.
COEF, DENSITY, RATE = 0.3, 0.2, 0.5


class Operation(NamedTuple):
  """A public operation.

  Attributes:
    function: of its operands.
    operands: their names, see ``operand``.
    model: whether the result is a model, sharded as its operands.
  """

  function: Callable[..., Any]
  operands: tuple[str, ...]
  model: bool = True


def _task_arithmetic(base: types.Params, stack: types.Deltas) -> types.Params:
  return deltas.apply(base, merge.sum(stack), coef=COEF)


def _slerp(a: types.Params, b: types.Params) -> types.Params:
  return merge.slerp(a, b, t=0.5)


def _ties(stack: types.Deltas) -> types.Delta:
  return merge.ties(stack, density=DENSITY)


def _ties_leaf(stack: types.Deltas) -> types.Delta:
  return merge.ties(stack, density=DENSITY, scope='leaf')


def _dare(stack: types.Deltas) -> types.Delta:
  return merge.sum(merge.dare(stack, rate=RATE, key=jax.random.key(0)))


def _dare_ties(stack: types.Deltas) -> types.Delta:
  sparse = merge.dare(stack, rate=RATE, key=jax.random.key(0))
  return merge.ties(sparse, density=DENSITY)


def _fisher(stack: types.Deltas, fishers: types.Deltas) -> types.Delta:
  return merge.fisher(stack, fishers=fishers)


def _regmean(stack: types.Deltas, grams: types.Tree) -> types.Delta:
  return merge.regmean(stack, grams=grams, shrink=0.9)


def _gains(a: types.Params, b: types.Params) -> types.Params:
  # The product of weight matching: the gain of each pair of units of a layer.
  return jax.tree.map(
    lambda x, y: tree.matmul(x, jnp.matrix_transpose(y)), a, b
  )


def _evaluate(a: types.Params, b: types.Params, x: types.Array) -> types.Array:
  middle = landscape.interpolate(a, b, 0.5)
  for w in jax.tree.leaves(middle):
    x = jax.nn.relu(x @ w)
  return jnp.mean(x * x)


OPERATIONS = {
  'mean': Operation(merge.mean, ('stack',)),
  'task arithmetic': Operation(_task_arithmetic, ('base', 'stack')),
  'slerp': Operation(_slerp, ('base', 'other')),
  'fisher': Operation(_fisher, ('stack', 'fishers')),
  'dare': Operation(_dare, ('stack',)),
  'ties': Operation(_ties, ('stack',)),
  'ties leaf': Operation(_ties_leaf, ('stack',)),
  'dare + ties': Operation(_dare_ties, ('stack',)),
  'regmean': Operation(_regmean, ('stack', 'grams')),
  'iso_c': Operation(merge.iso_c, ('stack',)),
  'tsv': Operation(merge.tsv, ('stack',)),
  'gains': Operation(_gains, ('base', 'other')),
  'evaluate': Operation(_evaluate, ('base', 'other', 'images'), model=False),
}


def operand(name: str, size: costs.Size) -> types.Tree:
  """Returns the shapes of an operand.

  Args:
    name: ``'base'`` or ``'other'``, one model; ``'stack'`` or ``'fishers'``,
      ``[T, ...]``; ``'grams'``, Gram matrices of all leaves; or ``'images'``.
    size: of the model.
  """
  square = (size.side, size.side)
  dtype = {2: jnp.bfloat16, 4: np.float32}[size.itemsize]
  shape: Any = lambda *axes, of=dtype: jax.ShapeDtypeStruct(axes, of)
  gram: Any = types.Gram  # of shapes in place of arrays
  leaf: Any = {
    'base': shape(*square),
    'other': shape(*square),
    'stack': shape(size.models, *square),
    'fishers': shape(size.models, *square),
    'grams': gram(
      shape(size.models, 1, *square, of=np.float32),
      shape(size.models, of=np.float32),
    ),
  }.get(name)
  if name == 'images':
    return shape(size.rows, size.side)
  return {f'block_{i}/kernel': leaf for i in range(size.leaves)}


def place(shapes: types.Tree, m: jax.sharding.Mesh) -> types.Tree:
  """Returns the shapes with shardings: the last axis of each matrix."""

  def rule(x: Any) -> jax.sharding.NamedSharding:
    sharded = x.ndim > 1 and x.shape[-1] == x.shape[-2]
    spec = jax.P(*[None] * (x.ndim - 1), 'model') if sharded else jax.P()
    return jax.sharding.NamedSharding(m, spec)

  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rule(x)), shapes
  )


def compile_for(
  name: str, size: costs.Size, m: jax.sharding.Mesh
) -> jax.stages.Compiled:
  """Compiles an operation for a mesh; nothing is allocated."""
  operation = OPERATIONS[name]
  given = [place(operand(x, size), m) for x in operation.operands]
  out = None
  if operation.model:
    model = place(operand('base', size), m)
    out = jax.tree.map(lambda x: x.sharding, model)
  return jax.jit(operation.function, out_shardings=out).lower(*given).compile()


def draw(name: str, size: costs.Size, m: jax.sharding.Mesh) -> types.Tree:
  """Draws an operand on a mesh, leaf by leaf."""
  shapes = place(operand(name, size), m)
  code = list(dict.fromkeys(x for o in OPERATIONS.values() for x in o.operands))
  key = jax.random.fold_in(jax.random.key(1), code.index(name))

  def values(key: types.PRNGKey, x: Any) -> types.Array:
    found = jax.random.normal(key, x.shape, np.float32) / size.side**0.5
    if name == 'grams' and x.ndim > 1:
      product = tree.matmul(found, jnp.matrix_transpose(found))
      found = product + jnp.eye(size.side, dtype=np.float32)
    return (found * found if name == 'fishers' else found).astype(x.dtype)

  leaves, treedef = jax.tree.flatten(shapes)
  keys = jax.random.split(key, len(leaves))
  programs: dict[Any, Any] = {}
  for x in leaves:
    run = jax.jit(lambda k, x=x: values(k, x), out_shardings=x.sharding)
    programs.setdefault((x.shape, x.dtype), run)
  drawn = [programs[x.shape, x.dtype](k) for k, x in zip(keys, leaves)]
  return jax.tree.unflatten(treedef, drawn)
