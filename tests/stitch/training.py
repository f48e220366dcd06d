"""Training of small networks."""

import jax

from wsl import train


def run(loss, params, examples, *, optimizer, steps, batch_size):
  """Returns the trained parameters and the loss of each step."""
  state, losses = train.advance(
    loss,
    train.start(params, optimizer=optimizer),
    examples,
    optimizer=optimizer,
    steps=steps,
    batch_size=batch_size,
    key=jax.random.key(0),
  )
  return state.params, losses
