"""The lower limit of a training step: its matrix products and convolutions alone, at
their own shapes, and the memory traffic of its optimiser.
"""

import functools

PRODUCTS = ("dot_general", "conv_general_dilated")


def single_step(config, programs):
    """(the state of one trial, its step, which reads its batch from the training data,
    and these).
    """
    import jax

    from aigc_jax.core import transforms
    from aigc_jax.data.order import make_train_batch_reader

    step = transforms.feed_batches(
        programs.method.step,
        make_train_batch_reader(programs.dataset, config.data, programs.batch_size),
    )
    state = jax.tree.map(lambda x: x[0], programs.init([config]))
    return state, step, programs.feed.training


def find_products(jaxpr, times=1):
    """[(equation, how often it is computed)] of a jaxpr and those within it."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            found.append((equation, times))
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += find_products(inner, times * length)
    return found


def run_alone(equation, times, a, b):
    """The equation's product, `times` times; a number of it, so that the rest is not
    returned.
    """
    import jax

    keep = jax.lax.optimization_barrier
    product = lambda x, y: keep(equation.primitive.bind(x, y, **equation.params))
    first = lambda out: jax.lax.slice(out, (0,) * out.ndim, (1,) * out.ndim).reshape(())
    if times == 1:
        return first(product(*keep((a, b))))

    def once(_, last):
        x, y, last = keep((a, b, last))
        return last + first(product(x, y)).astype(last.dtype)

    return jax.lax.fori_loop(0, times, once, jax.numpy.float32(0))


def limit(config, programs):
    """A function that does the products of n steps, and reads and writes the state as
    often as an optimiser must.

    Products that need nothing of each other may be computed at the same time, as in
    the step.
    """
    import jax
    from jax.interpreters import partial_eval

    from aigc_jax.training.compilation import COMPILER

    state, step, batches = single_step(config, programs)
    closed = jax.make_jaxpr(step)(state, batches)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    products = find_products(jaxpr)
    operands = [[make_operand(v.aval) for v in equation.invars] for equation, _ in products]

    @functools.partial(
        jax.jit, donate_argnums=1, compiler_options=COMPILER.get(jax.default_backend())
    )
    def alone(operands, memory, grads):
        values = [
            run_alone(*product, *pair) for product, pair in zip(products, operands, strict=True)
        ]
        # Each number of the state is read and written once, each gradient read once.
        params, rest = memory
        return values, (params * 0.5 + grads, 1 - rest)

    size = sum(x.size for x in jax.tree.leaves(state.params))
    leaves = jax.tree.leaves((state.opt, state.extra))
    rest = sum(x.size for x in leaves if jax.numpy.issubdtype(x.dtype, jax.numpy.floating))
    grads, memory = jax.numpy.ones(size), [(jax.numpy.ones(size), jax.numpy.ones(rest))]

    def steps(n):
        for _ in range(n):
            values, memory[0] = alone(operands, memory[0], grads)
        jax.block_until_ready((values, memory[0]))

    return steps


def make_operand(aval):
    import jax

    return jax.numpy.full(aval.shape, 0.5, aval.dtype)
