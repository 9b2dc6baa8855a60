"""The names of other libraries: error messages suggest the names of this package."""

import pytest
from tiny_configs import tiny

from aigc_jax.data.schema import DATASETS
from aigc_jax.methods.choices import LIKELIHOODS, REGULARIZERS
from aigc_jax.metrics.schema import METRICS
from aigc_jax.models.schema import MODEL
from aigc_jax.training import config as configs
from aigc_jax.training.schema import allowed_keys
from aigc_jax.utils.errors import UserError, format_key_suggestion, format_suggestion
from aigc_jax.utils.synonyms import KEYS, SYNONYMS, VALUES

pytestmark = pytest.mark.unit

BASES = {name: tiny(name) for name in ("gan", "gan_conv", "vae", "vqvae", "lm", "mlm", "seq2seq")}
ALL_KEYS = {
    name: key for method, network in MODEL for name, key in allowed_keys(method, network).items()
}
ENTRIES = {
    entry
    for method, network in MODEL
    for key in allowed_keys(method, network).values()
    for entry in key.allowed
} | {"train", "valid", "test"}


def ends_in(word):
    return [name for name in ALL_KEYS if name == word or name.endswith(f".{word}")]


def test_synonyms_are_names_of_tables_and_keys():
    for word, names in VALUES.items():
        assert all(name in ENTRIES or ends_in(name) for name in names.split()), word
    for word, names in KEYS.items():
        assert all(map(ends_in, names.split())), word
    assert not VALUES.keys() & KEYS.keys()
    assert all(word == word.lower().replace("-", "_") for word in SYNONYMS)


@pytest.mark.parametrize(
    "name, allowed, ours",
    [
        ("fid", METRICS, "frechet"),
        ("inception_score", METRICS, "classifier_score"),
        ("recall", METRICS, "prdc"),
        ("wgan", ALL_KEYS["loss"].allowed, "wasserstein"),
        ("vanilla", ALL_KEYS["loss"].allowed, "minimax"),
        ("WGAN-GP", REGULARIZERS, "gradient_penalty"),
        ("clip", REGULARIZERS, "weight_clipping"),
        ("mse", ALL_KEYS["loss"].allowed, "least_squares"),
        ("mse", LIKELIHOODS, "gaussian"),
        ("BCE", LIKELIHOODS, "bernoulli"),
        ("MNIST", DATASETS, "mnist"),
        ("fashion-mnist", DATASETS, "fashion_mnist"),
        ("ImageFolder", DATASETS, "folder"),
        ("shakespeare_char", DATASETS, "shakespeare"),
        ("bf16-mixed", ALL_KEYS["precision"].allowed, "bfloat16"),
        ("32-true", ALL_KEYS["precision"].allowed, "float32"),
        ("AdamW", ALL_KEYS["optimizer"].allowed, "adamw"),
        ("cosine_with_warmup", ALL_KEYS["schedule.name"].allowed, "cosine"),
        ("rope", ALL_KEYS["model.position_encoding"].allowed, "rotary"),
        ("silu", allowed_keys("mlm")["model.activation"].allowed, "swiglu"),
        ("val", ("train", "valid", "test"), "valid"),
        ("hinge_", ALL_KEYS["loss"].allowed, "hinge"),
    ],
)
def test_values_of_the_field_suggest_registered_names(name, allowed, ours):
    assert format_suggestion(name, allowed) == f"; did you mean {ours!r}?"


