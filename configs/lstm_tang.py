"""Tang poems: an LSTM on characters, in simplified script.

Paper      as the medium LSTM of Zaremba et al. 2014: two layers of 512, dropout 0.1
           between them, tied embedding; 20,011 poems, each ended by a token, in windows
           of 64 characters, each from an empty state; 16 of them a step; AdamW 2e-3,
           cosine
Command    aigc train --config=lstm_tang --workdir=runs/tang
           aigc sample --workdir=runs/tang --checkpoint=best --num=4 --temperature=0.8 \
               --tokens=64
Hardware   2 CPU cores: 22 minutes (measured 2026-11)
Expect     test loss 4.86, 7.12 bits a character in windows of 64, 7.00 from beginning
           to end (5-grams 7.69); of 200 poems 90.5 % have lines all of five or all of
           seven characters: experiments/results/writers
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps="6 epochs",
            batch_size=16,
            data=dict(name="tang_poems", script="simplified", tokenizer="characters"),
            network="recurrent",
            model=dict(cell="lstm", layers=2, width=512, embedding=512, dropout=0.1),
            hp=dict(lr=0.002, weight_decay=0.01),
            run=dict(eval_every="1 epoch", sample_every="1 epoch", save_every="500 steps"),
        )
    )
