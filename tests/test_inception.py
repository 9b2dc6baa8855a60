"""Inception-v3 and the files that its weights come in."""

import collections
import io
import os
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax import inception, torch_files
from aigc_jax.errors import UserError
from aigc_jax.models.inception import POOLS, Layer

# -- torch.save, written by hand


class FloatStorage:
    """Stands for torch.FloatStorage in a pickle."""


FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"


class Rebuilt:
    """A tensor as torch.save pickles it."""

    def __init__(self, key, count, offset, shape, strides):
        self.pid = ("storage", FloatStorage, key, "cpu", count)
        self.rest = (offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return REBUILD, (self.pid, *self.rest)


def REBUILD(*args):
    raise AssertionError("only its name is pickled")


REBUILD.__module__, REBUILD.__qualname__ = "torch._utils", "_rebuild_tensor_v2"


class Writer(pickle._Pickler):
    """Writes globals by name alone, and storages as persistent ids."""

    def persistent_id(self, thing):
        return thing if isinstance(thing, tuple) and thing[:1] == ("storage",) else None

    def save_global(self, thing, name=None):
        self.write(f"c{thing.__module__}\n{thing.__qualname__}\n".encode())
        self.memoize(thing)

    dispatch = pickle._Pickler.dispatch | {type: save_global, type(REBUILD): save_global}


def pickled(thing):
    out = io.BytesIO()
    Writer(out, 2).dump(thing)
    return out.getvalue()


A, B = np.arange(12, dtype="<f4"), np.array([5.0, -1.0], "<f4")
STATE = collections.OrderedDict(whole=Rebuilt("0", 12, 0, (3, 4), (4, 1)), turned=Rebuilt("0", 12, 1, (2, 3), (1, 4)), other=Rebuilt("1", 2, 1, (), ()))
EXPECTED = dict(whole=A.reshape(3, 4), turned=A.reshape(3, 4).T[1:3], other=np.float32(-1))


def zipped(path, state, storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled(state))
        for key, value in storages.items():
            archive.writestr(f"x/data/{key}", value.tobytes())


def older(path, state, storages):
    parts = [torch_files.MAGIC, 1001, dict(protocol_version=1001, little_endian=True), state, list(storages)]
    path.write_bytes(b"".join(map(pickled, parts)) + b"".join(struct.pack("<q", len(x)) + x.tobytes() for x in storages.values()))


WRITERS = {"zip": zipped, "older": older}


@pytest.mark.parametrize("form", WRITERS)
def test_tensors_are_read_with_their_offsets_and_strides(form, tmp_path):
    WRITERS[form](tmp_path / "x.pth", STATE, {"0": A, "1": B})
    found = torch_files.read(tmp_path / "x.pth")
    assert list(found) == list(EXPECTED)
    for name, value in EXPECTED.items():
        np.testing.assert_array_equal(found[name], value)


def test_safetensors_too(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": A}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(torch_files.read(tmp_path / "x.safetensors")["a"], A)
    (tmp_path / "x.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="damaged or no safetensors"):
        torch_files.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("form", WRITERS)
def test_no_code_of_a_file_runs(form, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    WRITERS[form](tmp_path / "x.pth", collections.OrderedDict(a=Evil()), {"0": A})
    with pytest.raises(UserError, match="asks for .*mkdir, which is not data: it was not read"):
        torch_files.read(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("form", WRITERS)
def test_files_that_are_cut_or_lie_about_their_tensors(form, tmp_path):
    file = tmp_path / "x.pth"
    for state in (dict(a=Rebuilt("0", 12, 5, (3, 4), (4, 1))), dict(a=Rebuilt("0", 12, -1, (2,), (1,)))):
        WRITERS[form](file, state, {"0": A})
        with pytest.raises(UserError, match="the tensor 'a' reaches beyond its storage"):
            torch_files.read(file)
    WRITERS[form](file, dict(a=Rebuilt("0", 99, 0, (3, 4), (4, 1))), {"0": A})
    with pytest.raises(UserError, match="has 48 bytes|cut off within its storages"):
        torch_files.read(file)
    WRITERS[form](file, [1, 2], {})
    with pytest.raises(UserError, match="is no state dict"):
        torch_files.read(file)
    WRITERS[form](file, STATE, {"0": A, "1": B})
    whole = file.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError):
            torch_files.read(file)


# -- the network


def test_the_network_has_the_layers_of_its_paper():
    shapes = inception.shapes()
    assert sum(name.endswith("kernel") and not name.startswith("fc") for name in shapes) == 94
    counted = sum(int(np.prod(s)) for s in shapes.values())
    assert counted == 23_834_568 + 8 * 2049  # torchvision's count with 1,000 logits and without the auxiliary classifier, and eight logits more
    assert shapes["Conv2d_1a_3x3/kernel"] == (3, 3, 3, 32) and shapes["fc/kernel"] == (2048, 1008)
    assert shapes["Mixed_6c/branch7x7dbl_4/kernel"] == (7, 1, 160, 160)
    assert shapes["Mixed_7c/branch3x3_2a/kernel"] == (1, 3, 384, 384)


def test_average_pools_leave_out_the_padding():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    y = POOLS["avg"](x)[0, :, :, 0]
    assert y[0, 0] == (0 + 1 + 3 + 4) / 4 and y[1, 1] == 4 and y[0, 1] == (0 + 1 + 2 + 3 + 4 + 5) / 6
    assert POOLS["max"](-x)[0, 0, 0, 0] == 0 and POOLS["reduce"](x).shape == (1, 1, 1, 1)


def test_normalization_is_folded_into_scale_and_shift():
    random = np.random.RandomState(0)
    kernel, weight, bias, mean, var = random.randn(4, 3, 3, 3), random.rand(4), random.randn(4), random.randn(4), random.rand(4)
    scale = weight / np.sqrt(var + 1e-3)
    x = random.randn(1, 7, 7, 3).astype(np.float32)
    layer = dict(kernel=kernel.transpose(2, 3, 1, 0).astype(np.float32), scale=scale.astype(np.float32), shift=(bias - mean * scale).astype(np.float32))
    y = Layer(4, 3, 2).apply({"params": layer}, x)
    assert y.shape == (1, 3, 3, 4)
    window = lambda i, j: x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
    plain = np.array([[np.einsum("hwi,oihw->o", window(i, j), kernel) for j in range(3)] for i in range(3)])
    expected = np.maximum((plain - mean) / np.sqrt(var + 1e-3) * weight + bias, 0)
    np.testing.assert_allclose(y[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [8, 32, 400])
def test_pictures_are_resized_between_the_centres_of_their_pixels(side):
    x = np.random.RandomState(0).rand(1, side, side, 1).astype(np.float32)
    at = np.clip((np.arange(299) + 0.5) * side / 299 - 0.5, 0, None)
    low = np.minimum(np.floor(at).astype(int), side - 1)
    high, part = np.minimum(low + 1, side - 1), at - low
    rows = x[0, low, :, 0] * (1 - part)[:, None] + x[0, high, :, 0] * part[:, None]
    expected = rows[:, low] * (1 - part) + rows[:, high] * part
    found = jax.jit(inception.enlarged)(x)
    assert found.shape == (1, 299, 299, 3)
    for colour in range(3):
        np.testing.assert_allclose(found[0, :, :, colour], expected, atol=5e-5)


def test_what_is_no_inception_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no such file; the weights are pt_inception-2015-12-05-6726825d.pth"):
        inception.extractor(tmp_path / "none.pth")
    zipped(tmp_path / "x.pth", STATE, {"0": A, "1": B})
    with pytest.raises(UserError, match="has no tensor .*: it is no Inception-v3"):
        inception.extractor(tmp_path / "x.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="text.pth is no readable pickle"):
        inception.extractor(tmp_path / "text.pth")
