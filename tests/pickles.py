"""Pickles in the format of Python 2, for tests of readers."""

import numpy as np


def python2(thing) -> bytes:
    """The bytes of Python 2's cPickle with protocol 2, without the header: strings are
    byte strings, and arrays refer to numpy.core.
    """
    if isinstance(thing, dict):
        return b"}(" + b"".join(python2(k) + python2(v) for k, v in thing.items()) + b"u"
    if isinstance(thing, list | tuple):
        items = b"".join(map(python2, thing))
        return b"](" + items + b"e" if isinstance(thing, list) else b"(" + items + b"t"
    if isinstance(thing, np.ndarray):
        kind = (
            b"cnumpy\ndtype\n"
            + python2((thing.dtype.str[1:].encode(), 0, 1))
            + b"R"
            + python2((3, b"|", None, None, None, -1, -1, 0))
            + b"b"
        )
        fortran = not thing.flags.c_contiguous
        state = (
            b"("
            + python2(1)
            + python2(thing.shape)
            + kind
            + python2(fortran)
            + python2(thing.tobytes("F" if fortran else "C"))
            + b"t"
        )
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            + python2((0,))
            + python2(b"b")
            + b"tR"
            + state
            + b"b"
        )
    if isinstance(thing, bytes):
        return b"T" + len(thing).to_bytes(4, "little") + thing
    return (
        {None: b"N", True: b"\x88", False: b"\x89"}[thing]
        if thing is None or thing is True or thing is False
        else b"I%d\n" % thing
    )


def pickled(data, labels, **more) -> bytes:
    """A pickled batch in the format of CIFAR's Python archive."""
    return (
        b"\x80\x02"
        + python2(
            {
                b"batch_label": b"one of them",
                b"labels": labels,
                b"data": data,
                b"filenames": [b"a.png"],
            }
            | more
        )
        + b"."
    )
