"""English to German captions by the Transformer of the paper's base size.

Paper      Vaswani et al. 2017, table 3 (base): 6 + 6 layers, 8 heads, width 512, hidden
           2,048, dropout 0.1, label smoothing 0.1, Adam (0.9, 0.98), inverse square
           root with warm-up; on Multi30k with one byte-level BPE of 10,000. Norms come
           before the layers, not after them. A small corpus for so large a network:
           `seq2seq_multi30k` is the one that fits it
Command    aigc train --config=transformer_base --workdir=runs/base
Hardware   a GPU; on 2 CPU cores a step of 64 pairs takes several seconds
           (docs/benchmarks.md)
Expect     not measured yet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="seq2seq",
            steps="20 epochs",
            batch_size=64,
            data=dict(
                name="multi30k", languages="en-de", tokenizer="bpe", vocabulary=10_000, length=32
            ),
            model=dict(
                layers=6,
                heads=8,
                width=512,
                context=128,
                hidden=2048,
                activation="relu",
                norm="layer",
                norm_position="pre",
                position_encoding="sinusoidal",
                qk_norm=False,
                bias=True,
                dropout=0.1,
                tied=True,
                scan=False,
                remat=False,
            ),
            label_smoothing=0.1,
            num_beams=4,
            length_penalty=0.6,
            optimizer="adamw",
            schedule=dict(name="inverse_sqrt", warmup="2000 steps"),
            hp=dict(lr=5e-4, beta1=0.9, beta2=0.98, weight_decay=0.01, grad_clip=1.0),
            metrics=("bleu",),
            num_metric_samples=1014,
            best_metric="valid/bleu",
            best_mode="max",
            run=dict(
                eval_every="1 epoch", sample_every="2 epochs", save_every="1 epoch", samples=10
            ),
        )
    )
