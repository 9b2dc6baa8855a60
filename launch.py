#!/usr/bin/env python3
"""aigc_jax: train, evaluate, sample, compare and plan generative models from config files; many trials as one program.

  python launch.py train    --config=configs/gan_digits.py --workdir=runs/gan --config.hp.lr_g=1e-4
  python launch.py train    --workdir=runs/gan                      goes on where it was cut off
  python launch.py evaluate --workdir=runs/gan
  python launch.py sample   --workdir=runs/gan --num=10 --out=samples.png
  python launch.py sample   --workdir=runs/gpt --prompt="ROMEO:" --temperature=0.8 --tokens=200
  python launch.py sweep    --config=configs/vae_digits.py --grid hp.lr=1e-4,1e-3 --seeds=8 --workdir=runs/rates
  python launch.py sweep    --experiment=experiments/vae_beta.py --workdir=runs/beta
  python launch.py figure   --experiment=experiments/vae_beta.py
  python launch.py compare  runs/gan runs/rates/trials/*
  python launch.py plan     --config=configs/gpt2_124m.py --devices=8 --config.run.fsdp=True
  python launch.py data     --name=mnist --download
  python launch.py list

Every key of a config can be set on the command line as --config.KEY=VALUE; `list --config=FILE` shows them.
"""

import argparse
import ast
import contextlib
import difflib
import errno
import os
import re
import signal
import sys
from pathlib import Path

from aigc_jax import config as configs
from aigc_jax.errors import UserError, brief, choose, require
from aigc_jax.terminal import print_text, print_warning
from aigc_jax.user_files import find_file

HERE = Path(__file__).resolve().parent


def train(args, overrides):
    """Train in WORKDIR, or go on where a run there was cut off; a finished run prints its table."""
    from aigc_jax import start
    from aigc_jax.results import RunDir

    run = RunDir(args.workdir)
    if args.config is None:
        if not (run / "config.json").exists():
            raise UserError(f"{args.workdir} is no run yet: name a config, such as --config=configs/gan_digits.py")
        default = configs.complete(start.stored_config(run.config()))
    else:
        default = configs.load(args.config)
    config = configs.override(default, overrides)
    configs.check(config)  # before the data, which may take minutes
    if config.run.deterministic:  # read when jax first starts its back end
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    changes = configs.difference(configs.leaves(default), configs.leaves(config)) if args.config else {}

    from aigc_jax import processes
    from aigc_jax.train import train

    profile = re.fullmatch(r"steps:(\d+)-(\d+)", args.profile) if args.profile else None
    require(not args.restart or args.extend is None, "--restart begins again, --extend goes on: give one")
    require(not args.profile or (profile and 0 < int(profile[1]) <= int(profile[2])), f"--profile={args.profile} must be like steps:10-15")
    processes.begin(args.coordinator, args.num_processes, args.process_id)
    status = train([config], [args.workdir], extend=args.extend, download=args.download, changes=[changes],
                   restart=args.restart, profile=tuple(map(int, profile.groups())) if profile else ())[0]
    if status["status"] == "preempted":
        print_warning(f"preempted at step {status['step']:,} and saved; the same command goes on")
        return 128 + dict(SIGINT=2, SIGTERM=15)[status["signal"]]
    require(status["status"] == "done", f"{args.workdir} {status['status']}: {status.get('reason')}; the last good checkpoint is kept")
    if processes.first():
        report(run)
    return 0


def report(run):
    """The last rows of each split, and where the pictures are."""
    from aigc_jax.results import table

    rows = run.rows()
    last = {split: next((r for r in reversed(rows) if r["split"] == split), None) for split in ("train", "valid", "test")}
    names = list(dict.fromkeys(k for r in last.values() if r for k in r if k not in ("step", "split")))
    lines = [(name, *(r.get(name) if r else None for r in last.values())) for name in names]
    status = run.read_json("STATUS.json")
    print_text(f"\n{run.path}: {status['step']:,} steps")
    print_text(table(lines, ("", *last)))
    if status.get("best"):
        print_text(f"best checkpoint: step {status['best']['step']:,}, {run.config()['config']['best']} = {status['best']['value']:.4g}")
    samples = sorted(p for p in (run / "samples").glob("*") if p.suffix in (".png", ".txt"))
    if samples:
        print_text(f"samples: {samples[-1]}")
    if (run / "curves.png").exists():
        print_text(f"curves:  {run / 'curves.png'}")


