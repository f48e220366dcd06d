"""UFM: unsupervised FixMatch, from a trusted set and two augmentations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.scale._learn import objectives


class Trusted(NamedTuple):
  """Examples whose predicted label is used as the true one.

  Attributes:
    indices: ``[n]``, positions in the data.
    labels: ``[n]``, the predicted labels.
  """

  indices: np.ndarray
  labels: np.ndarray


class Views(NamedTuple):
  """A batch of ``ufm``.

  Attributes:
    inputs: unlabelled examples, leaves ``[B, ...]``.
    trusted: trusted examples, leaves ``[n, ...]``; the paper: n = B / 3.
    labels: their labels, ``[n]``.
    threshold: w, the confidence above which an unlabelled example contributes;
      the paper raises it linearly from 0.9 to 1.
  """

  inputs: Any
  trusted: Any
  labels: types.ArrayLike
  threshold: types.ArrayLike


def trusted(logits: types.ArrayLike, *, most: int = 100) -> Trusted:
  r"""Selects the most confident examples of each predicted class.

  At most :math:`\min(N / C, \text{most})` of each class. The paper selects them
  again in every epoch, initially with the zero-shot model.

  Args:
    logits: ``[N, C]``, of all unlabelled examples.
    most: the maximum for one class.

  Returns:
    Indices and labels, ordered by class, then by decreasing confidence.

  Raises:
    ValueError: if there are fewer examples than classes.

  Example:
    >>> import numpy as np
    >>> trusted(np.asarray([[1., 0.], [0., 3.], [4., 0.], [0., 1.]]), most=1)
    Trusted(indices=array([2, 1]), labels=array([0, 1]))

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880.

  Differs from the official code, which selects a tenth of N / C, once, and
  trusts the examples of the last class only. It ranks all examples by their
  score of class c, not only those predicted as c: it selects as many of each
  class, among them examples that it labels as another class, and one example
  may count for several classes.
  """
  log_p = np.asarray(objectives.log_softmax(jnp.asarray(logits)))
  count, classes = log_p.shape
  share = min(count // classes, most)
  if share < 1:
    raise ValueError(
      f'trusted: {count} examples for {classes} classes: expected at least one '
      'for each class'
    )
  labels, confidence = log_p.argmax(1), log_p.max(1)
  order = np.argsort(-confidence, kind='stable')
  indices = np.concatenate(
    [order[labels[order] == c][:share] for c in range(classes)]
  )
  return Trusted(indices, labels[indices])


def ufm(
  apply_fn: objectives.ApplyFn,
  *,
  weak: Callable[[types.PRNGKey, Any], Any],
  strong: Callable[[types.PRNGKey, Any], Any],
  exponent: float = 0.5,
) -> objectives.Objective:
  r"""Builds the consistency loss of strong and weak augmentations.

  .. math:: L = \frac{1}{B + n} \Bigl( \sum_{x} 1[\max q(x) > w]\,
    H(q(x), p(\text{strong}(x))) + \sum_{x, y \in \text{trusted}}
    H(y, p(\text{strong}(x))) \Bigr), \quad
    q \propto p(\text{weak}(x))^{\text{exponent}}

  The pseudo-label q is a constant: no gradient flows through it.

  Args:
    apply_fn: maps (params, inputs) to logits ``[B, C]``.
    weak: a weak random augmentation, a function of (key, inputs).
    strong: a strong one.
    exponent: 0.5 as printed, which flattens p although the text says that it
      sharpens: with w = 0.9 and two classes, only examples with p > 0.988
      contribute. 2.0 sharpens.

  Returns:
    An objective; batches are ``Views``.

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880, on test-time adaptation.

  Differs from the official code, where the threshold stays at 0.99, the
  exponent is a factor that cancels in the normalisation, and the trusted
  examples are those of the last class, selected once. The code divides by the
  number of examples that contribute, which is 0 / 0 if none does and raises the
  weight of each where few do; this divides by all B + n, as FixMatch
  (arXiv:2001.07685) does.
  """
  tree.check_scalars('ufm', exponent=exponent)
  return jax.tree_util.Partial(
    _ufm, tree.partial(apply_fn), _Static((weak, strong, exponent))
  )


@jax.tree_util.register_static
class _Static(tuple):
  """Static arguments of the compiled program."""


def _ufm(
  apply_fn: objectives.ApplyFn,
  settings: _Static,
  params: types.Params,
  batch: Views,
  key: types.PRNGKey,
) -> types.Array:
  """Averages the pseudo-label and trusted losses over B + n examples."""
  weak, strong, exponent = settings
  keys = jax.random.split(key, 3)
  logits = apply_fn(params, weak(keys[0], batch.inputs))
  # p^e / sum p^e = softmax(e log p), without underflow of small p.
  target = jax.nn.softmax(exponent * objectives.log_softmax(logits))
  target = jax.lax.stop_gradient(target)
  log_p = objectives.log_softmax(
    apply_fn(params, strong(keys[1], batch.inputs))
  )
  confident = jnp.max(target, -1) > jnp.asarray(batch.threshold, target.dtype)
  agreement = -jnp.sum(target * log_p, -1) * confident.astype(log_p.dtype)
  logits = apply_fn(params, strong(keys[2], batch.trusted))
  known = batches_lib.cross_entropy(logits, batch.labels, name='ufm')
  return jnp.mean(jnp.concatenate([agreement, known]))
