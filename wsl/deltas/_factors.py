"""The factors of a low-rank task vector, as one pytree node."""

import dataclasses
import functools
from typing import Any, ClassVar

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
    >>> from wsl import adapters, tree
    >>> one = Factors(jnp.ones((1, 3)), jnp.ones((2, 1)), 0.5, (3, 2),
    ...               tree.Matrix(rows=(0,), columns=(1,)))
    >>> one.rank, adapters.dense(one).tolist()
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
  # Sums over entries refuse it: those of the factors are not those of the leaf.
  is_product: ClassVar[bool] = True

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


def check_shapes(function: str, name: str, x: Factors) -> None:
  """Checks that factors are those of a leaf of their shape and view.

  Raises:
    ValueError: naming the function, the leaf and the shapes; or factors that
      are integers.
  """
  for part in (x.a, x.b):
    if not tree.is_float(part):
      place = f" leaf '{name}'" if name else ''
      raise ValueError(
        f'{function}:{place} has factors of {part.dtype}: quantised? '
        'dequantise first'
      )
  matrices, inputs, outputs = x.view.fit(x.shape).sizes(x.shape)
  lead = np.shape(x.scale)
  lead = (*lead, matrices) if len(x.a.shape) == len(lead) + 3 else lead
  rank = tuple(x.a.shape)[-2:-1]
  a, b = (*lead, *rank, inputs), (*lead, outputs, *rank)
  single = matrices == 1 or len(lead) > len(np.shape(x.scale))
  if (tuple(x.a.shape), tuple(x.b.shape), single) != (a, b, True):
    label = f"{function}: leaf '{name}'" if name else function
    raise ValueError(
      f'{label}: factors A {tuple(x.a.shape)} and B {tuple(x.b.shape)} do not '
      f'make {x.shape} from {inputs} inputs to {outputs} outputs: they are of '
      'other ranks, or of another model'
    )


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

  Raises:
    ValueError: if ``number`` is an array.

  Example:
    >>> import jax.numpy as jnp
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> one = Factors(jnp.ones((1, 2)), jnp.ones((2, 1)), 2.0, (2, 2), view)
    >>> float(times(one, 1.5).scale)
    3.0
  """
  tree.check_scalars('times', number=number)
  dtype = tree.Static(tree.wide_dtype(factors.a, factors.b))
  scale = tree.apply_kernel(_scaled, factors.scale, number=number, dtype=dtype)
  return dataclasses.replace(factors, scale=scale)


def _scaled(
  scale: types.Scalar, *, number: types.Scalar, dtype: np.dtype
) -> types.Array:
  """Multiplies scales ``[]`` or ``[T]`` by a number."""
  return jnp.asarray(scale).astype(dtype) * jnp.asarray(number).astype(dtype)