def evaluate(args, overrides):
    """Evaluate a run's checkpoint on a split; prints a table and what its metrics are, and adds a line to WORKDIR/evaluations.jsonl."""
    import aigc_jax
    from aigc_jax import metrics, stored
    from aigc_jax.results import plain, table

    run = aigc_jax.load(args.workdir, args.checkpoint)
    require(args.num is None or args.num > 1, f"--num={args.num} must be at least 2")
    names = args.metrics.split(",") if args.metrics else list(run.config.metrics)
    values = run.evaluate(args.split, args.num, names, args.inception)
    print_text(table(list(values.items()), (f"step {run.step:,}", args.split)))
    row = dict(step=run.step, split=args.split, checkpoint=args.checkpoint, num=args.num or run.config.metric_samples)
    seen = run.extractor() if set(names) & set(metrics.EXTRACTED) else None
    for name in names:
        examples = run.full.dataset.splits[args.split][1]
        signature = run.signatures.get(f"{name}_signature", "")
        print_text(metrics.card(name, row["num"], examples, args.split, seen, signature))
    row |= run.signatures
    if seen is not None:
        row |= dict(extractor=seen.name, extractor_sha256=seen.sha256)
    try:
        stored.append_line(run.dir / "evaluations.jsonl", row | {k: plain(v) for k, v in values.items()})
    except OSError as e:  # a directory that is mounted read-only
        print_warning(f"{run.dir / 'evaluations.jsonl'} could not be written ({e.strerror or e}): these results are kept nowhere else")
    return 0


def sample(args, overrides):
    """Draw samples from a run's checkpoint: a grid (.png), or the arrays themselves (.npy). A model of text writes on after prompts, in the
    terminal as it goes (or to a .txt): --prompt, --prompt_file, or --interactive."""
    import numpy as np

    import aigc_jax
    from aigc_jax import pictures
    from aigc_jax.metrics.separability import told
    from aigc_jax.results import disk_errors, origin

    out = Path(args.out or "samples.png")
    require(out.suffix in (".png", ".npy", ".txt", ".mid"), f"--out={args.out} must end in .png or .npy, for text in .txt, for tunes in .mid")
    run = aigc_jax.load(args.workdir, args.checkpoint)
    if run.programs.method.language is not None and args.what is None and args.label is None:
        return write(run, args)
    if run.is_text:
        return sample_texts(run, args)
    require(out.suffix not in (".txt", ".mid"), f"--out={args.out} is for text, and config.method = {run.config.method!r} draws none")
    args.what = args.what or run.default_sampler
    samplers = run.programs.method.samplers
    of_prior = ("neighbours", "separability") if "prior" in samplers else ()
    choose(dict.fromkeys((*samplers, *of_prior)), args.what, "--what")
    beside = args.what == "neighbours"
    if args.what in samplers and out.suffix != ".npy":
        shape = run.sample_shape(args.what)
        require(pictures.is_drawable(shape, run.spec), f"--what={args.what} draws arrays {list(shape)}, which are no {run.spec.kind} "
                f"{list(run.spec.shape)} to look at: save them by --out={args.what}.npy")
    if args.what == "separability":
        require(run.spec.kind == "image", f"--what=separability is for pictures, and the run's data are {run.spec.kind}")
        samples, scores = run.separated(args.num, args.seed, args.label)
    else:
        samples = (
            run.neighbours(args.num, args.seed, args.label)
            if beside
            else run.draw(args.num, args.what, args.seed, label=args.label)
        )
    made = origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed)
    with disk_errors(out):
        if out.suffix == ".npy":
            np.save(out, samples)
        elif args.what == "separability":
            pictures.save_separability(out, samples, scores, told(scores), made)
        else:
            pictures.save_samples(out, samples, run.spec, made, None if beside or args.label is not None else run.columns(args.what))
    print_text(out)
    return 0


