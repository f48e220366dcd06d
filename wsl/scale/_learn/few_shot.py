"""Batches of a few labelled examples of each class."""

from collections.abc import Iterator

import jax
import numpy as np

from wsl import deprecation, tree, types


@deprecation.positional('scale.shots', 'per_class')
def shots(
  labels: types.ArrayLike, *, per_class: int, key: types.PRNGKey
) -> np.ndarray:
  """Draws ``per_class`` examples of each class, without replacement.

  A k-shot experiment must not use further labels: stop after a fixed number of
  steps, not at the best epoch on a labelled validation set (as the paper's code
  does).

  Args:
    labels: integers ``[N]``, of the training split.
    per_class: k, 1 or more.
    key: source of the draw. With one key, the k shots are a subset of the k + 1
      shots.

  Returns:
    Indices, ``[classes * k]``, by class.

  Raises:
    ValueError: if a class has fewer than k examples.

  Example:
    >>> import jax, numpy as np
    >>> labels = np.asarray([0, 1, 0, 1, 1])
    >>> labels[shots(labels, per_class=2, key=jax.random.key(0))].tolist()
    [0, 0, 1, 1]
  """
  labels = np.asarray(labels)
  tree.check_whole('shots', per_class=per_class)
  if per_class < 1:
    raise ValueError(f'shots(per_class={per_class}): expected 1 or more')
  order = np.asarray(jax.random.permutation(key, len(labels)))
  chosen = []
  for label in np.unique(labels):
    of_class = order[labels[order] == label]
    if len(of_class) < per_class:
      raise ValueError(
        f'shots(per_class={per_class}): class {label} has {len(of_class)} '
        'examples'
      )
    chosen.append(of_class[:per_class])
  return np.concatenate(chosen)


@deprecation.positional('scale.few_shot', 'per_class')
def few_shot(
  data: types.Tree,
  labels: types.ArrayLike,
  *,
  per_class: int,
  batch_size: int,
  key: types.PRNGKey,
) -> Iterator[tuple[types.Tree, np.ndarray]]:
  """Yields endless batches of k examples of each class, for ``supervised``.

  The chosen examples are shuffled in each epoch; a batch larger than their
  number spans several epochs.

  Args:
    data: inputs of the training split, leaves ``[N, ...]``.
    labels: integers ``[N]``.
    per_class: k, 1 or more.
    batch_size: examples in a batch.
    key: source of the draw and of the shuffles.

  Yields:
    (inputs, labels), leaves ``[batch_size, ...]``.

  Raises:
    ValueError: at the first batch, for the reasons of ``shots``.

  Example:
    >>> import jax, numpy as np
    >>> x, y = np.arange(6.0), np.asarray([0, 0, 0, 1, 1, 1])
    >>> stream = few_shot(
    ...   x, y, per_class=1, batch_size=4, key=jax.random.key(0))
    >>> sorted(next(stream)[1].tolist())
    [0, 0, 1, 1]
  """
  tree.check_whole('few_shot', batch_size=batch_size)
  if batch_size < 1:
    raise ValueError(f'few_shot(batch_size={batch_size}): expected 1 or more')
  labels = np.asarray(labels)
  chosen = shots(labels, per_class=per_class, key=jax.random.fold_in(key, 0))
  waiting = np.zeros(0, chosen.dtype)
  epoch = 0
  while True:
    while len(waiting) < batch_size:
      epoch += 1
      order = jax.random.permutation(
        jax.random.fold_in(key, epoch), len(chosen)
      )
      waiting = np.concatenate([waiting, chosen[np.asarray(order)]])
    index, waiting = waiting[:batch_size], waiting[batch_size:]
    yield jax.tree.map(lambda x, i=index: x[i], data), labels[index]
