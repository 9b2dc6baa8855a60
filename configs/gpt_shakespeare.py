"""A GPT on the characters of tiny Shakespeare: nanoGPT's setting for a GPU.

Paper      none; nanoGPT's train_shakespeare_char: 6 layers, 6 heads, width 384, windows
           of 256, batch 64, dropout 0.2, no biases, AdamW 1e-3 (0.9, 0.99), decay 0.1,
           clipping at 1, 100 steps of warm-up, cosine; 5,000 steps; first 90 % of the
           text for training, last 10 % held out. Its rate falls to a tenth, ours to 0
Command    aigc train --config=gpt_shakespeare --workdir=runs/gpt
           aigc sample --workdir=runs/gpt --checkpoint=best --prompt="ROMEO:" \
               --temperature=0.8
Hardware   a GPU; on 2 CPU cores it would take about ten hours
Expect     not measured yet; nanoGPT reports 1.4697 nats a character as its best
           estimate of the validation loss
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps=5000,
            batch_size=64,
            data=dict(name="shakespeare", tokenizer="characters", length=256, split="90/10"),
            model=dict(
                layers=6, heads=6, width=384, context=256, kv_heads=6, bias=False, dropout=0.2
            ),
            run=dict(eval_every="250 steps", save_every="250 steps"),
        )
    )
