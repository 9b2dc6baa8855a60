"""A tanh RNN on the characters of Python's reference: always at hand, trained in
streams.

Paper      h_t = tanh(W_hh h_{t-1} + W_xh x_t + b) (Elman 1990), one layer of 256,
           truncated back-propagation through time: 32 streams, 64 characters a step
           (Williams & Peng 1990); AdamW 2e-3, clipping at 1
Command    aigc train --config=rnn_pydoc --workdir=runs/rnn
Hardware   2 CPU cores: 51 s
Expect     test loss 1.415 nats a character, 2.04 bits (seed 0, measured 2026-11); reads
           like a reference manual, and says nothing
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps=3000,
            batch_size=32,
            data=dict(name="pydoc", tokenizer="characters", order="stream"),
            network="recurrent",
            model=dict(cell="rnn", layers=1, width=256, embedding=64, tied=False),
            hp=dict(lr=0.002, weight_decay=0.01),
            run=dict(eval_every="500 steps"),
        )
    )
