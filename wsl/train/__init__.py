"""One training loop: jitted, scanned, resumable, vmappable.

A loss is ``loss_fn(params, batch, key) -> scalar``; data is a pytree of arrays
with one leading axis of N examples. Constants of the loss (a frozen head, a
reference model) are closed over, or bound with ``jax.tree_util.Partial``, which
lets them change without a new compilation and be batched by ``vmap``::

  def loss(head, params, batch, key): ...

  advance(jax.tree_util.Partial(loss, head), state, data, ...)

Parallel runs, here one for each task, are a ``vmap``::

  run = functools.partial(
    advance, optimizer=optimizer, steps=100, batch_size=64
  )
  jax.vmap(lambda head, state, data, key: run(
    jax.tree_util.Partial(loss, head), state, data, key=key
  ))(heads, states, datas, keys)

For progress reports and restarts, train in segments: ``advance`` by 100 steps,
report, save the state, repeat. The result equals that of one long run.
"""

from wsl.train._evaluate import average as average
from wsl.train._evaluate import evaluate as evaluate
from wsl.train._evaluate import Metrics as Metrics
from wsl.train._loop import adamw as adamw
from wsl.train._loop import advance as advance
from wsl.train._loop import start as start
from wsl.train._loop import State as State
