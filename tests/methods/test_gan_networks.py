"""Networks of GANs and transformations of their inputs: spectral and other
normalization, augmentation, residual blocks, maxout.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.methods.augment import colour, cutout, translation
from aigc_jax.models import gan_dcgan as networks
from aigc_jax.models import gan_mlp
from aigc_jax.models.layers import apply_norm, first_max
from aigc_jax.models.spectral_norm import SpectralConv, SpectralDense

# -- spectral normalization


@pytest.mark.parametrize(
    "layer, shape", [(SpectralDense(6), (2, 9)), (SpectralConv(6, (3, 3)), (2, 5, 5, 4))]
)
def test_spectral_norm_converges_to_the_largest_singular_value(layer, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    variables = dict(jax.jit(layer.init)(jax.random.key(1), x))
    kernel = np.asarray(variables["params"]["kernel"]).reshape(-1, 6)
    largest = np.linalg.svd(kernel, compute_uv=False)[0]
    out = jax.jit(
        lambda variables, train: layer.apply(variables, x, train, mutable=["spectral"]),
        static_argnums=1,
    )
    for _ in range(100):
        y, new = out(variables, True)
        variables |= new
    unnormalized = (
        type(layer)
        .__mro__[1](6, **({"kernel_size": (3, 3)} if len(shape) == 4 else {}))
        .apply({"params": variables["params"]}, x)
    )
    np.testing.assert_allclose(y, np.asarray(unnormalized) / largest, rtol=1e-4, atol=1e-5)
    same, kept = out(variables, False)
    np.testing.assert_allclose(same, y, rtol=1e-5, atol=1e-6)
    assert (kept["spectral"]["u"] == variables["spectral"]["u"]).all()
    # W / sigma(W) does not depend on the scale of W: the gradient along W is 0 (Miyato
    # et al. 2018, eq. 12)
    square = lambda p: (layer.apply(variables | {"params": p}, x) ** 2).sum()
    grad = jax.jit(jax.grad(square))(variables["params"])["kernel"]
    assert abs(float((grad * variables["params"]["kernel"]).sum())) < 1e-3 * float(
        jnp.abs(grad * variables["params"]["kernel"]).sum()
    )


# -- augmentation


def test_augmentations_follow_their_definitions_and_the_index():
    x = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3), minval=-1, maxval=1)
    key, index = jax.random.key(1), jnp.array([0, 1, 2, 3, 0, 1])

    def compiled(change):
        """Transformed images, and the gradient of their sum of squares."""

        def squares(x, index):
            y = change(x, key, index)
            return (y**2).sum(), y

        return jax.jit(lambda x, index: jax.grad(squares, has_aux=True)(x, index)[::-1])

    found = {}
    for change in (colour, translation, cutout):
        found[change] = run = compiled(change)
        y, grad = run(x, index)
        np.testing.assert_allclose(y[:2], run(x[:2], index[:2])[0], atol=1e-6)
        np.testing.assert_allclose(
            run(x[::-1], index)[0][0], run(x[:3:-1], index[:2])[0][0], atol=1e-6
        )
        assert (np.abs(grad) > 0).mean() > 0.4
    hole = np.asarray(found[cutout](jnp.ones_like(x), index)[0] == 0).all(-1)
    assert (hole.sum((1, 2)) >= 16).all() and (hole.sum((1, 2)) <= 64).all()
    # Of a side of 15 (13) the hole has 8 (7), halves rounded up; its centre is on any
    # of the 16 edges between pixels, or on any of the 13 pixels (Zhao et al. 2020).
    odd = jax.jit(cutout)(jnp.ones((4000, 15, 13, 1)), key, jnp.arange(4000)) == 0
    tall, wide = odd.any((2, 3)), odd.any((1, 3))
    assert {*tall.sum(1).tolist()} == {4, 5, 6, 7, 8}
    assert {*wide.sum(1).tolist()} == {4, 5, 6, 7}
    assert len(np.unique(tall, axis=0)) == 16 and len(np.unique(wide, axis=0)) == 13
    moved = np.asarray(found[translation](x, index)[0])
    around = np.pad(np.asarray(x), ((0, 0), (4, 4), (4, 4), (0, 0)))
    shifts = set()
    for i in range(4):
        places = [
            (a, b)
            for a in range(2, 7)
            for b in range(2, 7)
            if (around[i, a : a + 16, b : b + 16] == moved[i]).all()
        ]
        assert len(places) == 1
        shifts.add(places[0])
    assert len(shifts) > 1
    grey = np.asarray(found[colour](x, index)[0]).mean((1, 2, 3)) - np.asarray(x).mean((1, 2, 3))
    # only the brightness changes the mean
    assert (np.abs(grey) <= 0.5 + 1e-6).all() and np.ptp(grey) > 0.1


# -- networks


def test_layer_and_instance_norm_match_their_formulas():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 6, 6, 4))

    class Net(networks.Network):
        norm: str

        @networks.nn.compact
        def __call__(self, x):
            return apply_norm(self.norm, x, True, dict(dtype=x.dtype, param_dtype=x.dtype))

    for norm, axes in (("layer", (1, 2, 3)), ("instance", (1, 2))):
        y = Net(norm).init_with_output(jax.random.key(1), x)[0]
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        np.testing.assert_allclose(y, (x - mean) / jnp.sqrt(var + 1e-5), atol=1e-4)


@pytest.mark.parametrize("size, ups", [(32, 3), (28, 2), (8, 1)])
def test_resnet_shapes_match_the_images(size, ups):
    shape = (size, size, 3)
    g = networks.ResNetGenerator(shape=shape, width=8, ups=ups, output="tanh")
    d = networks.ResNetDiscriminator(
        shape=shape, width=8, downs=min(ups, 2), flats=1, pool="mean", spectral=True
    )
    assert g.config_error() == d.config_error() == ""
    out, _ = jax.eval_shape(lambda: g.init_with_output(jax.random.key(0), jnp.zeros((2, 5))))
    (logits, classes), variables = jax.eval_shape(
        lambda: d.init_with_output(jax.random.key(0), jnp.zeros((2, *shape)))
    )
    assert out.shape == (2, *shape) and logits.shape == (2,) and classes is None
    assert len(jax.tree.leaves(variables["spectral"])) == sum(
        p.ndim > 1 for p in jax.tree.leaves(variables["params"])
    )
    assert (
        "halved"
        in networks.ResNetGenerator(shape=(30, 30, 1), width=8, ups=2, output="tanh").config_error()
    )


def test_maxout_is_the_maximum_of_its_pieces():
    d = gan_mlp.MLPDiscriminator(shape=(3,), widths=(4,), activation="identity", maxout_pieces=5)
    x = jax.random.normal(jax.random.key(0), (6, 3))
    params = d.init(jax.random.key(1), x)["params"]
    linear = np.asarray(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]).reshape(
        6, 4, 5
    )
    np.testing.assert_allclose(
        d.apply({"params": params}, x)[0],
        (linear.max(-1) @ params["Dense_1"]["kernel"])[:, 0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_maxout_gradient_selects_one_piece_on_ties():
    x = jnp.array([[1.0, 3.0, 3.0], [-2.0, -2.0, -2.0], [0.0, -1.0, 5.0]])
    weighted = lambda x: (first_max(x) * jnp.array([1.0, 2.0, 3.0])).sum()
    np.testing.assert_array_equal(first_max(x), x.max(-1))
    np.testing.assert_array_equal(jax.grad(weighted)(x), [[0, 1, 0], [2, 0, 0], [0, 0, 3]])
