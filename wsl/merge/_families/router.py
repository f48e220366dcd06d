"""A router from features to tasks, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _checks


class Router(NamedTuple):
  """A linear map from features to the logits of T tasks.

  Attributes:
    kernel: ``[d, T]``.
    bias: ``[T]``.
  """

  kernel: types.Array
  bias: types.Array


def fit_router(
  features: types.Array,
  tasks: types.Array,
  *,
  count: int,
  shrink: types.Scalar = 1e-2,
) -> Router:
  r"""Fits a linear classifier of the task of an input (linear discriminant).

  .. math:: g_t(h) = h^\top S^{-1} \mu_t - \tfrac{1}{2} \mu_t^\top S^{-1} \mu_t
    + \log \pi_t, \qquad
    S = \Sigma + \alpha \frac{\operatorname{tr} \Sigma}{d} 1

  with the mean :math:`\mu_t` and the share :math:`\pi_t` of the features of
  each task, and their covariance :math:`\Sigma` within tasks. ``softmax(g)`` is
  the probability of the tasks if their features are normal with one covariance.

  Args:
    features: h, ``[N, d]``, such as the mean over tokens of the last hidden
      state of the shared model.
    tasks: the task of each input, ``[N]``, integers 0 .. T-1; a label of other
      value counts nowhere.
    count: T, ``>= 1``.
    shrink: alpha > 0; may be traced.

  Returns:
    A ``Router``, in float32 or wider. A task without inputs has logit -inf.

  Raises:
    ValueError: if the shapes do not fit, or ``count`` or ``shrink`` is out of
      range.

  Example:
    >>> import jax.numpy as jnp
    >>> h = jnp.asarray([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]])
    >>> router = fit_router(h, jnp.asarray([0, 0, 1, 1]), count=2)
    >>> route(router, h).round(1).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]

  Reference:
    Lu et al., "Twin-Merging: Dynamic Integration of Modular Expertise in Model
    Merging", 2024, arXiv:2406.15479; Fisher, "The use of multiple measurements
    in taxonomic problems", 1936.

  Differs from the official code, whose router has two hidden layers with batch
  normalisation and dropout, and is trained by Adam and selected on test
  features. ``materialize`` takes the softmax of any router.
  """
  if np.ndim(features) != 2 or np.shape(tasks) != np.shape(features)[:1]:
    raise ValueError(
      f'fit_router: features {np.shape(features)} and tasks {np.shape(tasks)}: '
      'give [N, d] and [N]'
    )
  if not jnp.issubdtype(jnp.asarray(tasks).dtype, jnp.integer):
    raise ValueError('fit_router: tasks are no integers: give 0 .. T-1')
  _checks.integer('fit_router', 'count', count, least=1)
  tree.check_scalars('fit_router', shrink=shrink)
  if not isinstance(shrink, jax.core.Tracer) and not shrink > 0:
    raise ValueError(f'fit_router(shrink={shrink}): expected a number > 0')
  tree.check_not_narrowed('fit_router', features)
  found: Router = tree.apply_kernel(
    _discriminant,
    jnp.asarray(features),
    jnp.asarray(tasks),
    shrink=shrink,
    count=tree.Static(int(count)),
  )
  return found


def route(
  router: Router, features: types.Array, *, temperature: types.Scalar = 1.0
) -> types.Array:
  r"""Returns the weights of the tasks for each input.

  .. math:: w = \operatorname{softmax}(g(h) / \theta)

  Args:
    router: from ``fit_router``.
    features: ``[..., d]``, one row for each input. For one merge of a batch
      average the weights, ``route(router, h).mean(0)``.
    temperature: theta > 0; near 0 takes the most probable task alone.

  Returns:
    Weights ``[..., T]``, which sum to 1.

  Raises:
    ValueError: if ``temperature`` is not positive, or the features have another
      width than the router.

  Example:
    >>> import jax.numpy as jnp
    >>> router = Router(jnp.eye(2), jnp.zeros(2))
    >>> route(router, jnp.asarray([3.0, 3.0])).tolist()
    [0.5, 0.5]

  Reference:
    Lu et al., 2024, arXiv:2406.15479.

  The official code takes the softmax of its logits too, without a temperature.
  """
  tree.check_scalars('route', temperature=temperature)
  if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
    raise ValueError(f'route(temperature={temperature}): expected a number > 0')
  width, found = np.shape(router.kernel)[0], np.shape(features)[-1:]
  if found != (width,):
    raise ValueError(
      f'route: features has shape {np.shape(features)}, expected [..., {width}]'
    )
  tree.check_not_narrowed('route', [router, features])
  h = tree.wide(jnp.asarray(features))
  logits = tree.matmul(h, router.kernel.astype(h.dtype))
  bias = router.bias.astype(logits.dtype)
  logits = logits + jnp.broadcast_to(bias, logits.shape)
  return jax.nn.softmax(logits / jnp.asarray(temperature, h.dtype), axis=-1)


def _discriminant(
  features: types.Array, tasks: types.Array, *, shrink: types.Scalar, count: int
) -> Router:
  """Returns the discriminant of T tasks from features and labels."""
  h = tree.wide(features)
  members = jax.nn.one_hot(tasks, count, dtype=h.dtype)
  sizes = jnp.sum(members, 0)
  means = tree.matmul(members.T, h) / jnp.maximum(sizes, 1)[:, None]
  inside = jnp.sum(members, 1)[:, None] * (h - tree.matmul(members, means))
  total = jnp.sum(sizes)
  covariance = tree.matmul(inside.T, inside) / jnp.maximum(total, 1)
  size = jnp.trace(covariance) / h.shape[1]
  # Features without any spread have a unit covariance.
  size = jnp.where(size > 0, size, 1)
  shrink = jnp.asarray(shrink).astype(h.dtype)
  shrunk = covariance + shrink * size * jnp.eye(h.shape[1], dtype=h.dtype)
  kernel = jnp.linalg.solve(shrunk, means.T)
  # log p(t | h) of normal features, without the terms that all tasks share:
  # log pi_t - (h - mu_t)^T S^{-1} (h - mu_t) / 2 + h^T S^{-1} h / 2.
  log_share = jnp.log(tree.safe_divide(sizes, total))
  return Router(kernel, log_share - 0.5 * jnp.sum(means.T * kernel, 0))
