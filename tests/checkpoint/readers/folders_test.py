"""Folders: variants, sub-folders, shards of PyTorch, what is no file."""

import json
import os

import numpy as np
import pytest

from tests.checkpoint.readers import writers
from wsl import checkpoint


def _save(path, value):
  checkpoint.save(path, {'w': np.full(2, value)})


def _value(*args, **options):
  return checkpoint.load(*args, **options)['w'][0]


def test_variants(tmp_path):
  _save(tmp_path / 'model.fp16.safetensors', 16)
  assert _value(tmp_path) == 16
  _save(tmp_path / 'model.bf16.safetensors', 17)
  with pytest.raises(
    FileNotFoundError, match=r"\['bf16', 'fp16'\]: choose one"
  ):
    checkpoint.load(tmp_path)
  _save(tmp_path / 'model.safetensors', 32)
  assert _value(tmp_path) == 32
  for variant, value in (('fp16', 16), ('bf16', 17)):
    assert _value(tmp_path, variant=variant) == value
  with pytest.raises(
    FileNotFoundError, match=r"'fp8'.*\['bf16', 'fp16'\]: give"
  ):
    checkpoint.load(tmp_path, variant='fp8')


@pytest.mark.parametrize('indexed', [False, True])
def test_variants_of_shards(tmp_path, indexed):
  for variant, value in (('', 1), ('.fp16', 2)):
    names = [f'model{variant}-0000{i}-of-00002.safetensors' for i in (1, 2)]
    for name, leaf in zip(names, 'wv'):
      checkpoint.save(tmp_path / name, {leaf: np.full(1, value)})
    weight_map = dict(zip('wv', names))
    # The record of the tree is of one shard.
    index = f'model.safetensors.index{variant}.json'
    if indexed:
      (tmp_path / index).write_text(json.dumps({'weight_map': weight_map}))
  like = {'w': np.zeros(1), 'v': np.zeros(1)}
  assert _value(tmp_path, like=like) == 1
  assert _value(tmp_path, like=like, variant='fp16') == 2


def test_sub_folders_of_a_pipeline(tmp_path):
  for name, value in (('unet', 1), ('vae', 2)):
    (tmp_path / name).mkdir()
    _save(tmp_path / name / 'diffusion_pytorch_model.safetensors', value)
    _save(tmp_path / name / 'diffusion_pytorch_model.fp16.safetensors', -value)
  assert _value(tmp_path, item='unet') == 1
  assert _value(tmp_path, item='vae', variant='fp16') == -2
  with pytest.raises(FileNotFoundError, match=r"\['unet', 'vae'\] by item="):
    checkpoint.load(tmp_path)


def _shards(folder):
  names = [f'pytorch_model-0000{i}-of-00002.bin' for i in (1, 2)]
  for name, leaf in zip(names, 'ab'):
    tensor = writers.whole(np.full(2, ord(leaf), np.float32))
    writers.torch_zip(folder / name, {leaf: tensor})
  return dict(zip('ab', names))


def test_shards_of_pytorch(tmp_path):
  weight_map = _shards(tmp_path)
  (tmp_path / 'training_args.bin').write_bytes(b'\x80\x02.')
  for name in (None, 'pytorch_model.bin.index.json'):
    if name:
      (tmp_path / name).write_text(json.dumps({'weight_map': weight_map}))
    loaded = checkpoint.load(tmp_path, lazy=True)
    assert list(loaded) == ['a', 'b']
    assert checkpoint.load(tmp_path)['b'].tolist() == [98, 98]
  (tmp_path / weight_map['b']).unlink()
  with pytest.raises(FileNotFoundError, match=r'00002-of-00002\.bin.*missing'):
    checkpoint.load(tmp_path)


def test_safetensors_come_before_pytorch(tmp_path):
  _shards(tmp_path)
  _save(tmp_path / 'model.safetensors', 3)
  assert _value(tmp_path) == 3


@pytest.mark.parametrize(
  'name', ['..', '.', 'config.json', '/etc/passwd', 'a/b.safetensors', 'x\0']
)
def test_an_index_that_names_other_files(tmp_path, name):
  (tmp_path / 'config.json').write_text('{}')
  index = tmp_path / 'model.safetensors.index.json'
  index.write_text(json.dumps({'weight_map': {'a': name}}))
  with pytest.raises(ValueError, match='does not map names to files beside it'):
    checkpoint.load(tmp_path)
  _save(tmp_path, 1)
  assert (tmp_path / 'config.json').read_text() == '{}'


@pytest.mark.parametrize('bracket', ['[', '{"a":'])
def test_bombs_of_brackets(tmp_path, bracket):
  index = tmp_path / 'model.safetensors.index.json'
  index.write_text(bracket * 100_000)
  with pytest.raises(ValueError, match='does not map names'):
    checkpoint.load(tmp_path)
  index.unlink()
  file = tmp_path / 'a.safetensors'
  text = json.dumps({'__metadata__': {'wsl.tree': bracket * 100_000}})
  file.write_bytes(len(text).to_bytes(8, 'little') + text.encode())
  with pytest.raises(ValueError, match=r'structure recorded .* does not'):
    checkpoint.load(file)


def test_what_is_no_file(tmp_path):
  os.mkfifo(tmp_path / 'a.safetensors')
  with pytest.raises(ValueError, match='is a named pipe: give the path'):
    checkpoint.load(tmp_path / 'a.safetensors')
  with pytest.raises(ValueError, match='is a named pipe'):
    checkpoint.load(tmp_path)
  folder = tmp_path / 'folder'
  (folder / 'model.safetensors').mkdir(parents=True)
  with pytest.raises((ValueError, FileNotFoundError)) as caught:
    checkpoint.load(folder)
  assert len(str(caught.value).splitlines()) == 1
  os.mkfifo(folder / 'model.safetensors.index.json')
  with pytest.raises((ValueError, FileNotFoundError)):
    checkpoint.load(folder)
  with pytest.raises(ValueError, match='is a device: give the path of a file'):
    checkpoint.load('/dev/zero')


def test_a_name_with_a_line_break(tmp_path):
  text = json.dumps({'a\nb': {'dtype': 'F32', 'shape': [1]}}).encode()
  file = tmp_path / 'a.safetensors'
  file.write_bytes(len(text).to_bytes(8, 'little') + text)
  with pytest.raises(ValueError, match=r"leaf 'a\\nb' is malformed") as caught:
    checkpoint.load(file)
  assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_lora_is_no_model(tmp_path):
  (tmp_path / 'adapter_config.json').write_text('{"peft_type": "LORA"}')
  _save(tmp_path / 'adapter_model.safetensors', 1)
  with pytest.raises(
    ValueError, match=r'factors and no weights: .*load_lora\('
  ):
    checkpoint.load(tmp_path)
  assert _value(tmp_path / 'adapter_model.safetensors') == 1
  _save(tmp_path / 'model.safetensors', 2)
  assert _value(tmp_path) == 2
