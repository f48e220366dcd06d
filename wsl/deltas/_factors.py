"""The factors of a low-rank task vector, as one pytree node."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('a', 'b', 'scale'),
  meta_fields=('shape', 'view'),
)
@dataclasses.dataclass(frozen=True)
class Factors:
  r"""A task vector of rank r of one leaf.

  .. math:: \tau = s B A

  ``a`` is ``lora_A`` of PEFT and ``b`` is ``lora_B``, whatever the layout of
  the leaf: ``view`` says which of its axes are inputs and outputs. With batch
  axes (scanned layers, experts) or feature groups, each of the G matrices of
  the leaf has factors of its own.

  Attributes:
    a: the map from the inputs, ``[r, in]`` or ``[G, r, in]``.
    b: the map to the outputs, ``[out, r]`` or ``[G, out, r]``.
    scale: the factor s, a scalar; alpha / r in PEFT. A stack of T task vectors
      (``adapters.stack``) has ``[T]``, and factors with an axis of T in front.
    shape: the shape of the leaf.
    view: the leaf as matrices: its rows are the inputs, its columns the
      outputs.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> one = Factors(jnp.ones((1, 3)), jnp.ones((2, 1)), 0.5, (3, 2),
    ...               tree.Matrix(rows=(0,), columns=(1,)))
    >>> one.rank, dense(one).tolist()
    (1, [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])

  Reference:
    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
    arXiv:2106.09685.
  """

  a: types.Array
  b: types.Array
  scale: types.Scalar
  shape: tuple[int, ...]
  view: tree.Matrix

  @property
  def rank(self) -> int:
    """Returns r."""
    return self.a.shape[-2]

  @property
  def stacked(self) -> bool:
    """Returns True for the factors of a stack of task vectors."""
    return bool(np.ndim(self.scale))


def is_factors(x: Any) -> bool:
  """Returns True for a leaf in factors, as the ``is_leaf`` of tree functions.

  Args:
    x: any node of a tree.

  Example:
    >>> is_factors(0.5)
    False
  """
  return isinstance(x, Factors)


def dense(delta: types.Tree) -> types.Tree:
  """Replaces factors by their products, ``s B A`` in the leaf's layout.

  Args:
    delta: a task vector, or a stack of them by ``adapters.stack``, or one leaf.

  Returns:
    The tree with an array of ``shape``, or ``[T, *shape]``, for each leaf in
    factors, in float32 or wider; on demand if the factors are. Other leaves
    stay as they are.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> a, b = jnp.asarray([[1.0, 2.0]]), jnp.asarray([[1.0], [3.0]])
    >>> one = Factors(a, b, 1.0, (2, 2), view)
    >>> {k: x.tolist() for k, x in dense({'w': one, 'b': b}).items()}
    {'b': [[1.0], [3.0]], 'w': [[1.0, 2.0], [3.0, 6.0]]}
  """
  leaf = lambda x: _product(x) if is_factors(x) else x
  return jax.tree.map(leaf, delta, is_leaf=is_factors)


def on_demand(delta: types.Tree) -> types.Tree:
  """Replaces factors by their products on demand, and arrays by themselves."""

  def leaf(x: Any) -> Any:
    if is_factors(x):
      x = ready(x)
      return _product(dataclasses.replace(x, a=tree.defer(x.a)))
    return tree.defer(x) if hasattr(x, 'dtype') else x

  return jax.tree.map(leaf, delta, is_leaf=is_factors)


def ready(x: Factors) -> Factors:
  """Returns factors in float32 or wider, each an input of programs of its own.

  A program computes a leaf in chunks if its product is of arrays, or of leaves
  that are fetched: what is computed from files (a sum of LoRAs) is computed
  when a leaf is read, and once for all of its chunks.
  """
  dtype = tree.wide_dtype(x.a, x.b)

  def one(factor: Any) -> Any:
    wide = factor
    if factor.dtype != dtype:
      cast = {'dtype': tree.Static(dtype)}
      wide = tree.apply_kernel(tree.cast_leaf, factor, **cast)
    if not tree.on_demand(wide) or tree.is_traced(wide):
      return wide
    fetch = lambda: np.asarray(tree.read(wide))
    return tree.Stored(fetch, tuple(wide.shape), wide.dtype)

  return dataclasses.replace(x, a=one(x.a), b=one(x.b))


def placeholders(delta: types.Tree) -> types.Tree:
  """Returns the tree with one array for each leaf: B in place of factors.

  A function of the names of leaves takes it: the factors of a leaf are leaves
  of their own in a pytree, with longer names.

  Args:
    delta: a task vector, or a stack of them.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> one = Factors(jnp.ones((1, 2)), jnp.ones((2, 1)), 1.0, (2, 2), view)
    >>> list(tree.named({'w': one})), list(tree.named(placeholders({'w': one})))
    (['w/a', 'w/b', 'w/scale'], ['w'])
  """
  leaf = lambda x: x.b if is_factors(x) else x
  return jax.tree.map(leaf, delta, is_leaf=is_factors)


def times(factors: Factors, number: types.Scalar) -> Factors:
  """Multiplies a task vector in factors by a number: its scale alone changes.

  Args:
    factors: of one leaf, or a stack.
    number: may be traced.

  Example:
    >>> import jax.numpy as jnp
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> one = Factors(jnp.ones((1, 2)), jnp.ones((2, 1)), 2.0, (2, 2), view)
    >>> float(times(one, 1.5).scale)
    3.0
  """
  dtype = tree.Static(tree.wide_dtype(factors.a, factors.b))
  scale = tree.apply_kernel(_scaled, factors.scale, number=number, dtype=dtype)
  return dataclasses.replace(factors, scale=scale)


def _product(x: Factors) -> Any:
  """Returns the product of the factors of one leaf."""
  return tree.apply_kernel(
    product,
    x.a,
    x.b,
    scale=x.scale,
    shape=tree.Static(tuple(x.shape)),
    view=tree.Static(x.view),
  )


def product(
  a: types.Array,
  b: types.Array,
  *,
  scale: types.Scalar,
  shape: tuple[int, ...],
  view: tree.Matrix,
) -> types.Array:
  """Returns s B A in the layout of a leaf, with the axis of models if s has."""
  wide = tree.wide_dtype(a, b)
  scale = jnp.asarray(scale).astype(wide)
  if scale.ndim:
    one = functools.partial(product, shape=shape, view=view)
    return jax.vmap(lambda a, b, s: one(a, b, scale=s))(a, b, scale)
  a, b = a.astype(wide), b.astype(wide)
  view = view.fit(shape)
  order = list(range(len(shape)))
  # In the order of the axes of the leaf, so that nothing is transposed.
  if a.ndim == 2 and [*view.columns, *view.rows] == order:
    return (tree.matmul(b, a) * scale).reshape(shape)
  if a.ndim == 2 and [*view.rows, *view.columns] == order:
    contract = (((0,), (1,)), ((), ()))
    found = jax.lax.dot_general(a, b, contract, precision='highest')
    return (found * scale).reshape(shape)
  matrices = jnp.matrix_transpose(tree.matmul(b, a) * scale)
  return view.join(matrices if a.ndim == 3 else matrices[None], shape)


def _scaled(
  scale: types.Scalar, *, number: types.Scalar, dtype: np.dtype
) -> types.Array:
  """Multiplies scales ``[]`` or ``[T]`` by a number."""
  return jnp.asarray(scale).astype(dtype) * jnp.asarray(number).astype(dtype)
