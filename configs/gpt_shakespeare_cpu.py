"""A small GPT on the characters of tiny Shakespeare: nanoGPT's setting for a CPU.

Paper      none; nanoGPT's train_shakespeare_char for a CPU: 4 layers, 4 heads, width
           128, windows of 64, batch 12, no dropout, no biases, AdamW (0.9, 0.99), decay
           0.1, clipping at 1, 100 steps of warm-up, cosine; its 2,000 steps; first 90 %
           of the text for training, last 10 % held out (which is both valid and test).
           Its rate is 1e-3 and falls to a tenth, ours 2e-3 and falls to 0
Command    aigc train --config=gpt_shakespeare_cpu --workdir=runs/gpt_cpu
           aigc sample --workdir=runs/gpt_cpu --prompt="ROMEO:" --temperature=0.8
Hardware   2 CPU cores: 88 s from start to finish; three seeds as one program 5 m 41 s
           beside another job
Expect     held-out loss 1.824 nats a character in the mean of three seeds, 1.816 to
           1.835: experiments/results/shakespeare (measured 2026-11); nanoGPT's own
           checkpoint has 1.893 so measured
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps=2000,
            batch_size=12,
            data=dict(name="shakespeare", tokenizer="characters", split="90/10"),
            model=dict(layers=4, heads=4, width=128, context=64, kv_heads=4, bias=False),
            hp=dict(lr=0.002),
            run=dict(eval_every="500 steps"),
        )
    )
