"""English to German captions by the Transformer of the paper's base size.

Paper      Vaswani et al. 2017, table 3 (base): 6 + 6 layers, 8 heads, width 512, hidden
           2,048, dropout 0.1, label smoothing 0.1, Adam (0.9, 0.98), inverse square
           root with warm-up; on Multi30k with one byte-level BPE of 10,000. Norms come
           before the layers, not after them. A small corpus for so large a network:
           `seq2seq_multi30k` is the one that fits it
Command    aigc train --config=transformer_base --workdir=runs/base
Hardware   a GPU; on 2 CPU cores a step of 64 pairs takes several seconds
           (docs/studies/speed.md)
Expect     not measured yet
"""


def get_config(base):
    config = base("seq2seq_multi30k")
    config.data.length = 32
    config.hp.lr = 0.0005
    config.model.context = 128
    config.model.heads = 8
    config.model.hidden = 2048
    config.model.layers = 6
    config.model.width = 512
    config.schedule.name = "inverse_sqrt"
    config.schedule.warmup = "2000 steps"
    config.steps = "20 epochs"
    return config
