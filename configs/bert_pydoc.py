"""A small BERT on the words of Python's reference: guesses hidden tokens from both
sides; always at hand.

Paper      Devlin et al. 2019, section 3.1 (15 % of the tokens; of those 80 % hidden, 10
           % replaced, 10 % kept), at a size for a CPU: 4 layers, 4 heads, width 128,
           windows of 64 tokens of a byte-level BPE of 2,000; AdamW 1e-3
Command    aigc train --config=bert_pydoc --workdir=runs/bert
Hardware   2 CPU cores: 2 m 39 s for half of its steps
Expect     with --config.steps=1000 test loss 5.72, of the hidden tokens 11 % guessed
           (seed 0, measured 2026-11): little more than which are frequent, for
           attention is not learnt yet; all 2,000 steps not measured yet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="mlm",
            steps=2000,
            batch_size=32,
            data=dict(name="pydoc", tokenizer="bpe", vocabulary=2000),
            model=dict(
                layers=4, heads=4, width=128, context=64, kv_heads=4, bias=False, dropout=0.1
            ),
            run=dict(eval_every="500 steps"),
        )
    )
