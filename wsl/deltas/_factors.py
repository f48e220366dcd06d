"""The factors of a low-rank task vector, as one pytree node."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

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
    scale: the factor s, a scalar; alpha / r in PEFT.
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


def dense(factors: Factors) -> types.Array:
  """Returns the task vector of a leaf, ``s B A`` in the leaf's layout.

  Args:
    factors: of one leaf.

  Returns:
    An array of ``factors.shape``, in float32 or wider; on demand if the factors
    are.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> a, b = jnp.asarray([[1.0, 2.0]]), jnp.asarray([[1.0], [3.0]])
    >>> dense(Factors(a, b, 1.0, (2, 2), view)).tolist()
    [[1.0, 2.0], [3.0, 6.0]]
  """
  return tree.apply_kernel(
    _dense,
    factors.a,
    factors.b,
    scale=factors.scale,
    shape=tree.Static(factors.shape),
    view=tree.Static(factors.view),
  )


def _dense(
  a: types.Array,
  b: types.Array,
  *,
  scale: types.Scalar,
  shape: tuple[int, ...],
  view: tree.Matrix,
) -> types.Array:
  """Returns s B A in the layout of a leaf."""
  wide = tree.wide_dtype(a, b)
  product = tree.matmul(b.astype(wide), a.astype(wide))
  matrices = jnp.matrix_transpose(product * jnp.asarray(scale).astype(wide))
  return view.join(matrices if a.ndim == 3 else matrices[None], shape)
