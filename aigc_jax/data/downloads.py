"""Downloads of published data sets: pooch transfers the files and verifies them."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from aigc_jax.data import files
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import UserError, first_line
from aigc_jax.utils.files import is_regular_file
from aigc_jax.utils.locks import exclusive_lock
from aigc_jax.utils.quantities import format_count, format_size
from aigc_jax.utils.terminal import StatusLine, print_warning

TIMEOUT = 30.0  # seconds without an answer from a server
RETRIES = 1  # of a failed transfer, after a second
PIECE = 2**16  # bytes

GITHUB = "https://raw.githubusercontent.com"


class Source(NamedTuple):
    """Where the files of a data set are published."""

    url: str  # of the directory of all files
    checksums: dict[str, str]  # {file: SHA-256}


def parse_checksums(text: str) -> dict[str, str]:  # {file: SHA-256}
    """Return {file: SHA-256} of lines as the command sha256sum writes them."""
    return {name: digest for digest, name in map(str.split, text.split("\n"))}


# Directory of a data set -> its source. The first five are also registered by
# tensorflow-datasets 4.9 (url_checksums/*.txt), the Python archive of CIFAR-10 by Keras
# 3 (datasets/cifar10.py). Files on GitHub are of one commit. Those of the poems are the
# first twenty of their collection.
SOURCES = {
    "mnist": Source(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        parse_checksums("""\
440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  train-images-idx3-ubyte.gz
3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  train-labels-idx1-ubyte.gz
8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  t10k-images-idx3-ubyte.gz
f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  t10k-labels-idx1-ubyte.gz"""),
    ),
    "fashion_mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        parse_checksums("""\
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84  train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845  train-labels-idx1-ubyte.gz
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073  t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5  t10k-labels-idx1-ubyte.gz"""),
    ),
    "binarized_mnist": Source(
        "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
        parse_checksums("""\
ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d  binarized_mnist_train.amat
1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2  binarized_mnist_valid.amat
e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c  binarized_mnist_test.amat"""),
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        parse_checksums("""\
c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd  cifar-10-binary.tar.gz
6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce  cifar-10-python.tar.gz"""),
    ),
    "tiny_shakespeare": Source(
        f"{GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/",
        parse_checksums("""\
86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed  input.txt"""),
    ),
    "multi30k": Source(
        f"{GITHUB}/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/",
        parse_checksums("""\
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f  train.en.gz
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6  train.de.gz
622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c  train.fr.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28  val.en.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a  val.de.gz
ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9  val.fr.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9  test_2016_flickr.en.gz
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8  test_2016_flickr.de.gz
6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90  test_2016_flickr.fr.gz"""),
    ),
    "nottingham": Source(
        f"{GITHUB}/jukedeck/nottingham-dataset/0992bb6cd864f6d4b90d6663e08c0ef53ffaa08f/ABC_cleaned/",
        parse_checksums("""\
6586eea8dca53866b42721050d11fc1408bdb2cf31a902b41c5c13504139b164  ashover.abc
6d035c6972ac0c204ba79d8128e2d71978ece2214a29ffceeb3e053e27f17db5  hpps.abc
5bb6f621e443bde552540810e3ea53e53531fd22258736e338d795e7a5bdcaf5  jigs.abc
cbf60b212c87748dea226c76b72a15db5b4f606bb35a580763e9cd8f7294e7da  morris.abc
070877bc37176e0dedbcd038268d6669399201cd7b58d88b4ab36127528f9c76  playford.abc
f92ed0e66024e0a5bb7d21fe3172cd50c3fb4cb7f642b4ec7cd5aa8ad0396da8  reelsa-c.abc
33f535569116ec8cfb530c112f4cdc3bfb7fc042c271e0317cf6458bad30dfae  reelsd-g.abc
cb701d4ffe6839cb7a5655bc21785ecb71a72ab63d8560f7be3856f6aedaf7e5  reelsh-l.abc
a99f2967cf47460bba70bae40cd355a220b537a87180131c6d9433750bc446a1  reelsm-q.abc
f80a2c0f37a49b9b0c748e922924d59c40d82758abc5b0f7fc9245d7fd563be0  reelsr-t.abc
d104d7d1bb83eb1ca18f6b944dc22cf9f7bfe5f955d07cd573615985f69c2c1f  reelsu-z.abc
da686b3a0de20aab38e64f8c8ec57edace980bab6450a6c388d79a2866e5b16a  slip.abc
ffa773d012756be17784ab4a84e0e4618f316be5c6f244f9d60c06b23cd812c6  waltzes.abc
05ebc4b856c8c5186bb828641e8f88f723c109d47ba7e3f1e5048b536e091249  xmas.abc"""),
    ),
    "tang_poems": Source(
        f"{GITHUB}/chinese-poetry/chinese-poetry/99ebbef7e1345c0985c44b9fd96a3f9e776f117b/%E5%85%A8%E5%94%90%E8%AF%97/",
        parse_checksums("""\
