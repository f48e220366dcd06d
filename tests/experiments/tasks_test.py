"""Tasks made from the digits, and tasks from a folder."""

import numpy as np
import pytest

from experiments._shared import suite_tasks
from wsl import data


def test_transformations_match_their_names():
  found = suite_tasks.digits(list(suite_tasks.TRANSFORMS))
  upright = found['upright'].train
  equal = np.testing.assert_array_equal
  equal(np.rot90(upright.x[5]), found['rotated'].train.x[5])
  equal(1 - upright.x, found['inverted'].train.x)
  blocks = lambda x: sorted(
    x[i : i + 2, j : j + 2].tobytes()
    for i in range(0, 8, 2)
    for j in range(0, 8, 2)
  )
  shuffled = found['shuffled'].train.x[5]
  assert blocks(shuffled) == blocks(upright.x[5])
  assert (shuffled != upright.x[5]).any()
  for task in found.values():
    equal(task.train.y, upright.y)


def test_the_same_digits_are_held_out_in_every_task():
  tasks = suite_tasks.load('digits', ('upright', 'inverted'), validation=100)
  assert tasks.train.x.shape == (2, 1248, 8, 8, 1)
  assert tasks.validation.x.shape == (2, 100, 8, 8, 1)
  assert tasks.test.x.shape == (2, 449, 8, 8, 1)
  x = tasks.validation.x
  np.testing.assert_allclose(x[0], 1 - x[1], atol=1e-6)
  train = {image.tobytes() for image in tasks.train.x[0]}
  assert not train & {image.tobytes() for image in x[0]}


def test_a_folder_is_truncated_to_its_smallest_task(tmp_path):
  rng = np.random.default_rng(0)
  for name, count, classes in (('a', 9, 3), ('b', 7, 4)):
    x = rng.integers(0, 255, (count, 4, 4, 3), np.uint8)
    y = np.arange(count) % classes
    np.savez(tmp_path / f'{name}.npz', train_x=x, train_y=y, test_x=x, test_y=y)
  tasks = suite_tasks.load(str(tmp_path), ('b', 'a'), validation=2)
  assert tasks.names == ('b', 'a')
  assert tasks.train.x.shape == (2, 5, 4, 4, 3)
  assert tasks.test.y.shape == (2, 7)
  assert tasks.classes == 4
  pixels = tasks.train.x.astype(float)
  assert tasks.mean == pytest.approx(pixels.mean())
  assert tasks.std == pytest.approx(pixels.std())


def test_images_of_two_shapes_are_refused(tmp_path):
  for name, side in (('a', 4), ('b', 5)):
    x, y = np.zeros((3, side, side), np.uint8), np.arange(3)
    np.savez(tmp_path / f'{name}.npz', train_x=x, train_y=y, test_x=x, test_y=y)
  with pytest.raises(ValueError, match=r"'b' are \[5, 5\], of 'a' \[4, 4\]"):
    suite_tasks.load(str(tmp_path), ('a', 'b'), validation=1)


def test_the_order_of_classes_in_a_folder_does_not_matter(tmp_path):
  x, y = np.zeros((100, 2, 2), np.uint8), np.repeat(np.arange(10), 10)
  np.savez(tmp_path / 'a.npz', train_x=x, train_y=y, test_x=x, test_y=y)
  tasks = suite_tasks.load(str(tmp_path), ('a',), validation=50)
  assert len(np.unique(tasks.validation.y)) > 7
  assert isinstance(tasks.test, data.Split)
