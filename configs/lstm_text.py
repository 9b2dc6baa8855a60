"""The Chinese tale teller: an LSTM that goes on with Journey to the West.

Paper      the medium LSTM of Zaremba et al. 2014 in the setting of many tutorials:
           10,000 entries, embedding 128, two layers of 1,024, dropout between them;
           entries are those of a byte-level BPE, so that nothing is unknown. Logits
           through a projection to the embedding, which is tied (Press & Wolf 2017). 8
           streams of 64 tokens (truncated back-propagation), AdamW 2e-3, cosine, label
           smoothing 0.03; the novel's first 80 % for training, then 10 % valid, 10 %
           test
Command    aigc train --config=lstm_text --workdir=runs/tale
           aigc sample --workdir=runs/tale --checkpoint=best --prompt="从前有座山" \
               --temperature=0.8
Hardware   2 CPU cores: some 40 minutes, 0.20 to 0.22 s a step alone
Expect     test loss 6.25, 6.74 bits a character in windows of 64, 6.635 from beginning
           to end; 5-grams of characters 6.663. Without label smoothing 6.665: it is too
           sure of itself by then (measured 2026-11)
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            method="lm",
            steps="13 epochs",
            batch_size=8,
            data=dict(
                name="journey_to_the_west", tokenizer="bpe", vocabulary=10000, order="stream"
            ),
            network="recurrent",
            model=dict(cell="lstm", layers=2, width=1024, embedding=128, dropout=0.5),
            label_smoothing=0.03,
            schedule=dict(warmup="50 steps"),
            hp=dict(lr=0.002, weight_decay=0.01),
            run=dict(eval_every="1 epoch", sample_every="1 epoch", save_every="1 epoch"),
        )
    )
