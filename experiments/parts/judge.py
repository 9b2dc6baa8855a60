"""A classifier of real digits that judges drawn ones: two convolutions, four epochs of
MNIST, about 99 % of the test split right.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aigc_jax.models.classifier import Classifier

EPOCHS, BATCH, RATE = 4, 128, 2e-3


def split(dataset, name) -> dict[str, np.ndarray]:
    """A split as the networks' input: {"x": [n, ...] in [-1, 1], "label": [n]}."""
    start, count = dataset.splits[name]
    return dataset.take(dataset.arrays, np.arange(start, start + count))


def train(dataset):
    """([n, 28, 28, 1] -> probabilities [n, 10], accuracy on the test split)."""
    real, held_out = split(dataset, "train"), split(dataset, "test")
    x, label = real["x"], real["label"]
    rows = np.concatenate([np.random.RandomState(i).permutation(len(x)) for i in range(EPOCHS)])
    rows = rows[: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
    net, optimizer = (
        Classifier((24, 48), 5, 128, 10),
        optax.adam(optax.cosine_decay_schedule(RATE, len(rows))),
    )

    @jax.jit
    def step(params, opt, x, label):
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(
            net.apply(p, x)[0], label
        ).mean()
        updates, opt = optimizer.update(jax.grad(loss)(params), opt)
        return optax.apply_updates(params, updates), opt

    params = net.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    opt = optimizer.init(params)
    for chosen in rows:
        params, opt = step(params, opt, x[chosen], label[chosen])
    probabilities = jax.jit(lambda x: jax.nn.softmax(net.apply(params, x)[0]))
    judge = lambda x: np.asarray(probabilities(x))
    return judge, float((judge(held_out["x"]).argmax(1) == held_out["label"]).mean())
