"""CAT: weighted sums of LoRAs by concatenation of their factors."""

from typing import Any

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _factored, _linear, _stack


def cat(deltas: types.Deltas, *, weights: Any) -> types.Delta:
  r"""Sums LoRAs with weights, exactly, as a LoRA of rank T r.

  .. math:: \tau = \sum_{t=1}^{T} w_t s_t B_t A_t = B A, \qquad
    B = [w_1 s_1 B_1 \dots w_T s_T B_T], \quad
    A = [A_1^\top \dots A_T^\top]^\top

  Sums of A and of B separately, such as those of the ``linear`` type of PEFT,
  have products of different LoRAs.

  Args:
    deltas: ``adapters.stack`` of T LoRAs; leaves that are arrays are ``[T,
      ...]``.
    weights: w, ``[T]`` for all leaves, or a tree with ``[T]`` for each leaf.
      The paper trains a weight for each LoRA and layer on a few examples of the
      target task, with all else fixed: the sum is differentiable in them.

  Returns:
    A tree of ``deltas.Factors`` with scale 1; weighted sums of arrays.

  Raises:
    ValueError: if there is not one finite weight for each LoRA.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = adapters.Factors(jnp.ones((1, 2)), jnp.ones((1, 1)), 0.5, (2, 1),
    ...                        view)
    >>> both = cat(adapters.stack([{'w': one}, {'w': one}]), weights=[1, 3])
    >>> both['w'].a.shape, adapters.dense(both['w']).tolist()
    ((2, 2), [[2.0], [2.0]])

  Reference:
    Prabhakar et al., "LoRA Soups: Merging LoRAs for Practical Skill Composition
    Tasks", 2024, arXiv:2410.13025; PEFT, combination type ``cat``.

  Differs from the code of PEFT in the factor that carries weights and scales, A
  there and B here; the product is the same.
  """
  models = _stack.count('cat', deltas)
  named = tree.named(deltas_lib.placeholders(deltas))
  values = _stack.per_leaf('cat: weights', weights, named)
  each = {k: _checks.weights('cat', w, models) for k, w in values.items()}

  def join(name: str, x: Any) -> Any:
    if deltas_lib.is_factors(x):
      return _factored.join(x, each[name])
    return tree.apply_kernel(_linear.weighted_sum, x, weights=each[name])

  return tree.map_named(join, deltas, is_leaf=deltas_lib.is_factors)
