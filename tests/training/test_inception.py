"""Inception-v3 and the file formats of its weights."""

import collections
import functools
import io
import os
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.models.inception import POOLS, Layer
from aigc_jax.training import inception_features
from aigc_jax.utils import tensor_files
from aigc_jax.utils.errors import UserError

# -- torch.save files, written without PyTorch


class FloatStorage:
    """Stands for torch.FloatStorage in a pickle."""


FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"


class Rebuilt:
    """A tensor as pickled by torch.save."""

    def __init__(self, key, count, offset, shape, strides, *view):
        self.pid = ("storage", FloatStorage, key, "cpu", count, *view)
        self.rest = (offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return rebuild, (self.pid, *self.rest)


def rebuild(*args):
    raise AssertionError("only its name is pickled")


rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"


class Writer(pickle._Pickler):
    """Writes globals by name only, and storages as persistent ids."""

    def persistent_id(self, thing):
        return thing if isinstance(thing, tuple) and thing[:1] == ("storage",) else None

    def save_global(self, thing, name=None):
        self.write(f"c{thing.__module__}\n{thing.__qualname__}\n".encode())
        self.memoize(thing)

    dispatch = pickle._Pickler.dispatch | {type: save_global, type(rebuild): save_global}


def pickled(thing):
    out = io.BytesIO()
    Writer(out, 2).dump(thing)
    return out.getvalue()


A, B = np.arange(12, dtype="<f4"), np.array([5.0, -1.0], "<f4")
STATE = collections.OrderedDict(
    whole=Rebuilt("0", 12, 0, (3, 4), (4, 1)),
    turned=Rebuilt("0", 12, 1, (2, 3), (1, 4)),
    other=Rebuilt("1", 2, 1, (), ()),
    same=Rebuilt("1", 2, 0, (3,), (0,)),
    none=Rebuilt("1", 2, 0, (0, 3), (3, 1)),
)
STATE._metadata = {"": {"version": 1}}  # as in a module's state_dict()
EXPECTED = dict(
    whole=A.reshape(3, 4),
    turned=A.reshape(3, 4).T[1:3],
    other=np.float32(-1),
    same=np.full(3, 5.0),
    none=np.zeros((0, 3)),
)


def zipped(path, state, storages, order=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickled(state))
        if order is not None:
            archive.writestr("x/byteorder", order)
        for key, value in storages.items():
            archive.writestr(f"x/data/{key}", value.tobytes())


def older(path, state, storages, little=True):
    parts = [
        tensor_files.MAGIC,
        1001,
        dict(protocol_version=1001, little_endian=little),
        state,
        list(storages),
    ]
    path.write_bytes(
        b"".join(map(pickled, parts))
        + b"".join(struct.pack("<q", len(x)) + x.tobytes() for x in storages.values())
    )


WRITERS = {"zip": zipped, "older": older}


def assert_expected(found):
    assert list(found) == list(EXPECTED)
    for name, value in EXPECTED.items():
        np.testing.assert_array_equal(found[name], value, strict=name in ("whole", "turned"))


@pytest.mark.parametrize("form", WRITERS)
def test_tensors_are_read_with_their_offsets_and_strides(form, tmp_path):
    WRITERS[form](tmp_path / "x.pth", STATE, {"0": A, "1": B})
    assert_expected(tensor_files.read_tensors(tmp_path / "x.pth"))


def test_recorded_byte_order_is_respected(tmp_path):
    file = tmp_path / "x.pth"
    zipped(file, STATE, {"0": A, "1": B}, "little")
    assert_expected(tensor_files.read_tensors(file))
    zipped(file, STATE, {"0": A.byteswap(), "1": B.byteswap()}, "big")
    assert_expected(
        {name: value.astype("<f4") for name, value in tensor_files.read_tensors(file).items()}
    )
    zipped(file, STATE, {"0": A, "1": B}, "middle")
    with pytest.raises(UserError, match="neither little nor big"):
        tensor_files.read_tensors(file)
    older(file, STATE, {"0": A, "1": B}, little=False)
    with pytest.raises(UserError, match="another byte order"):
        tensor_files.read_tensors(file)


def test_safetensors_files_are_read(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": A}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(tensor_files.read_tensors(tmp_path / "x.safetensors")["a"], A)
    (tmp_path / "x.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="damaged or no safetensors"):
        tensor_files.read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("form", WRITERS)
def test_pickled_code_is_not_executed(form, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    WRITERS[form](tmp_path / "x.pth", collections.OrderedDict(a=Evil()), {"0": A})
    with pytest.raises(UserError, match="refers to .*mkdir, which is not data, and was not read"):
        tensor_files.read_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


LIES = {  # a tensor on a storage of 12 numbers, and the error message
    "beyond": (Rebuilt("0", 12, 5, (3, 4), (4, 1)), "the tensor 'a' reaches beyond its storage"),
    "one_beyond": (
        Rebuilt("0", 12, 1, (3, 4), (4, 1)),
        "the tensor 'a' reaches beyond its storage",
    ),
    "before": (Rebuilt("0", 12, -1, (2,), (1,)), "the tensor 'a' reaches beyond its storage"),
    "backwards": (Rebuilt("0", 12, 5, (2,), (-1,)), "the tensor 'a' reaches beyond its storage"),
    "immense": (
        Rebuilt("0", 12, 0, (2**60, 2**60), (0, 0)),
        "the tensor 'a' reaches beyond its storage",
    ),
    "immense_and_empty": (
        Rebuilt("0", 12, 0, (0, 2**60), (0, 0)),
        "the tensor 'a' reaches beyond its storage",
    ),
    "ragged": (Rebuilt("0", 12, 0, (3, 4), (1,)), "not described as PyTorch describes"),
    "fractions": (Rebuilt("0", 12, 0, (1.5,), (1,)), "not described as PyTorch describes"),
    "too_many": (
        Rebuilt("0", 2**62, 0, (3, 4), (4, 1)),
        "has 48 bytes|truncated or damaged within its storages",
    ),
    "fewer_than_none": (Rebuilt("0", -1, 0, (3, 4), (4, 1)), "not described as PyTorch describes"),
    "view": (
        Rebuilt("0", 12, 0, (3, 4), (4, 1), ("1", 0, 12)),
        "not described as PyTorch describes",
    ),
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("lie", LIES)
def test_invalid_tensor_descriptions_are_refused(form, lie, tmp_path):
    tensor, said = LIES[lie]
    WRITERS[form](tmp_path / "x.pth", dict(a=tensor), {"0": A})
    with pytest.raises(UserError, match=said):
        tensor_files.read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("form", WRITERS)
def test_truncated_files_and_other_objects_are_refused(form, tmp_path):
    file = tmp_path / "x.pth"
    for state in ([1, 2], {}, dict(a=1), dict(a=dict(b=Rebuilt("0", 12, 0, (12,), (1,))))):
        WRITERS[form](file, state, {"0": A})
        with pytest.raises(UserError, match="is not a state dict"):
            tensor_files.read_tensors(file)
    WRITERS[form](file, STATE, {"0": A})
    with pytest.raises(UserError, match="damaged: .*data/1|lacks the storage '1'"):
        tensor_files.read_tensors(file)
    WRITERS[form](file, STATE, {"0": A, "1": B})
    whole = file.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError):
            tensor_files.read_tensors(file)


def test_corrupt_or_compressed_zip_archives_are_refused(tmp_path):
    file = tmp_path / "x.pth"
    zipped(file, STATE, {"0": A, "1": B})
    whole = bytearray(file.read_bytes())
    whole[whole.index(A.tobytes()) + 6] ^= 1
    file.write_bytes(whole)
    with pytest.raises(UserError, match="is damaged: Bad CRC-32"):
        tensor_files.read_tensors(file)
    zipped(file, STATE, {"0": A, "1": B}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is compressed"):
        tensor_files.read_tensors(file)


# -- the network


@pytest.fixture(scope="module", autouse=True)
def shapes_are_traced_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            inception_features,
            "parameter_shapes",
            functools.cache(inception_features.parameter_shapes),
        )
        yield


def test_parameter_count_and_shapes_match_the_reference():
    shapes = inception_features.parameter_shapes()
    assert sum(name.endswith("kernel") and not name.startswith("fc") for name in shapes) == 94
    counted = sum(int(np.prod(s)) for s in shapes.values())
    # torchvision's count without the auxiliary classifier is for 1,000 logits; these
    # weights have eight logits more
    assert counted == 23_834_568 + 8 * 2049
    assert shapes["Conv2d_1a_3x3/kernel"] == (3, 3, 3, 32) and shapes["fc/kernel"] == (2048, 1008)
    assert shapes["Mixed_6c/branch7x7dbl_4/kernel"] == (7, 1, 160, 160)
    assert shapes["Mixed_7c/branch3x3_2a/kernel"] == (1, 3, 384, 384)


def test_average_pooling_excludes_padding():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    y = POOLS["avg"](x)[0, :, :, 0]
    assert (
        y[0, 0] == (0 + 1 + 3 + 4) / 4 and y[1, 1] == 4 and y[0, 1] == (0 + 1 + 2 + 3 + 4 + 5) / 6
    )
    assert POOLS["max"](-x)[0, 0, 0, 0] == 0 and POOLS["reduce"](x).shape == (1, 1, 1, 1)


def state_dict():
    """Returns valid names and shapes in PyTorch's layout: zeros, and variances of 1."""
    out = {}
    for path, shape in inception_features.parameter_shapes().items():
        layer, _, kind = path.rpartition("/")
        name = layer.replace("/", ".")
        if layer == "fc":
            out["fc.weight" if kind == "kernel" else "fc.bias"] = np.zeros(shape[::-1], np.float32)
        elif kind == "kernel":
            out[f"{name}.conv.weight"] = np.broadcast_to(
                np.float32(0), (shape[3], shape[2], shape[0], shape[1])
            )
        elif kind == "scale":
            out |= {
                f"{name}.bn.{x}": np.full(shape, x == "running_var", np.float32)
                for x in ("weight", "bias", "running_mean", "running_var")
            }
    return out


def test_batch_norm_is_folded_into_scale_and_shift():
    """The reference is relu(batch_norm(conv(x))), computed window by window."""
    random, theirs, name = np.random.RandomState(0), state_dict(), "Conv2d_1a_3x3"
    kernel, weight, bias, mean, var = (
        random.randn(32, 3, 3, 3),
        random.rand(32),
        random.randn(32),
        random.randn(32),
        random.rand(32),
    )
    theirs |= {
        f"{name}.conv.weight": kernel,
        f"{name}.bn.weight": weight,
        f"{name}.bn.bias": bias,
        f"{name}.bn.running_mean": mean,
    }
    theirs |= {f"{name}.bn.running_var": var, "fc.weight": random.randn(1008, 2048)}
    ours = inception_features.convert_state_dict(theirs, "x.pth")
    x = random.randn(1, 7, 7, 3).astype(np.float32)
    y = Layer(32, 3, 2, "VALID").apply({"params": ours[name]}, x)
    assert y.shape == (1, 3, 3, 32)
    window = lambda i, j: x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
    plain = np.array(
        [[np.einsum("hwi,oihw->o", window(i, j), kernel) for j in range(3)] for i in range(3)]
    )
    expected = np.maximum((plain - mean) / np.sqrt(var + 1e-3) * weight + bias, 0)
    np.testing.assert_allclose(y[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours["fc"]["kernel"], theirs["fc.weight"].T.astype(np.float32))
    found = {
        path: x.shape
        for path, x in inception_features.flax.traverse_util.flatten_dict(ours, sep="/").items()
    }
    assert found == inception_features.parameter_shapes()


@pytest.mark.parametrize("side", [8, 32, 400])
def test_resize_is_bilinear_with_half_pixel_centers(side):
    x = np.random.RandomState(0).rand(1, side, side, 1).astype(np.float32)
    at = np.clip((np.arange(299) + 0.5) * side / 299 - 0.5, 0, None)
    low = np.minimum(np.floor(at).astype(int), side - 1)
    high, part = np.minimum(low + 1, side - 1), at - low
    rows = x[0, low, :, 0] * (1 - part)[:, None] + x[0, high, :, 0] * part[:, None]
    expected = rows[:, low] * (1 - part) + rows[:, high] * part
    found = jax.jit(inception_features.resize_images)(x)
    assert found.shape == (1, 299, 299, 3)
    for colour in range(3):
        np.testing.assert_allclose(found[0, :, :, colour], expected, atol=5e-5)


@pytest.mark.parametrize("n", [0, 1, 50, 120])
def test_padding_batches_to_one_size_does_not_change_features(n):
    pictures, seen = np.random.RandomState(0).rand(n, 4, 5, 3).astype(np.float32), []

    def extract(x):
        seen.append(x.shape)
        return x[:, 0, 0], x.sum((1, 2))

    first, total = inception_features.extract_in_batches(extract, pictures)
    np.testing.assert_array_equal(first, pictures[:, 0, 0])
    np.testing.assert_array_equal(total, pictures.sum((1, 2)))
    assert set(seen) == {(50, 4, 5, 3)}
    with pytest.raises(UserError, match="1 or 3 channels"):
        inception_features.extract_in_batches(extract, np.zeros((2, 4, 5, 4)))


def test_invalid_weight_files_name_the_expected_download(tmp_path):
    where = (
        "; the weights are pt_inception-2015-12-05-6726825d.pth, whose SHA-256 begins with "
        "6726825d, of the release fid_weights of"
    )
    zipped(tmp_path / "x.pth", STATE, {"0": A, "1": B})
    zipped(tmp_path / "x-0123abcd.pth", STATE, {"0": A, "1": B})
    (tmp_path / "text.pth").write_text("hello")
    said = {
        "none.pth": "none.pth: no such file",
        "x.pth": "is not an Inception-v3: tensor 'Conv2d_1a_3x3.bn.weight' is missing",
        "x-0123abcd.pth": "is damaged: its SHA-256 begins with "
        "[0-9a-f]{8}, not with the digits of its name",
        "text.pth": "text.pth is not a readable pickle: .*",
    }
    for name, sentence in said.items():
        with pytest.raises(UserError, match=sentence + where):
            inception_features.load_inception(tmp_path / name)


def test_mismatched_shapes_and_invalid_values_are_refused():
    good = state_dict()
    wrong = {
        "fc.weight is .1000, 2048., but the Inception-v3 of 1,008 logits has .1008, 2048.": {
            "fc.weight": np.zeros((1000, 2048))
        },
        "Mixed_5b/branch1x1/shift is not finite": {
            "Mixed_5b.branch1x1.bn.bias": np.full(64, np.nan)
        },
        "Mixed_5b.branch1x1.bn.running_var is a variance below 0": {
            "Mixed_5b.branch1x1.bn.running_var": np.full(64, -1.0)
        },
    }
    for sentence, change in wrong.items():
        with pytest.raises(UserError, match=sentence):
            inception_features.convert_state_dict(good | change, "x.pth")
