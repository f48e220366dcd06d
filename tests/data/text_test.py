"""Text as windows of bytes."""

import numpy as np
import pytest

from wsl import data


def test_every_byte_but_the_first_is_a_target_once(tmp_path):
  file = tmp_path / 'a.txt'
  raw = bytes(range(256)) * 2
  file.write_bytes(raw)
  windows = data.text(file, length=73)
  assert windows.shape == (7, 74)
  assert windows.dtype == np.uint8
  assert windows[:, 1:].ravel().tobytes() == raw[1:512]
  np.testing.assert_array_equal(windows[1:, 0], windows[:-1, -1])


def test_the_files_of_a_folder_are_joined_by_name(tmp_path):
  (tmp_path / 'b.txt').write_text('cd')
  (tmp_path / 'a.txt').write_text('ab')
  (tmp_path / 'c.md').write_text('no')
  assert data.text(tmp_path, length=3).tobytes() == b'abcd'


def test_errors_name_the_path_and_the_remedy(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no text at .*none\.txt: exp'):
    data.text(tmp_path / 'none.txt')
  with pytest.raises(FileNotFoundError, match=r'folder of \.txt files'):
    data.text(tmp_path)
  file = tmp_path / 'a.txt'
  file.write_text('abc')
  with pytest.raises(ValueError, match=r'has 3 bytes.*length <= 2'):
    data.text(file, length=3)
  with pytest.raises(ValueError, match='length=0'):
    data.text(file, length=0)
