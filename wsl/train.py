"""One training loop: jitted, scanned, resumable, vmappable.

A loss is ``loss_fn(params, batch, key) -> scalar``; data is a pytree of arrays
with one leading axis of N examples. What is not trained (a frozen head, a
reference model) is closed over, or, so that it may change without a new
compilation and be batched by ``vmap``, bound with ``jax.tree_util.Partial``::

  def loss(head, params, batch, key): ...

  advance(jax.tree_util.Partial(loss, head), state, data, ...)

Many runs at once, here one for each task, are a ``vmap``::

  run = functools.partial(
    advance, optimizer=optimizer, steps=100, batch_size=64
  )
  jax.vmap(lambda head, state, data, key: run(
    jax.tree_util.Partial(loss, head), state, data, key=key
  ))(heads, states, datas, keys)

Progress and restarts are segments: ``advance`` by 100 steps, report, save the
state, repeat; segments give the numbers of one long run.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from wsl import tree, types


class State(NamedTuple):
  """What a run continues from.

  Attributes:
    params: the trained parameters.
    opt_state: the state of the optimizer.
    step: steps made so far, ``[]``, int32.
  """

  params: types.Params
  opt_state: Any
  step: types.Array


class Metrics(NamedTuple):
  """Means over a data set.

  Attributes:
    loss: cross-entropy in nats, ``[]``.
    accuracy: fraction whose largest logit is the label's, ``[]``.
  """

  loss: types.Array
  accuracy: types.Array


def adamw(
  learning_rate: types.Scalar,
  *,
  steps: int,
  warmup: float = 0.1,
  weight_decay: float = 0.01,
  clip: float = 1.0,
) -> optax.GradientTransformation:
  """AdamW with clipped gradients, linear warm-up and cosine decay to zero.

  Make the optimizer once and hand the same object to every ``advance``: a new
  one, though equal, is compiled again.

  Args:
    learning_rate: the peak.
    steps: length of the whole run.
    warmup: fraction of the steps that rise to the peak.
    weight_decay: decoupled decay, times the learning rate at each step.
    clip: largest global norm of a gradient.

  Returns:
    The optimizer.

  Reference:
    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2017,
    arXiv:1711.05101.
  """
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, learning_rate, round(warmup * steps), steps
  )
  return optax.chain(
    optax.clip_by_global_norm(clip),
    optax.adamw(schedule, weight_decay=weight_decay),
  )


def start(
  params: types.Params, *, optimizer: optax.GradientTransformation
) -> State:
  """Returns the state before the first step.

  Args:
    params: the initial parameters, float leaves ``[...]``.
    optimizer: any optax transformation.

  Returns:
    The state; ``jax.vmap`` over stacked parameters gives stacked states.
  """
  return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def advance(
  loss_fn: Callable[..., types.Array],
  state: State,
  data: types.Tree,
  *,
  optimizer: optax.GradientTransformation,
  steps: int,
  batch_size: int,
  key: types.PRNGKey,
) -> tuple[State, types.Array]:
  """Makes ``steps`` optimizer steps.

  Every epoch goes through the examples in a new order, which depends only on
  ``key`` and the epoch; the last, incomplete batch of an epoch is dropped.
  Since ``state.step`` says where the run stands, ``advance`` by 40 and then by
  60 steps with one key makes the same steps as by 100.

  A loss that becomes NaN stops nothing: the parameters become NaN and so does
  every later loss, so look at ``losses[-1]``, or keep the run from taking such
  steps with ``optax.apply_if_finite``.

  Compiles once for each ``loss_fn``, ``optimizer``, ``steps``, ``batch_size``
  and shapes; pass the same objects again, not new lambdas.

  Args:
    loss_fn: maps (params, batch, key) to a scalar; ``batch`` is like ``data``
      with leaves ``[batch_size, ...]``, ``key`` is new at every step.
    state: from ``start`` or an earlier ``advance``.
    data: examples, every leaf ``[N, ...]``.
    optimizer: the transformation that ``start`` was given.
    steps: number of steps.
    batch_size: examples in a batch, at most N.
    key: source of the orders and of the keys of ``loss_fn``; the same for all
      segments of a run.

  Returns:
    The new state, and the loss of every step before its update, ``[steps]``.

  Raises:
    ValueError: if the data has fewer than ``batch_size`` examples or leaves
      of different lengths, or if a number is out of range.

  Example:
    >>> loss = lambda w, x, key: jnp.mean(jnp.square(x - w))
    >>> optimizer = optax.sgd(0.1)
    >>> state = start(jnp.zeros(()), optimizer=optimizer)
    >>> state, losses = advance(
    ...   loss, state, jnp.full(8, 3.0), optimizer=optimizer,
    ...   steps=50, batch_size=4, key=jax.random.key(0))
    >>> print(f'{state.params:.3f}', losses.shape)
    3.000 (50,)
  """
  if steps < 0:
    raise ValueError(f'steps={steps}: expected 0 or more')
  count = _examples(data, batch_size)
  if count < batch_size:
    raise ValueError(
      f'batch_size={batch_size} but the data has only {count} examples: '
      f'choose batch_size <= {count}'
    )
  if not isinstance(loss_fn, jax.tree_util.Partial):
    loss_fn = jax.tree_util.Partial(loss_fn)
  return _advance(loss_fn, state, data, key, optimizer, steps, batch_size)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _advance(
  loss_fn: Callable[..., types.Array],
  state: State,
  data: types.Tree,
  key: types.PRNGKey,
  optimizer: optax.GradientTransformation,
  steps: int,
  batch_size: int,
) -> tuple[State, types.Array]:
  """Scans the steps over the indices of their batches."""
  order_key, noise_key = jax.random.split(key)
  count = len(jax.tree.leaves(data)[0])

  def step(state: State, indices: types.Array) -> tuple[State, types.Array]:
    batch = jax.tree.map(lambda x: x[indices], data)
    noise = jax.random.fold_in(noise_key, state.step)
    loss, grads = jax.value_and_grad(loss_fn)(state.params, batch, noise)
    with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes itself
      updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params
      )
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state, state.step + 1), loss

  rows = _batches(order_key, state.step, steps, count, batch_size)
  return jax.lax.scan(step, state, rows)


def _batches(
  key: types.PRNGKey,
  first: types.Array,
  steps: int,
  count: int,
  batch_size: int,
) -> types.Array:
  """Returns which examples each step sees, ``[steps, batch_size]``.

  Step s is batch ``s % per_epoch`` of epoch ``s // per_epoch``, whose order is
  a permutation drawn from (key, epoch).
  """
  per_epoch = count // batch_size
  first_epoch, offset = jnp.divmod(first, per_epoch)
  epochs = first_epoch + jnp.arange(
    (steps + per_epoch - 1) // per_epoch + 1, dtype=first.dtype
  )
  orders = jax.vmap(
    lambda epoch: jax.random.permutation(
      jax.random.fold_in(key, epoch), jnp.arange(count, dtype=jnp.int32)
    )
  )(epochs)
  batches = orders[:, : per_epoch * batch_size].reshape(-1, batch_size)
  return jax.lax.dynamic_slice_in_dim(batches, offset, steps)


def evaluate(
  apply_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  data: tuple[types.Tree, types.Array],
  *,
  batch_size: int,
) -> Metrics:
  """Returns the mean loss and accuracy of a classifier.

  Args:
    apply_fn: maps (params, inputs) to logits ``[B, classes]``, or
      ``[B, S, classes]`` where there is one label for each of S tokens.
    params: its parameters.
    data: (inputs, labels): inputs have leaves ``[N, ...]``, labels are
      integers ``[N]`` or ``[N, S]``.
    batch_size: examples in memory at once; the last batch may be smaller and
      every example counts once.

  Returns:
    The means over all N (times S) labels.

  Raises:
    ValueError: as ``average`` does.

  Example:
    >>> apply_fn = lambda w, x: x * w
    >>> data = jnp.eye(3), jnp.array([0, 1, 0])
    >>> metrics = evaluate(apply_fn, jnp.ones((1, 3)), data, batch_size=2)
    >>> print(f'{metrics.accuracy:.3f}')
    0.667
  """
  if not isinstance(apply_fn, jax.tree_util.Partial):
    apply_fn = jax.tree_util.Partial(apply_fn)
  return average(
    jax.tree_util.Partial(_classify, apply_fn),
    params,
    data,
    batch_size=batch_size,
  )


def _classify(
  apply_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batch: tuple[types.Tree, types.Array],
) -> Metrics:
  """Returns the metrics of each label of a batch."""
  inputs, labels = batch
  logits = apply_fn(params, inputs)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  right = jnp.argmax(logits, -1) == labels
  return Metrics(losses, jnp.asarray(right, losses.dtype))


def average(
  metric_fn: Callable[..., types.Tree],
  params: types.Params,
  data: types.Tree,
  *,
  batch_size: int,
) -> types.Tree:
  """Returns the mean of any per-example numbers, streamed over batches.

  Args:
    metric_fn: maps (params, batch) to a pytree of leaves ``[B, ...]``; a
      ``jax.tree_util.Partial`` may bind further arrays before them.
    params: first operand of ``metric_fn``.
    data: examples, every leaf ``[N, ...]``.
    batch_size: examples in memory at once; the last batch may be smaller.

  Returns:
    The pytree of means over all axes, each leaf ``[]``, float32 or wider.

  Raises:
    ValueError: if there are no examples, if leaves differ in length, or if
      ``batch_size`` is less than 1.
  """
  if not _examples(data, batch_size):
    raise ValueError('the data has no examples: there is nothing to average')
  if not isinstance(metric_fn, jax.tree_util.Partial):
    metric_fn = jax.tree_util.Partial(metric_fn)
  return _average(metric_fn, params, data, batch_size)


@functools.partial(jax.jit, static_argnums=3)
def _average(
  metric_fn: Callable[..., types.Tree],
  params: types.Params,
  data: types.Tree,
  batch_size: int,
) -> types.Tree:
  """Adds up whole batches in a scan, then the rest."""
  count = len(jax.tree.leaves(data)[0])
  whole, rest = divmod(count, batch_size)

  def sums(first: types.ArrayLike, size: int) -> types.Tree:
    batch = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), data
    )
    return jax.tree.map(_mean_times(size), metric_fn(params, batch))

  totals = []
  if whole:
    starts = jnp.arange(whole) * batch_size
    parts = jax.lax.map(lambda first: sums(first, batch_size), starts)
    totals.append(jax.tree.map(lambda x: jnp.sum(x, 0), parts))
  if rest:
    totals.append(sums(whole * batch_size, rest))
  return jax.tree.map(lambda *parts: sum(parts) / count, *totals)


def _mean_times(size: int) -> Callable[[types.Array], types.Array]:
  """Returns the sum over examples of means over the other axes."""

  def total(x: types.Array) -> types.Array:
    wide = x if x.dtype == jnp.float64 else jnp.asarray(x, jnp.float32)
    return jnp.mean(wide) * size

  return total


def _examples(data: types.Tree, batch_size: int) -> int:
  """Returns N, the one length of all leaves."""
  if batch_size < 1:
    raise ValueError(f'batch_size={batch_size}: expected 1 or more')
  leaves = tree.named(data)
  if not leaves:
    raise ValueError('the data has no leaves: pass arrays [N, ...]')
  shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
  first = next(iter(shapes))
  for name, shape in shapes.items():
    if not shape or shape[0] != shapes[first][0]:
      raise ValueError(
        f"data leaf '{name}' is {list(shape)} and '{first}' is "
        f'{list(shapes[first])}: every leaf needs the same leading axis of '
        f'examples'
      )
  return shapes[first][0]
