"""Commands with a mistake, one of each class, and what their error messages name."""

import json
from typing import NamedTuple

import numpy as np
from gpt2_directories import write_directory
from helpers import experiment_text


class Mistake(NamedTuple):
    """A command with a mistake. In all fields, {run}, {text} and {dir} are a run of a
    VAE, a run of a language model, and a directory of files.
    """

    words: str  # of the command line, separated by blanks
    named: str  # what is wrong, and where
    allowed: str = ""
    nearest: str = ""


VAE, GAN = "--config=vae_digits --workdir={dir}/new", "--config=gan_digits --workdir={dir}/new"
LM = "--config=gpt_shakespeare_cpu --workdir={dir}/new --config.data.name=pydoc"
SWEEP = "--config=vae_digits --workdir={dir}/sweep"

# Refused before anything is compiled.
MISTAKES = {
    # -- words of the command line
    "verb": Mistake("trian", "'trian' is none of", "train, evaluate, sample", "'train'?"),
    "flag": Mistake(
        f"train {VAE} --workdri=x",
        "train takes no --workdri",
        "it takes --help, --config",
        "--workdir?",
    ),
    "flag that is a config key": Mistake(
        f"train {VAE} --batch_size=8",
        "train takes no --batch_size",
        "--extend",
        "--config.batch_size?",
    ),
    "flag of another library": Mistake(
        f"train {VAE} --max_epochs=8", "train takes no --max_epochs", "", "--config.steps?"
    ),
    "flag of another verb": Mistake(
        "sample --workdir={run} --config.seed=1",
        "sample takes its config from the run",
        "only train, sweep",
    ),
    "Hydra's override": Mistake(
        f"train {VAE} hp.lr=0.1", "unexpected argument hp.lr=0.1", "", "--config.hp.lr=0.1?"
    ),
    "second grid without its flag": Mistake(
        f"sweep {SWEEP} --grid batch_size=64,128 hp.beta=1,2",
        "sweep: unexpected argument hp.beta=1,2",
        "",
        "--grid hp.beta=1,2?",
    ),
    "second key of list": Mistake(
        "list --config=gan_digits loss hp.r1", "list: unexpected argument hp.r1"
    ),
    "no seed": Mistake(f"sweep {SWEEP} --seeds=0", "--seeds=0 must be", "1 to 100,000"),
    "sweep of one trial": Mistake(f"sweep {SWEEP}", "needs --grid or --seeds"),
    "flag of no near spelling": Mistake(
        "evaluate --workdir={run} --step=4", "evaluate takes no --step", "--checkpoint"
    ),
    "required flag": Mistake("train", "--workdir", "the following arguments are required"),
    "value of a flag": Mistake(f"train {VAE} --extend=x", "--extend: invalid int value: 'x'"),
    "key without a value": Mistake(
        f"train {VAE} --config.seed", "--config.seed needs a value", "--config.seed=VALUE"
    ),
    # -- files of configs and experiments
    "config": Mistake(
        "train --config=gan_digts --workdir={dir}/new",
        "--config=gan_digts: no such file",
        "list shows the configs",
        "'gan_digits'?",
    ),
    "directory as config": Mistake(
        "train --config={dir} --workdir={dir}/new",
        "--config={dir} is a directory, not the file of a config",
    ),
    "another method": Mistake(
        f"train {GAN} --config.method=vae",
        "config.latent_dim: no such key of config.method = 'vae'",
        "only config.method = 'gan' has it",
        "'latent_dims'?",
    ),
    "name given twice": Mistake(
        f"train {GAN} --config.gan.regularizers=r1,r1",
        "config.gan.regularizers = ('r1', 'r1') names 'r1' more than once",
    ),
    "experiment": Mistake(
        "sweep --experiment=vae_bta --workdir={dir}/new",
        "--experiment=vae_bta: no such file",
        "list shows the experiments",
        "'vae_beta'?",
    ),
    "config without get_config": Mistake(
        "train --config={dir}/empty.py --workdir={dir}/new",
        "{dir}/empty.py has no function get_config()",
    ),
    "config that is no ConfigDict": Mistake(
        "train --config={dir}/number.py --workdir={dir}/new",
        "{dir}/number.py: get_config() returns int",
        "not a ConfigDict",
    ),
    "config that raises": Mistake(
        "train --config={dir}/raises.py --workdir={dir}/new",
        "{dir}/raises.py raises ZeroDivisionError in line 2",
    ),
    "missing key of a config": Mistake(
        "train --config={dir}/short.py --workdir={dir}/new",
        "config.network is missing",
        "one of mlp, conv",
    ),
    "field of an experiment": Mistake(
        "sweep --experiment={dir}/field.py --workdir={dir}/new",
        "{dir}/field.py: Experiment has no field 'metrik'",
        "",
        "'metric'?",
    ),
    "experiment without EXPERIMENT": Mistake(
        "sweep --experiment={dir}/empty.py --workdir={dir}/new",
        "{dir}/empty.py has no EXPERIMENT",
        "EXPERIMENT = Experiment(config=",
    ),
    # -- keys at each depth
    "key": Mistake(
        f"train {VAE} --config.batch_sise=8", "config.batch_sise: no such key", "", "'batch_size'?"
    ),
    "key of a section": Mistake(
        f"train {VAE} --config.hp.lrr=8", "config.hp.lrr: no such key", "", "'hp.lr'?"
    ),
    "key of a part": Mistake(
        f"train {GAN} --config.model.g.widhts=8", "config.model.g.widhts", "", "'model.g.widths'?"
    ),
    "key without its section": Mistake(
        f"train {VAE} --config.lr=8", "config.lr: no such key", "", "'hp.lr'?"
    ),
    "section": Mistake(
        f"train {VAE} --config.schedule=x",
        "config.schedule is a section",
        "set one of its keys: schedule.name, schedule.warmup",
    ),
    "key of another method": Mistake(
        f"train {VAE} --config.gan.pack=2",
        "config.gan.pack: no such key of config.method = 'vae'",
        "only config.method = 'gan' has it",
    ),
    "key of another data set": Mistake(
        f"train {VAE} --config.data.size=8",
        "config.data.size = 8 is not read by config.data.name = 'digits'",
    ),
    "key of another tokenizer": Mistake(
        f"train {LM} --config.data.tokenizer_path=x",
        "config.data.tokenizer_path = 'x' is not read by config.data.tokenizer",
        "only by 'file'",
    ),
    "hyper-parameter of another optimizer": Mistake(
        f"train {VAE} --config.hp.grad_clip=1",
        "config.hp.grad_clip is not read by config.method = 'vae' with config.optimizer = 'adam'",
        "which reads lr, beta, beta1, beta2",
        "config.optimizer = 'adamw' reads it",
    ),
    "hyper-parameter of another method": Mistake(
        f"train {GAN} --config.hp.lr=1",
        "config.hp.lr is not read by",
        "which reads lr_g, lr_d",
        "'lr_g'?",
    ),
    # -- values
    "integer": Mistake(
        f"train {VAE} --config.batch_size=ten", "config.batch_size = 'ten'", "is not an integer"
    ),
    "number": Mistake(
        f"train {VAE} --config.hp.lr=fast", "config.hp.lr = 'fast'", "is not a number"
    ),
    "bool": Mistake(
        f"train {VAE} --config.conditional=maybe", "config.conditional = 'maybe'", "True or False"
    ),
    "tuple": Mistake(
        f"train {VAE} --config.latent_dims=a", "config.latent_dims = 'a'", "such as (64, 32)"
    ),
    "duration": Mistake(
        f"train {VAE} --config.steps=9epcohs",
        "config.steps = '9epcohs'",
        "'1000 steps', '10 epochs'",
        "'epochs'?",
    ),
    "lower bound": Mistake(
        f"train {VAE} --config.batch_size=0", "config.batch_size = 0", "must be at least 1"
    ),
    "upper bound": Mistake(
        f"train {VAE} --config.batch_size=1e9",
        "config.batch_size = 1000000000",
        "at most 1,048,576",
    ),
    "open bound": Mistake(
        f"train {VAE} --config.hp.beta1=1", "config.hp.beta1 = 1.0", "must be below 1"
    ),
    "finite number": Mistake(
        f"train {VAE} --config.hp.lr=nan", "config.hp.lr = 'nan'", "is not finite"
    ),
    "name in a table": Mistake(
        f"train {GAN} --config.loss=wgan",
        "config.loss = 'wgan' is none of",
        "minimax, non_",
        "'wasserstein'?",
    ),
    "name in a tuple": Mistake(
        f"train {VAE} --config.metrics=kid,fid",
        "config.metrics[1] = 'fid'",
        "frechet, frechet_pix",
        "'frechet'?",
    ),
    "data set": Mistake(
        f"train {VAE} --config.data.name=MNIST",
        "config.data.name = 'MNIST'",
        "digits, mnist",
        "'mnist'?",
    ),
    # -- values that do not suit each other
    "metric of another method": Mistake(
        f"train {VAE} --config.metrics=bleu",
        "config.metrics[0] = 'bleu' needs the sampler 'answer', and config.method = 'vae'",
        "has only prior, reconstruction",
    ),
    "best metric": Mistake(
        f"train {VAE} --config.best_metric=loss",
        "config.best_metric = 'loss'",
        "such as 'valid/frechet_pixels'",
    ),
    "devices": Mistake(
        f"train {VAE} --config.run.mesh.data=99",
        "config.run.mesh = {{'data': 99",
        "only 8 are available",
    ),
    "mesh that does not divide": Mistake(
        f"train {VAE} --config.run.mesh.model=3",
        "config.run.mesh = {{'data': -1, 'model': 3",
        "8 devices",
    ),
    "batch that the mesh does not divide": Mistake(
        f"train {VAE} --config.batch_size=100 --config.run.mesh.data=8",
        "config.batch_size = 100 does not divide over 8 devices",
        "config.run.mesh.data to a divisor of 100, such as 4",
        "a multiple of 8, such as 96",
    ),
    "float64": Mistake(
        f"train {VAE} --config.precision=float64",
        "config.precision = 'float64'",
        "JAX_ENABLE_X64=1",
    ),
    "steps to profile": Mistake(
        f"train {VAE} --profile=1-2", "--profile=1-2", "must be like steps:10-15"
    ),
    "nothing to extend": Mistake(
        f"train {VAE} --extend=10", "--extend=10: {dir}/new", "holds no run to extend"
    ),
    "two opposite flags": Mistake(
        f"train {VAE} --extend=10 --restart",
        "--restart discards the run, --extend continues",
        "use only one",
    ),
    # -- files of the user
    "parameters to begin with": Mistake(
        f"train {VAE} --config.batch_size=96 --config.init_from={{run}}x",
        "config.init_from = '{run}x' is not a run directory: config.json is missing",
    ),
    "weights of Inception": Mistake(
        "evaluate --workdir={run} --metrics=frechet --inception={dir}/none.pth",
        "{dir}/none.pth: no such file",
        "the weights are pt_inception",
    ),
    "tokenizer": Mistake(
        f"train {LM} --config.data.tokenizer=file "
        "--config.data.tokenizer_path={dir}/tokeniser.json",
        "{dir}/tokeniser.json: no such file",
        "",
        "'tokenizer.json'?",
    ),
    "array file": Mistake(
        "data --name=npz --path={dir}/aray.npz",
        "--path = '{dir}/aray.npz'",
        "a .npz file of x",
        "'array.npz'?",
    ),
    "file of another format": Mistake(
        "data --name=npz --path={dir}/empty.py",
        "--path = '{dir}/empty.py' is not a .npz file",
        "np.savez writes",
    ),
    "work directory that is a file": Mistake(
        "train --config=vae_digits --workdir={dir}/empty.py",
        "cannot write to {dir}/empty.py",
        "File exists",
    ),
    # -- sweeps
    "grid without values": Mistake(
        f"sweep {SWEEP} --grid=hp.lr",
        "--grid=hp.lr",
        "KEY=VALUE,VALUE,..., such as --grid hp.lr=1e-4,3e-4",
    ),
    "grid with an open bracket": Mistake(
        f"sweep {SWEEP} --grid=latent_dims=(3,", "--grid=latent_dims=(3,", "unclosed ("
    ),
    "key of a grid": Mistake(
        f"sweep {SWEEP} --grid=hp.lrr=1,2", "config.hp.lrr: no such key", "", "'hp.lr'?"
    ),
    "value of a grid": Mistake(
        f"sweep {SWEEP} --grid=hp.lr=1,b", "config.hp.lr = 'b'", "is not a number"
    ),
    "key twice in a grid": Mistake(
        f"sweep {SWEEP} --grid=hp.lr=1 --grid=hp.lr=2",
        "--grid varies hp.lr twice",
        "list all its values together",
    ),
    "seeds": Mistake(f"sweep {SWEEP} --seeds=-1", "--seeds=-1", "1 to 100,000"),
    "engine": Mistake(
        f"sweep {SWEEP} --seeds=2 --engine=slrum",
        "--engine = 'slrum'",
        "local, slurm, ray, k8s",
        "'slurm'?",
    ),
    "flag of another engine": Mistake(
        f"sweep {SWEEP} --seeds=2 --cpus=2",
        "--cpus=2.0 is not used by --engine=local",
        "only by slurm, ray, k8s",
    ),
    "route": Mistake(
        f"sweep {SWEEP} --seeds=2 --route=vmp", "--route = 'vmp'", "auto, vmap, map", "'vmap'?"
    ),
    "metric of a sweep": Mistake(
        f"sweep {SWEEP} --seeds=2 --metric=loss",
        "--metric=loss must be SPLIT/NAME",
        "train, valid, test",
    ),
    "config and experiment": Mistake(
        "sweep --config=vae_digits --experiment=vae_beta --workdir={dir}/sweep",
        "--experiment and --config cannot be combined",
        "use only one",
    ),
    "figure of nothing": Mistake(
        "figure", "figure needs --experiment=FILE", "--workdir=SWEEP, or both"
    ),
    "figure of a run": Mistake(
        "figure --workdir={run}", "{run} is a run, not a sweep", "sweep.json is missing"
    ),
    "one run to compare": Mistake("compare {run}", "compare needs two runs or more"),
    # -- other verbs
    "hardware": Mistake(
        "plan --config=vae_digits --hardware=h10", "--hardware = 'h10'", "h100, h200", "'h100'?"
    ),
    "mesh of a plan": Mistake(
        "plan --config=vae_digits --mesh=8", "--mesh=8", "must be like data:64,model:4"
    ),
    "name of data": Mistake("data --name=mnits", "--name = 'mnits'", "digits, mnist", "'mnist'?"),
    "tokenizer of data": Mistake(
        "data --name=pydoc --tokenizer=wrds",
        "--tokenizer = 'wrds'",
        "bytes, characters, words",
        "'words'?",
    ),
    # -- runs
    "run": Mistake(
        "sample --workdir={run}x",
        "{run}x is not a run directory",
        "config.json is missing",
        "'run'?",
    ),
    "checkpoint": Mistake(
        "sample --workdir={run} --checkpoint=bst", "--checkpoint = 'bst'", "latest, best", "'best'?"
    ),
    "no best checkpoint": Mistake(
        "sample --workdir={run} --checkpoint=best",
        "{run} has no best checkpoint",
        "config.best_metric = ''",
    ),
    "split": Mistake(
        "evaluate --workdir={run} --split=val", "--split = 'val'", "train, valid, test", "'valid'?"
    ),
    "sampler": Mistake(
        "sample --workdir={run} --what=prioor",
        "--what = 'prioor'",
        "prior, reconstruction",
        "'prior'?",
    ),
    "sampler of another method": Mistake(
        "sample --workdir={run} --what=filled",
        "--what = 'filled' is none of",
        "prior, reconstruction, latents",
    ),
    "split without examples": Mistake(
        "sample --workdir={run} --split=train",
        "--split=train is not read by --what=prior",
        "only by reconstruction",
    ),
    "class of an unconditional model": Mistake(
        "sample --workdir={run} --class=3",
        "--class=3 needs a sampler with classes",
        "config.conditional",
    ),
    "number of samples": Mistake(
        "sample --workdir={run} --num=0", "--num=0", "an integer in [1, 10,000,000]"
    ),
    "seed": Mistake(
        "sample --workdir={run} --seed=-1", "--seed=-1", "an integer in [0, 4,294,967,295]"
    ),
    "type of an output": Mistake(
        "sample --workdir={run} --out=a.gif", "--out=a.gif", "must end in .png or .npy"
    ),
    "prompt of images": Mistake(
        "sample --workdir={run} --prompt=a",
        "--prompt applies only to text",
        "the run's sampler 'prior'",
    ),
    "directory of an output": Mistake(
        "sample --workdir={run} --out={dir}/none/a.png",
        "cannot write to {dir}/none/a.png",
        "No such file",
    ),
    "metric": Mistake(
        "evaluate --workdir={run} --metrics=fid",
        "--metrics[0] = 'fid'",
        "frechet, frechet_pixels",
        "'frechet'?",
    ),
    "metric of text": Mistake(
        "evaluate --workdir={run} --metrics=bleu",
        "--metrics[0] = 'bleu' needs the sampler 'answer'",
        "has only prior",
    ),
    "temperature": Mistake(
        "sample --workdir={text} --temperature=-1",
        "--temperature=-1.0",
        "0 or a number in [0.001, 1,000.0]",
    ),
    "file of a prompt": Mistake(
        "sample --workdir={text} --prompt_file={dir}/promt.txt",
        "--prompt_file={dir}/promt.txt: no such file",
        "",
        "'prompt.txt'?",
    ),
    "export of images": Mistake(
        "export --workdir={run} --out={dir}/out", "{run} is not a run of a decoder-only Transformer"
    ),
    "config of another run": Mistake(
        "train --workdir={run} --config.latent_dims=7",
        "{run} holds another run: config.latent_dims is (3,) in the stored run and (7,) in this",
        "use another work directory, or begin again here by --restart",
    ),
    "run as a sweep": Mistake(
        "sweep --config=vae_digits --seeds=2 --workdir={run}",
        "{run} is a run",
        "a sweep needs a directory of its own",
    ),
    "GPT-2 directory": Mistake(
        "sample --workdir={dir}/llama",
        "{dir}/llama/config.json: model_type = 'llama'",
        "only 'gpt2' can be read",
    ),
    "field of a GPT-2 directory": Mistake(
        "sample --workdir={dir}/gpt2",
        "{dir}/gpt2/config.json: activation_function = 'relu'",
        "only 'gelu_new'",
    ),
}


def write_files(folder):
    """Write the files that the mistakes name."""
    texts = {
        "empty.py": "",
        "number.py": "def get_config():\n    return 3\n",
        "raises.py": "def get_config():\n    return 1 / 0\n",
        "short.py": "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        "    return ConfigDict(dict(method='vae'))\n",
        "field.py": experiment_text("config='vae_digits', metrik='valid/loss'"),
        "tokenizer.json": "{}",
        "prompt.txt": "a",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    np.savez(folder / "array.npz", x=np.zeros((9, 2), np.float32))
    for name, change in (
        ("gpt2", dict(activation_function="relu")),
        ("llama", dict(model_type="llama")),
    ):
        write_directory(folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps(config | change))
