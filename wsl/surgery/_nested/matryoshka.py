"""Matryoshka representations: heads on nested prefixes of the features."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types


def matryoshka_logits(
  features: types.Array,
  kernel: types.Array,
  bias: types.Array | None = None,
  *,
  sizes: Sequence[int],
) -> types.Array:
  r"""Returns the logits of each nested prefix of the features.

  .. math:: z^{(m)} = W^{(m)\top} h_{1:m} + b^{(m)}, \quad m \in \text{sizes}

  With one shared head, :math:`W^{(m)} = W_{1:m}`, all prefixes together cost
  one product with the whole kernel: the parts between two sizes are summed.

  Args:
    features: h, ``[..., d]``.
    kernel: ``[d, C]``, shared by all sizes (the efficient variant, MRL-E), or
      ``[M, d, C]``, one head for each of the M sizes, of which the first m rows
      are used.
    bias: ``[C]`` or ``[M, C]``; ``None`` for none.
    sizes: m, M increasing numbers of leading features, ``1 .. d``.

  Returns:
    Logits ``[M, ..., C]``, in float32 or wider.

  Raises:
    ValueError: if the sizes do not increase within ``1 .. d``, or a shape does
      not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> h, kernel = jnp.asarray([[1.0, 2.0, 4.0]]), jnp.ones((3, 1))
    >>> matryoshka_logits(h, kernel, sizes=(1, 3))[:, 0, 0].tolist()
    [1.0, 7.0]

  Reference:
    Kusupati et al., "Matryoshka Representation Learning", 2022,
    arXiv:2205.13147, equations 1 and 2.
  """
  _check(features, kernel, bias, sizes)
  h, kernel = tree.widen(features, kernel)
  if kernel.ndim == 3:
    logits = [tree.matmul(h[..., :m], w[:m]) for m, w in zip(sizes, kernel)]
  else:
    # W_{1:m}^T h_{1:m} is a running sum over the bands between sizes.
    starts = (0, *sizes[:-1])
    parts = [
      tree.matmul(h[..., a:b], kernel[a:b]) for a, b in zip(starts, sizes)
    ]
    logits = [parts[0]]
    for part in parts[1:]:
      logits.append(logits[-1] + part)
  result = jnp.stack(logits)
  if bias is None:
    return result
  result, bias = tree.widen(result, bias)
  ones = (1,) * (result.ndim - 2)
  first = len(bias) if bias.ndim == 2 else 1
  return result + bias.reshape(first, *ones, bias.shape[-1])


def matryoshka_loss(
  logits: types.Array,
  labels: types.Array,
  *,
  weights: Sequence[float] | None = None,
) -> types.Array:
  r"""Sums the cross-entropies of all nested prefixes.

  .. math:: L = \sum_{m} c_m \frac{1}{n} \sum_{i=1}^{n}
    -\log \mathrm{softmax}(z^{(m)}_i)_{y_i}

  Args:
    logits: ``[M, ..., C]``, from ``matryoshka_logits``.
    labels: classes ``[...]``, integers; one outside of 0 .. C-1 gives NaN.
    weights: c, M numbers; ``None`` for 1, as in the paper.

  Returns:
    A scalar, in float32 or wider.

  Raises:
    ValueError: if a shape does not fit, or labels are no integers.

  Example:
    >>> import jax.numpy as jnp
    >>> logits, labels = jnp.zeros((2, 3, 4)), jnp.zeros(3, int)
    >>> print(f'{matryoshka_loss(logits, labels):.4f}')  # 2 log 4
    2.7726

  Reference:
    Kusupati et al., "Matryoshka Representation Learning", 2022,
    arXiv:2205.13147, equation 1.
  """
  count = logits.shape[0]
  if logits.shape[1:-1] != labels.shape:
    raise ValueError(
      f'matryoshka_loss: logits {logits.shape} and labels {labels.shape}, '
      'expected [M, ..., C] and [...]'
    )
  given = np.ones(count) if weights is None else np.asarray(weights, float)
  if given.shape != (count,):
    raise ValueError(f'matryoshka_loss: {given.size} weights for {count} sizes')
  wanted = jnp.broadcast_to(jnp.asarray(labels), logits.shape[:-1])
  losses = batches_lib.cross_entropy(logits, wanted, name='matryoshka_loss')
  means = jnp.mean(losses.reshape(count, -1), 1)
  return jnp.sum(means * jnp.asarray(given, means.dtype))


def _check(
  features: types.Array,
  kernel: types.Array,
  bias: types.Array | None,
  sizes: Sequence[int],
) -> None:
  """Checks the sizes and the shapes of heads."""
  d = features.shape[-1]
  if not sizes or [*sizes] != sorted({*sizes}) or not sizes[0] >= 1:
    raise ValueError(
      f'matryoshka_logits: sizes={tuple(sizes)}, expected increasing numbers '
      f'1 .. {d}'
    )
  if sizes[-1] > d:
    raise ValueError(f'matryoshka_logits: size {sizes[-1]} of {d} features')
  heads = (len(sizes),) if kernel.ndim == 3 else ()
  if kernel.ndim not in (2, 3) or kernel.shape[:-1] != (*heads, d):
    raise ValueError(
      f'matryoshka_logits: kernel {kernel.shape}, expected [{d}, C] or '
      f'[{len(sizes)}, {d}, C]'
    )
  classes = kernel.shape[-1]
  if bias is not None and bias.shape not in (
    (classes,),
    (len(sizes), classes),
  ):
    raise ValueError(
      f'matryoshka_logits: bias {bias.shape}, expected [{classes}] or '
      f'[{len(sizes)}, {classes}]'
    )
