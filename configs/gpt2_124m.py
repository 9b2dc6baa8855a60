"""GPT-2 of 124 million parameters on your own text: from scratch, or from the published
weights.

Paper      Radford et al. 2019, the smallest: 12 layers, 12 heads, width 768, 1,024
           positions, 50,257 tokens of byte-level BPE; AdamW 6e-4 (0.9, 0.95), decay
           0.1, warm-up, cosine, as nanoGPT trains it, but for the batch: 16 windows a
           step
Command    aigc train --config=gpt2_124m --workdir=runs/gpt2 --config.data.path=books
           (from a directory DIR that Hugging Face's transformers wrote:)
           aigc train --config=gpt2_124m --workdir=runs/tuned --config.data.path=books \
               --config.init_from=DIR --config.data.tokenizer=file \
               --config.data.tokenizer_path=DIR --config.hp.lr=3e-5 \
               --config.lora.rank=8 --config.init_match=params/net
Hardware   a GPU of 24 GB; what layers compute is computed again for gradients (remat)
Expect     not measured yet
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps="1 epoch",
            batch_size=16,
            data=dict(name="text", tokenizer="bpe", vocabulary=50257, length=1024),
            model=dict(layers=12, heads=12, width=768, context=1024, kv_heads=12, remat=True),
            schedule=dict(warmup="500 steps"),
            hp=dict(lr=0.0006, beta2=0.95),
        )
    )
