"""The names that configs may select in tables of `methods`, each with a line of help.
This module does not import jax.
"""

GAN_LOSSES = {
    "minimax": "log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1)",
    "non_saturating": "-log D(G(z)) (Goodfellow et al. 2014, section 3)",
    "least_squares": "squared distances of the logits to 0 and 1 (Mao et al. 2017, eq. 9)",
    "wasserstein": "difference of mean logits (Arjovsky et al. 2017, eq. 2); needs a regularizer",
    "hinge": "hinges at -1 and 1 (Lim & Ye 2017; Miyato et al. 2018, eq. 16)",
    "relativistic_average": "logits relative to the mean of the other kind (Jolicoeur-Martineau "
    "2019)",
}
REGULARIZERS = {
    "gradient_penalty": "slope 1 between real and generated examples (Gulrajani et al. 2017, eq. "
    "3)",
    "dragan": "slope 1 near real examples (Kodali et al. 2017)",
    "r1": "squared slope at real examples (Mescheder et al. 2018, eq. 9)",
    "r2": "squared slope at generated examples (Mescheder et al. 2018, eq. 10)",
    "consistency": "equal logits of an image and its translation (Zhang et al. 2020, eq. 4)",
    "balanced_consistency": "the same of real and generated images (Zhao et al. 2021)",
    "mode_seeking": "different samples for different noise (Mao et al. 2019, eq. 3)",
    "weight_clipping": "weights of the discriminator in [-w, w] (Arjovsky et al. 2017)",
}
# Regularizer -> its weight where a config omits it, by default 10; weight_clipping: w
REGULARIZER_WEIGHTS = {
    "mode_seeking": 1.0,
    "weight_clipping": 0.01,
}
CONDITIONS = {
    "none": "labels are not used",
    "concatenation": "labels as further inputs of both networks (Mirza & Osindero 2014)",
    "projection": "inner product of features and label (Miyato & Koyama 2018)",
    "auxiliary": "the discriminator also classifies (Odena et al. 2017)",
}
AUGMENTATIONS = {
    "colour": "brightness, saturation and contrast",
    "translation": "shifts by up to an eighth of the image",
    "cutout": "a square of half the side is set to 0",
}
LIKELIHOODS = {
    "bernoulli": "black and white pixels (Kingma & Welling 2013, appendix C.1)",
    "gaussian": "normal, of standard deviation hp.sigma",
    "gaussian_scalar": "normal, of one learned standard deviation (Rybkin et al. 2021)",
    "gaussian_pixel": "normal, of a predicted standard deviation per pixel",
    "logistic": "discretized logistic of one learned scale (Kingma et al. 2016)",
    "logistic_pixel": "discretized logistic of a predicted scale per pixel",
}
OBJECTIVES = {
    "elbo": "evidence lower bound (Kingma & Welling 2013, eq. 3)",
    "free_bits": "at least hp.free_bits nats per latent are free (Kingma et al. 2016, eq. 15)",
    "iwae": "importance-weighted bound (Burda et al. 2016, eq. 8)",
    "dreg": "the same with doubly reparameterized gradients (Tucker et al. 2019, eq. 8)",
}
PRIORS = {
    "normal": "standard normal",
    "vamp": "mixture of the posteriors of model.pseudo learned inputs (Tomczak & Welling 2018)",
}
PENALTIES = {
    "none": "no penalty",
    "tc": "total correlation of the latents (Chen et al. 2018)",
    "mmd": "kernel distance of the latents to the prior (Tolstikhin et al. 2018)",
}
PRECISIONS = {
    "float32": "32 bits",
    "float64": "64 bits; needs JAX_ENABLE_X64=1",
    "bfloat16": "arithmetic in 16 bits, parameters in 32",
    "bfloat16_all": "arithmetic, parameters and optimiser state in 16 bits",
}
SCHEDULES = {
    "constant": "1 after the warm-up",
    "linear": "falls to 0 linearly",
    "cosine": "falls to 0 by half a cosine (Loshchilov & Hutter 2017, eq. 5)",
    "inverse_sqrt": "falls as 1 / sqrt(step) (Vaswani et al. 2017, eq. 3)",
    "burda": "falls tenfold in seven stages of threefold length (Burda et al. 2016, section 5)",
}
ANNEALING = {
    "constant": "1",
    "linear": "rises from 0 during anneal.period (Bowman et al. 2016)",
    "cyclical": "rises in the first half of every anneal.period (Fu et al. 2019, eq. 6)",
}