def sample_texts(run, args):
    """Samples of a sampler of a model of text: to the terminal, to a .txt, or as tokens to a
    .npy."""
    import numpy as np

    from aigc_jax import samples
    from aigc_jax.results import disk_errors, origin

    out = Path(args.out) if args.out else None
    require(
        out is None or out.suffix in (".txt", ".npy"),
        f"--out={args.out} must end in .txt, or in .npy for tokens, for the run's samples are text",
    )
    tokens = run.draw(args.num, args.what or run.default_sampler, args.seed, label=args.label)
    texts = [run.tokenizer.text(row) for row in tokens]
    if out is None:
        print_text("\n----\n".join(texts))
        return 0
    with disk_errors(out):
        if out.suffix == ".npy":
            np.save(out, tokens)
        else:
            samples.save_texts(
                out, texts, origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed)
            )
    print_text(out)
    return 0


def write(run, args):
    """Text after prompts: streamed to the terminal, or several at once, to the terminal or a file."""
    from aigc_jax import abc, samples, writing
    from aigc_jax.decode import Choice, check_range
    from aigc_jax.results import disk_errors, origin

    choice = Choice(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition)
    require(not (args.prompt and args.prompt_file), "--prompt and --prompt_file are two ways to say one thing: give one")
    if args.interactive:
        writing.converse(run, args.tokens, choice, args.seed, print_warning)
        return 0
    prompt = writing.read_prompt(args.prompt_file) if args.prompt_file else args.prompt
    check_range("num", 1 if args.num is None else args.num, 1, writing.MOST, whole=True)
    if run.programs.method.language.begin is not None:
        print_text(
            "\n".join(
                writing.completions(run, prompt.split("\n"), args.tokens, choice, args.seed, print_warning)
            )
        )
        return 0
    prompt = writing.asked(run, prompt)
    if not args.out and args.num in (None, 1):
        writing.stream_to(sys.stdout, prompt, writing.continuations(run, [prompt], args.tokens, choice, args.seed, print_warning))
        return 0
    texts = [prompt + t for t in writing.texts(run, [prompt] * (args.num or 1), args.tokens, choice, args.seed, print_warning)]
    if args.out:
        out = Path(args.out)
        require(out.suffix in (".txt", ".mid"), f"--out={args.out} must end in .txt, or for tunes in ABC notation in .mid, for the run writes text")
        with disk_errors(out):
            samples.save_texts(out.with_suffix(".txt"), texts, origin(run.stored["hash"], run.checkpoint_hash(), run.step, args.seed))
            tunes = abc.write_midi(out.with_suffix(""), texts) if out.suffix == ".mid" else []
        print_text("\n".join(map(str, [out.with_suffix(".txt"), *tunes])))
    else:
        print_text("\n----\n".join(texts))
    return 0


def data(args, overrides):
    """Find, fetch and verify a data set; says where it lies, its size, licence and checksums, and draws a contact sheet."""
    import numpy as np
    from ml_collections import ConfigDict

    from aigc_jax import data, pictures
    from aigc_jax.data.dataset import fixed_order
    from aigc_jax.results import disk_errors

    section = ConfigDict(configs.DATA | dict(name=args.name, path=args.path, size=args.size, colour=args.colour, tokenizer=args.tokenizer,
                                             tokenizer_path=args.tokenizer_path, range=args.range, layout=args.layout))
    dataset = data.load(section, args.data_dir, args.download)
    sizes = ", ".join(f"{count:,} {name}" for name, (_, count) in dataset.splits.items())
    bytes_ = sum(a.nbytes for a in dataset.arrays.values())
    print_text(f"{args.name}: {sizes}; {dataset.spec.kind} {list(dataset.spec.shape)}, {dataset.spec.classes or 'no'} classes, "
          f"{bytes_ / 1e6:,.1f} MB")
    print_text(f"lies in {dataset.about['source']}\nlicence: {dataset.about['licence']}")
    if "values" in dataset.about:
        print_text(f"read as {dataset.about['values']}")
    if classes := list(dataset.about.get("classes", {}).items()):
        print_text("classes: " + ", ".join(f"{name} {count:,}" for name, count in classes[:12]) + (", ..." if len(classes) > 12 else ""))
    files = list(dataset.about.get("files", {}).items())
    for name, checksum in files[:20]:
        print_text(f"SHA-256 {checksum}  {name}")
    if len(files) > 20:
        print_text(f"... and {len(files) - 20:,} files more")
    for name, count in dataset.about.get("holds", {}).items():
        print_text(f"{count:>15,} tokens  {name}")
    if dataset.tokenizer is not None:
        return describe_text(dataset)
    out = Path(args.out or f"{args.name}.png")
    num = 64 if dataset.spec.kind == "image" else 2000
    start, count = dataset.splits["train"]
    rows = start + fixed_order(np.arange(min(num, count)), count)
    samples = dataset.take(dataset.arrays, rows)["x"]
    with disk_errors(out):
        pictures.save_samples(out, samples, dataset.spec, dict(Software="aigc_jax", data=args.name))
    print_text(f"contact sheet: {out}")
    return 0


