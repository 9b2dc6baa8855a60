"""Pickles as Python 2 wrote them, for tests of what reads or refuses them."""

import numpy as np


def python2(thing) -> bytes:
    """What Python 2's cPickle wrote for it by protocol 2, without the head: its texts
    are byte strings, its arrays go through numpy.core.
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
    """A batch as it is in the Python archive."""
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
