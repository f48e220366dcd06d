"""Experiments in their tiny variants: nearly all of their time is compiling."""

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def fewer_optimizations():
  """Compiles quickly; what the programs compute is the same."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
