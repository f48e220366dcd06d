"""Heads for few shots that add to zero-shot logits: Tip-Adapter and LP++."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TipAdapter:
  """A cache of labelled features; keys and scales can be trained.

  Attributes:
    keys: ``[n, d]``, directions of the examples' features.
    alpha: ``[]``, the weight of the cache.
    beta: ``[]``, its sharpness.
    labels: the labels of the n examples.
    classes: the number K of classes.
  """

  keys: types.Array
  alpha: types.Array
  beta: types.Array
  labels: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  classes: int = dataclasses.field(metadata={'static': True})


class LinearProbe(NamedTuple):
  """A linear classifier blended with the zero-shot one, class by class.

  Attributes:
    weight: ``[K, d]``.
    bias: ``[K]``.
    alpha: ``[K]``, the weights of the zero-shot logits.
  """

  weight: types.Array
  bias: types.Array
  alpha: types.Array


class StepSizes(NamedTuple):
  """Learning rates of gradient descent on a ``LinearProbe``, ``[]`` each."""

  weight: types.Array
  alpha: types.Array


def tip_adapter(
  features: types.ArrayLike,
  labels: types.ArrayLike,
  *,
  classes: int,
  alpha: float = 2.0,
  beta: float = 1.0,
) -> TipAdapter:
  """Makes a cache of the features of a few labelled examples.

  Args:
    features: ``[n, d]``, such as those of ``shots``, of the composed model.
    labels: ``[n]``, integers 0 .. K - 1.
    classes: the number K of classes.
    alpha: the initial weight of the cache; aTLAS starts at 2, Tip-Adapter at 1.
    beta: its initial sharpness; aTLAS starts at 1, Tip-Adapter at 5.5.

  Returns:
    The head, for ``tip_logits``.

  Raises:
    ValueError: if the numbers of features and labels differ, or a label is out
      of range.

  Reference:
    Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
    Classification", 2021, arXiv:2111.03930; with learned scales in Zhang et
    al., "Knowledge Composition using Task Vectors with Learned Anisotropic
    Scaling", 2024, arXiv:2407.02880.
  """
  tree.check_scalars('tip_adapter', alpha=alpha, beta=beta)
  tree.check_whole('tip_adapter', classes=classes)
  if tree.is_traced(labels):
    raise ValueError(
      'tip_adapter: labels are traced: they are part of the head'
    )
  x, _ = _checked('tip_adapter', features, labels, classes)
  return TipAdapter(
    keys=tree.unit(x),
    alpha=jnp.asarray(alpha, x.dtype),
    beta=jnp.asarray(beta, x.dtype),
    labels=tuple(np.asarray(labels).tolist()),
    classes=classes,
  )


def tip_logits(
  head: TipAdapter, features: types.ArrayLike, zero_shot: types.ArrayLike
) -> types.Array:
  r"""Adds the votes of similar cached examples to the zero-shot logits.

  .. math:: z + \alpha \, e^{-\beta (1 - \bar f K^\top)} Y

  with keys K, one-hot labels Y and directions :math:`\bar f` of the features.

  Args:
    head: from ``tip_adapter``, trained or not.
    features: f, ``[B, d]``.
    zero_shot: z, logits ``[B, K]``, at their usual scale (CLIP: 100 times the
      cosine).

  Returns:
    Logits ``[B, K]``.

  Example:
    >>> import jax.numpy as jnp
    >>> head = tip_adapter(jnp.eye(2), [1, 0], classes=2, alpha=1.0)
    >>> found = tip_logits(head, jnp.eye(2), jnp.zeros((2, 2)))
    >>> (100 * found).round().astype(int).tolist()
    [[37, 100], [100, 37]]
  """
  f, z, keys, alpha, beta = tree.widen(
    features, zero_shot, head.keys, head.alpha, head.beta
  )
  affinity = tree.matmul(tree.unit(f), keys.T)
  votes = jnp.exp(-beta * (1 - affinity))
  values = jax.nn.one_hot(
    jnp.asarray(head.labels), head.classes, dtype=votes.dtype
  )
  return z + alpha * tree.matmul(votes, values)


def linear_probe(
  features: types.ArrayLike,
  labels: types.ArrayLike,
  zero_shot: types.ArrayLike,
) -> tuple[LinearProbe, StepSizes]:
  r"""Starts LP++ at the sums of each class's features, with its step sizes.

  .. math:: w_k = \sum_{i: y_i = k} f_i, \quad \alpha_k = 250 \,
    \frac{1}{K} \sum_l \operatorname*{mean}_{i: y_i = l} z_{il}; \qquad
    \eta_w = \frac{4 n}{\lambda_\max(F^\top F)}, \quad
    \eta_\alpha = \frac{n}{4 \max_k \sum_i z_{ik}^2}

  The mean cross-entropy is convex, and the Hessian of one class's weights is at
  most :math:`\lambda_\max(F^\top F) / 4 n`: the step sizes need no search.

  Args:
    features: f, ``[n, d]``, of labelled examples.
    labels: y, ``[n]``, integers; every class has an example.
    zero_shot: z, ``[n, K]``, cosines with the classes' text features: CLIP's
      logits divided by 100.

  Returns:
    The head, for ``probe_logits``, and the step sizes.

  Raises:
    ValueError: if the numbers of rows differ, or a class has no example;
      labels are not checked in a trace.

  Example:
    >>> import jax.numpy as jnp
    >>> head, steps = linear_probe(2 * jnp.eye(2), [0, 1], jnp.eye(2))
    >>> head.weight.tolist(), head.alpha.tolist(), float(steps.weight)
    ([[2.0, 0.0], [0.0, 2.0]], [250.0, 250.0], 2.0)

  Reference:
    Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP",
    2024, arXiv:2404.02285.

  Differs from the code of aTLAS in the bias, which starts at 0 and not at
  random.
  """
  features, z = tree.widen(features, zero_shot)
  x, y = _checked('linear_probe', features, labels, z.shape[-1])
  if z.shape != (len(x), z.shape[-1]):
    raise ValueError(
      f'linear_probe: zero_shot is {list(z.shape)}, expected [{len(x)}, K]'
    )
  member = jax.nn.one_hot(y, z.shape[1], dtype=x.dtype)
  counts = jnp.sum(member, 0)
  if not isinstance(counts, jax.core.Tracer) and not counts.all():
    raise ValueError(
      f'linear_probe: class {int(jnp.argmin(counts))} has no example'
    )
  own = jnp.sum(member * z, 0) / counts
  largest = jnp.linalg.eigvalsh(tree.matmul(x.T, x))[-1]
  head = LinearProbe(
    weight=tree.matmul(member.T, x),
    bias=jnp.zeros_like(own),
    alpha=jnp.full_like(own, 250 * jnp.mean(own)),
  )
  return head, StepSizes(
    weight=4 * len(x) / largest,
    alpha=len(x) / (4 * jnp.max(jnp.sum(jnp.square(z), 0))),
  )


def probe_logits(
  head: LinearProbe, features: types.ArrayLike, zero_shot: types.ArrayLike
) -> types.Array:
  r"""Blends a linear classifier with the zero-shot one.

  .. math:: W f + b + \alpha \odot z

  Args:
    head: from ``linear_probe``, trained or not.
    features: f, ``[B, d]``.
    zero_shot: z, ``[B, K]``, cosines as for ``linear_probe``.

  Returns:
    Logits ``[B, K]``.

  Example:
    >>> import jax.numpy as jnp
    >>> head = LinearProbe(jnp.eye(2), jnp.ones(2), jnp.zeros(2))
    >>> probe_logits(head, jnp.eye(2), jnp.ones((2, 2))).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
  """
  f, z, weight, bias, alpha = tree.widen(features, zero_shot, *head)
  return tree.matmul(f, weight.T) + bias[None] + alpha[None] * z


def _checked(
  label: str, features: types.ArrayLike, labels: types.ArrayLike, classes: int
) -> tuple[types.Array, types.Array]:
  """Returns features and labels after checking that they match."""
  (x,), y = tree.widen(features), jnp.asarray(labels)
  if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
    raise ValueError(
      f'{label}: features are {list(x.shape)} and labels {list(y.shape)}, '
      'expected [n, d] and [n] of the same n >= 1 examples'
    )
  if not jnp.issubdtype(y.dtype, jnp.integer):
    raise ValueError(f'{label}: labels are of {y.dtype}, expected integers')
  inside = jnp.all((y >= 0) & (y < classes))
  if not isinstance(inside, jax.core.Tracer) and not inside:
    raise ValueError(f'{label}: labels are not in 0 .. {classes - 1}')
  return x, y
