"""Folk tunes: a small GPT on ABC notation, which is music as plain text.

Paper      none; 4 layers of width 192, rotary positions, windows of 512 characters,
           which hold most tunes whole; 1,034 tunes of the Nottingham database, each
           ended by a token; AdamW 2e-3, cosine, dropout 0.1
Command    aigc train --config=gpt_abc --workdir=runs/abc
           aigc sample --workdir=runs/abc --num=4 --tokens=600 --temperature=0.8 \
               --out=tunes.mid
           (writes tunes.txt, and tunes_1.mid and so on of those that can be played)
Hardware   2 CPU cores: 10 minutes beside other work
Expect     1.48 bits a character (test; 5-grams 1.83); of 200 tunes at temperature 0.8
           the bars of 29.5 % add up, of held-out ones 99.5 %:
           experiments/results/writers (seed 0, measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps=1000,
            batch_size=4,
            data=dict(name="nottingham", tokenizer="characters", length=512),
            model=dict(
                layers=4,
                heads=6,
                width=192,
                context=512,
                kv_heads=6,
                position_encoding="rotary",
                bias=False,
                dropout=0.1,
            ),
            hp=dict(lr=0.002),
            run=dict(eval_every="250 steps", sample_every="500 steps", save_every="250 steps"),
        )
    )
