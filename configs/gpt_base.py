"""A decoder-only Transformer of the paper's base size on Python's standard library.

Paper      the size of Vaswani et al. 2017, table 3 (base): 6 layers, 8 heads, width
           512, 10,000 tokens, dropout 0.1; windows of 128, batch 8; AdamW 3e-4,
           warm-up, cosine. For accelerators: on two CPU cores a step takes half a
           second
Command    aigc train --config=gpt_base --workdir=runs/gpt_base
Hardware   2 CPU cores
Expect     not measured yet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps="10 epochs",
            batch_size=8,
            data=dict(name="stdlib", tokenizer="bpe", vocabulary=10000, length=128),
            model=dict(layers=6, heads=8, width=512, context=128, kv_heads=8, dropout=0.1),
            schedule=dict(warmup="500 steps"),
            hp=dict(lr=0.0003, beta2=0.95),
            run=dict(eval_every="1 epoch", sample_every="1 epoch"),
        )
    )