def describe_text(dataset):
    """How a text was tokenized, and how it begins."""
    import numpy as np

    about = dataset.about["text"]
    texts = f"{about['documents']:,} texts, {about['characters']:,} characters; " if "documents" in about else ""
    each = f", {about['characters_per_token']:.2f} characters each" if texts else ""
    print_text(f"{texts}{about['tokens']:,} tokens of {dataset.spec.vocabulary:,} ({about['tokenizer']}){each}; loses {about['loses']}")
    for row in dataset.take(dataset.arrays, np.arange(min(4, dataset.spec.n_train)))["tokens"]:
        print_text(f"  {dataset.tokenizer.decode(row)!r}")
    return 0


def list_(args, overrides):
    """List the configs and experiments with their one line; with --config, every key of that config."""
    if args.config:
        config = configs.override(configs.load(args.config), overrides)
        for key, value in configs.leaves(config).items():
            print_text(f"--config.{key}={value}")
        return 0
    for folder in ("configs", "experiments"):
        for path in sorted((HERE / folder).glob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            print_text(f"{folder}/{path.name:24} {text.splitlines()[0] if text else ''}")
    return 0


def export(args, overrides):
    """Write a language model as a GPT-2 directory, which Hugging Face's transformers loads."""
    import aigc_jax
    from aigc_jax import gpt2
    from aigc_jax.checkpoint import flatten
    from aigc_jax.methods import lora
    from aigc_jax.results import disk_errors

    run = aigc_jax.load(args.workdir, args.checkpoint)
    require(run.config.method == "lm" and run.config.network == "transformer", f"{args.workdir} is no decoder-only Transformer: nothing to export")
    with disk_errors(args.out):
        gpt2.write(args.out, run.config.model.to_dict(), flatten(lora.merged(run.config, run.state.params)), run.tokenizer,
                   run.ends)
    print_text(args.out)
    return 0


def sweep(args, overrides):
    """Train every trial of a grid or an experiment, those that share their static keys as one program; again: what is missing. Leaves rows.csv,
    table.md, figure.png and a run directory a trial."""
    from aigc_jax import adaptive, engines, experiment, sweep_results, sweeping
    from aigc_jax.results import cache_dir, disk_errors
    from aigc_jax.sweep import ROUTES, Sweep, trials_of

    it = Sweep(args.workdir)
    if args.watch:
        return sweeping.watch(it)
    module, base, given = asked(args)
    for key, value in overrides.items():
        require(
            not given or not all(key in trial for trial in given),
            f"--config.{key}={value} changes no trial: the sweep sets this key in each",
        )
    base, searched = configs.override(base, overrides), experiment.search(module) if module else None
    halving = experiment.halving(module) if module else None
    trials = adaptive.first_batch(base, searched) if searched else trials_of(base, given)
    if args.dry_run:
        sweeping.describe(trials)
        if searched:
            print_text(f"the first of {searched.trials} trials, which are asked for {searched.batch} at a time")
        return 0
    choose(ROUTES, args.route, "--route")
    require(not searched or args.engine != "k8s", "--engine=k8s runs nothing by itself, and a search must see results: use local, slurm or ray")
    engine = choose(engines.ENGINES, args.engine, "--engine")(args, cache_dir("xla"))
    source, kept = args.experiment or args.config, dict(halving=halving) if halving else None
    if args.restart:
        sweeping.restart(it)
    if not searched:
        it.add(trials, source, kept)
    extra = [f"--route={args.route}", *(["--download"] if args.download else [])]
    run = lambda sweep: sweeping.carry_out(sweep, Path(__file__).resolve(), engine, extra)
    with interruptible(), disk_errors(args.workdir):
        try:
            complete = adaptive.carry_out(it, base, searched, source, run, kept) if searched else run(it)
        except KeyboardInterrupt:
            print_warning("stopped, and what ran was told to save; the same command goes on")
            return 130
    if complete is None:  # the engine wrote down what is to be run, no more
        return 0
    if complete or it.rows():
        sweep_results.write_results(it, module, args.metric)
    require(complete, f"{sweeping.open_trials(it)} trials of {args.workdir} are not finished; the same command goes on with them")
    return 0


def asked(args):
    """What is to be swept: the experiment's module or None, the config, the overrides."""
    from aigc_jax import grid, sweeping

    require(not (args.experiment and args.config), "--experiment and --config are two ways to say what is swept: give one")
    if args.experiment:
        require(not args.grid and not args.seeds, "--grid and --seeds go with --config; an experiment has its own sweep() or search()")
        return sweeping.from_experiment(args.experiment)
    require(args.config, "sweep needs --experiment=FILE, or --config=FILE with --grid KEY=VALUE,VALUE and --seeds=N")
    grids = [*map(grid.parse, args.grid), *([grid.seeds(args.seeds)] if args.seeds else [])]
    keys = [key for values in grids for key in values[0]]
    for key in keys:
        require(
            keys.count(key) == 1,
            f"--grid varies {key} twice: give all its values at once"
            + " (--seeds varies seed)" * (key == "seed"),
        )
    return None, configs.load(args.config), grid.product(*grids)


@contextlib.contextmanager
def interruptible():
    """SIGTERM is like Ctrl-C: jobs are told to stop, and may save."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def group(args, overrides):
    """Train one group of a sweep; what `sweep` has an engine run."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:  # a device a core, each with trials of its own; GPUs and TPUs do not read it
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"

    from aigc_jax import group

    return group.run(args.workdir, args.route, args.halve, args.download)


def figure(args, overrides):
    """Make table and figure anew: of a sweep's rows (--workdir), or of the rows that were committed with an experiment."""
    from aigc_jax import experiment, sweep_results
    from aigc_jax.sweep import Sweep

    module = experiment.load(args.experiment) if args.experiment else None
    require(args.experiment or args.workdir, "figure needs --experiment=FILE, --workdir=SWEEP, or both")
    file = Path(module.__file__) if module else None
    committed = file.parent / "results" / file.stem if module else None
    if args.workdir:
        require(
            committed or not args.commit,
            "--commit needs --experiment=FILE, beside which the rows are kept",
        )
        it = Sweep(args.workdir)
        found = sweep_results.write_results(it, module, args.metric)
        if args.commit:
            sweep_results.commit(it, found, committed, module)
        return 0
    require(not args.commit, "--commit needs --workdir=SWEEP, whose rows it keeps")
    sweep_results.render_committed(committed, module, args.metric)
    return 0


def plan(args, overrides):
    """Say what a training step needs of each device of a mesh that need not be there, and how long it takes at least: compiled, never run."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={args.devices}"

    from aigc_jax import costs
    from aigc_jax import plan as plans

    require(args.devices > 0, f"--devices={args.devices} must be positive")
    names = args.hardware.split(",") if args.hardware else list(costs.HARDWARE)
    for name in names:
        choose(costs.HARDWARE, name, "--hardware")
    config = configs.override(configs.load(args.config), overrides)
    for part in filter(None, args.mesh.split(",")):
        axis, colon, size = part.partition(":")
        require(colon and size.lstrip("-").isdecimal(), f"--mesh={args.mesh} must be like data:64,model:4")
        config = configs.override(config, {f"run.mesh.{axis}": int(size)})
    print_text(plans.report(plans.make(config), names))
    return 0


def compare(args, overrides):
    """Lay runs or trials side by side: what differs in their configs, their last rows, and their curves as a picture."""
    from aigc_jax.compare import compare

    out = Path(args.out)
    require(out.suffix in (".png", ".pdf"), f"--out={args.out} must end in .png or .pdf")
    print_text(compare(args.runs, out, args.metric))
    print_text(f"\ncurves: {out}")
    return 0


VERBS = {"train": train, "evaluate": evaluate, "sample": sample, "sweep": sweep, "figure": figure, "compare": compare, "export": export, "plan": plan,
         "data": data, "list": list_, "group": group}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Errors as one sentence, exit code 1."""

    def error(self, message):
        raise UserError(f"{message} (python launch.py --help)")


def parser() -> Parser:
    top = Parser(prog="launch.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    add = {}
    for name, function in VERBS.items():
        text = function.__doc__.splitlines()[0]
        add[name] = verbs.add_parser(name, help=text, description=function.__doc__, allow_abbrev=False).add_argument
    overrides = "a Python file with get_config(); --config.KEY=VALUE sets a key, such as --config.hp.lr_g=1e-4 or --config.steps='10 epochs'"
    add["train"]("--config", metavar="FILE", help=overrides)
    add["train"]("--workdir", required=True, metavar="DIR", help="where everything is left; a run that lies there goes on")
    add["train"]("--extend", type=int, metavar="STEPS", help="go on to this many steps in all, with a schedule that does not depend on the end")
    add["train"]("--restart", action="store_true", help="remove the run that lies in DIR and begin again at step 0")
    add["sweep"]("--restart", action="store_true", help="remove what groups that are not finished, or damaged, left and train them again")
    add["train"]("--download", action="store_true", help="fetch missing data")
    add["train"]("--profile", default="", metavar="steps:A-B", help="trace these steps into WORKDIR/profile, for XProf and Perfetto")
    add["train"]("--coordinator", default="", metavar="HOST:PORT",
                 help="several processes train one run: where process 0 listens (found by itself under Slurm, Open MPI, Kubernetes and on TPU pods)")
    add["train"]("--num_processes", type=int, metavar="N", help="how many there are")
    add["train"]("--process_id", type=int, metavar="I", help="which of them this is, from 0")
    for verb in ("evaluate", "sample"):
        add[verb]("--workdir", required=True, metavar="DIR", help="a run")
        add[verb]("--checkpoint", default="latest", metavar="latest|best", help="which checkpoint (default: latest)")
    add["evaluate"]("--split", default="test", metavar="train|valid|test", help="which split (default: test)")
    add["evaluate"]("--num", type=int, metavar="N", help="samples that the metrics draw (default: config.metric_samples)")
    add["evaluate"]("--metrics", default="", metavar="NAME,...", help="metrics to compute instead of config.metrics, such as nll or frechet,kid,prdc")
    add["evaluate"]("--inception", default="", metavar="FILE", help="see pictures through Inception with these weights, instead of config.extractor")
    add["sample"]("--num", type=int, metavar="N", help="how many (default: 64, or what one picture is made of)")
    add["sample"]("--out", metavar="FILE", help=".png: a picture; .npy: the arrays (default: samples.png); .txt: text (default: the terminal); "
                  ".mid: tunes in ABC notation, a file each")
    add["sample"]("--what", metavar="NAME",
                  help="which sampler of the method (default: prior; a VAE: reconstruction, interpolation, traversal, manifold; a GAN: "
                  "interpolation); neighbours: samples beside the nearest training examples; separability: what gives samples away")
    add["sample"]("--class", type=int, dest="label", metavar="K",
                  help="of a generator that knows classes: samples of class K alone (default: all in turn)")
    add["sample"]("--seed", type=int, default=0, metavar="N", help="other samples for another seed (default: 0)")
    add["sample"]("--prompt", default="", metavar="TEXT", help="what to write on after (default: the beginning of a text)")
    add["sample"]("--prompt_file", default="", metavar="FILE", help="the prompt, as a file of UTF-8 text")
    add["sample"]("--interactive", action="store_true", help="read a prompt a line and answer each, until the input ends")
    add["sample"]("--tokens", type=int, default=256, metavar="N", help="the most tokens to write (default: 256)")
    add["sample"]("--temperature", type=float, default=1.0, metavar="T", help="below 1: likelier text; 0: always the likeliest token (default: 1)")
    add["sample"]("--top_k", type=int, default=0, metavar="K", help="only among the K likeliest tokens (default: 0, all)")
    add["sample"]("--top_p", type=float, default=1.0, metavar="P", help="only the likeliest tokens that reach probability P together (default: 1)")
    add["sample"]("--min_p", type=float, default=0.0, metavar="P", help="only tokens at least P times as likely as the likeliest (default: 0)")
    add["sample"]("--repetition", type=float, default=1.0, metavar="R", help="above 1: tokens that are there already become unlikelier (default: 1)")
    add["sweep"]("--workdir", required=True, metavar="DIR", help="where everything is left; a sweep that lies there goes on")
    add["sweep"]("--experiment", metavar="FILE", help="a file of experiments/ with CONFIG and sweep() or search(suggest)")
    add["sweep"]("--config", metavar="FILE", help="instead: a config, whose keys --grid varies; --config.KEY=VALUE sets a key of all trials")
    add["sweep"]("--grid", action="append", default=[], metavar="KEY=VALUE,...", help="values of a key, such as hp.lr=1e-4,3e-4; twice: all pairs")
    add["sweep"]("--seeds", type=int, default=0, metavar="N", help="seeds 0 to N - 1 of each")
    add["sweep"]("--dry_run", action="store_true", help="only say how many trials, programs and steps, and how much memory")
    add["sweep"]("--watch", action="store_true", help="only show how the sweep in DIR stands, until it is done")
    add["sweep"]("--engine", default="local", metavar="NAME", help="where the programs run: local (default), slurm, ray, k8s")
    add["sweep"]("--slots", type=int, default=0, metavar="N",
                 help="local, slurm, k8s: programs at a time (default: local: one a GPU, else one; else as many as there are)")
    add["sweep"]("--cpus", type=float, default=1, metavar="N", help="slurm, ray, k8s: CPUs of a program (default: 1)")
    add["sweep"]("--gpus", type=float, default=0, metavar="N", help="slurm, ray, k8s: GPUs of a program (default: 0); ray: also a part of one: 0.5")
    add["sweep"]("--time", type=int, default=0, metavar="MINUTES",
                 help="slurm, k8s: after which a program is saved and queued again (default: slurm: 60; k8s: no limit)")
    add["sweep"]("--partition", default="", metavar="NAME", help="slurm: which partition (default: Slurm's)")
    add["sweep"]("--slurm", action="append", default=[], metavar="KEY=VALUE", help="slurm: another option of sbatch, such as account=lab or mem=32G")
    add["sweep"]("--address", default="", metavar="HOST:PORT", help="ray: a cluster that is there (default: $RAY_ADDRESS, else one is started here)")
    add["sweep"]("--image", default="", metavar="NAME", help="k8s: a container whose working directory is this repository")
    add["sweep"]("--claim", default="", metavar="NAME:PATH", help="k8s: the volume claim DIR lies on, mounted at PATH (default: DIR of the node)")
    add["sweep"]("--metric", default="", metavar="SPLIT/NAME", help="what table and figure show (default: config.best)")
    add["figure"]("--experiment", metavar="FILE", help="whose table() and figure(); without --workdir of its committed rows")
    add["figure"]("--workdir", metavar="DIR", help="a sweep")
    add["figure"]("--metric", default="", metavar="SPLIT/NAME", help="what is shown where the experiment does not say (default: config.best)")
    add["figure"]("--commit", action="store_true", help="also keep rows, table and figure in results/ beside the experiment")
    add["plan"]("--config", required=True, metavar="FILE", help="a config; --config.KEY=VALUE sets a key, such as --config.run.fsdp=True")
    add["plan"]("--devices", type=int, default=1, metavar="N", help="how many devices there would be (default: 1)")
    add["plan"]("--mesh", default="", metavar="AXIS:N,...", help="how they are used, such as data:64,model:4 (default: the config's run.mesh)")
    add["plan"]("--hardware", default="", metavar="NAME,...", help="what a step would take on: h100, h200, tpu_v5e, tpu_v5p, tpu_v6e (default: all)")
    add["compare"]("runs", nargs="+", metavar="RUN", help="work directories of runs, or trials of sweeps")
    add["compare"]("--out", default="compare.png", metavar="FILE", help="the picture (default: compare.png)")
    add["compare"]("--metric", default="", metavar="SPLIT/NAME", help="whose curves are drawn (default: config.best)")
    add["group"]("--workdir", required=True, metavar="DIR", help="SWEEP/groups/NAME")
    add["group"]("--halve", action="store_true", help="with half as many trials at once as the plan says")
    for verb in ("sweep", "group"):
        add[verb]("--route", default="auto", metavar="auto|vmap|map", help="trials of a program: all at once, one after another, or the faster")
        add[verb]("--download", action="store_true", help="fetch missing data")
    add["data"]("--name", required=True, metavar="NAME", help="a data set; a wrong name lists them")
    add["data"]("--path", default="", metavar="FILE|DIR", help="npz: the file; folder: a directory of pictures; text: a file, directory or glob")
    add["data"]("--tokenizer", default="characters", metavar="NAME",
                help="texts: bytes, characters, words, chinese_words, bpe, or file (default: characters)")
    add["data"]("--tokenizer_path", default="", metavar="PATH", help="of --tokenizer=file: a tokenizer.json, a run or a GPT-2 directory")
    add["data"]("--size", type=int, default=configs.DATA["size"], metavar="N", help="folder: pixels a side (default: 64)")
    add["data"]("--colour", default=configs.DATA["colour"], metavar="rgb|grey", help="folder: what to convert to (default: rgb)")
    add["data"]("--range", default=configs.DATA["range"], metavar="0..255|0..1|-1..1", help="npz: values of black and white (default: recognised)")
    add["data"]("--layout", default=configs.DATA["layout"], metavar="NHWC|NCHW", help="npz: the axes of x (default: recognised)")
    add["data"]("--data_dir", default="", metavar="DIR", help="where to look first (else $AIGC_DATA_DIR, else ~/tensorflow_datasets)")
    add["data"]("--download", action="store_true", help="fetch what is missing")
    add["data"]("--out", default="", metavar="FILE", help="the contact sheet (default: NAME.png)")
    add["export"]("--workdir", required=True, metavar="DIR", help="a run of a network that GPT-2 has too")
    add["export"]("--checkpoint", default="latest", metavar="latest|best", help="which checkpoint (default: latest)")
    add["export"]("--out", required=True, metavar="DIR", help="the directory to write: config.json, model.safetensors, vocab.json, merges.txt")
    add["list"]("--config", metavar="FILE", help="list the keys of this config")
    return top


def split_overrides(argv):
    """--config.KEY=VALUE apart from the rest of the command line."""
    overrides, rest = {}, []
    words = iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        overrides[key] = value if equals else next(words, None)
        require(overrides[key] is not None, f"--config.{key} needs a value: --config.{key}=VALUE")
    return overrides, rest


def main(argv) -> int:
    try:
        overrides, rest = split_overrides(argv)
        if rest and not rest[0].startswith("-") and rest[0] not in VERBS:
            close = difflib.get_close_matches(rest[0], VERBS, n=1)
            raise UserError(f"{rest[0]!r} is none of {', '.join(VERBS)}" + (f"; did you mean {close[0]!r}?" if close else ""))
        top = parser()
        args, unknown = top.parse_known_args(rest)
        if args.verb is None:
            top.print_help()
            return 1 if rest else 0
        if unknown:
            known = [f"--{k}" for k in vars(args) if k != "verb"]
            close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
            raise UserError(f"{args.verb} takes no {unknown[0]}; it takes {', '.join(known)}" + (f"; did you mean {close[0]}?" if close else ""))
        if overrides and args.verb not in ("train", "list", "sweep", "plan"):
            raise UserError(f"{args.verb} takes its config from the run; --config.{next(iter(overrides))} goes with train, sweep and plan")
        for flag in ("config", "experiment"):  # a name becomes the path of its file
            if getattr(args, flag, None):
                setattr(args, flag, str(find_file(getattr(args, flag), flag)))
        return VERBS[args.verb](args, overrides)
    except UserError as e:
        print_warning(f"error: {e}")
        return 1
    except OSError as e:  # what looks for a file beneath a name that no file can have
        if e.errno != errno.ENAMETOOLONG:
            raise
        print_warning(f"error: {brief(str(e.filename), quotes=False)}: {e.strerror}")
        return 1


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: launch.py list | head -3
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more as it exits
        code = 1
    sys.exit(code)