4f88f429938082523cdc72a1612bd7a7c3e3f7a33f8192c61ae51340efc3c92d  poet.tang.0.json
6e703b8d8dcedbd6110f6d48d043665ca2131db2035a5bfcef5e59a19aeb6d75  poet.tang.1000.json
ec28efa7e2ae9cdbbba09f0ed186e32ccae47a325ad1e5816b7ad56071c1665a  poet.tang.2000.json
9e4ba2323752b6b9fbdba875cdbc6a26636fe0cabc85fd066370d4915952001f  poet.tang.3000.json
b8a7946c879b9658a6c667a4c55f776fae7e5e00a17789ab06b274c1429afc66  poet.tang.4000.json
a0306e6962cff01639ad9a00b042a201b8dec1f30fa5d768a7b112589887861e  poet.tang.5000.json
982a21d2b15922b406911f1c825785054314c686da86b2155d7aebb362d22771  poet.tang.6000.json
a6fb69d7b4343c904dc56ae5aae34facc2478d196b51c37ceba9d1e2f171b342  poet.tang.7000.json
ac3848e95b02736168003863795de4474838c2d6a71a24ca2a4a280ea5177773  poet.tang.8000.json
b99d6596e3a1fe1a661652383083f92d196b8baf4e461d087081d5e1e1b7a51f  poet.tang.9000.json
b97d1c5509ab62f5b433dee2020c11c4deda4542e276683d1ada6619c34c2113  poet.tang.10000.json
9adf1835246053c821d99af39ce9092e14a94e1baf91740098bd9fc6f6f1cd27  poet.tang.11000.json
ec43d055a219d52ecdb58cd30a8a444189392f0d68b92a41495df1c72c5fd095  poet.tang.12000.json
eb9c85072d7913bb972e07c72f0123e9d7addca22cfd833cb79a5d74b1c76ebf  poet.tang.13000.json
1e366dd3fb5a011091524bed36e4edff5d015bf0ddb14143f298515387dbd9a9  poet.tang.14000.json
0386e58f46517daa3af0e0f385e0223f1efc0dac53afbe8fea64f99074d870b7  poet.tang.15000.json
1c477aef1fc50523f9baf10f29d2d89201a14c4c73001c1c041d0fe8464d11db  poet.tang.16000.json
11bac8333b2042975b9844423d113ff2c6fdf701c8b08a5b3aaa6bc9472222de  poet.tang.17000.json
37543a147d16e3576d5f45ba8f7b8b51fc311bc10eddae9440f16f2d5ae885c2  poet.tang.18000.json
dea74b41bc807ce2527bb119862a251e3a92b6f69bdf9f98b1434a8336830542  poet.tang.19000.json"""),
    ),
}


class Transfer:
    """The progress bar of pooch, which counts the bytes of one file after another.

    Args:
      directory: the data set, for the status line.
      num_files: of the data set.
    """

    def __init__(self, directory: str, num_files: int) -> None:
        self.directory, self.num_files = directory, num_files
        self.start_file(0, "")
        self.status = StatusLine(terminal_seconds=0.1)

    def start_file(self, number: int, name: str) -> None:
        """Count the bytes of a file, from number 0."""
        self.number, self.name, self.total, self.received = number, name, 0, 0

    def update(self, num_bytes: int) -> None:
        """Add bytes; pooch counts the last piece as a complete one."""
        self.received += num_bytes
        if self.total:
            self.received = min(self.received, self.total)
        if self.status.is_due():
            done = self.number + (self.received / self.total if self.total else 0)
            self.status.write_line(
                f"{self.directory}: file {self.number + 1} of {self.num_files}, {self.name}, "
                f"{self.format_received()}",
                done / self.num_files,
            )

    def format_received(self) -> str:  # "4.2 MB of 9.91 MB"
        """Format the received bytes, and the total if the server sent it."""
        return format_size(self.received) + (f" of {format_size(self.total)}" if self.total else "")

    def reset(self) -> None:
        """Restart the count, before pooch adds the total."""
        self.received = 0

    def close(self) -> None:
        """Do nothing at the end of a file: the line is that of all files."""


def download_missing_files(directory: str, file_names: Iterable[str], data_dir: str) -> None:
    """Download the files of a data set that are missing in the first search directory
    that has any of them, plain or gzipped, or else all, to the first search directory.

    Args:
      directory: a key of SOURCES.
      file_names: names of its files.
      data_dir: a directory to search before the default ones; "" for none.

    Raises:
      UserError: as in `download_files`.
    """
    names = list(file_names)
    places = [root / directory for root in files.list_search_directories(data_dir)]
    find_missing = lambda place: [
        name for name in names if not is_regular_file(files.resolve_gzip_path(place / name))
    ]
    target = next((place for place in places if len(find_missing(place)) < len(names)), places[0])
    download_files(directory, find_missing(target), target)


def download_files(directory: str, file_names: Iterable[str], target: Path) -> None:
    """Download files of a data set that do not exist in a directory. They are
    transferred to TARGET/.part, verified by their SHA-256, and moved when all are
    complete; another call resumes after the last complete file.

    Args:
      directory: a key of SOURCES.
      file_names: names of its files.
      target: the directory to write, which is made.

    Raises:
      UserError: a transfer failed, or a SHA-256 differs.
    """
    names, part = list(file_names), target / ".part"
    find_missing = lambda: [name for name in names if not (target / name).exists()]
    if not find_missing():
        return
    with convert_disk_errors(target), exclusive_lock(target):
        missing = find_missing()
        if not missing:  # another process has downloaded them
            return
        size = transfer_files(directory, missing, part)
        for name in missing:
            (part / name).chmod(0o644)  # pooch makes files that only this user can read
            os.replace(part / name, target / name)
        shutil.rmtree(part)
    count = format_count(len(missing), "file")
    print_warning(f"{directory}: downloaded {count} ({format_size(size)}) to {target}")


def transfer_files(directory: str, names: list[str], part: Path) -> int:  # bytes
    """Download files of a data set to a directory; return the sum of their sizes. The
    arguments are those of `download_files`.
    """
    import pooch
    import requests

    source = SOURCES[directory]
    registry = {name: f"sha256:{source.checksums[name]}" for name in names}
    client = pooch.Pooch(part, source.url, registry, retry_if_failed=RETRIES)
    pooch.get_logger().setLevel("WARNING")
    transfer = Transfer(directory, len(names))
    download = pooch.HTTPDownloader(progressbar=transfer, timeout=TIMEOUT, chunk_size=PIECE)
    try:
        for number, name in enumerate(names):
            transfer.start_file(number, name)
            client.fetch(name, downloader=download)
    except (requests.RequestException, ValueError) as e:
        raise UserError(
            f"{directory}: {source.url}{transfer.name} was not downloaded: "
            f"{explain_failure(e, transfer)}"
        ) from None
    finally:
        transfer.status.end_line()
    return sum((part / name).stat().st_size for name in names)


def explain_failure(error: Exception, transfer: Transfer) -> str:
    """Return why a download failed, and where possible the remedy.

    Args:
      error: an exception of requests, or the ValueError of pooch for a wrong hash.
      transfer: the state of the transfer.
    """
    import requests

    if not isinstance(error, requests.RequestException):
        return (
            "its SHA-256 is not the registered one (damaged on the way, or changed by its source)"
        )
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if transfer.received:
        return f"the transfer was interrupted after {transfer.format_received()}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, requests.ConnectionError):
        return "the host cannot be reached"
    return first_line(error)
