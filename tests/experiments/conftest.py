"""The tiny run of a module of experiments, shared by its tests."""

import pytest

from tests.experiments import battery


@pytest.fixture(scope='module')
def finished(request, tmp_path_factory):
  """Runs the tiny variant of the experiment of ``ROW`` once."""
  return battery.tiny(tmp_path_factory, request.module.ROW)
