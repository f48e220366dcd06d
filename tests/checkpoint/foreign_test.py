"""Files of other formats are named by their first bytes, with a remedy."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from wsl import checkpoint


def _zip(*names):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name in names:
      archive.writestr(name, b'content')
  return buffer.getvalue()


def _numpy(write, *arguments, **arrays):
  buffer = io.BytesIO()
  write(buffer, *arguments, **arrays)
  return buffer.getvalue()


def _tar():
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as archive:
    archive.addfile(tarfile.TarInfo('storages'))
  return buffer.getvalue()


_FILES = {
  'zip': (_zip('readme.txt'), 'is a zip archive'),
  'cut zip': (_zip('archive/data.pkl')[:40], 'a truncated zip archive'),
  'keras': (_zip('config.json', 'model.weights.h5'), 'is a Keras file'),
  'npy': (_numpy(np.save, np.ones(40)), r'\(NPY\)'),
  **{
    f'pickle {protocol}': (pickle.dumps({'a': 1}, protocol), 'is a pickle')
    for protocol in (2, 3, 4, 5)
  },
  'hdf5': (b'\x89HDF\r\n\x1a\n' + bytes(300), 'an HDF5 file.*h5py'),
  'html': (b'\n<!doctype HTML><html>404</html>', 'an HTML or XML page.*downl'),
  'xml': (b'<?xml version="1.0"?><Error>', 'an HTML or XML page'),
  'lfs': (b'version https://git-lfs.github.com/spec/v1\no', 'git lfs pull'),
  'annex': (b'/annex/objects/SHA256E-s1--00.safetensors\n', 'git annex get'),
  'gzip': (gzip.compress(b'content'), 'is a gzip archive.*unpack it'),
  'bzip2': (bz2.compress(b'content'), 'is a bzip2 archive'),
  'xz': (lzma.compress(b'content'), 'is an xz archive'),
  'ONNX': (b'\x08\x07\x12\x07pytorch' + bytes(50), 'is an ONNX file'),
  'Parquet': (b'PAR1' + bytes(50), 'is a Parquet file'),
  'UTF-16': ('{"a": 1}'.encode('utf-16'), 'is a text in UTF-16'),
  'zstd': (b'\x28\xb5\x2f\xfd' + bytes(30), 'is a zstd archive'),
  'tar': (_tar(), 'is a tar archive'),
  'json': (json.dumps({'a': 1}).encode(), 'is JSON'),
  'text': (b'Entry not found', "is a text .'Entry not found'.*download"),
  'empty': (b'', 'is empty, not safetensors: copy it again'),
}


@pytest.mark.parametrize('kind', _FILES)
@pytest.mark.parametrize('lazy', [False, True])
def test_a_file_of_another_format_is_named(tmp_path, kind, lazy):
  content, message = _FILES[kind]
  file = tmp_path / 'model.safetensors'
  file.write_bytes(content)
  for path in (file, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
      checkpoint.load(path, lazy=lazy)
    text = str(caught.value).replace(str(file), '')
    assert 'damaged' not in text
    assert '\n' not in text
    assert len(text) <= 200


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('model.h5', 'hdf5'),
    ('array.npy', 'npy'),
  ],
)
def test_a_folder_without_safetensors_names_what_it_holds(tmp_path, name, kind):
  content, message = _FILES[kind]
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / name).write_bytes(content)
  with pytest.raises(FileNotFoundError, match=f'{name} is .*{message}'):
    checkpoint.load(tmp_path)
  (tmp_path / name).unlink()
  with pytest.raises(FileNotFoundError, match=r"but \['config.json'\]"):
    checkpoint.load(tmp_path)


def test_a_header_length_that_looks_like_msgpack_is_read(tmp_path):
  # The first byte of a sound file is any number, 0x81 here.
  text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x81)
  file = tmp_path / 'a.safetensors'
  file.write_bytes(len(text).to_bytes(8, 'little') + text + b'\x07')
  assert checkpoint.load(file)['a'].tolist() == [7]