@pytest.mark.parametrize(
    "base, name, ours",
    [
        # nanoGPT
        ("lm", "n_layer", "model.layers"),
        ("lm", "model.n_head", "model.heads"),
        ("lm", "n_embd", "model.width"),
        ("lm", "block_size", "data.length"),
        ("lm", "max_iters", "steps"),
        ("lm", "warmup_iters", "schedule.warmup"),
        ("lm", "learning_rate", "hp.lr"),
        ("lm", "dataset", "data.name"),
        ("lm", "eval_interval", "run.eval_every"),
        ("lm", "wandb_log", "run.log"),
        ("lm", "run.tensorboard", "run.log"),
        ("lm", "dtype", "precision"),
        # transformers, diffusers
        ("lm", "model.num_hidden_layers", "model.layers"),
        ("mlm", "mlm_probability", "mask_rate"),
        ("seq2seq", "label_smoothing_factor", "label_smoothing"),
        ("seq2seq", "beam_size", "num_beams"),
        ("lm", "gradient_checkpointing", "model.remat"),
        ("lm", "lora_r", "lora.rank"),
        ("gan", "max_train_steps", "steps"),
        ("gan", "train_batch_size", "batch_size"),
        ("gan", "mixed_precision", "precision"),
        ("gan", "resolution", "data.size"),
        # Lightning
        ("vae", "max_epochs", "steps"),
        ("vae", "accumulate_grad_batches", "grad_accumulation_steps"),
        ("vae", "gradient_clip_val", "hp.grad_clip"),
        ("vae", "log_every_n_steps", "run.log_every"),
        ("vae", "monitor", "best_metric"),
        ("vae", "devices", "run.mesh.data"),
        # big_vision
        ("vae", "wd", "hp.weight_decay"),
        ("vae", "total_epochs", "steps"),
        ("vae", "schedule.decay_type", "schedule.name"),
        ("vae", "grad_clip_norm", "hp.grad_clip"),
        ("vae", "optax_name", "optimizer"),
        ("vae", "log_training_steps", "run.log_every"),
        # pythae and GANs
        ("vae", "z", "latent_dims"),
        ("gan", "z", "latent_dim"),
        ("vae", "latent_dim", "latent_dims"),
        ("vae", "reconstruction_loss", "likelihood"),
        ("vae", "number_samples", "num_importance_samples"),
        ("vae", "num_epochs", "steps"),
        ("vqvae", "num_embeddings", "codebook_size"),
        ("vqvae", "commitment_loss_factor", "hp.commitment"),
        ("vqvae", "decay", "hp.ema_decay"),
        ("gan", "n_critic", "critic_steps"),
        ("gan", "nz", "latent_dim"),
        ("gan", "learning_rate", "hp.lr_g"),
        ("gan", "lambda_gp", "hp.gradient_penalty"),
        ("gan", "clip_value", "hp.weight_clipping"),
        ("gan", "hp.clip", "hp.grad_clip"),
        ("gan_conv", "ngf", "model.g.base"),
        # a missing section, and misspelt keys
        ("gan", "lr_g", "hp.lr_g"),
        ("lm", "heads", "model.heads"),
        ("lm", "model.rope", "model.position_encoding"),
        ("lm", "hp.lrr", "hp.lr"),
        ("gan", "modle.g.widths", "model.g.widths"),
        ("gan", "model.g.actvation", "model.g.activation"),
        ("gan", "run.mesh.dat", "run.mesh.data"),
    ],
)
def test_keys_of_other_libraries_suggest_ours(base, name, ours):
    with pytest.raises(UserError) as error:
        configs.override(BASES[base], {name: "1"})
    message = str(error.value)
    assert message.startswith(f"config.{name}: no such key of config.method = ")
    assert message.endswith(f"; did you mean {ours!r}?"), message


def test_suggestions_prefer_the_keys_of_the_config():
    allowed = ["hp.lr", "hp.lr_g", "model.width"]
    assert format_key_suggestion("learning_rate", allowed) == "; did you mean 'hp.lr'?"
    assert format_key_suggestion("learning_rate", allowed, ["hp.lr_g"]).endswith("'hp.lr_g'?")
    assert format_key_suggestion("qqqqqq", allowed, ["hp.lr_g"]) == ""
    assert format_key_suggestion("modle.d.width", ["model.g.width", "model.d.width"]).endswith(
        "'model.d.width'?"
    )
    assert format_suggestion("1" * 10**6, ["11"]) == ""
